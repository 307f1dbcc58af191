//! The queue between a controller's watches and its workers.
//!
//! client-go's rate-limiting work queue: an item is queued once however often it is added; an item added while a
//! worker has it is queued again when the worker is done, so no two workers ever have the same item; delayed and
//! rate-limited additions become due later. Nothing here knows what an item means.
//!
//! There is no background task: whoever waits in [`WorkQueue::get`] also waits for the next delayed item.

mod limiter;
mod metrics;
mod state;
#[cfg(test)]
mod tests;
mod workers;

use std::{fmt, fmt::Debug, hash::Hash, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

pub use limiter::RateLimits;
pub use metrics::WorkqueueMetrics;
pub use workers::run_workers;

use state::{State, Take};

/// What can be queued: a key, usually an `ObjectKey`.
pub trait Item: Clone + Eq + Hash + Debug + Send + Sync + 'static {}

impl<T: Clone + Eq + Hash + Debug + Send + Sync + 'static> Item for T {}

/// A queue; clones share it.
pub struct WorkQueue<T> {
    shared: Arc<Shared<T>>,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    wake: Notify,
    metrics: Option<metrics::QueueMetrics>,
}

impl<T> Clone for WorkQueue<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<T> Debug for WorkQueue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkQueue").finish_non_exhaustive()
    }
}

impl<T: Item> Default for WorkQueue<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Item> WorkQueue<T> {
    /// A queue with client-go's default limits.
    #[must_use]
    pub fn new() -> Self {
        Self::with(RateLimits::default(), None)
    }

    /// A queue with its own limits.
    #[must_use]
    pub fn with_limits(limits: RateLimits) -> Self {
        Self::with(limits, None)
    }

    /// A queue whose metrics appear under `name`, with upstream's metric names.
    #[must_use]
    pub fn named(name: &str, metrics: &WorkqueueMetrics) -> Self {
        Self::with(RateLimits::default(), Some(metrics.queue(name)))
    }

    /// Both of the above.
    #[must_use]
    pub fn named_with_limits(name: &str, metrics: &WorkqueueMetrics, limits: RateLimits) -> Self {
        Self::with(limits, Some(metrics.queue(name)))
    }

    fn with(limits: RateLimits, metrics: Option<metrics::QueueMetrics>) -> Self {
        let state = Mutex::new(State::new(limits));
        Self { shared: Arc::new(Shared { state, wake: Notify::new(), metrics }) }
    }

    /// Queues an item, unless it is queued already.
    pub fn add(&self, item: T) {
        self.change(|state| state.add(item, Instant::now()));
        self.shared.wake.notify_one();
    }

    /// Queues an item after a delay; of several delays for one item the earliest counts.
    pub fn add_after(&self, item: T, delay: Duration) {
        if delay.is_zero() {
            return self.add(item);
        }
        self.count_retry();
        self.shared.state.lock().add_at(item, Instant::now() + delay);
        // Whoever waits may have to wait less now.
        self.shared.wake.notify_one();
    }

    /// Queues an item after the delay that its failures so far have earned it.
    pub fn add_rate_limited(&self, item: T) {
        let delay = self.shared.state.lock().failure_delay(&item, Instant::now());
        self.add_after(item, delay);
    }

    /// Forgets the failures of an item: it succeeded, or is given up.
    pub fn forget(&self, item: &T) {
        self.shared.state.lock().forget(item);
    }

    /// How often the item failed since it was last forgotten.
    #[must_use]
    pub fn num_requeues(&self, item: &T) -> u32 {
        self.shared.state.lock().failures(item)
    }

    /// Waits for an item; `None` once the queue is shut down and empty. Call [`Self::done`] with it when finished.
    /// Dropping the future takes no item.
    pub async fn get(&self) -> Option<T> {
        loop {
            let woken = self.shared.wake.notified();
            match self.change(|state| state.take(Instant::now())) {
                Take::Item { item, waited, more } => {
                    if more {
                        // A permit wakes one waiter only; there may be work, or a shorter wait, for the next.
                        self.shared.wake.notify_one();
                    }
                    if let Some(metrics) = &self.shared.metrics {
                        metrics.taken(waited);
                    }
                    return Some(item);
                }
                Take::ShutDown => {
                    self.shared.wake.notify_waiters();
                    return None;
                }
                Take::Wait(None) => woken.await,
                Take::Wait(Some(due)) => {
                    tokio::select! {
                        () = woken => {}
                        () = tokio::time::sleep_until(due) => {}
                    }
                }
            }
        }
    }

    /// Gives an item back; if it was added meanwhile, it is queued again.
    pub fn done(&self, item: &T) {
        let (worked, again) = self.change(|state| state.done(item, Instant::now()));
        if let (Some(metrics), Some(worked)) = (&self.shared.metrics, worked) {
            metrics.worked(worked);
        }
        if again {
            self.shared.wake.notify_one();
        }
    }

    /// Refuses further additions; what is queued is still handed out, what is delayed is dropped.
    pub fn shut_down(&self) {
        self.shared.state.lock().shut_down();
        self.shared.wake.notify_waiters();
        self.shared.wake.notify_one();
    }

    /// Items queued now, without those in work or delayed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.state.lock().len()
    }

    /// Whether nothing is queued now.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Changes the state and brings the metrics up to it.
    fn change<R>(&self, change: impl FnOnce(&mut State<T>) -> R) -> R {
        let mut state = self.shared.state.lock();
        let before = state.adds();
        let result = change(&mut state);
        if let Some(metrics) = &self.shared.metrics {
            (before..state.adds()).for_each(|_| metrics.added());
            metrics.depth(state.len());
        }
        result
    }

    fn count_retry(&self) {
        if let Some(metrics) = &self.shared.metrics {
            metrics.retried();
        }
    }

    fn count_panic(&self) {
        if let Some(metrics) = &self.shared.metrics {
            metrics.panicked();
        }
    }
}
