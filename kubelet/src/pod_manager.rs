//! The pods the sources want on this node, by uid and by full name, and the mirror pods beside them.
//!
//! It answers "what is desired"; what runs is the runtime's matter. Upstream's concept: `pkg/kubelet/pod`.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use parking_lot::RwLock;

use crate::pod;

#[derive(Debug, Default)]
struct Inner {
    pods: HashMap<String, Arc<Pod>>,
    pod_uids: HashMap<String, String>,
    mirrors: HashMap<String, Arc<Pod>>,
}

/// Written by the sync loop only; read by everybody. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct PodManager {
    inner: Arc<RwLock<Inner>>,
}

impl PodManager {
    /// Adds or replaces a pod (or a mirror pod, told by its annotation).
    pub fn set(&self, pod: Arc<Pod>) {
        let mut inner = self.inner.write();
        let full_name = pod::full_name(&pod);
        if pod::is_mirror(&pod) {
            inner.mirrors.insert(full_name, pod);
        } else {
            let uid = pod::uid(&pod).to_owned();
            inner.pod_uids.insert(full_name, uid.clone());
            inner.pods.insert(uid, pod);
        }
    }

    /// Forgets a pod or a mirror pod.
    pub fn remove(&self, pod: &Pod) {
        let mut inner = self.inner.write();
        let full_name = pod::full_name(pod);
        if pod::is_mirror(pod) {
            if inner.mirrors.get(&full_name).is_some_and(|held| held.metadata.uid == pod.metadata.uid) {
                inner.mirrors.remove(&full_name);
            }
            return;
        }
        inner.pods.remove(pod::uid(pod));
        if inner.pod_uids.get(&full_name).is_some_and(|uid| uid == pod::uid(pod)) {
            inner.pod_uids.remove(&full_name);
        }
    }

    /// A pod that is not a mirror pod, by uid.
    #[must_use]
    pub fn get(&self, uid: &str) -> Option<Arc<Pod>> {
        self.inner.read().pods.get(uid).cloned()
    }

    /// A pod that is not a mirror pod, by name: what logs and exec on port 10250 ask for.
    #[must_use]
    pub fn get_by_name(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        let inner = self.inner.read();
        let uid = inner.pod_uids.get(&format!("{name}_{namespace}"))?;
        inner.pods.get(uid).cloned()
    }

    /// The mirror pod of a static pod.
    #[must_use]
    pub fn mirror_of(&self, static_pod: &Pod) -> Option<Arc<Pod>> {
        self.inner.read().mirrors.get(&pod::full_name(static_pod)).cloned()
    }

    /// All pods that are not mirror pods.
    #[must_use]
    pub fn pods(&self) -> Vec<Arc<Pod>> {
        self.inner.read().pods.values().cloned().collect()
    }

    /// All mirror pods.
    #[must_use]
    pub fn mirrors(&self) -> Vec<Arc<Pod>> {
        self.inner.read().mirrors.values().cloned().collect()
    }

    /// Mirror pods whose static pod is gone, or (before the file source spoke) whose static pod isn't known.
    #[must_use]
    pub fn orphaned_mirrors(&self) -> Vec<Arc<Pod>> {
        let inner = self.inner.read();
        inner
            .mirrors
            .iter()
            .filter(|(full_name, _)| !inner.pod_uids.contains_key(*full_name))
            .map(|(_, mirror)| mirror.clone())
            .collect()
    }
}
