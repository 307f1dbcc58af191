//! Go's duration syntax ("15s", "1m30s", "1.5h"), used by flags, component config files and messages.
//!
//! Answers to Go's time.ParseDuration and Duration.String. Negative durations are refused: no flag or field of
//! ours has a meaning for them.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer};

/// Why a text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Not a sequence of numbers with units.
    #[error("time: invalid duration {0:?}")]
    Invalid(String),
    /// A number without its unit.
    #[error("time: missing unit in duration {0:?}")]
    MissingUnit(String),
    /// A unit Go does not know.
    #[error("time: unknown unit {unit:?} in duration {text:?}")]
    UnknownUnit {
        /// The unknown unit.
        unit: String,
        /// The whole text.
        text: String,
    },
    /// Negative, which nothing here can use.
    #[error("duration {0:?} must not be negative")]
    Negative(String),
}

/// Parses Go's syntax.
///
/// # Errors
/// When `text` is not a duration or is negative.
pub fn parse(text: &str) -> Result<Duration, ParseError> {
    let invalid = || ParseError::Invalid(text.to_owned());
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut nanos: u128 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(invalid());
        }
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, remaining) = after.split_at(unit_end);
        let scale: u128 = match unit {
            "" => return Err(ParseError::MissingUnit(text.to_owned())),
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(ParseError::UnknownUnit { unit: unit.to_owned(), text: text.to_owned() }),
        };
        if !whole.is_empty() {
            let whole: u64 = whole.parse().map_err(|_| invalid())?;
            nanos += u128::from(whole) * scale;
        }
        let mut place = scale;
        for digit in fraction.bytes() {
            place /= 10;
            nanos += u128::from(digit - b'0') * place;
        }
        rest = remaining;
    }
    // Go's durations are signed 64-bit nanoseconds; beyond that the text is invalid there too.
    let nanos = i64::try_from(nanos).map_err(|_| invalid())?;
    if negative && nanos != 0 {
        return Err(ParseError::Negative(text.to_owned()));
    }
    Ok(Duration::from_nanos(nanos.unsigned_abs()))
}

/// Formats as Go does: "1m30s", "500ms", "0s".
#[must_use]
pub fn format(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    let with_fraction = |value: u128, scale: u128, unit: &str| {
        let (whole, fraction) = (value / scale, value % scale);
        if fraction == 0 {
            return format!("{whole}{unit}");
        }
        let width = scale.ilog10() as usize;
        let digits = format!("{fraction:0width$}");
        format!("{whole}.{}{unit}", digits.trim_end_matches('0'))
    };
    match nanos {
        0..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => with_fraction(nanos, 1_000, "µs"),
        1_000_000..1_000_000_000 => with_fraction(nanos, 1_000_000, "ms"),
        _ => {
            let minutes = nanos / 60_000_000_000;
            let seconds = with_fraction(nanos % 60_000_000_000, 1_000_000_000, "s");
            match (minutes / 60, minutes % 60) {
                (0, 0) => seconds,
                (0, minutes) => format!("{minutes}m{seconds}"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
            }
        }
    }
}

/// For `#[serde(with = "component_base::duration")]` on fields that upstream types as metav1.Duration.
///
/// # Errors
/// The serializer's.
pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format(*duration))
}

/// The reading half of [`serialize`].
///
/// # Errors
/// When the value is not a duration in Go's syntax.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse(&text).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_gos_syntax() {
        for (text, want) in [
            ("0", Duration::ZERO),
            ("15s", Duration::from_secs(15)),
            ("1m30s", Duration::from_secs(90)),
            ("1.5h", Duration::from_secs(5400)),
            (".5s", Duration::from_millis(500)),
            ("100ms", Duration::from_millis(100)),
            ("2h45m", Duration::from_secs(9900)),
            ("3us", Duration::from_micros(3)),
            ("+5s", Duration::from_secs(5)),
        ] {
            assert_eq!(parse(text), Ok(want), "{text}");
        }
        for text in ["", "s", "15", "1x", "-1s", "1.2.3s", ".", "9999999999h", "1s2"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn writes_gos_syntax() {
        for text in
            ["0s", "10s", "1m20s", "2m0s", "5m0s", "1h0m0s", "1.5s", "100ms", "1h1m1.001s", "3µs", "7ns"]
        {
            assert_eq!(format(parse(text).unwrap()), text);
        }
    }
}
