//! Decides what becomes of a core/v1 event: a new Event, one more count on an old one, or nothing.
//!
//! client-go's EventCorrelator, with time passed in: after ten different messages for the same object and reason
//! within ten minutes they are combined; the same event again raises the count; an object that produces more than
//! 25 events, then one in five minutes, is not listened to.

use std::{collections::HashSet, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;

use super::{
    RecordedEvent,
    lru::{CACHE_SIZE, Lru},
};

/// Messages for one object and reason before they are combined.
const MAX_SIMILAR: usize = 10;
/// After so long without one, similar events are counted from nothing.
const SIMILAR_INTERVAL: Duration = Duration::from_secs(600);
const COMBINED_PREFIX: &str = "(combined from similar events): ";
/// Events of one object in a row.
const SPAM_BURST: f64 = 25.0;
/// Events of one object a second, in the long run.
const SPAM_RATE: f64 = 1.0 / 300.0;

/// What identifies the object for deduplication: a reference without its version.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Subject {
    api_version: Option<String>,
    kind: Option<String>,
    namespace: Option<String>,
    name: Option<String>,
    uid: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct SimilarKey {
    subject: Subject,
    event_type: &'static str,
    reason: String,
}

/// The field path and message of one event, or `None` for the combination of similar ones.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct EventKey {
    similar: SimilarKey,
    own: Option<(Option<String>, String)>,
}

#[derive(Debug)]
struct Similar {
    messages: HashSet<String>,
    last: Timestamp,
}

/// An event that was written before.
#[derive(Debug, Clone, Default)]
struct Written {
    name: String,
    first: Option<Timestamp>,
    count: i32,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    last: Timestamp,
}

/// What to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outcome {
    /// The Event's name: of a new one if `count` is 1, else of the one to patch.
    pub(super) name: String,
    pub(super) message: String,
    pub(super) first: Timestamp,
    pub(super) last: Timestamp,
    pub(super) count: i32,
}

/// See the module. Events of one component and host.
#[derive(Debug)]
pub(super) struct Correlator {
    similar: Lru<SimilarKey, Similar>,
    written: Lru<EventKey, Written>,
    spam: Lru<Subject, Bucket>,
}

impl Correlator {
    pub(super) fn new() -> Self {
        Self { similar: Lru::new(CACHE_SIZE), written: Lru::new(CACHE_SIZE), spam: Lru::new(CACHE_SIZE) }
    }

    /// `None` when the event is to be dropped.
    pub(super) fn observe(&mut self, event: &RecordedEvent, now: Timestamp) -> Option<Outcome> {
        let subject = subject(&event.regarding);
        let similar_key = SimilarKey {
            subject: subject.clone(),
            event_type: event.event_type.as_str(),
            reason: event.reason.clone(),
        };
        let similar = self.similar.entry(&similar_key, || Similar { messages: HashSet::new(), last: now });
        if elapsed(similar.last, now) > SIMILAR_INTERVAL {
            similar.messages.clear();
        }
        similar.last = now;
        similar.messages.insert(event.message.clone());
        let combined = similar.messages.len() >= MAX_SIMILAR;
        let (key, message) = if combined {
            // One makes room, so that the set stays at its limit.
            if let Some(any) = similar.messages.iter().next().cloned() {
                similar.messages.remove(&any);
            }
            (EventKey { similar: similar_key, own: None }, format!("{COMBINED_PREFIX}{}", event.message))
        } else {
            let own = Some((event.regarding.field_path.clone(), event.message.clone()));
            (EventKey { similar: similar_key, own }, event.message.clone())
        };
        let written = self.written.entry(&key, Written::default);
        written.count = written.count.saturating_add(1);
        if written.count == 1 {
            written.name = event_name(&event.regarding, now);
        }
        let first = *written.first.get_or_insert(now);
        let outcome = Outcome { name: written.name.clone(), message, first, last: now, count: written.count };
        self.accept(&subject, now).then_some(outcome)
    }

    fn accept(&mut self, subject: &Subject, now: Timestamp) -> bool {
        let bucket = self.spam.entry(subject, || Bucket { tokens: SPAM_BURST, last: now });
        bucket.tokens = (bucket.tokens + elapsed(bucket.last, now).as_secs_f64() * SPAM_RATE).min(SPAM_BURST);
        bucket.last = now;
        let accepted = bucket.tokens >= 1.0;
        if accepted {
            bucket.tokens -= 1.0;
        }
        accepted
    }
}

/// Upstream's naming: the object's name and the time in nanoseconds, hexadecimal.
pub(super) fn event_name(regarding: &ObjectReference, now: Timestamp) -> String {
    format!("{}.{:x}", regarding.name.as_deref().unwrap_or_default(), now.as_nanosecond())
}

pub(super) fn elapsed(since: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(since)).unwrap_or_default()
}

fn subject(reference: &ObjectReference) -> Subject {
    Subject {
        api_version: reference.api_version.clone(),
        kind: reference.kind.clone(),
        namespace: reference.namespace.clone(),
        name: reference.name.clone(),
        uid: reference.uid.clone(),
    }
}
