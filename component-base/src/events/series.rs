//! Decides what becomes of an events.k8s.io/v1 event: a new Event, or a series on an old one.
//!
//! client-go's tools/events eventBroadcasterImpl, with time passed in: the first repetition within six minutes turns
//! the event into a series, which is written; further ones are counted here and written when the series ends, or
//! after half an hour.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;

use super::{
    RecordedEvent,
    correlator::{elapsed, event_name},
    lru::{CACHE_SIZE, Lru},
};

/// A series without an event for so long has ended.
const FINISH: Duration = Duration::from_secs(6 * 60);
/// A long series is written this often.
const REFRESH: Duration = Duration::from_secs(30 * 60);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    event_type: &'static str,
    action: String,
    reason: String,
    regarding: String,
    related: String,
}

#[derive(Debug)]
struct Known {
    name: String,
    namespace: String,
    count: i32,
    last: Timestamp,
    written: Timestamp,
    written_count: i32,
}

/// What to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// A new Event.
    Create { name: String, at: Timestamp },
    /// The series of an Event.
    Series(Update),
    /// Nothing now.
    Counted,
}

/// A series to patch into an Event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Update {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) count: i32,
    pub(super) last: Timestamp,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Series {
    known: Lru<Key, Known>,
}

impl Series {
    pub(super) fn new() -> Self {
        Self { known: Lru::new(CACHE_SIZE) }
    }

    pub(super) fn observe(&mut self, event: &RecordedEvent, namespace: &str, now: Timestamp) -> Outcome {
        let key = key(event);
        let known = self.known.entry(&key, || Known {
            name: event_name(&event.regarding, now),
            namespace: namespace.to_owned(),
            count: 0,
            last: now,
            written: now,
            written_count: 0,
        });
        if known.count > 0 && elapsed(known.last, now) > FINISH {
            // The next sweep would have ended it.
            known.count = 0;
            known.name = event_name(&event.regarding, now);
        }
        known.count = known.count.saturating_add(1);
        known.last = now;
        match known.count {
            1 => {
                known.written = now;
                known.written_count = 1;
                Outcome::Create { name: known.name.clone(), at: now }
            }
            2 => Outcome::Series(known.update(now)),
            _ => Outcome::Counted,
        }
    }

    /// What must be written by now: ended series (which are forgotten) and long ones.
    pub(super) fn sweep(&mut self, now: Timestamp) -> Vec<Update> {
        let ended = self.known.take_if(|known| elapsed(known.last, now) > FINISH);
        let mut updates: Vec<Update> = ended
            .into_iter()
            .filter(|known| known.count > known.written_count)
            .map(|mut known| known.update(now))
            .collect();
        self.known.each(|known| {
            if known.count > known.written_count && elapsed(known.written, now) > REFRESH {
                updates.push(known.update(now));
            }
        });
        updates
    }

    /// The Event is not there (any more): the next one like it is created anew.
    pub(super) fn forget(&mut self, event: &RecordedEvent) {
        self.known.remove(&key(event));
    }
}

impl Known {
    fn update(&mut self, now: Timestamp) -> Update {
        self.written = now;
        self.written_count = self.count;
        Update {
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            count: self.count,
            last: self.last,
        }
    }
}

fn key(event: &RecordedEvent) -> Key {
    let action = event.action.as_ref();
    Key {
        event_type: event.event_type.as_str(),
        action: action.map(|action| action.action.clone()).unwrap_or_default(),
        reason: event.reason.clone(),
        regarding: reference_key(Some(&event.regarding)),
        related: reference_key(action.and_then(|action| action.related.as_ref())),
    }
}

/// The reference without its resource version, which changes while the event stays the same.
fn reference_key(reference: Option<&ObjectReference>) -> String {
    let Some(reference) = reference else { return String::new() };
    [
        &reference.api_version,
        &reference.kind,
        &reference.namespace,
        &reference.name,
        &reference.uid,
        &reference.field_path,
    ]
    .map(|part| part.as_deref().unwrap_or_default())
    .join("\u{0}")
}
