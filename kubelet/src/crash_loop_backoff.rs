//! How long a container that keeps ending must wait before its next start: 10 s, doubling to 5 min, forgotten after 10 min.
//!
//! Time is passed in. Upstream's concept: `flowcontrol.Backoff` as `doBackOff` of kuberuntime uses it.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;

/// The first delay.
pub const INITIAL_BACKOFF: Duration = Duration::from_secs(10);
/// The longest delay.
pub const MAX_CONTAINER_BACKOFF: Duration = Duration::from_secs(300);

#[derive(Debug, Clone, Copy)]
struct Entry {
    delay: Duration,
    last_update: Timestamp,
}

/// Delays by key (pod, container and image: a changed image starts afresh).
#[derive(Debug)]
pub struct CrashLoopBackOff {
    entries: HashMap<String, Entry>,
    initial: Duration,
    max: Duration,
}

/// Still waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackingOff {
    /// The whole delay, as messages name it.
    pub delay: Duration,
    /// What is left of it.
    pub remaining: Duration,
}

fn since(now: Timestamp, then: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or_default()
}

impl Default for CrashLoopBackOff {
    fn default() -> Self {
        Self::new(INITIAL_BACKOFF, MAX_CONTAINER_BACKOFF)
    }
}

impl CrashLoopBackOff {
    /// With other delays than the defaults (`crashLoopBackOff.maxContainerRestartPeriod`).
    #[must_use]
    pub fn new(initial: Duration, max: Duration) -> Self {
        Self { entries: HashMap::new(), initial, max }
    }

    fn expired(&self, entry: &Entry, now: Timestamp) -> bool {
        since(now, entry.last_update) > self.max * 2
    }

    /// Asks to restart, now, a container that ended at `finished_at`: `None` grants it and lengthens the next delay.
    pub fn try_restart(&mut self, key: &str, finished_at: Timestamp, now: Timestamp) -> Option<BackingOff> {
        let held = self.entries.get(key).copied().filter(|entry| !self.expired(entry, now));
        if let Some(entry) = held {
            let waited = since(now, finished_at);
            if waited < entry.delay {
                return Some(BackingOff { delay: entry.delay, remaining: entry.delay - waited });
            }
        }
        let delay = held.map_or(self.initial, |entry| (entry.delay * 2).min(self.max));
        self.entries.insert(key.to_owned(), Entry { delay, last_update: now });
        None
    }

    /// Forgets what has not been used for twice the longest delay.
    pub fn collect(&mut self, now: Timestamp) {
        let max = self.max;
        self.entries.retain(|_, entry| since(now, entry.last_update) <= max * 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn doubles_to_the_maximum_and_forgets() {
        let mut backoff = CrashLoopBackOff::default();
        let mut now = 1000;
        assert_eq!(backoff.try_restart("a", at(now), at(now)), None, "the first restart is immediate");
        for expected in [10, 20, 40, 80, 160, 300, 300] {
            let refused = backoff.try_restart("a", at(now), at(now + 3)).unwrap();
            assert_eq!((refused.delay.as_secs(), refused.remaining.as_secs()), (expected, expected - 3));
            now += i64::try_from(expected).unwrap();
            assert_eq!(backoff.try_restart("a", at(now - 300), at(now)), None);
        }
        assert_eq!(backoff.try_restart("b", at(now), at(now)), None, "keys don't share delays");
        now += 601;
        assert_eq!(backoff.try_restart("a", at(now), at(now)), None, "ten minutes of peace forget the delay");
        assert_eq!(backoff.try_restart("a", at(now), at(now)).unwrap().delay, INITIAL_BACKOFF);
        backoff.collect(at(now + 601));
        assert!(backoff.entries.is_empty());
    }
}
