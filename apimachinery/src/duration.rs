//! Go's duration texts, `1h30m`, `500ms`, as flags and component configs carry them.

use std::fmt::Write as _;
use std::time::Duration;

/// Parses a non-negative Go duration.
///
/// Returns `None` for anything else, negative durations among it: no flag or field of ours takes one.
pub fn parse(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest.is_empty() {
        return None;
    }
    let mut nanos: f64 = 0.0;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let (unit, nanos_each) =
            [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 60e9), ("h", 3600e9)]
                .into_iter()
                .find(|(unit, _)| rest.starts_with(unit) && !(*unit == "m" && rest.starts_with("ms")))?;
        rest = &rest[unit.len()..];
        nanos += number * nanos_each;
        total = Duration::try_from_secs_f64(nanos / 1e9).ok()?;
    }
    Some(total)
}

/// Prints a duration as Go does: `1h0m0s`, `1.5s`, `250ms`.
pub fn format(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    if nanos < 1_000 {
        return format!("{nanos}ns");
    }
    if nanos < 1_000_000 {
        return format!("{}µs", nanos as f64 / 1e3);
    }
    if nanos < 1_000_000_000 {
        return format!("{}ms", nanos as f64 / 1e6);
    }
    let seconds = duration.as_secs();
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let rest = duration.as_secs_f64() - (hours * 3600 + minutes * 60) as f64;
    let mut out = String::new();
    if hours > 0 {
        let _ = write!(out, "{hours}h"); // writing to a String can't fail
    }
    if hours > 0 || minutes > 0 {
        let _ = write!(out, "{minutes}m"); // writing to a String can't fail
    }
    let _ = write!(out, "{}s", (rest * 1e9).round() / 1e9); // writing to a String can't fail
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_round_trip() {
        for (text, seconds, printed) in [
            ("0", 0.0, "0s"),
            ("15s", 15.0, "15s"),
            ("1m30s", 90.0, "1m30s"),
            ("1.5h", 5400.0, "1h30m0s"),
            ("250ms", 0.25, "250ms"),
            ("10us", 1e-5, "10µs"),
        ] {
            let parsed = parse(text).expect(text);
            assert!((parsed.as_secs_f64() - seconds).abs() < 1e-9, "{text}");
            assert_eq!(format(parsed), printed, "{text}");
        }
        for text in ["", "s", "1", "1x", "-1s", "1e400h", "h1"] {
            assert!(parse(text).is_none(), "{text}");
        }
    }
}
