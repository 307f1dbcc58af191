//! The queue's state, with time passed in.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, HashSet, VecDeque},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    Item,
    limiter::{Limiter, RateLimits},
};

/// See the module.
#[derive(Debug)]
pub(super) struct State<T> {
    /// In order of arrival, with the time of arrival.
    queue: VecDeque<(T, Instant)>,
    /// Queued, or to be queued when its worker is done.
    dirty: HashSet<T>,
    /// In a worker's hands, since when.
    processing: HashMap<T, Instant>,
    /// When delayed items are due: the truth, of which the heap may hold outdated copies.
    due: HashMap<T, (Instant, u64)>,
    heap: BinaryHeap<Reverse<Delayed<T>>>,
    sequence: u64,
    limiter: Limiter<T>,
    adds: u64,
    shut_down: bool,
}

/// Ordered by time, then by order of addition.
#[derive(Debug)]
struct Delayed<T> {
    at: Instant,
    sequence: u64,
    item: T,
}

impl<T> PartialEq for Delayed<T> {
    fn eq(&self, other: &Self) -> bool {
        self.sequence == other.sequence
    }
}

impl<T> Eq for Delayed<T> {}

impl<T> PartialOrd for Delayed<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Delayed<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

/// What there is for a worker.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Take<T> {
    Item {
        item: T,
        /// How long it was queued.
        waited: Duration,
        /// Whether another worker should look, too.
        more: bool,
    },
    /// Nothing until then, or until something is added.
    Wait(Option<Instant>),
    ShutDown,
}

impl<T: Item> State<T> {
    pub(super) fn new(limits: RateLimits) -> Self {
        Self {
            queue: VecDeque::new(),
            dirty: HashSet::new(),
            processing: HashMap::new(),
            due: HashMap::new(),
            heap: BinaryHeap::new(),
            sequence: 0,
            limiter: Limiter::new(limits),
            adds: 0,
            shut_down: false,
        }
    }

    /// Whether the item is newly queued or marked.
    pub(super) fn add(&mut self, item: T, now: Instant) -> bool {
        if self.shut_down || !self.dirty.insert(item.clone()) {
            return false;
        }
        self.adds += 1;
        if !self.processing.contains_key(&item) {
            self.queue.push_back((item, now));
        }
        true
    }

    pub(super) fn add_at(&mut self, item: T, at: Instant) {
        if self.shut_down || self.due.get(&item).is_some_and(|(earlier, _)| *earlier <= at) {
            return;
        }
        self.sequence += 1;
        self.due.insert(item.clone(), (at, self.sequence));
        self.heap.push(Reverse(Delayed { at, sequence: self.sequence, item }));
    }

    pub(super) fn take(&mut self, now: Instant) -> Take<T> {
        let next = self.queue_due(now);
        match self.queue.pop_front() {
            Some((item, since)) => {
                self.dirty.remove(&item);
                self.processing.insert(item.clone(), now);
                if self.queue.is_empty() {
                    self.queue.shrink_to(64);
                }
                let waited = now.saturating_duration_since(since);
                Take::Item { item, waited, more: !self.queue.is_empty() || next.is_some() }
            }
            None if self.shut_down => Take::ShutDown,
            None => Take::Wait(next),
        }
    }

    /// Queues what is due and says when the next delayed item will be.
    fn queue_due(&mut self, now: Instant) -> Option<Instant> {
        loop {
            let Reverse(first) = self.heap.peek()?;
            let current = self.due.get(&first.item).is_some_and(|(_, sequence)| *sequence == first.sequence);
            if current && first.at > now {
                return Some(first.at);
            }
            let Reverse(first) = self.heap.pop()?;
            if current {
                self.due.remove(&first.item);
                self.add(first.item, now);
            }
        }
    }

    /// How long it was worked on, and whether it is queued again.
    pub(super) fn done(&mut self, item: &T, now: Instant) -> (Option<Duration>, bool) {
        let worked = self.processing.remove(item).map(|since| now.saturating_duration_since(since));
        let again = worked.is_some() && self.dirty.contains(item);
        if again {
            self.queue.push_back((item.clone(), now));
        }
        (worked, again)
    }

    pub(super) fn failure_delay(&mut self, item: &T, now: Instant) -> Duration {
        self.limiter.failure(item, now)
    }

    pub(super) fn forget(&mut self, item: &T) {
        self.limiter.forget(item);
    }

    pub(super) fn failures(&self, item: &T) -> u32 {
        self.limiter.failures(item)
    }

    pub(super) fn shut_down(&mut self) {
        self.shut_down = true;
        self.due.clear();
        self.heap.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Additions that counted, ever.
    pub(super) fn adds(&self) -> u64 {
        self.adds
    }
}
