//! Reading and writing of numbers.

use std::fmt;

use num_bigint::BigUint;
use num_traits::Zero;

use super::{Decimal, LARGEST_EXPONENT, Magnitude, Number, WRITTEN};

/// The most digits that a number may be written with.
const MOST_DIGITS: usize = 20_000;
/// The largest decimal exponent that is read.
const LARGEST_WRITTEN_EXPONENT: i64 = LARGEST_EXPONENT / 4;

impl Number {
    /// Reads a decimal number with a fraction and an exponent.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (negative, unsigned) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        if unsigned == "Inf" || unsigned == "inf" {
            return Some(Self::infinity(negative));
        }
        if unsigned.len() > MOST_DIGITS {
            return None;
        }
        let (digits, exponent) = match unsigned.find(['e', 'E']) {
            Some(at) => (&unsigned[..at], decimal_exponent(&unsigned[at + 1..])?),
            None => (unsigned, 0),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        if !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let mut written = String::with_capacity(digits.len());
        written.push_str(whole);
        written.push_str(fraction);
        let mantissa = BigUint::parse_bytes(written.as_bytes(), 10)?;
        let exponent = exponent - fraction.len() as i64;
        Some(Self::from_decimal(negative, mantissa, exponent))
    }

    /// Makes the number `mantissa * 10^exponent`.
    fn from_decimal(negative: bool, mantissa: BigUint, exponent: i64) -> Self {
        if mantissa.is_zero() {
            return Self { negative, magnitude: Magnitude::Zero, precision: WRITTEN };
        }
        let power = BigUint::from(5_u32).pow(exponent.unsigned_abs() as u32);
        if exponent >= 0 {
            return Self::rounded(negative, mantissa * power, exponent, false, WRITTEN);
        }
        let shift = (WRITTEN + 2 + power.bits()).saturating_sub(mantissa.bits());
        let dividend = mantissa << shift;
        let quotient = &dividend / &power;
        let inexact = &quotient * &power != dividend;
        Self::rounded(negative, quotient, exponent - shift as i64, inexact, WRITTEN)
    }

    /// Returns the fewest digits that give the number back at its precision.
    pub(crate) fn shortest(&self) -> Decimal {
        let Magnitude::Finite { mantissa, exponent } = &self.magnitude else {
            return Decimal { digits: Vec::new(), point: 0 };
        };
        let bits = mantissa.bits();
        if *exponent >= 0 && bits + *exponent as u64 <= self.precision {
            return Decimal::exact(mantissa, *exponent);
        }
        // Half a unit of the last place is one unit of this mantissa.
        let shift = self.precision + 1 - bits;
        let middle = mantissa << shift;
        let exponent = exponent - shift as i64;
        let inclusive = !middle.bit(1);
        let lower = Decimal::exact(&(&middle - 1_u32), exponent);
        let upper = Decimal::exact(&(&middle + 1_u32), exponent);
        Decimal::exact(&middle, exponent).shorten(&lower, &upper, inclusive)
    }

    /// Returns all digits of the number.
    pub(crate) fn exact(&self) -> Decimal {
        match &self.magnitude {
            Magnitude::Finite { mantissa, exponent } => Decimal::exact(mantissa, *exponent),
            _ => Decimal { digits: Vec::new(), point: 0 },
        }
    }

    /// Returns the number in the shorter of its two notations: with an exponent if it is large.
    pub(crate) fn general_text(&self) -> String {
        if self.is_infinite() {
            return self.to_string();
        }
        let decimal = self.shortest();
        let exponent = decimal.point - 1;
        let is_small_or_large = !(-4..6).contains(&exponent);
        let text = if !decimal.digits.is_empty() && is_small_or_large {
            decimal.scientific(None, 'e')
        } else {
            decimal.plain(None)
        };
        if self.is_negative() { format!("-{text}") } else { text }
    }

    /// Returns the number with an exponent.
    pub(crate) fn scientific_text(&self) -> String {
        let text = self.exact().scientific(None, 'e');
        if self.is_negative() { format!("-{text}") } else { text }
    }
}

impl fmt::Display for Number {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_infinite() {
            return formatter.write_str(if self.is_negative() { "-Inf" } else { "+Inf" });
        }
        if self.is_negative() {
            formatter.write_str("-")?;
        }
        formatter.write_str(&self.shortest().plain(None))
    }
}

/// Reads a decimal exponent.
fn decimal_exponent(text: &str) -> Option<i64> {
    let exponent: i64 = text.parse().ok()?;
    (exponent.abs() <= LARGEST_WRITTEN_EXPONENT).then_some(exponent)
}
