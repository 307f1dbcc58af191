//! Quantities: `100m`, `1.5Gi`, `2e3`.
//!
//! Upstream: `k8s.io/apimachinery/pkg/api/resource.Quantity`. A value is held exactly, in units of 10⁻⁹;
//! finer input is rounded up and magnitudes beyond 2⁶³-1 are capped, both as upstream does.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::{Add, AddAssign, Neg, Sub, SubAssign};

use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

const NANO: i128 = 1_000_000_000;
const MAX_NANO: i128 = i64::MAX as i128 * NANO;

/// The family of suffixes that a quantity prints with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `n u m k M G T P E`
    #[default]
    DecimalSi,
    /// `Ki Mi Gi Ti Pi Ei`
    BinarySi,
    /// `e3`, `E6`
    DecimalExponent,
}

/// A fixed-point number with a suffix.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    nano: i128,
    format: Format,
}

/// Why a text is no quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The number or the whole does not have the form of a quantity.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// There is no such suffix.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

impl Quantity {
    /// Zero.
    pub const ZERO: Self = Self { nano: 0, format: Format::DecimalSi };

    /// A whole number that prints with decimal suffixes.
    pub fn from_value(value: i64) -> Self {
        Self { nano: i128::from(value) * NANO, format: Format::DecimalSi }
    }

    /// Thousandths, as in CPU `m`.
    pub fn from_milli(value: i64) -> Self {
        Self { nano: i128::from(value) * (NANO / 1000), format: Format::DecimalSi }
    }

    /// A whole number that prints with binary suffixes, as bytes do.
    pub fn from_bytes(value: i64) -> Self {
        Self { nano: i128::from(value) * NANO, format: Format::BinarySi }
    }

    /// Parses a quantity.
    ///
    /// # Errors
    /// A text that is no quantity.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let (negative, unsigned) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            Some(_) => (false, text),
            None => return Err(Error::Format),
        };
        let number_end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(number_end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(Error::Format);
        }
        let (base, exponent, format) = parse_suffix(suffix)?;
        let mut nano = scale(whole, fraction, base, exponent);
        if negative {
            nano = -nano;
        }
        Ok(Self { nano, format })
    }

    /// The value in whole units, rounded up (away from zero only upwards, as upstream).
    pub fn value(&self) -> i64 {
        self.scaled(NANO)
    }

    /// The value in thousandths, rounded up.
    pub fn milli_value(&self) -> i64 {
        self.scaled(NANO / 1000)
    }

    fn scaled(&self, unit: i128) -> i64 {
        let rounded = self.nano.div_euclid(unit) + i128::from(self.nano.rem_euclid(unit) != 0);
        i64::try_from(rounded).unwrap_or(if rounded < 0 { i64::MIN } else { i64::MAX })
    }

    /// The value as a float, for ratios only.
    pub fn as_f64(&self) -> f64 {
        self.nano as f64 / NANO as f64
    }

    /// True for zero.
    pub fn is_zero(&self) -> bool {
        self.nano == 0
    }

    /// True below zero.
    pub fn is_negative(&self) -> bool {
        self.nano < 0
    }

    /// The suffix family.
    pub fn format(&self) -> Format {
        self.format
    }

    /// True when the value has no fraction.
    pub fn is_whole(&self) -> bool {
        self.nano % NANO == 0
    }

    /// The API's type.
    pub fn to_api(&self) -> ApiQuantity {
        ApiQuantity(self.to_string())
    }

    fn with(self, nano: i128, other: Self) -> Self {
        // A zero takes the other's suffixes, as upstream's Add does.
        let format = if self.nano == 0 { other.format } else { self.format };
        Self { nano: nano.clamp(-MAX_NANO, MAX_NANO), format }
    }
}

/// Parses the API's type.
///
/// # Errors
/// A text that is no quantity.
pub fn parse_k8s(quantity: &ApiQuantity) -> Result<Quantity, Error> {
    Quantity::parse(&quantity.0)
}

fn parse_suffix(suffix: &str) -> Result<(i128, i32, Format), Error> {
    Ok(match suffix {
        "" => (10, 0, Format::DecimalSi),
        "n" => (10, -9, Format::DecimalSi),
        "u" => (10, -6, Format::DecimalSi),
        "m" => (10, -3, Format::DecimalSi),
        "k" => (10, 3, Format::DecimalSi),
        "M" => (10, 6, Format::DecimalSi),
        "G" => (10, 9, Format::DecimalSi),
        "T" => (10, 12, Format::DecimalSi),
        "P" => (10, 15, Format::DecimalSi),
        "E" => (10, 18, Format::DecimalSi),
        "Ki" => (2, 10, Format::BinarySi),
        "Mi" => (2, 20, Format::BinarySi),
        "Gi" => (2, 30, Format::BinarySi),
        "Ti" => (2, 40, Format::BinarySi),
        "Pi" => (2, 50, Format::BinarySi),
        "Ei" => (2, 60, Format::BinarySi),
        _ => {
            let digits = suffix.strip_prefix(['e', 'E']).ok_or(Error::Suffix)?;
            let exponent: i32 = digits.parse().map_err(|_| Error::Suffix)?;
            (10, exponent, Format::DecimalExponent)
        }
    })
}

/// `whole.fraction × base^exponent` in nano units, rounded up and capped. Cost is bounded by the digits given.
fn scale(whole: &str, fraction: &str, base: i128, exponent: i32) -> i128 {
    // Decimal places that the result keeps: nano (9), shifted by a decimal exponent.
    let shift = if base == 10 { exponent.clamp(-1000, 1000) } else { 0 };
    let binary: i128 = if base == 2 { 1 << exponent } else { 1 };
    let keep = 9 + shift;
    let mut mantissa: i128 = 0;
    let mut lost = false;
    let mut overflow = false;
    let whole_places = i32::try_from(whole.len()).unwrap_or(i32::MAX);
    let fraction_digits: i64 = if base == 2 { 27 } else { i64::from(keep) };
    let digits = whole.bytes().chain(fraction.bytes());
    let mut used: i64 = 0;
    for digit in digits {
        let value = i128::from(digit - b'0');
        if used < i64::from(whole_places) + fraction_digits {
            match mantissa.checked_mul(10).and_then(|m| m.checked_add(value)) {
                Some(next) if next <= i128::MAX / 16 => mantissa = next,
                _ => overflow |= mantissa != 0,
            }
        } else if value != 0 {
            lost = true;
        }
        used += 1;
        if overflow {
            return MAX_NANO;
        }
    }
    // `mantissa` has `taken` digits of the fraction; bring it to nano units.
    let taken = (used.min(i64::from(whole_places) + fraction_digits) - i64::from(whole_places)).max(-10_000);
    let places = if base == 2 { 9 - taken } else { i64::from(keep) - taken };
    let mut nano = mantissa;
    if base == 2 {
        // value × 2^e may exceed i128 only when it exceeds the cap by far.
        match nano.checked_mul(binary) {
            Some(n) => nano = n,
            None => return MAX_NANO,
        }
    }
    for _ in 0..places.unsigned_abs().min(2000) {
        if places > 0 {
            match nano.checked_mul(10) {
                Some(n) => nano = n,
                None => return MAX_NANO,
            }
        } else {
            lost |= nano % 10 != 0;
            nano /= 10;
        }
    }
    if lost {
        nano += 1;
    }
    nano.min(MAX_NANO)
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nano == 0 {
            return f.write_str("0");
        }
        let small = self.nano.abs() < 1024 * NANO;
        if self.format == Format::BinarySi && !small {
            let mut value = self.nano.div_euclid(NANO) + i128::from(self.nano.rem_euclid(NANO) != 0);
            let mut steps = 0;
            while value % 1024 == 0 && steps < 6 {
                value /= 1024;
                steps += 1;
            }
            return write!(f, "{value}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][steps]);
        }
        let mut value = self.nano;
        let mut exponent: i32 = -9;
        while value % 1000 == 0 && exponent < 18 {
            value /= 1000;
            exponent += 3;
        }
        if self.format == Format::DecimalExponent {
            return if exponent == 0 { write!(f, "{value}") } else { write!(f, "{value}e{exponent}") };
        }
        let suffix = match exponent {
            -9 => "n",
            -6 => "u",
            -3 => "m",
            3 => "k",
            6 => "M",
            9 => "G",
            12 => "T",
            15 => "P",
            18 => "E",
            _ => "",
        };
        write!(f, "{value}{suffix}")
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nano == other.nano
    }
}

impl Eq for Quantity {}

impl Hash for Quantity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.nano.hash(state);
    }
}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nano.cmp(&other.nano)
    }
}

impl Add for Quantity {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        self.with(self.nano + other.nano, other)
    }
}

impl AddAssign for Quantity {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for Quantity {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self.with(self.nano - other.nano, other)
    }
}

impl SubAssign for Quantity {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

impl Neg for Quantity {
    type Output = Self;

    fn neg(self) -> Self {
        Self { nano: -self.nano, format: self.format }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_parsed_and_printed_canonically() {
        for (text, milli, canonical) in [
            ("0", 0, "0"),
            ("1", 1000, "1"),
            ("100m", 100, "100m"),
            ("0.1", 100, "100m"),
            (".5", 500, "500m"),
            ("5.", 5000, "5"),
            ("1.5", 1500, "1500m"),
            ("1k", 1_000_000, "1k"),
            ("1000", 1_000_000, "1k"),
            ("1Ki", 1_024_000, "1Ki"),
            ("1024", 1_024_000, "1024"),
            ("1.5Ki", 1_536_000, "1536"),
            ("512Ki", 524_288_000, "512Ki"),
            ("1Mi", 1_048_576_000, "1Mi"),
            ("0.5Ki", 512_000, "512"),
            ("2e3", 2_000_000, "2e3"),
            ("2E3", 2_000_000, "2e3"),
            ("1e-3", 1, "1e-3"),
            ("-1.5Gi", -1_610_612_736_000, "-1536Mi"),
            ("+5", 5000, "5"),
            ("12345", 12_345_000, "12345"),
        ] {
            let quantity = Quantity::parse(text).expect(text);
            assert_eq!(quantity.milli_value(), milli, "{text}");
            assert_eq!(quantity.to_string(), canonical, "{text}");
        }
    }

    #[test]
    fn rounding_is_up_and_magnitude_is_capped() {
        assert_eq!(Quantity::parse("1m").expect("valid").value(), 1);
        assert_eq!(Quantity::parse("0.0000000001").expect("valid").to_string(), "1n");
        assert_eq!(Quantity::parse("1e1000000").expect("valid").value(), i64::MAX);
        assert_eq!(Quantity::parse("9999999999999999999999999").expect("valid").value(), i64::MAX);
        assert_eq!(Quantity::parse("16Ei").expect("valid").value(), i64::MAX);
        assert_eq!(Quantity::parse("1e-1000000").expect("valid").to_string(), "1e-9");
        assert_eq!(Quantity::parse("-1e1000000").expect("valid").value(), -i64::MAX);
    }

    #[test]
    fn bad_texts_are_refused() {
        for text in ["", "a", "1x", "1.2.3", "--1", "1 ", " 1", "1ki", "1KI", "e3", "1e", "1e3m", "+", "."] {
            assert!(Quantity::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn sums_keep_the_suffixes() {
        let sum = Quantity::parse("1Gi").expect("valid") + Quantity::parse("1Mi").expect("valid");
        assert_eq!(sum.to_string(), "1025Mi");
        let sum = Quantity::ZERO + Quantity::parse("1Gi").expect("valid");
        assert_eq!(sum.to_string(), "1Gi");
        assert!(Quantity::parse("1").expect("valid") > Quantity::parse("999m").expect("valid"));
    }
}
