//! Whether a cron schedule is well-formed: five fields or a descriptor (upstream `robfig/cron` `ParseStandard`).
//! When it fires is the controller's to know.

const MONTHS: &[&str] = &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const DESCRIPTORS: &[&str] =
    &["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];

/// The allowed values of a field and the names of some of them.
struct Bounds {
    min: u32,
    max: u32,
    names: &'static [&'static str],
    first_name: u32,
}

const FIELDS: [Bounds; 5] = [
    Bounds { min: 0, max: 59, names: &[], first_name: 0 },
    Bounds { min: 0, max: 23, names: &[], first_name: 0 },
    Bounds { min: 1, max: 31, names: &[], first_name: 0 },
    Bounds { min: 1, max: 12, names: MONTHS, first_name: 1 },
    Bounds { min: 0, max: 6, names: DAYS, first_name: 0 },
];

/// Says what is wrong with a schedule.
pub(super) fn check(schedule: &str) -> Result<(), String> {
    if let Some(interval) = schedule.strip_prefix("@every ") {
        return match is_duration(interval) {
            true => Ok(()),
            false => Err(format!("failed to parse duration {schedule}: time: invalid duration {interval:?}")),
        };
    }
    if schedule.starts_with('@') {
        return match DESCRIPTORS.contains(&schedule) {
            true => Ok(()),
            false => Err(format!("unrecognized descriptor: {schedule}")),
        };
    }
    let fields: Vec<&str> = schedule.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        return Err(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
    }
    for (field, bounds) in fields.iter().zip(&FIELDS) {
        for range in field.split(',').filter(|r| !r.is_empty()) {
            check_range(range, bounds)?;
        }
    }
    Ok(())
}

/// A duration as Go writes it: numbers with units, such as `1h30m`.
fn is_duration(text: &str) -> bool {
    let mut rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    if rest.is_empty() {
        return false;
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
        let (number, after) = rest.split_at(digits);
        let unit =
            ["ns", "us", "\u{b5}s", "ms", "s", "m", "h"].iter().filter_map(|unit| after.strip_prefix(unit));
        // The shortest rest is that of the longest unit: "ms" before "m".
        let Some(after) = unit.min_by_key(|rest| rest.len()) else { return false };
        if number.parse::<f64>().is_err() {
            return false;
        }
        rest = after;
    }
    true
}

fn check_range(range: &str, bounds: &Bounds) -> Result<(), String> {
    let parts: Vec<&str> = range.split('/').collect();
    let ends: Vec<&str> = parts[0].split('-').collect();
    let (low, mut high) = match ends.as_slice() {
        ["*" | "?"] => (bounds.min, bounds.max),
        [one] => (number(one, bounds)?, number(one, bounds)?),
        [low, high] => (number(low, bounds)?, number(high, bounds)?),
        _ => return Err(format!("too many hyphens: {range}")),
    };
    let step = match parts.as_slice() {
        [_] => 1,
        [_, step] => {
            if ends.len() == 1 {
                high = bounds.max;
            }
            step.parse::<u32>().map_err(|error| format!("failed to parse int from {step}: {error}"))?
        }
        _ => return Err(format!("too many slashes: {range}")),
    };
    if low < bounds.min {
        return Err(format!("beginning of range ({low}) below minimum ({}): {range}", bounds.min));
    }
    if high > bounds.max {
        return Err(format!("end of range ({high}) above maximum ({}): {range}", bounds.max));
    }
    if low > high {
        return Err(format!("beginning of range ({low}) beyond end of range ({high}): {range}"));
    }
    if step == 0 {
        return Err(format!("step of range should be a positive number: {range}"));
    }
    Ok(())
}

fn number(text: &str, bounds: &Bounds) -> Result<u32, String> {
    let lower = text.to_lowercase();
    if let Some(at) = bounds.names.iter().position(|name| *name == lower) {
        return Ok(bounds.first_name + u32::try_from(at).unwrap_or(u32::MAX));
    }
    text.parse().map_err(|error| format!("failed to parse int from {text}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules() {
        for good in ["* * * * *", "*/5 0-23/2 1,15 jan-MAR mon", "@daily", "@every 1h30m", "0 0 ? * 0"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for (bad, problem) in [
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("@every x", "failed to parse duration @every x: time: invalid duration \"x\""),
            ("@never", "unrecognized descriptor: @never"),
        ] {
            assert_eq!(check(bad).unwrap_err(), problem);
        }
    }
}
