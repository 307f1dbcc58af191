//! Waits for a condition instead of sleeping: asks until it holds, and on the deadline tells the last state seen.

use anyhow::{Result, bail};
use std::time::{Duration, Instant};

/// Asks until `ask` returns a value. `Ok(Err(state))` and `Err` both mean "not yet"; the last one is in the error.
///
/// # Errors
/// The condition did not hold within `at_most`.
pub fn eventually<T>(
    what: &str,
    at_most: Duration,
    mut ask: impl FnMut() -> Result<std::result::Result<T, String>>,
) -> Result<T> {
    let begun = Instant::now();
    loop {
        let state = match ask() {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(state)) => state,
            Err(error) => format!("{error:#}"),
        };
        if begun.elapsed() > at_most {
            bail!("{what}: not within {:.0} s; last state: {state}", at_most.as_secs_f64());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_state_is_told() {
        let mut count = 0;
        let error = eventually::<()>("counting", Duration::from_millis(50), || {
            count += 1;
            Ok(Err(format!("at {count}")))
        })
        .unwrap_err()
        .to_string();
        assert!(error.contains(&format!("last state: at {count}")), "{error}");
        assert_eq!(eventually("now", Duration::ZERO, || Ok(Ok(7))).unwrap(), 7);
    }
}
