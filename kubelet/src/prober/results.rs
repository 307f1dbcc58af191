//! The latest result of each probe, by pod and container name, valid for one container id.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use parking_lot::RwLock;

use super::ProbeType;
use crate::compute_actions::ProbeVerdicts;
use crate::pod;
use crate::pod_status::Readiness;

/// What a probe says after its thresholds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeResult {
    /// It hasn't said anything yet.
    Unknown,
    /// Good.
    Success,
    /// Bad.
    Failure,
}

#[derive(Debug, Default)]
struct Inner {
    /// Probes that exist: without one, a container is ready and started as soon as it runs.
    expected: HashMap<(String, String, ProbeType), Option<(String, ProbeResult)>>,
}

/// Written by the probe tasks, read by everybody. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct ProbeResults {
    inner: Arc<RwLock<Inner>>,
}

impl ProbeResults {
    /// Notes that a probe exists.
    pub(super) fn expect(&self, uid: &str, container: &str, type_: ProbeType) {
        self.inner.write().expected.entry((uid.to_owned(), container.to_owned(), type_)).or_default();
    }

    /// Sets a result; true when it differs from the one before.
    pub(super) fn set(
        &self,
        type_: ProbeType,
        uid: &str,
        container: &str,
        id: &str,
        result: ProbeResult,
    ) -> bool {
        let key = (uid.to_owned(), container.to_owned(), type_);
        let new = Some((id.to_owned(), result));
        let mut inner = self.inner.write();
        let slot = inner.expected.entry(key).or_default();
        let changed = *slot != new;
        *slot = new;
        changed
    }

    pub(super) fn remove_pod(&self, uid: &str) {
        self.inner.write().expected.retain(|key, _| key.0 != uid);
    }

    fn verdict(&self, type_: ProbeType, id: &str) -> Option<bool> {
        let inner = self.inner.read();
        inner.expected.iter().find_map(|(key, value)| match value {
            Some((held, result)) if key.2 == type_ && held == id => match result {
                ProbeResult::Unknown => None,
                ProbeResult::Success => Some(true),
                ProbeResult::Failure => Some(false),
            },
            _ => None,
        })
    }

    /// True without such a probe; else whether it has succeeded for this container id.
    fn succeeded(&self, type_: ProbeType, pod: &Pod, container: &str, id: &str) -> bool {
        let inner = self.inner.read();
        match inner.expected.get(&(pod::uid(pod).to_owned(), container.to_owned(), type_)) {
            // The probe's task may not have started yet: the spec says whether there will be one.
            None => !spec_has_probe(pod, container, type_),
            Some(None) => false,
            Some(Some((held, result))) => held == id && *result == ProbeResult::Success,
        }
    }
}

fn spec_has_probe(pod: &Pod, container: &str, type_: ProbeType) -> bool {
    pod.spec
        .as_ref()
        .and_then(|spec| pod::container(spec, container))
        .is_some_and(|(_, c)| type_.of(c).is_some())
}

impl ProbeVerdicts for ProbeResults {
    fn liveness(&self, container_id: &str) -> Option<bool> {
        self.verdict(ProbeType::Liveness, container_id)
    }

    fn startup(&self, container_id: &str) -> Option<bool> {
        self.verdict(ProbeType::Startup, container_id)
    }
}

impl Readiness for ProbeResults {
    fn started(&self, pod: &Pod, container_name: &str, container_id: &str) -> bool {
        self.succeeded(ProbeType::Startup, pod, container_name, container_id)
    }

    fn ready(&self, pod: &Pod, container_name: &str, container_id: &str) -> bool {
        self.succeeded(ProbeType::Readiness, pod, container_name, container_id)
    }
}
