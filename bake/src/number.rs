//! Numbers of bake files: binary floats whose precision is a property of each number.
//!
//! A literal has 512 bits, a count 64, and what comes from an `f64` 53. An operation rounds its
//! result to the larger precision of its operands, half to even. A number is printed with the
//! fewest decimal digits that give it back at its precision, and never with an exponent.

use std::cmp::Ordering;

use num_bigint::BigUint;
use num_traits::{One, ToPrimitive, Zero};

mod decimal;
mod text;

pub(crate) use decimal::Decimal;

/// The precision of a number that is written down, in bits.
const WRITTEN: u64 = 512;
/// The precision of a count, in bits.
const COUNTED: u64 = 64;
/// The precision of a number that was an `f64`, in bits.
const DOUBLE: u64 = 53;
/// The largest binary exponent. A hostile file could otherwise ask for gigabytes of digits.
const LARGEST_EXPONENT: i64 = 80_000;

/// A number.
#[derive(Clone, Debug)]
pub(crate) struct Number {
    negative: bool,
    magnitude: Magnitude,
    precision: u64,
}

/// The absolute value of a number.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Magnitude {
    /// Zero, which may be negative.
    Zero,
    /// `mantissa * 2^exponent`, where the mantissa is odd.
    Finite { mantissa: BigUint, exponent: i64 },
    /// Infinity.
    Infinite,
}

impl Number {
    /// Returns zero.
    pub(crate) fn zero() -> Self {
        Self::from(0_i64)
    }

    /// Returns infinity.
    pub(crate) fn infinity(negative: bool) -> Self {
        Self { negative, magnitude: Magnitude::Infinite, precision: COUNTED }
    }

    /// Makes the number `mantissa * 2^exponent`, rounded to a precision.
    ///
    /// `inexact` tells that the true value is a little above the mantissa.
    fn rounded(
        negative: bool,
        mantissa: BigUint,
        exponent: i64,
        inexact: bool,
        precision: u64,
    ) -> Self {
        if mantissa.is_zero() {
            return Self { negative, magnitude: Magnitude::Zero, precision };
        }
        let mut mantissa = mantissa;
        let mut exponent = exponent;
        let bits = mantissa.bits();
        if bits > precision {
            let drop = bits - precision;
            let half = mantissa.bit(drop - 1);
            let rest = inexact || mantissa.trailing_zeros().is_some_and(|zeros| zeros < drop - 1);
            mantissa >>= drop;
            exponent += drop as i64;
            if half && (rest || mantissa.bit(0)) {
                mantissa += 1_u32;
            }
        }
        let zeros = mantissa.trailing_zeros().unwrap_or(0);
        mantissa >>= zeros;
        exponent += zeros as i64;
        let magnitude = if exponent.saturating_add(mantissa.bits() as i64) > LARGEST_EXPONENT {
            Magnitude::Infinite
        } else if exponent < -LARGEST_EXPONENT {
            Magnitude::Zero
        } else {
            Magnitude::Finite { mantissa, exponent }
        };
        Self { negative, magnitude, precision }
    }

    /// Makes a number of a whole number, at a precision that holds it.
    pub(crate) fn whole(negative: bool, mantissa: BigUint) -> Self {
        let precision = mantissa.bits().max(COUNTED);
        Self::rounded(negative, mantissa, 0, false, precision)
    }

    /// Makes a number of an `f64`. NaN has no number.
    pub(crate) fn from_f64(value: f64) -> Option<Self> {
        if value.is_nan() {
            return None;
        }
        let negative = value.is_sign_negative();
        if value.is_infinite() {
            let mut infinity = Self::infinity(negative);
            infinity.precision = DOUBLE;
            return Some(infinity);
        }
        let bits = value.abs().to_bits();
        let biased = (bits >> 52) as i64;
        let fraction = bits & ((1 << 52) - 1);
        let mantissa = if biased == 0 { fraction } else { fraction | (1 << 52) };
        Some(Self::rounded(negative, BigUint::from(mantissa), biased.max(1) - 1075, false, DOUBLE))
    }

    /// Returns the nearest `f64`.
    pub(crate) fn to_f64(&self) -> f64 {
        let value = match &self.magnitude {
            Magnitude::Zero => 0.0,
            Magnitude::Infinite => f64::INFINITY,
            Magnitude::Finite { .. } => {
                self.scientific_text().trim_start_matches('-').parse().unwrap_or(f64::INFINITY)
            }
        };
        if self.negative { -value } else { value }
    }

    /// Returns the number as an `i64` if it is a whole number in that range.
    pub(crate) fn to_i64(&self) -> Option<i64> {
        match &self.magnitude {
            Magnitude::Zero => Some(0),
            Magnitude::Infinite => None,
            Magnitude::Finite { mantissa, exponent } => {
                if *exponent < 0 || *exponent > 63 {
                    return None;
                }
                let whole = (mantissa << (*exponent as u64)).to_i128()?;
                i64::try_from(if self.negative { -whole } else { whole }).ok()
            }
        }
    }

    /// Returns `true` if the number has no fraction.
    pub(crate) fn is_whole(&self) -> bool {
        match &self.magnitude {
            Magnitude::Zero => true,
            Magnitude::Infinite => false,
            Magnitude::Finite { exponent, .. } => *exponent >= 0,
        }
    }

    /// Returns `true` for zero of either sign.
    pub(crate) fn is_zero(&self) -> bool {
        self.magnitude == Magnitude::Zero
    }

    /// Returns `true` for infinity of either sign.
    pub(crate) fn is_infinite(&self) -> bool {
        self.magnitude == Magnitude::Infinite
    }

    /// Returns `true` if the sign is minus.
    pub(crate) fn is_negative(&self) -> bool {
        self.negative
    }

    /// Returns the absolute value without its fraction.
    pub(crate) fn truncated(&self) -> BigUint {
        match &self.magnitude {
            Magnitude::Zero | Magnitude::Infinite => BigUint::zero(),
            Magnitude::Finite { mantissa, exponent } if *exponent >= 0 => {
                mantissa << (*exponent as u64)
            }
            Magnitude::Finite { mantissa, exponent } => mantissa >> exponent.unsigned_abs(),
        }
    }

    /// Returns the number without its fraction.
    pub(crate) fn int(&self) -> Self {
        if self.is_whole() || self.is_infinite() {
            return self.clone();
        }
        Self::whole(self.negative, self.truncated())
    }

    /// Returns the largest whole number that isn't above this one.
    pub(crate) fn floor(&self) -> Self {
        self.to_whole(self.negative)
    }

    /// Returns the smallest whole number that isn't below this one.
    pub(crate) fn ceil(&self) -> Self {
        self.to_whole(!self.negative)
    }

    /// Drops a fraction, away from zero if told so.
    fn to_whole(&self, away: bool) -> Self {
        if self.is_whole() || self.is_infinite() {
            return self.clone();
        }
        let mut whole = self.truncated();
        if away {
            whole += BigUint::one();
        }
        Self::whole(self.negative, whole)
    }

    /// Returns the number with the other sign.
    pub(crate) fn negate(&self) -> Self {
        Self { negative: !self.negative, ..self.clone() }
    }

    /// Returns the number without a sign.
    pub(crate) fn absolute(&self) -> Self {
        Self { negative: false, ..self.clone() }
    }

    /// Adds two numbers. Opposing infinities have no sum.
    pub(crate) fn add(&self, other: &Self) -> Option<Self> {
        let precision = self.precision.max(other.precision);
        let with = |number: &Self| Self { precision, ..number.clone() };
        match (&self.magnitude, &other.magnitude) {
            (Magnitude::Infinite, Magnitude::Infinite) if self.negative != other.negative => None,
            (Magnitude::Zero, Magnitude::Zero) => {
                let negative = self.negative && other.negative;
                Some(Self { negative, magnitude: Magnitude::Zero, precision })
            }
            (Magnitude::Infinite, _) | (_, Magnitude::Zero) => Some(with(self)),
            (_, Magnitude::Infinite) | (Magnitude::Zero, _) => Some(with(other)),
            (
                Magnitude::Finite { mantissa: left, exponent: left_exponent },
                Magnitude::Finite { mantissa: right, exponent: right_exponent },
            ) => {
                let exponent = *left_exponent.min(right_exponent);
                let left = left << ((left_exponent - exponent) as u64);
                let right = right << ((right_exponent - exponent) as u64);
                if self.negative == other.negative {
                    return Some(Self::rounded(
                        self.negative,
                        left + right,
                        exponent,
                        false,
                        precision,
                    ));
                }
                let (negative, mantissa) = match left.cmp(&right) {
                    Ordering::Greater => (self.negative, left - right),
                    Ordering::Less => (other.negative, right - left),
                    Ordering::Equal => (false, BigUint::zero()),
                };
                Some(Self::rounded(negative, mantissa, exponent, false, precision))
            }
        }
    }

    /// Subtracts a number.
    pub(crate) fn subtract(&self, other: &Self) -> Option<Self> {
        self.add(&other.negate())
    }

    /// Multiplies two numbers. The product of zero and infinity has no value.
    ///
    /// The precision grows to what the product needs, at most 512 bits.
    pub(crate) fn multiply(&self, other: &Self) -> Option<Self> {
        let precision = self.precision.max(other.precision);
        let negative = self.negative != other.negative;
        let magnitude = match (&self.magnitude, &other.magnitude) {
            (Magnitude::Zero, Magnitude::Infinite) | (Magnitude::Infinite, Magnitude::Zero) => {
                return None;
            }
            (Magnitude::Infinite, _) | (_, Magnitude::Infinite) => Magnitude::Infinite,
            (Magnitude::Zero, _) | (_, Magnitude::Zero) => Magnitude::Zero,
            (
                Magnitude::Finite { mantissa: left, exponent: left_exponent },
                Magnitude::Finite { mantissa: right, exponent: right_exponent },
            ) => {
                let exponent = left_exponent + right_exponent;
                let mut product = Self::rounded(negative, left * right, exponent, false, WRITTEN);
                if let Magnitude::Finite { mantissa, .. } = &product.magnitude {
                    product.precision = precision.max(mantissa.bits());
                }
                return Some(product);
            }
        };
        Some(Self { negative, magnitude, precision })
    }

    /// Divides by a number. 0/0 and ∞/∞ have no value.
    pub(crate) fn divide(&self, other: &Self) -> Option<Self> {
        let precision = self.precision.max(other.precision);
        let negative = self.negative != other.negative;
        let magnitude = match (&self.magnitude, &other.magnitude) {
            (Magnitude::Zero, Magnitude::Zero) | (Magnitude::Infinite, Magnitude::Infinite) => {
                return None;
            }
            (Magnitude::Infinite, _) | (_, Magnitude::Zero) => Magnitude::Infinite,
            (Magnitude::Zero, _) | (_, Magnitude::Infinite) => Magnitude::Zero,
            (
                Magnitude::Finite { mantissa: left, exponent: left_exponent },
                Magnitude::Finite { mantissa: right, exponent: right_exponent },
            ) => {
                let shift = (precision + 2 + right.bits()).saturating_sub(left.bits());
                let dividend = left << shift;
                let quotient = &dividend / right;
                let inexact = &quotient * right != dividend;
                let exponent = left_exponent - right_exponent - shift as i64;
                return Some(Self::rounded(negative, quotient, exponent, inexact, precision));
            }
        };
        Some(Self { negative, magnitude, precision })
    }

    /// Returns the rest of a division whose quotient is truncated.
    ///
    /// A number modulo zero is itself.
    pub(crate) fn modulo(&self, other: &Self) -> Option<Self> {
        if self.is_infinite() || other.is_infinite() {
            return self.multiply(other);
        }
        if other.is_zero() {
            return Some(self.clone());
        }
        let quotient = self.divide(other)?;
        let precision = self.precision.max(other.precision);
        let whole = Self::rounded(
            quotient.negative,
            quotient.truncated(),
            0,
            false,
            self.precision.max(COUNTED),
        );
        let mut taken = other.multiply(&whole)?;
        taken.precision = precision;
        let mut rest = self.subtract(&taken)?;
        if rest.is_zero() {
            rest.negative = false;
        }
        Some(rest)
    }
}

impl From<i64> for Number {
    fn from(value: i64) -> Self {
        let mantissa = BigUint::from(value.unsigned_abs());
        Self::rounded(value < 0, mantissa, 0, false, COUNTED)
    }
}

impl From<usize> for Number {
    fn from(value: usize) -> Self {
        Self::rounded(false, BigUint::from(value), 0, false, COUNTED)
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Number {}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Number {
    fn cmp(&self, other: &Self) -> Ordering {
        let sign = |number: &Self| match (number.is_zero(), number.negative) {
            (true, _) => 0,
            (false, true) => -1,
            (false, false) => 1,
        };
        let order = sign(self).cmp(&sign(other));
        if order != Ordering::Equal || self.is_zero() {
            return order;
        }
        let order = self.magnitude.compare(&other.magnitude);
        if self.negative { order.reverse() } else { order }
    }
}

impl Magnitude {
    /// Compares two magnitudes that aren't zero.
    fn compare(&self, other: &Self) -> Ordering {
        match (self, other) {
            (
                Self::Finite { mantissa: left, exponent: left_exponent },
                Self::Finite { mantissa: right, exponent: right_exponent },
            ) => {
                let top = |mantissa: &BigUint, exponent: i64| mantissa.bits() as i64 + exponent;
                let order = top(left, *left_exponent).cmp(&top(right, *right_exponent));
                if order != Ordering::Equal {
                    return order;
                }
                let exponent = *left_exponent.min(right_exponent);
                let left = left << ((left_exponent - exponent) as u64);
                left.cmp(&(right << ((right_exponent - exponent) as u64)))
            }
            (Self::Infinite, Self::Infinite) => Ordering::Equal,
            (Self::Infinite, _) => Ordering::Greater,
            (_, Self::Infinite) => Ordering::Less,
            _ => Ordering::Equal,
        }
    }
}

#[cfg(test)]
mod tests;
