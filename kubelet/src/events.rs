//! The kubelet's event recorder: component-base's, plus "no apiserver, so only the log" for standalone kubelets, and
//! references to containers (`involvedObject.fieldPath`).
//!
//! Upstream's concept: `pkg/kubelet/events` and `kubecontainer.FilterEventRecorder`.

use std::sync::Arc;

use component_base::events::EventRecorder;
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use parking_lot::Mutex;

/// Normal or Warning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventType {
    /// Things went as they should.
    Normal,
    /// A person may want to look.
    Warning,
}

impl From<EventType> for component_base::events::EventType {
    fn from(type_: EventType) -> Self {
        match type_ {
            EventType::Normal => Self::Normal,
            EventType::Warning => Self::Warning,
        }
    }
}

/// An event as a test sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedEvent {
    /// Normal or Warning.
    pub type_: EventType,
    /// `Started`, `Killing`…
    pub reason: String,
    /// The text.
    pub message: String,
    /// `spec.containers{name}` for a container's event.
    pub field_path: Option<String>,
}

#[derive(Debug, Clone)]
enum Sink {
    Api(EventRecorder),
    Log,
    Collect(Arc<Mutex<Vec<RecordedEvent>>>),
}

/// Records events; cheap to clone, never blocks.
#[derive(Debug, Clone)]
pub struct Recorder {
    sink: Sink,
}

impl Recorder {
    /// Writes to the apiserver.
    #[must_use]
    pub fn to_apiserver(recorder: EventRecorder) -> Self {
        Self { sink: Sink::Api(recorder) }
    }

    /// For a kubelet without an apiserver: events only reach the log.
    #[must_use]
    pub fn log_only() -> Self {
        Self { sink: Sink::Log }
    }

    /// For tests: events are kept and read with [`Recorder::collected`].
    #[must_use]
    pub fn fake() -> Self {
        Self { sink: Sink::Collect(Arc::default()) }
    }

    /// What a [`Recorder::fake`] has seen.
    #[must_use]
    pub fn collected(&self) -> Vec<RecordedEvent> {
        match &self.sink {
            Sink::Collect(events) => events.lock().clone(),
            Sink::Log | Sink::Api(_) => Vec::new(),
        }
    }

    /// An event about a pod.
    pub fn pod(&self, pod: &Pod, type_: EventType, reason: &str, message: &str) {
        self.reference(pod_reference(pod, None), type_, reason, message);
    }

    /// An event about one container of a pod (regular, init or sidecar).
    pub fn container(&self, pod: &Pod, container: &str, type_: EventType, reason: &str, message: &str) {
        self.reference(pod_reference(pod, Some(container)), type_, reason, message);
    }

    /// An event about anything.
    pub fn reference(&self, object: ObjectReference, type_: EventType, reason: &str, message: &str) {
        match &self.sink {
            Sink::Api(recorder) => recorder.event_for(&object, type_.into(), reason, message),
            Sink::Log => tracing::info!(
                kind = object.kind.as_deref().unwrap_or_default(),
                namespace = object.namespace.as_deref().unwrap_or_default(),
                name = object.name.as_deref().unwrap_or_default(),
                reason,
                message,
                "event"
            ),
            Sink::Collect(events) => events.lock().push(RecordedEvent {
                type_,
                reason: reason.to_owned(),
                message: message.to_owned(),
                field_path: object.field_path,
            }),
        }
    }
}

/// The reference that events about a pod carry. A static pod's events name the uid of the manifest (upstream does so too).
fn pod_reference(pod: &Pod, container: Option<&str>) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        resource_version: pod.metadata.resource_version.clone(),
        field_path: container.and_then(|name| container_field_path(pod, name)),
    }
}

fn container_field_path(pod: &Pod, name: &str) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    if spec.containers.iter().any(|c| c.name == name) {
        return Some(format!("spec.containers{{{name}}}"));
    }
    spec.init_containers
        .iter()
        .flatten()
        .any(|c| c.name == name)
        .then(|| format!("spec.initContainers{{{name}}}"))
}
