//! NodeResourcesFit: what a pod requests must be free; the emptier node scores higher (LeastAllocated).

use k8s_openapi::api::core::v1::Node;

use crate::framework::{ClusterEvent, CycleState, Filter, MAX_NODE_SCORE, Plugin, Rejection, Score};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;

/// Name of the plugin.
pub const NAME: &str = "NodeResourcesFit";

/// The plugin.
#[derive(Debug)]
pub struct NodeResourcesFit;

fn allocatable(
    node: &Node,
) -> Option<&std::collections::BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>> {
    node.status.as_ref()?.allocatable.as_ref()
}

impl Plugin for NodeResourcesFit {
    fn name(&self) -> &'static str {
        NAME
    }

    fn may_help(&self, _: &PodInfo, event: &ClusterEvent<'_>) -> bool {
        match event {
            ClusterEvent::NodeAdded(_)
            | ClusterEvent::AssignedPodDeleted(_)
            | ClusterEvent::AssignedPodUpdated { .. }
            | ClusterEvent::PodUpdated { .. } => true,
            ClusterEvent::NodeUpdated { old, new } => allocatable(old) != allocatable(new),
        }
    }
}

/// The resources that a pod lacks on a node, in upstream's words.
pub fn insufficient(pod: &PodInfo, node: &NodeInfo) -> Vec<String> {
    let mut lacking = Vec::new();
    let (want, have, used) = (&pod.request, &node.allocatable, &node.requested);
    let pods = i64::try_from(node.pods.len()).unwrap_or(i64::MAX);
    if pods.saturating_add(1) > have.pods {
        lacking.push("Too many pods".to_owned());
    }
    for (name, want, have, used) in [
        ("cpu", want.milli_cpu, have.milli_cpu, used.milli_cpu),
        ("memory", want.memory, have.memory, used.memory),
        ("ephemeral-storage", want.ephemeral_storage, have.ephemeral_storage, used.ephemeral_storage),
    ] {
        if want > 0 && want > have - used {
            lacking.push(format!("Insufficient {name}"));
        }
    }
    for (name, want) in want.scalar.iter().filter(|(_, want)| **want > 0) {
        let have = have.scalar.get(name).copied().unwrap_or(0);
        let used = used.scalar.get(name).copied().unwrap_or(0);
        if *want > have - used {
            lacking.push(format!("Insufficient {name}"));
        }
    }
    lacking
}

impl Filter for NodeResourcesFit {
    fn filter(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        let reasons = insufficient(pod, node);
        if reasons.is_empty() {
            return Ok(());
        }
        // A pod that asks for more than the whole node has is not helped by any other pod's going.
        let unresolvable = pod.request.milli_cpu > node.allocatable.milli_cpu
            || pod.request.memory > node.allocatable.memory;
        Err(Rejection { reasons, unresolvable, plugin: NAME })
    }
}

impl Score for NodeResourcesFit {
    fn score(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> i64 {
        let free = |have: i64, used: i64| {
            if have == 0 || used > have { 0 } else { (have - used) * MAX_NODE_SCORE / have }
        };
        let cpu = free(
            node.allocatable.milli_cpu,
            node.non_zero_requested.milli_cpu + pod.non_zero_request.milli_cpu,
        );
        let memory =
            free(node.allocatable.memory, node.non_zero_requested.memory + pod.non_zero_request.memory);
        let counted = i64::from(node.allocatable.milli_cpu > 0) + i64::from(node.allocatable.memory > 0);
        if counted == 0 { 0 } else { (cpu + memory) / counted }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::{node, pod};
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn requesting(requests: Value) -> PodInfo {
        pod(json!({"containers": [{"name": "c", "resources": {"requests": requests}}]}))
    }

    #[test]
    fn lacking_resources_are_named() {
        let mut busy = node(json!({"status": {"allocatable": {"example.com/gpu": "1"}}}));
        busy.add_pod(Arc::new(requesting(json!({"cpu": "1500m", "memory": "1Gi"}))));
        for (requests, want) in [
            (json!({}), vec![]),
            (json!({"cpu": "500m"}), vec![]),
            (json!({"cpu": "501m"}), vec!["Insufficient cpu"]),
            (json!({"cpu": "1", "memory": "4Gi"}), vec!["Insufficient cpu", "Insufficient memory"]),
            (json!({"example.com/gpu": "1"}), vec![]),
            (json!({"example.com/gpu": "2"}), vec!["Insufficient example.com/gpu"]),
            (json!({"example.com/none": "1"}), vec!["Insufficient example.com/none"]),
        ] {
            assert_eq!(insufficient(&requesting(requests.clone()), &busy), want, "{requests}");
        }
        let full = node(json!({"status": {"allocatable": {"pods": "0"}}}));
        assert_eq!(insufficient(&requesting(json!({})), &full), ["Too many pods"]);
    }

    #[test]
    fn the_emptier_node_scores_higher() {
        let state = CycleState::default();
        let empty = node(json!({}));
        let mut half = node(json!({}));
        half.add_pod(Arc::new(requesting(json!({"cpu": "1", "memory": "2Gi"}))));
        let small = requesting(json!({"cpu": "200m", "memory": "409Mi"}));
        assert_eq!(NodeResourcesFit.score(&state, &small, &empty), 90);
        assert_eq!(NodeResourcesFit.score(&state, &small, &half), 40);
    }
}
