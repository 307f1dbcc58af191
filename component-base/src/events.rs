//! Events: what a component tells people about an object.
//!
//! client-go's tools/record (core/v1 Events with a count) and tools/events (events.k8s.io/v1 with action, related
//! object and series, which the scheduler uses). Recording never waits: events go through a bounded queue to one
//! task that deduplicates, limits and writes them; what does not fit is dropped and counted. An event that cannot
//! be written is logged and forgotten; nothing may depend on one.

mod correlator;
mod lru;
mod series;
mod sink;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use k8s_openapi::{Metadata, api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::Client;
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::mpsc;

use crate::metrics::Registry;

/// Events that wait to be written, at most; client-go's.
const QUEUE: usize = 1000;

/// Whether an event tells of trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventType {
    /// Something happened as it should.
    Normal,
    /// Something a person may have to look at.
    Warning,
}

impl EventType {
    /// The value of the event's `type` field.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// What an event can be about: every object that has metadata. For a part of an object (a container), or an object
/// known by name only, use [`EventRecorder::event_for`] with a reference.
pub trait ObjectRef {
    /// The reference that goes into the event.
    fn object_ref(&self) -> ObjectReference;
}

impl<K: Metadata<Ty = ObjectMeta>> ObjectRef for K {
    fn object_ref(&self) -> ObjectReference {
        let metadata = self.metadata();
        ObjectReference {
            api_version: Some(K::API_VERSION.to_owned()),
            kind: Some(K::KIND.to_owned()),
            namespace: metadata.namespace.clone(),
            name: metadata.name.clone(),
            uid: metadata.uid.clone(),
            resource_version: metadata.resource_version.clone(),
            field_path: None,
        }
    }
}

/// An event as it was recorded, before it is deduplicated.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordedEvent {
    /// What it is about.
    pub regarding: ObjectReference,
    /// Normal or Warning.
    pub event_type: EventType,
    /// Why, in one CamelCase word.
    pub reason: String,
    /// For people.
    pub message: String,
    /// Set for events.k8s.io events: what was done or failed.
    pub action: Option<Action>,
}

/// What an events.k8s.io event has beside a core event.
#[derive(Debug, Clone, PartialEq)]
pub struct Action {
    /// What was done, in one CamelCase word.
    pub action: String,
    /// The other object in it.
    pub related: Option<ObjectReference>,
}

impl fmt::Display for RecordedEvent {
    /// As client-go's FakeRecorder writes it: `Normal Scheduled message`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.event_type.as_str(), self.reason, self.message)
    }
}

/// Records events of one component; clones share everything.
#[derive(Clone)]
pub struct EventRecorder {
    shared: Arc<Shared>,
}

struct Shared {
    outlet: Outlet,
    dropped: Counter<u64, AtomicU64>,
}

enum Outlet {
    Queue(mpsc::Sender<RecordedEvent>),
    Collect(Mutex<Vec<RecordedEvent>>),
}

impl fmt::Debug for EventRecorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventRecorder").field("dropped", &self.dropped()).finish_non_exhaustive()
    }
}

impl EventRecorder {
    /// A recorder that writes through `client`. `component` and `host` become the events' source (and reporting
    /// controller and instance). Must be called inside a tokio runtime.
    #[must_use]
    pub fn new(client: Client, component: &str, host: &str) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let source = sink::Source { component: component.to_owned(), host: host.to_owned() };
        tokio::spawn(sink::Sink::new(client, source).run(receiver));
        Self::with(Outlet::Queue(sender))
    }

    /// A recorder that keeps what it is given, for tests; see [`Self::recorded`].
    #[must_use]
    pub fn fake() -> Self {
        Self::with(Outlet::Collect(Mutex::default()))
    }

    fn with(outlet: Outlet) -> Self {
        Self { shared: Arc::new(Shared { outlet, dropped: Counter::default() }) }
    }

    /// Records an event about `object`.
    pub fn event(
        &self,
        object: &impl ObjectRef,
        event_type: EventType,
        reason: &str,
        message: impl Into<String>,
    ) {
        self.event_for(&object.object_ref(), event_type, reason, message);
    }

    /// Records an event about what `regarding` names.
    pub fn event_for(
        &self,
        regarding: &ObjectReference,
        event_type: EventType,
        reason: &str,
        message: impl Into<String>,
    ) {
        self.send(RecordedEvent {
            regarding: regarding.clone(),
            event_type,
            reason: reason.to_owned(),
            message: message.into(),
            action: None,
        });
    }

    /// Records an events.k8s.io event: `action` is what was done to `object`, `related` the other object in it.
    pub fn event_with_action(
        &self,
        object: &impl ObjectRef,
        related: Option<&ObjectReference>,
        event_type: EventType,
        reason: &str,
        action: &str,
        note: impl Into<String>,
    ) {
        self.send(RecordedEvent {
            regarding: object.object_ref(),
            event_type,
            reason: reason.to_owned(),
            message: note.into(),
            action: Some(Action { action: action.to_owned(), related: related.cloned() }),
        });
    }

    /// What a [`Self::fake`] recorder was given so far; nothing for a real one.
    #[must_use]
    pub fn recorded(&self) -> Vec<RecordedEvent> {
        match &self.shared.outlet {
            Outlet::Collect(events) => events.lock().clone(),
            Outlet::Queue(_) => Vec::new(),
        }
    }

    /// How many events were dropped because the queue was full.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.inner().load(Ordering::Relaxed)
    }

    /// Exposes the number of dropped events.
    pub fn register_metrics(&self, registry: &Registry) {
        registry.register(
            "event_recorder_dropped_events_total",
            "Number of events dropped because the queue of the recorder was full",
            self.shared.dropped.clone(),
        );
    }

    fn send(&self, event: RecordedEvent) {
        match &self.shared.outlet {
            Outlet::Collect(events) => events.lock().push(event),
            Outlet::Queue(queue) => {
                if let Err(error) = queue.try_send(event) {
                    self.shared.dropped.inc();
                    let (mpsc::error::TrySendError::Full(event) | mpsc::error::TrySendError::Closed(event)) =
                        error;
                    tracing::debug!(reason = event.reason, message = event.message, "event dropped");
                }
            }
        }
    }
}
