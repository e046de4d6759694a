//! The decimal digits of a binary float.

use num_bigint::BigUint;

/// Decimal digits with a decimal point: `0.d₁d₂d₃… * 10^point`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Decimal {
    /// The digits, as ASCII, without zeros at either end.
    pub(crate) digits: Vec<u8>,
    /// The number of digits before the point. It may be negative.
    pub(crate) point: i64,
}

impl Decimal {
    /// Returns the exact digits of `mantissa * 2^exponent`.
    pub(crate) fn exact(mantissa: &BigUint, exponent: i64) -> Self {
        let mut digits;
        let mut point;
        if exponent >= 0 {
            digits = (mantissa << (exponent as u64)).to_str_radix(10).into_bytes();
            point = digits.len() as i64;
        } else {
            let places = exponent.unsigned_abs();
            let scaled = mantissa * BigUint::from(5_u32).pow(places as u32);
            digits = scaled.to_str_radix(10).into_bytes();
            point = digits.len() as i64 - places as i64;
        }
        if digits == b"0" {
            digits.clear();
            point = 0;
        }
        let mut decimal = Self { digits, point };
        decimal.trim();
        decimal
    }

    /// Removes zeros at the end.
    fn trim(&mut self) {
        while self.digits.last() == Some(&b'0') {
            self.digits.pop();
        }
        if self.digits.is_empty() {
            self.point = 0;
        }
    }

    /// Returns the digit at a place before or after the point, counted from the given first place.
    fn at(&self, first: i64, index: usize) -> u8 {
        let index = index as i64 - (first - self.point);
        usize::try_from(index)
            .ok()
            .and_then(|index| self.digits.get(index))
            .copied()
            .unwrap_or(b'0')
    }

    /// Keeps the fewest digits that still lie between two neighbours.
    ///
    /// `inclusive` tells that the neighbours themselves are close enough.
    pub(crate) fn shorten(mut self, lower: &Self, upper: &Self, inclusive: bool) -> Self {
        let first = self.point.max(upper.point);
        let offset = (first - self.point) as usize;
        let length = |other: &Self| other.digits.len() as i64 + first - other.point;
        let lower_length = length(lower);
        let upper_length = length(upper);
        for index in 0..offset + self.digits.len() {
            let low = lower.at(first, index);
            let middle = self.at(first, index);
            let high = upper.at(first, index);
            let next = index as i64 + 1;
            let can_truncate = low != middle || (inclusive && next == lower_length);
            let can_raise =
                middle != high && (inclusive || middle + 1 < high || next < upper_length);
            if !can_truncate && !can_raise {
                continue;
            }
            let keep = (index + 1).saturating_sub(offset);
            if can_truncate && can_raise {
                self.round(keep);
            } else if can_truncate {
                self.digits.truncate(keep);
                self.trim();
            } else {
                self.raise(keep);
            }
            break;
        }
        self
    }

    /// Rounds to a number of digits, half to even.
    pub(crate) fn round(&mut self, keep: usize) {
        if keep >= self.digits.len() {
            return;
        }
        let dropped = self.digits[keep];
        let is_half = dropped == b'5' && keep + 1 == self.digits.len();
        let up = if is_half {
            keep > 0 && (self.digits[keep - 1] - b'0') % 2 == 1
        } else {
            dropped >= b'5'
        };
        if up {
            self.raise(keep);
        } else {
            self.digits.truncate(keep);
            self.trim();
        }
    }

    /// Rounds up to a number of digits.
    fn raise(&mut self, keep: usize) {
        self.digits.truncate(keep);
        while let Some(last) = self.digits.last_mut() {
            if *last < b'9' {
                *last += 1;
                return;
            }
            self.digits.pop();
        }
        self.digits.push(b'1');
        self.point += 1;
    }

    /// Writes the digits without an exponent, with a fixed number of places if one is given.
    pub(crate) fn plain(&self, places: Option<usize>) -> String {
        let mut decimal = self.clone();
        if let Some(places) = places {
            let keep = self.point + places as i64;
            if keep >= 0 {
                decimal.round(keep as usize);
            } else {
                decimal = Self { digits: Vec::new(), point: 0 };
            }
        }
        let before = decimal.point.max(0) as usize;
        let places = places.unwrap_or_else(|| {
            usize::try_from(decimal.digits.len() as i64 - decimal.point).unwrap_or(0)
        });
        let mut text = String::new();
        for index in 0..before {
            text.push(char::from(decimal.digits.get(index).copied().unwrap_or(b'0')));
        }
        if before == 0 {
            text.push('0');
        }
        if places > 0 {
            text.push('.');
            for place in 0..places as i64 {
                let index = usize::try_from(decimal.point + place).ok();
                let digit = index.and_then(|index| decimal.digits.get(index)).copied();
                text.push(char::from(digit.unwrap_or(b'0')));
            }
        }
        text
    }

    /// Writes the digits with an exponent, with a fixed number of places if one is given.
    pub(crate) fn scientific(&self, places: Option<usize>, letter: char) -> String {
        let mut decimal = self.clone();
        if let Some(places) = places {
            decimal.round(places + 1);
        }
        let mut text = String::from(char::from(decimal.digits.first().copied().unwrap_or(b'0')));
        let places = places.unwrap_or_else(|| decimal.digits.len().saturating_sub(1));
        if places > 0 {
            text.push('.');
            for index in 1..=places {
                text.push(char::from(decimal.digits.get(index).copied().unwrap_or(b'0')));
            }
        }
        let exponent = if decimal.digits.is_empty() { 0 } else { decimal.point - 1 };
        let sign = if exponent < 0 { '-' } else { '+' };
        text.extend([letter, sign]);
        text + &format!("{:02}", exponent.abs())
    }
}
