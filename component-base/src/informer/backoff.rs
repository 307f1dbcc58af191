//! How long to wait before asking again.
//!
//! Two waits, both client-go's curve (0.8 s doubling to 30 s, plus up to as much again at random): `Backoff` belongs
//! to one informer and grows while the server refuses *its* requests. `Outage` is shared by the whole process and
//! grows while the server cannot be reached at all: however many informers lose their connection together, it is
//! one outage, and one step of the curve per window.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rand::Rng as _;

const FIRST: Duration = Duration::from_millis(800);
/// No wait is longer, whoever asks for it.
pub(super) const LONGEST: Duration = Duration::from_secs(30);

/// The wait of one informer.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
    random: fn() -> f64,
}

impl Backoff {
    /// `random` gives numbers from 0 to 1.
    pub(super) fn new(random: fn() -> f64) -> Self {
        Self { next: FIRST, random }
    }

    /// The wait after one more failure.
    pub(super) fn failure(&mut self) -> Duration {
        let base = self.next;
        self.next = (base * 2).min(LONGEST);
        base.mul_f64(1.0 + (self.random)()).min(LONGEST)
    }

    pub(super) fn success(&mut self) {
        self.next = FIRST;
    }
}

/// The wait of a process that has lost its server.
#[derive(Debug)]
pub(super) struct Outage(Mutex<State>);

#[derive(Debug)]
struct State {
    next: Duration,
    until: Option<Instant>,
}

impl Outage {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(State { next: FIRST, until: None }))
    }

    /// The wait after a lost connection at `now`; the first to notice moves the curve for all.
    pub(super) fn failure(&self, now: Instant, random: f64) -> Duration {
        let mut state = self.0.lock();
        let until = match state.until {
            Some(until) if now < until => until,
            _ => {
                let until = now + state.next;
                state.next = (state.next * 2).min(LONGEST);
                state.until = Some(until);
                until
            }
        };
        // The random part spreads the informers, so that they do not all come back in one instant.
        let window = until.saturating_duration_since(now);
        (window + FIRST.mul_f64(random)).min(LONGEST)
    }

    /// The server answers again.
    pub(super) fn success(&self) {
        let mut state = self.0.lock();
        state.next = FIRST;
        state.until = None;
    }
}

/// The process's one connection to its cluster is what this stands for; it holds no configuration.
pub(super) static OUTAGE: Outage = Outage::new();

/// A random number from 0 to 1.
pub(super) fn random() -> f64 {
    rand::rng().random()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_wait_doubles_to_the_longest_and_starts_over() {
        let mut backoff = Backoff::new(|| 0.0);
        let waits: Vec<u128> = (0..8).map(|_| backoff.failure().as_millis()).collect();
        assert_eq!(waits, [800, 1600, 3200, 6400, 12800, 25600, 30000, 30000]);
        backoff.success();
        assert_eq!(backoff.failure().as_millis(), 800);
        assert_eq!(Backoff::new(|| 1.0).failure().as_millis(), 1600);
    }

    #[test]
    fn an_outage_is_one_step_however_many_notice_it() {
        let outage = Outage::new();
        let now = Instant::now();
        let waits: Vec<u128> = (0..20).map(|_| outage.failure(now, 0.0).as_millis()).collect();
        assert_eq!(waits, [800; 20]);
        let later = now + Duration::from_millis(900);
        assert_eq!(outage.failure(later, 0.0).as_millis(), 1600);
        outage.success();
        assert_eq!(outage.failure(later, 0.0).as_millis(), 800);
    }
}
