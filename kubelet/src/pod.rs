//! Questions about a pod object that many owners ask: its source, its names, its containers by role.
//!
//! Upstream's concept: `pkg/kubelet/types/pod_update.go` and `pkg/api/v1/pod`.

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::runtime::ContainerKind;

/// Set by a pod source: `file` or `api`.
pub const CONFIG_SOURCE_ANNOTATION: &str = "kubernetes.io/config.source";
/// Set by the file source: the hash of the manifest, which is also the static pod's uid.
pub const CONFIG_HASH_ANNOTATION: &str = "kubernetes.io/config.hash";
/// Set by a source when it first saw the pod.
pub const CONFIG_FIRST_SEEN_ANNOTATION: &str = "kubernetes.io/config.seen";
/// On a mirror pod: the hash of the static pod it mirrors.
pub const CONFIG_MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";
/// The value of [`CONFIG_SOURCE_ANNOTATION`] for manifests.
pub const FILE_SOURCE: &str = "file";
/// The value of [`CONFIG_SOURCE_ANNOTATION`] for pods from the apiserver.
pub const API_SOURCE: &str = "api";

fn annotation<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// The uid, or "" for a pod that has none yet.
#[must_use]
pub fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

/// The name, or "".
#[must_use]
pub fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// The namespace, or "".
#[must_use]
pub fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or_default()
}

/// `NAME_NAMESPACE`, by which static pods and their mirrors are matched.
#[must_use]
pub fn full_name(pod: &Pod) -> String {
    format!("{}_{}", name(pod), namespace(pod))
}

/// `NAME_NAMESPACE(UID)`, as back-off messages and events name a pod.
#[must_use]
pub fn format(pod: &Pod) -> String {
    format!("{}_{}({})", name(pod), namespace(pod), uid(pod))
}

/// From a manifest rather than from the apiserver.
#[must_use]
pub fn is_static(pod: &Pod) -> bool {
    annotation(pod, CONFIG_SOURCE_ANNOTATION).is_some_and(|source| source != API_SOURCE)
}

/// The apiserver's image of a static pod.
#[must_use]
pub fn is_mirror(pod: &Pod) -> bool {
    annotation(pod, CONFIG_MIRROR_ANNOTATION).is_some()
}

/// The hash a mirror pod was made for.
#[must_use]
pub fn mirror_hash(pod: &Pod) -> Option<&str> {
    annotation(pod, CONFIG_MIRROR_ANNOTATION)
}

/// The hash of a static pod's manifest.
#[must_use]
pub fn config_hash(pod: &Pod) -> Option<&str> {
    annotation(pod, CONFIG_HASH_ANNOTATION)
}

/// Whether the node must never evict it: static, mirror, or system-critical priority.
#[must_use]
pub fn is_critical(pod: &Pod) -> bool {
    const SYSTEM_CRITICAL_PRIORITY: i32 = 2_000_000_000;
    is_static(pod)
        || is_mirror(pod)
        || pod.spec.as_ref().and_then(|s| s.priority).is_some_and(|p| p >= SYSTEM_CRITICAL_PRIORITY)
}

/// `spec.hostNetwork`.
#[must_use]
pub fn is_host_network(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or(false)
}

/// An init container that keeps running beside the regular ones.
#[must_use]
pub fn is_sidecar(init_container: &Container) -> bool {
    init_container.restart_policy.as_deref() == Some("Always")
}

/// The phase in the pod's own status.
#[must_use]
pub fn phase(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.phase.as_deref()
}

/// Phase Succeeded or Failed.
#[must_use]
pub fn is_terminal_phase(phase: Option<&str>) -> bool {
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// `spec.restartPolicy`, Always when unset.
#[must_use]
pub fn restart_policy(spec: &PodSpec) -> &str {
    spec.restart_policy.as_deref().unwrap_or("Always")
}

/// Every container of a pod with its role: init containers and sidecars in order, then the regular ones.
pub fn containers(spec: &PodSpec) -> impl Iterator<Item = (ContainerKind, &Container)> {
    let init = spec.init_containers.iter().flatten().map(|container| {
        let kind = if is_sidecar(container) { ContainerKind::Sidecar } else { ContainerKind::Init };
        (kind, container)
    });
    init.chain(spec.containers.iter().map(|container| (ContainerKind::Regular, container)))
}

/// A container by name.
#[must_use]
pub fn container<'a>(spec: &'a PodSpec, name: &str) -> Option<(ContainerKind, &'a Container)> {
    containers(spec).find(|(_, container)| container.name == name)
}

/// A metav1.Time of second precision, as the API stores it.
#[must_use]
pub fn time(timestamp: jiff::Timestamp) -> Time {
    let whole = jiff::Timestamp::from_second(timestamp.as_second()).unwrap_or(timestamp);
    Time(whole)
}
