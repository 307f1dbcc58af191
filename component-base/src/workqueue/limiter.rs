//! How long a failed item waits: the longer of its own exponential back-off and the queue's overall token bucket.
//!
//! client-go's DefaultTypedControllerRateLimiter.

use std::{collections::HashMap, hash::Hash, time::Duration};

use tokio::time::Instant;

/// The limits of a queue.
#[derive(Debug, Clone, Copy)]
pub struct RateLimits {
    /// Wait after an item's first failure; doubles with each further one.
    pub base_delay: Duration,
    /// Longest wait of an item.
    pub max_delay: Duration,
    /// Rate-limited additions a second, over all items.
    pub rate: f64,
    /// How many of them may come at once.
    pub burst: u32,
}

impl Default for RateLimits {
    fn default() -> Self {
        Self {
            base_delay: Duration::from_millis(5),
            max_delay: Duration::from_secs(1000),
            rate: 10.0,
            burst: 100,
        }
    }
}

/// The failures of each item, and the bucket.
#[derive(Debug)]
pub(super) struct Limiter<T> {
    limits: RateLimits,
    failures: HashMap<T, u32>,
    /// When the bucket would be full; the farther ahead, the emptier it is.
    full_at: Option<Instant>,
}

impl<T: Clone + Eq + Hash> Limiter<T> {
    pub(super) fn new(limits: RateLimits) -> Self {
        Self { limits, failures: HashMap::new(), full_at: None }
    }

    /// Counts one more failure of `item` and says how long it must wait.
    pub(super) fn failure(&mut self, item: &T, now: Instant) -> Duration {
        let failures = self.failures.entry(item.clone()).or_insert(0);
        let factor = 2_f64.powi(i32::try_from(*failures).unwrap_or(i32::MAX).min(64));
        *failures = failures.saturating_add(1);
        let own = Duration::try_from_secs_f64(self.limits.base_delay.as_secs_f64() * factor)
            .unwrap_or(self.limits.max_delay)
            .min(self.limits.max_delay);
        own.max(self.bucket(now))
    }

    fn bucket(&mut self, now: Instant) -> Duration {
        let token = Duration::from_secs_f64(1.0 / self.limits.rate);
        let full_at = self.full_at.map_or(now, |full_at| full_at.max(now)) + token;
        self.full_at = Some(full_at);
        full_at.saturating_duration_since(now).saturating_sub(token * self.limits.burst)
    }

    pub(super) fn forget(&mut self, item: &T) {
        self.failures.remove(item);
        if self.failures.is_empty() {
            self.failures.shrink_to(16);
        }
    }

    pub(super) fn failures(&self, item: &T) -> u32 {
        self.failures.get(item).copied().unwrap_or(0)
    }
}
