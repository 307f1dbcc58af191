//! Exponential back-off per key, with time passed in.
//!
//! Upstream: `k8s.io/client-go/util/flowcontrol.Backoff`, which the kubelet uses for crash loops and image
//! pulls.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug)]
struct Entry {
    delay: Duration,
    last_update: Instant,
}

/// Doubles a key's delay at each failure, up to a maximum; forgets a key left alone for twice the maximum.
#[derive(Clone, Debug)]
pub struct Backoff<K> {
    initial: Duration,
    max: Duration,
    entries: HashMap<K, Entry>,
}

impl<K: Eq + Hash> Backoff<K> {
    /// Delays go from `initial` to `max`.
    pub fn new(initial: Duration, max: Duration) -> Self {
        Self { initial, max, entries: HashMap::new() }
    }

    /// The delay in force for `key`, zero when it has none.
    pub fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Duration
    where
        K: Borrow<Q>,
    {
        self.entries.get(key).map_or(Duration::ZERO, |e| e.delay)
    }

    /// Notes a failure at `now` and moves to the next delay, which is returned.
    pub fn next(&mut self, key: K, now: Instant) -> Duration {
        let (initial, max) = (self.initial, self.max);
        let entry = self
            .entries
            .entry(key)
            .and_modify(|e| {
                let expired = now.saturating_duration_since(e.last_update) > max * 2;
                e.delay = if expired { initial } else { (e.delay * 2).min(max) };
                e.last_update = now;
            })
            .or_insert(Entry { delay: initial, last_update: now });
        entry.delay
    }

    /// Whether an event at `event` is still within the back-off that `key` has at `now`.
    pub fn is_in_backoff_since<Q: Eq + Hash + ?Sized>(&self, key: &Q, event: Instant, now: Instant) -> bool
    where
        K: Borrow<Q>,
    {
        let Some(entry) = self.entries.get(key) else { return false };
        now.saturating_duration_since(entry.last_update) <= self.max * 2
            && now.saturating_duration_since(event) < entry.delay
    }

    /// Forgets `key`.
    pub fn reset<Q: Eq + Hash + ?Sized>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
    {
        self.entries.remove(key);
    }

    /// Forgets what has not failed for twice the maximum.
    pub fn gc(&mut self, now: Instant) {
        let max = self.max;
        self.entries.retain(|_, e| now.saturating_duration_since(e.last_update) <= max * 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delay_doubles_caps_and_expires() {
        let start = Instant::now();
        let s = Duration::from_secs;
        let mut backoff = Backoff::new(s(10), s(60));
        assert_eq!(backoff.get("a"), s(0));
        let delays: Vec<u64> = (0..5).map(|_| backoff.next("a", start).as_secs()).collect();
        assert_eq!(delays, [10, 20, 40, 60, 60]);
        assert!(backoff.is_in_backoff_since("a", start, start + s(59)));
        assert!(!backoff.is_in_backoff_since("a", start, start + s(60)));
        assert_eq!(backoff.next("a", start + s(121)), s(10));
        backoff.reset("a");
        assert_eq!(backoff.get("a"), s(0));
        backoff.next("b", start);
        backoff.gc(start + s(200));
        assert_eq!(backoff.get("b"), s(0));
    }
}
