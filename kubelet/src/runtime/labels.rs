//! The labels and annotations by which sandboxes and containers are found again, after a restart too: the runtime is
//! the kubelet's only memory of them. Names are upstream's, so that a kubelet of upstream's can take a node over and
//! crictl shows what it always shows. Upstream's concept: `kuberuntime/labels.go`.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{Container, Pod};

use super::types::spec_hash;

/// The pod's name.
pub const POD_NAME: &str = "io.kubernetes.pod.name";
/// The pod's namespace.
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// The pod's uid (for a static pod: the hash given by its source).
pub const POD_UID: &str = "io.kubernetes.pod.uid";
/// The container's name.
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
/// The hash of the spec a container was created from.
pub const CONTAINER_HASH: &str = "io.kubernetes.container.hash";
/// The restart count, which is also the attempt number.
pub const CONTAINER_RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
/// Where in the container its last words are.
pub const TERMINATION_MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
/// `File` or `FallbackToLogsOnError`.
pub const TERMINATION_MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
/// The preStop handler as JSON, for a kubelet that no longer has the pod.
pub const PRE_STOP_HANDLER: &str = "io.kubernetes.container.preStopHandler";
/// The container's ports as JSON.
pub const CONTAINER_PORTS: &str = "io.kubernetes.container.ports";
/// `metadata.deletionGracePeriodSeconds`.
pub const POD_DELETION_GRACE_PERIOD: &str = "io.kubernetes.pod.deletionGracePeriod";
/// `spec.terminationGracePeriodSeconds`.
pub const POD_TERMINATION_GRACE_PERIOD: &str = "io.kubernetes.pod.terminationGracePeriod";

/// A pod's identity in the runtime.
#[derive(Debug, Clone, Copy)]
pub struct PodIdentity<'a> {
    /// Uid.
    pub uid: &'a str,
    /// Name.
    pub name: &'a str,
    /// Namespace.
    pub namespace: &'a str,
}

/// The identity of a pod object; absent fields are empty.
#[must_use]
pub fn identity(pod: &Pod) -> PodIdentity<'_> {
    PodIdentity {
        uid: pod.metadata.uid.as_deref().unwrap_or_default(),
        name: pod.metadata.name.as_deref().unwrap_or_default(),
        namespace: pod.metadata.namespace.as_deref().unwrap_or_default(),
    }
}

/// A selector for everything of one pod.
#[must_use]
pub fn pod_selector(uid: &str) -> HashMap<String, String> {
    HashMap::from([(POD_UID.to_owned(), uid.to_owned())])
}

fn identity_labels(pod: &Pod) -> impl Iterator<Item = (String, String)> {
    let pod = identity(pod);
    [(POD_NAME, pod.name), (POD_NAMESPACE, pod.namespace), (POD_UID, pod.uid)]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into_iter()
}

/// A sandbox's labels: the pod's own, and its identity over them.
#[must_use]
pub fn sandbox_labels(pod: &Pod) -> HashMap<String, String> {
    let own = pod.metadata.labels.iter().flatten().map(|(k, v)| (k.clone(), v.clone()));
    own.chain(identity_labels(pod)).collect()
}

/// A sandbox's annotations are the pod's.
#[must_use]
pub fn sandbox_annotations(pod: &Pod) -> HashMap<String, String> {
    pod.metadata.annotations.iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// A container's labels.
#[must_use]
pub fn container_labels(pod: &Pod, container: &Container) -> HashMap<String, String> {
    let name = (CONTAINER_NAME.to_owned(), container.name.clone());
    identity_labels(pod).chain([name]).collect()
}

/// A container's annotations: what a later kubelet must know of it.
#[must_use]
pub fn container_annotations(
    pod: &Pod,
    container: &Container,
    restart_count: u32,
) -> HashMap<String, String> {
    let mut annotations = HashMap::from([
        (CONTAINER_HASH.to_owned(), spec_hash(container)),
        (CONTAINER_RESTART_COUNT.to_owned(), restart_count.to_string()),
        (TERMINATION_MESSAGE_PATH.to_owned(), container.termination_message_path.clone().unwrap_or_default()),
        (
            TERMINATION_MESSAGE_POLICY.to_owned(),
            container.termination_message_policy.clone().unwrap_or_default(),
        ),
    ]);
    let mut set = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            annotations.insert(key.to_owned(), value);
        }
    };
    set(POD_DELETION_GRACE_PERIOD, pod.metadata.deletion_grace_period_seconds.map(|s| s.to_string()));
    let spec = pod.spec.as_ref();
    set(
        POD_TERMINATION_GRACE_PERIOD,
        spec.and_then(|s| s.termination_grace_period_seconds).map(|s| s.to_string()),
    );
    // Both are plain API types: turning them into JSON can't fail.
    let pre_stop = container.lifecycle.as_ref().and_then(|l| l.pre_stop.as_ref());
    set(PRE_STOP_HANDLER, pre_stop.and_then(|h| serde_json::to_string(h).ok()));
    let ports = container.ports.as_ref().filter(|ports| !ports.is_empty());
    set(CONTAINER_PORTS, ports.and_then(|p| serde_json::to_string(p).ok()));
    annotations
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn identity_wins_over_the_pods_own_labels() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "ns", "uid": "u1",
                         "labels": {"app": "x", "io.kubernetes.pod.uid": "forged"}},
            "spec": {"containers": [{"name": "c", "image": "i", "terminationMessagePath": "/dev/termination-log",
                     "ports": [{"containerPort": 80}]}], "terminationGracePeriodSeconds": 7}
        }))
        .unwrap();
        let labels = sandbox_labels(&pod);
        assert_eq!(labels[POD_UID], "u1");
        assert_eq!(labels["app"], "x");
        let container = &pod.spec.as_ref().unwrap().containers[0];
        assert_eq!(container_labels(&pod, container)[CONTAINER_NAME], "c");
        let annotations = container_annotations(&pod, container, 3);
        assert_eq!(annotations[CONTAINER_RESTART_COUNT], "3");
        assert_eq!(annotations[POD_TERMINATION_GRACE_PERIOD], "7");
        assert_eq!(annotations[TERMINATION_MESSAGE_PATH], "/dev/termination-log");
        assert!(annotations[CONTAINER_PORTS].contains("80"));
        assert!(!annotations.contains_key(PRE_STOP_HANDLER));
    }
}
