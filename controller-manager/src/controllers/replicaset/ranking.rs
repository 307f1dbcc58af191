//! Which pods a ReplicaSet gives up first when it has too many: the order of upstream's `ActivePodsWithRanks`.
//! Pure: pods in, pods out.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use apimachinery::pod;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

const POD_DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The `count` pods of `pods` to delete, given all `related` pods (those of ReplicaSets with the same owner), which
/// decide how crowded a node is.
pub fn pods_to_delete(
    pods: &[Arc<Pod>],
    related: &[Arc<Pod>],
    count: usize,
    now: Timestamp,
) -> Vec<Arc<Pod>> {
    if count >= pods.len() {
        return pods.to_vec();
    }
    let mut on_node: HashMap<&str, usize> = HashMap::new();
    for pod in related.iter().filter(|pod| is_active(pod)) {
        *on_node.entry(node_name(pod)).or_default() += 1;
    }
    let mut ranked: Vec<(usize, Arc<Pod>)> =
        pods.iter().map(|pod| (on_node.get(node_name(pod)).copied().unwrap_or(0), Arc::clone(pod))).collect();
    ranked.sort_by(|a, b| deletion_order(a, b, now));
    ranked.into_iter().take(count).map(|(_, pod)| pod).collect()
}

/// Neither finished nor being deleted.
pub fn is_active(pod: &Pod) -> bool {
    !pod::is_terminal(pod) && pod.metadata.deletion_timestamp.is_none()
}

fn deletion_order(
    (rank_a, a): &(usize, Arc<Pod>),
    (rank_b, b): &(usize, Arc<Pod>),
    now: Timestamp,
) -> Ordering {
    (!node_name(a).is_empty())
        .cmp(&!node_name(b).is_empty())
        .then_with(|| phase_rank(a).cmp(&phase_rank(b)))
        .then_with(|| pod::is_ready(a).cmp(&pod::is_ready(b)))
        .then_with(|| deletion_cost(a).cmp(&deletion_cost(b)))
        .then_with(|| rank_b.cmp(rank_a))
        .then_with(|| {
            if pod::is_ready(a) && pod::is_ready(b) {
                younger_first(ready_since(a), ready_since(b), a, b, now)
            } else {
                Ordering::Equal
            }
        })
        .then_with(|| restarts(b).cmp(&restarts(a)))
        .then_with(|| younger_first(created(a), created(b), a, b, now))
}

fn node_name(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or("")
}

fn phase_rank(pod: &Pod) -> u8 {
    match pod.status.as_ref().and_then(|status| status.phase.as_deref()) {
        Some("Running") => 2,
        Some("Unknown") => 1,
        _ => 0,
    }
}

fn deletion_cost(pod: &Pod) -> i32 {
    let annotations = pod.metadata.annotations.as_ref();
    annotations.and_then(|a| a.get(POD_DELETION_COST)).and_then(|cost| cost.parse().ok()).unwrap_or(0)
}

fn ready_since(pod: &Pod) -> Option<Timestamp> {
    pod::condition(pod, "Ready").and_then(|c| c.last_transition_time.as_ref()).map(|time| time.0)
}

fn created(pod: &Pod) -> Option<Timestamp> {
    pod.metadata.creation_timestamp.as_ref().map(|time| time.0)
}

/// Highest restart count of the containers, then of the sidecars.
fn restarts(pod: &Pod) -> (i32, i32) {
    let Some(status) = pod.status.as_ref() else { return (0, 0) };
    let highest = |statuses: &Option<Vec<k8s_openapi::api::core::v1::ContainerStatus>>| {
        statuses.iter().flatten().map(|status| status.restart_count).max().unwrap_or(0)
    };
    let sidecars: Vec<&str> = pod
        .spec
        .iter()
        .flat_map(|spec| spec.init_containers.iter().flatten())
        .filter(|container| container.restart_policy.as_deref() == Some("Always"))
        .map(|container| container.name.as_str())
        .collect();
    let sidecar_restarts = status
        .init_container_statuses
        .iter()
        .flatten()
        .filter(|status| sidecars.contains(&status.name.as_str()))
        .map(|status| status.restart_count)
        .max()
        .unwrap_or(0);
    (highest(&status.container_statuses), sidecar_restarts)
}

/// Unknown times first, then younger before older; ages within one power of two count as equal and the uid decides, so
/// that pods of one rollout do not all go from the newest node.
fn younger_first(
    a: Option<Timestamp>,
    b: Option<Timestamp>,
    pod_a: &Pod,
    pod_b: &Pod,
    now: Timestamp,
) -> Ordering {
    match (a, b) {
        (a, b) if a == b => Ordering::Equal,
        (None, _) => Ordering::Less,
        (_, None) => Ordering::Greater,
        (Some(a), Some(b)) => logarithmic_age(a, now)
            .cmp(&logarithmic_age(b, now))
            .then_with(|| pod_a.metadata.uid.cmp(&pod_b.metadata.uid)),
    }
}

fn logarithmic_age(time: Timestamp, now: Timestamp) -> i64 {
    let age = now.as_nanosecond() - time.as_nanosecond();
    u128::try_from(age).ok().and_then(u128::checked_ilog2).map_or(-1, i64::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{at, pod};

    const NOW: i64 = 1_000_000;

    fn check(first: &str, pods: [Pod; 2]) {
        let pods = pods.map(Arc::new);
        for order in [[0, 1], [1, 0]] {
            let pods = order.map(|i| Arc::clone(&pods[i]));
            let gone = pods_to_delete(&pods, &pods, 1, at(NOW));
            assert_eq!(gone[0].metadata.name.as_deref(), Some(first), "order {order:?}");
        }
    }

    #[test]
    fn unassigned_before_assigned() {
        check("unassigned", [pod("assigned").on("node").build(), pod("unassigned").build()]);
    }

    #[test]
    fn pending_before_unknown_before_running() {
        check("pending", [pod("unknown").on("n").phase("Unknown").build(), pod("pending").on("n").build()]);
        check(
            "unknown",
            [pod("unknown").on("n").phase("Unknown").build(), pod("r").on("n").phase("Running").build()],
        );
    }

    #[test]
    fn not_ready_before_ready() {
        check(
            "not-ready",
            [pod("ready").on("n").ready(at(10)).build(), pod("not-ready").on("n").phase("Running").build()],
        );
    }

    #[test]
    fn lower_deletion_cost_first() {
        check(
            "cheap",
            [
                pod("dear").on("n").ready(at(10)).annotation(POD_DELETION_COST, "10").build(),
                pod("cheap").on("n").ready(at(10)).annotation(POD_DELETION_COST, "-1").build(),
            ],
        );
    }

    #[test]
    fn crowded_node_first() {
        let pods: Vec<_> = [pod("alone").on("a"), pod("two").on("b"), pod("three").on("b")]
            .map(|p| Arc::new(p.ready(at(10)).build()))
            .to_vec();
        let gone = pods_to_delete(&pods[..2], &pods, 1, at(NOW));
        assert_eq!(gone[0].metadata.name.as_deref(), Some("two"));
    }

    #[test]
    fn ready_for_less_time_first() {
        check(
            "young",
            [pod("old").on("n").ready(at(10)).build(), pod("young").on("n").ready(at(NOW - 10)).build()],
        );
    }

    #[test]
    fn similar_ages_are_ordered_by_uid() {
        let old = pod("a-uid").on("n").uid("a").ready(at(NOW - 1_000)).build();
        let young = pod("b-uid").on("n").uid("b").ready(at(NOW - 900)).build();
        check("a-uid", [old, young]);
    }

    #[test]
    fn more_restarts_first() {
        check(
            "restarted",
            [
                pod("stable").on("n").ready(at(10)).build(),
                pod("restarted").on("n").ready(at(10)).restarts(3).build(),
            ],
        );
    }

    #[test]
    fn younger_creation_first() {
        check(
            "new",
            [pod("old").on("n").created(at(10)).build(), pod("new").on("n").created(at(NOW - 10)).build()],
        );
    }

    #[test]
    fn all_when_asked_for_all() {
        let pods = vec![Arc::new(pod("a").build()), Arc::new(pod("b").build())];
        assert_eq!(pods_to_delete(&pods, &pods, 5, at(NOW)).len(), 2);
    }
}
