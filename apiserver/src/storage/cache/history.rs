//! The latest changes of one resource, so that a watch can begin in the past and a list can be of the past.
//!
//! Bounded by count and by bytes: what is older is forgotten, and whoever needs it is told so (410).

use std::collections::VecDeque;
use std::sync::Arc;

use crate::storage::event::Event;

/// Changes kept at most.
const MAX_EVENTS: usize = 100_000;
/// Bytes kept at least, whatever the size of the state.
const MIN_BYTES: usize = 8 << 20;
/// The state's bytes over the bytes kept: a resource of large state changes much.
const STATE_SHARE: usize = 8;

/// See the module.
#[derive(Debug)]
pub(super) struct History {
    events: VecDeque<Arc<Event>>,
    /// The number of the first event held; numbers never repeat.
    first: u64,
    bytes: usize,
    /// Every change after this revision is held.
    complete_after: i64,
}

impl History {
    /// Empty: nothing has happened since `revision`.
    pub(super) fn since(revision: i64) -> Self {
        Self { events: VecDeque::new(), first: 0, bytes: 0, complete_after: revision }
    }

    /// Every change after this revision is held.
    pub(super) fn complete_after(&self) -> i64 {
        self.complete_after
    }

    /// The number that the next event will have.
    pub(super) fn next(&self) -> u64 {
        self.first + self.events.len() as u64
    }

    /// The number of the first event held.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// The revision of the last change.
    pub(super) fn last_revision(&self) -> i64 {
        self.events.back().map_or(self.complete_after, |event| event.revision)
    }

    /// Adds a change and forgets the oldest ones; `state_bytes` is the size of the resource's state.
    pub(super) fn push(&mut self, event: Arc<Event>, state_bytes: usize) {
        self.bytes += event.weight();
        self.events.push_back(event);
        let limit = MIN_BYTES.max(state_bytes / STATE_SHARE);
        while self.bytes > limit || self.events.len() > MAX_EVENTS {
            let Some(oldest) = self.events.pop_front() else { return };
            self.first += 1;
            self.bytes = self.bytes.saturating_sub(oldest.weight());
            self.complete_after = oldest.revision;
        }
        // A whole revision at a time: half of one would be a gap.
        while self.events.front().is_some_and(|oldest| oldest.revision <= self.complete_after) {
            if let Some(oldest) = self.events.pop_front() {
                self.first += 1;
                self.bytes = self.bytes.saturating_sub(oldest.weight());
            }
        }
    }

    pub(super) fn get(&self, number: u64) -> Option<&Arc<Event>> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.events.get(index)
    }

    /// The changes after a revision, oldest first; `None` if some of them are forgotten.
    pub(super) fn after(&self, revision: i64) -> Option<impl DoubleEndedIterator<Item = &Arc<Event>>> {
        if revision < self.complete_after {
            return None;
        }
        let from = self.events.partition_point(|event| event.revision <= revision);
        Some(self.events.range(from..))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::storage::stored::Stored;

    fn event(revision: i64, size: usize) -> Arc<Event> {
        let stored = Stored::new("/registry/pods/a/b", Bytes::from(vec![0; size]), revision);
        Arc::new(Event::new(revision, None, Some(Arc::new(stored))))
    }

    fn revisions(history: &History, after: i64) -> Option<Vec<i64>> {
        Some(history.after(after)?.map(|event| event.revision).collect())
    }

    #[test]
    fn what_happened_since_is_told_whole_or_not_at_all() {
        let mut history = History::since(10);
        assert_eq!(revisions(&history, 10), Some(vec![]));
        assert_eq!(revisions(&history, 9), None);
        for revision in [12, 12, 15] {
            history.push(event(revision, 10), 0);
        }
        assert_eq!(revisions(&history, 10), Some(vec![12, 12, 15]));
        assert_eq!(revisions(&history, 11), Some(vec![12, 12, 15]));
        assert_eq!(revisions(&history, 12), Some(vec![15]));
        assert_eq!(revisions(&history, 99), Some(vec![]));
        assert_eq!((history.last_revision(), history.next()), (15, 3));
    }

    #[test]
    fn bytes_bound_it_and_a_revision_goes_whole() {
        let mut history = History::since(0);
        for revision in 1..=20 {
            for _ in 0..2 {
                history.push(event(revision, 1 << 20), 0);
            }
        }
        assert!(history.bytes <= MIN_BYTES, "{}", history.bytes);
        let floor = history.complete_after();
        assert!(floor > 0 && floor < 20, "{floor}");
        let held = revisions(&history, floor).unwrap();
        assert_eq!(held, (floor + 1..=20).flat_map(|revision| [revision, revision]).collect::<Vec<_>>());
        assert_eq!(revisions(&history, floor - 1), None);
        assert_eq!(history.get(history.first()).map(|event| event.revision), Some(floor + 1));
        assert!(history.get(history.first() - 1).is_none());
    }

    #[test]
    fn a_large_state_keeps_more() {
        let (mut small, mut large) = (History::since(0), History::since(0));
        for revision in 1..=40 {
            small.push(event(revision, 1 << 20), 0);
            large.push(event(revision, 1 << 20), 1 << 30);
        }
        assert!(large.events.len() > 2 * small.events.len());
    }
}
