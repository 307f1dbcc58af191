//! Numbers that may be percentages: `maxSurge: 25%`.
//!
//! Upstream: `k8s.io/apimachinery/pkg/util/intstr`.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// The text is neither a number nor a percentage.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid value for IntOrString: invalid type: string is not a percentage")]
pub struct Error;

/// The percentage in `value`, if it is one.
pub fn percentage(value: &IntOrString) -> Option<i32> {
    match value {
        IntOrString::Int(_) => None,
        IntOrString::String(text) => {
            let digits = text.strip_suffix('%')?;
            digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
        }
    }
}

/// The number itself, or that percentage of `total`.
///
/// # Errors
/// A text that is no percentage.
pub fn scaled_value(value: &IntOrString, total: i32, round_up: bool) -> Result<i32, Error> {
    match value {
        IntOrString::Int(number) => Ok(*number),
        IntOrString::String(_) => {
            let percent = i64::from(percentage(value).ok_or(Error)?);
            let product = percent * i64::from(total);
            let scaled = if round_up { (product + 99).div_euclid(100) } else { product.div_euclid(100) };
            Ok(i32::try_from(scaled).unwrap_or(i32::MAX))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_scale() {
        let text = |t: &str| IntOrString::String(t.to_owned());
        for (value, total, up, want) in [
            (IntOrString::Int(3), 10, true, Ok(3)),
            (text("25%"), 10, true, Ok(3)),
            (text("25%"), 10, false, Ok(2)),
            (text("100%"), 7, true, Ok(7)),
            (text("0%"), 7, true, Ok(0)),
            (text("5"), 7, true, Err(Error)),
            (text("-5%"), 7, true, Err(Error)),
            (text("%"), 7, true, Err(Error)),
        ] {
            assert_eq!(scaled_value(&value, total, up), want, "{value:?}");
        }
    }
}
