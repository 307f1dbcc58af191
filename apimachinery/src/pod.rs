//! Reads of a Pod that several daemons make: readiness, conditions, QoS class, ports.
//!
//! Upstream: `k8s.io/kubernetes/pkg/api/v1/pod` and `pkg/apis/core/v1/helper/qos`.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodCondition, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::quantity::Quantity;
use crate::resources::{ResourceList, parse_list};

pub use crate::resources::{limits, requests};

/// `Pending`.
pub const PENDING: &str = "Pending";
/// `Running`.
pub const RUNNING: &str = "Running";
/// `Succeeded`.
pub const SUCCEEDED: &str = "Succeeded";
/// `Failed`.
pub const FAILED: &str = "Failed";

/// The pod's phase, or `""`.
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default()
}

/// Whether the pod has run to its end: `Succeeded` or `Failed`.
pub fn is_terminal(pod: &Pod) -> bool {
    matches!(phase(pod), SUCCEEDED | FAILED)
}

/// Whether the pod has been asked to go.
pub fn is_deleting(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Whether a workload controller counts the pod: neither ended nor on its way out.
pub fn is_active(pod: &Pod) -> bool {
    !is_terminal(pod) && !is_deleting(pod)
}

/// The name of the node that the pod is bound to, or `""`.
pub fn node_name(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).unwrap_or_default()
}

/// Whether the pod uses the node's network.
pub fn is_host_network(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|s| s.host_network).unwrap_or(false)
}

/// The condition of type `kind`.
pub fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == kind)
}

/// Whether the `Ready` condition is `True`.
pub fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|c| c.status == "True")
}

/// Whether the pod has been ready for at least `min_ready_seconds` at `now`.
pub fn is_available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> bool {
    let Some(ready) = condition(pod, "Ready").filter(|c| c.status == "True") else { return false };
    if min_ready_seconds <= 0 {
        return true;
    }
    ready
        .last_transition_time
        .as_ref()
        .is_some_and(|since| now.duration_since(since.0).as_secs() >= i64::from(min_ready_seconds))
}

/// Sets a condition; its transition time moves only when the status does. Returns whether anything changed.
pub fn set_condition(status: &mut PodStatus, mut condition: PodCondition, now: Timestamp) -> bool {
    let conditions = status.conditions.get_or_insert_default();
    match conditions.iter_mut().find(|c| c.type_ == condition.type_) {
        Some(old) => {
            condition.last_transition_time = if old.status == condition.status {
                old.last_transition_time.clone()
            } else {
                Some(Time(now))
            };
            if *old == condition {
                return false;
            }
            *old = condition;
        }
        None => {
            condition.last_transition_time.get_or_insert(Time(now));
            conditions.push(condition);
        }
    }
    true
}

/// The status of the container called `name`, among `statuses`.
pub fn container_status<'a>(
    statuses: Option<&'a Vec<ContainerStatus>>,
    name: &str,
) -> Option<&'a ContainerStatus> {
    statuses?.iter().find(|s| s.name == name)
}

/// Init containers, then regular ones.
pub fn all_containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    pod.spec.iter().flat_map(|s| s.init_containers.iter().flatten().chain(&s.containers))
}

/// The number behind a named container port, of the protocol given.
pub fn named_port(pod: &Pod, name: &str, protocol: &str) -> Option<i32> {
    let spec = pod.spec.as_ref()?;
    let sidecars = spec.init_containers.iter().flatten().filter(|c| crate::resources::is_sidecar(c));
    spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten()).find_map(|port| {
        let same_protocol = port.protocol.as_deref().unwrap_or("TCP") == protocol;
        (port.name.as_deref() == Some(name) && same_protocol).then_some(port.container_port)
    })
}

/// The quality-of-service class: `Guaranteed`, `Burstable` or `BestEffort`.
pub fn qos_class(pod: &Pod) -> &'static str {
    let counted = |list: ResourceList| -> ResourceList {
        list.into_iter()
            .filter(|(name, q)| (name == "cpu" || name == "memory") && *q > Quantity::ZERO)
            .collect()
    };
    let resources_of = |r: Option<&k8s_openapi::api::core::v1::ResourceRequirements>| {
        let limits = counted(parse_list(r.and_then(|r| r.limits.as_ref())));
        let mut requests = counted(parse_list(r.and_then(|r| r.requests.as_ref())));
        for (name, quantity) in &limits {
            requests.entry(name.clone()).or_insert(*quantity);
        }
        (requests, limits)
    };
    let pod_level = pod.spec.as_ref().and_then(|s| s.resources.as_ref());
    let per_container: Vec<_> = match pod_level {
        Some(resources) => vec![resources_of(Some(resources))],
        None => all_containers(pod).map(|c| resources_of(c.resources.as_ref())).collect(),
    };
    if per_container.iter().all(|(requests, limits)| requests.is_empty() && limits.is_empty()) {
        return "BestEffort";
    }
    if per_container.iter().all(|(requests, limits)| limits.len() == 2 && requests == limits) {
        return "Guaranteed";
    }
    "Burstable"
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{PodSpec, ResourceRequirements};
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

    type Pairs<'a> = &'a [(&'a str, &'a str)];

    fn pod(resources: &[(Pairs<'_>, Pairs<'_>)]) -> Pod {
        let list = |pairs: Pairs<'_>| {
            (!pairs.is_empty())
                .then(|| pairs.iter().map(|(k, v)| ((*k).to_owned(), ApiQuantity((*v).to_owned()))).collect())
        };
        let containers = resources
            .iter()
            .map(|(requests, limits)| Container {
                resources: Some(ResourceRequirements {
                    requests: list(requests),
                    limits: list(limits),
                    ..ResourceRequirements::default()
                }),
                ..Container::default()
            })
            .collect();
        Pod { spec: Some(PodSpec { containers, ..PodSpec::default() }), ..Pod::default() }
    }

    #[test]
    fn qos_classes() {
        let both: &[(&str, &str)] = &[("cpu", "1"), ("memory", "1Gi")];
        for (resources, want) in [
            (vec![(&[][..], &[][..])], "BestEffort"),
            (vec![(both, both)], "Guaranteed"),
            (vec![(&[][..], both)], "Guaranteed"),
            (vec![(both, both), (&[][..], &[][..])], "Burstable"),
            (vec![(&[("cpu", "1")][..], &[][..])], "Burstable"),
            (vec![(both, &[("cpu", "1")][..])], "Burstable"),
            (vec![(&[("cpu", "0")][..], &[][..])], "BestEffort"),
        ] {
            assert_eq!(qos_class(&pod(&resources)), want, "{resources:?}");
        }
    }

    #[test]
    fn transition_time_moves_with_the_status_only() {
        let at = |s: i64| Timestamp::from_second(s).expect("in range");
        let ready = |status: &str, reason: &str| PodCondition {
            type_: "Ready".into(),
            status: status.into(),
            reason: Some(reason.into()),
            ..PodCondition::default()
        };
        let mut status = PodStatus::default();
        assert!(set_condition(&mut status, ready("False", "a"), at(1)));
        assert!(!set_condition(&mut status, ready("False", "a"), at(2)));
        assert!(set_condition(&mut status, ready("False", "b"), at(3)));
        assert_eq!(status.conditions.as_ref().expect("set")[0].last_transition_time, Some(Time(at(1))));
        assert!(set_condition(&mut status, ready("True", "b"), at(4)));
        let pod = Pod { status: Some(status), ..Pod::default() };
        assert!(is_ready(&pod));
        assert!(!is_available(&pod, 10, at(13)));
        assert!(is_available(&pod, 10, at(14)));
    }
}
