//! The taints that a node's conditions call for. Pure. Upstream: `doNoScheduleTaintingPass`, `doNoExecuteTaintingPass`.

use apimachinery::node;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

pub const NOT_READY: &str = "node.kubernetes.io/not-ready";
pub const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
const NO_SCHEDULE: &str = "NoSchedule";
const NO_EXECUTE: &str = "NoExecute";

/// Condition, its status, and the taint that goes with it.
const BY_CONDITION: [(&str, &str, &str); 6] = [
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
];

/// What may be done about running pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Eviction {
    /// As the conditions say.
    Allowed,
    /// No new eviction now: the zone's rate is used up. One under way goes on, with its reason kept right.
    Deferred,
    /// None at all: every zone is down, so the fault is likely ours.
    Cancelled,
}

/// The key of the NoExecute taint that the node's readiness calls for.
pub fn eviction_key(node: &Node) -> Option<&'static str> {
    match node::condition(node, "Ready").map(|ready| ready.status.as_str()) {
        Some("False") => Some(NOT_READY),
        Some("Unknown") => Some(UNREACHABLE),
        _ => None,
    }
}

/// Whether pods are being evicted from the node for want of readiness.
pub fn is_evicting(node: &Node) -> bool {
    taints(node).iter().any(is_eviction)
}

/// The node's taints as they should be; none when they are.
pub fn decide(node: &Node, eviction: Eviction, now: Timestamp) -> Option<Vec<Taint>> {
    let mut wanted: Vec<(&str, &str)> = BY_CONDITION
        .iter()
        .filter(|(type_, status, _)| node::condition(node, type_).is_some_and(|c| c.status == *status))
        .map(|(_, _, key)| (*key, NO_SCHEDULE))
        .collect();
    if node::is_unschedulable(node) {
        wanted.push((UNSCHEDULABLE, NO_SCHEDULE));
    }
    let may_evict = match eviction {
        Eviction::Allowed => true,
        Eviction::Deferred => is_evicting(node),
        Eviction::Cancelled => false,
    };
    if may_evict && let Some(key) = eviction_key(node) {
        wanted.push((key, NO_EXECUTE));
    }

    let current = taints(node);
    let mut updated: Vec<Taint> = current
        .iter()
        .filter(|taint| !is_managed(taint) || wanted.contains(&(taint.key.as_str(), taint.effect.as_str())))
        .cloned()
        .collect();
    for (key, effect) in wanted {
        if !updated.iter().any(|taint| taint.key == key && taint.effect == effect) {
            updated.push(Taint {
                key: key.to_owned(),
                value: None,
                effect: effect.to_owned(),
                time_added: Some(Time(now)),
            });
        }
    }
    (updated != current).then_some(updated)
}

fn taints(node: &Node) -> &[Taint] {
    node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
}

fn is_eviction(taint: &Taint) -> bool {
    taint.effect == NO_EXECUTE && (taint.key == NOT_READY || taint.key == UNREACHABLE)
}

fn is_managed(taint: &Taint) -> bool {
    let by_condition = || BY_CONDITION.iter().any(|(_, _, key)| taint.key == *key);
    is_eviction(taint) || (taint.effect == NO_SCHEDULE && (taint.key == UNSCHEDULABLE || by_condition()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{at, node};

    fn with_taints(ready: &str, taints: &[(&str, &str)]) -> Node {
        let mut node = node("n", ready);
        let taint = |(key, effect): &(&str, &str)| Taint {
            key: (*key).into(),
            effect: (*effect).into(),
            ..Taint::default()
        };
        node.spec.get_or_insert_default().taints = Some(taints.iter().map(taint).collect());
        node
    }

    fn decided(node: &Node, eviction: Eviction) -> Option<Vec<(String, String)>> {
        let taints = decide(node, eviction, at(1))?;
        Some(taints.into_iter().map(|taint| (taint.key, taint.effect)).collect())
    }

    fn keys(expected: &[(&str, &str)]) -> Option<Vec<(String, String)>> {
        Some(expected.iter().map(|(key, effect)| ((*key).to_owned(), (*effect).to_owned())).collect())
    }

    #[test]
    fn taints_follow_readiness() {
        use Eviction::{Allowed, Cancelled, Deferred};
        for (node, eviction, expected) in [
            (with_taints("True", &[]), Allowed, None),
            (with_taints("False", &[]), Allowed, keys(&[(NOT_READY, NO_SCHEDULE), (NOT_READY, NO_EXECUTE)])),
            (with_taints("Unknown", &[]), Deferred, keys(&[(UNREACHABLE, NO_SCHEDULE)])),
            (
                with_taints("Unknown", &[(NOT_READY, NO_SCHEDULE), (NOT_READY, NO_EXECUTE)]),
                Deferred,
                keys(&[(UNREACHABLE, NO_SCHEDULE), (UNREACHABLE, NO_EXECUTE)]),
            ),
            (
                with_taints("Unknown", &[(UNREACHABLE, NO_SCHEDULE), (UNREACHABLE, NO_EXECUTE)]),
                Cancelled,
                keys(&[(UNREACHABLE, NO_SCHEDULE)]),
            ),
            (
                with_taints(
                    "True",
                    &[("mine", NO_EXECUTE), (UNREACHABLE, NO_SCHEDULE), (UNREACHABLE, NO_EXECUTE)],
                ),
                Allowed,
                keys(&[("mine", NO_EXECUTE)]),
            ),
        ] {
            assert_eq!(decided(&node, eviction), expected);
        }
    }

    #[test]
    fn pressure_and_cordon() {
        let mut node = node("n", "True");
        node.spec.get_or_insert_default().unschedulable = Some(true);
        node.status.as_mut().unwrap().conditions.as_mut().unwrap().push(
            k8s_openapi::api::core::v1::NodeCondition {
                type_: "DiskPressure".into(),
                status: "True".into(),
                ..Default::default()
            },
        );
        let expected =
            keys(&[("node.kubernetes.io/disk-pressure", NO_SCHEDULE), (UNSCHEDULABLE, NO_SCHEDULE)]);
        assert_eq!(decided(&node, Eviction::Allowed), expected);
    }

    #[test]
    fn a_kubelets_own_startup_taint_is_taken_over() {
        let node = with_taints("True", &[(NOT_READY, NO_SCHEDULE)]);
        assert_eq!(decided(&node, Eviction::Allowed), keys(&[]));
    }
}
