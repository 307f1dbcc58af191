//! What was known when: the order in real time that revisions must agree with.

use super::numbered;
use super::truth::Truth;
use crate::history::{Action, Instant, Item, Key, Outcome, Record, Revision, Sent, Shown, Version};
use std::collections::HashMap;

/// A revision, and the line that vouches for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Evidence {
    pub(super) revision: Revision,
    pub(super) line: usize,
}

/// What somebody had seen by when.
#[derive(Debug, Default)]
pub(super) struct Seen(Vec<(Instant, Evidence)>);

impl Seen {
    pub(super) fn see(&mut self, at: Instant, revision: Revision, line: usize) {
        self.0.push((at, Evidence { revision, line }));
    }

    /// Puts it in order, before it is asked.
    pub(super) fn sort(&mut self) {
        self.0.sort_by_key(|(at, _)| *at);
        let mut best = Evidence { revision: 0, line: 0 };
        for (_, evidence) in &mut self.0 {
            if evidence.revision > best.revision {
                best = *evidence;
            }
            *evidence = best;
        }
    }

    /// The highest revision that was seen before `at`.
    pub(super) fn floor(&self, at: Instant) -> Evidence {
        let place = self.0.partition_point(|(seen, _)| *seen < at);
        place.checked_sub(1).map_or(Evidence { revision: 0, line: 0 }, |last| self.0[last].1)
    }
}

/// Observations sorted by time.
#[derive(Debug)]
pub(super) struct Timeline {
    /// By anybody.
    seen: Seen,
    /// At this instant a write was begun that got this revision; the lowest from here on.
    begun: Vec<(Instant, Evidence)>,
}

impl Timeline {
    pub(super) fn new(records: &[Record], truth: &Truth<'_>) -> Self {
        let mut timeline = Self { seen: Seen::default(), begun: Vec::new() };
        let mut scopes = HashMap::new();
        for (line, record) in numbered(records) {
            if let Record::WatchOpened(opened) = record {
                scopes.insert(opened.stream, opened.scope.resource);
            }
            timeline.add(line, record, truth, |stream, item| {
                let resource = *scopes.get(&stream)?;
                Some(Key { resource, namespace: item.namespace.clone(), name: item.name.clone() })
            });
        }
        timeline.seen.sort();
        timeline.begun.sort_by_key(|(at, _)| *at);
        let mut least = Evidence { revision: Revision::MAX, line: 0 };
        for (_, evidence) in timeline.begun.iter_mut().rev() {
            if evidence.revision < least.revision {
                least = *evidence;
            }
            *evidence = least;
        }
        timeline
    }

    /// Only what etcd vouches for counts, so that a lie accuses nobody but the liar.
    fn add(
        &mut self,
        line: usize,
        record: &Record,
        truth: &Truth<'_>,
        key_of: impl Fn(u64, &Item) -> Option<Key>,
    ) {
        let mut see = |at: Instant, revision: Revision| self.seen.see(at, revision, line);
        match record {
            Record::Change(change) => see(change.at, change.revision),
            Record::Operation(operation) => {
                let acknowledged = match &operation.outcome {
                    Outcome::Done(shown) => match (&operation.action, shown) {
                        (Action::Delete, Shown::Version(Version { uid, .. }) | Shown::Deleted { uid }) => {
                            truth.deletion(uid)
                        }
                        (_, Shown::Version(version)) => truth.change(&operation.key, version.revision),
                        (_, Shown::Deleted { .. }) => None,
                    },
                    _ => None,
                };
                if let Some(entry) = acknowledged {
                    see(operation.answer, entry.change.revision);
                }
                let write = match operation.action {
                    Action::Delete => acknowledged,
                    _ => truth.of_write(&operation.write).next(),
                };
                if let Some(entry) = write {
                    let evidence = Evidence { revision: entry.change.revision, line };
                    self.begun.push((operation.call, evidence));
                }
            }
            Record::List(list) => {
                if let Outcome::Done(listed) = &list.outcome
                    && listed.revision <= truth.head
                {
                    see(list.answer, listed.revision);
                }
            }
            Record::Received(received) => {
                if let Sent::Event { item, .. } = &received.sent
                    && let Some(key) = key_of(received.stream, item)
                    && truth.change(&key, item.version.revision).is_some()
                {
                    see(received.at, item.version.revision);
                }
            }
            _ => {}
        }
    }

    /// The highest revision that was known before `at`.
    pub(super) fn floor(&self, at: Instant) -> Evidence {
        self.seen.floor(at)
    }

    /// The lowest revision of a write that was only begun after `at`.
    pub(super) fn ceiling(&self, at: Instant) -> Evidence {
        let place = self.begun.partition_point(|(begun, _)| *begun <= at);
        self.begun.get(place).map_or(Evidence { revision: Revision::MAX, line: 0 }, |(_, evidence)| *evidence)
    }
}
