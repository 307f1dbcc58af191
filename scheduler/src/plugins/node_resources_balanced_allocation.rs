//! NodeResourcesBalancedAllocation: a node whose CPU and memory fill up evenly scores higher.

use crate::cache::Snapshot;
use crate::framework::{ClusterEvent, CycleState, MAX_NODE_SCORE, Plugin, Score};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;

/// Name of the plugin.
pub const NAME: &str = "NodeResourcesBalancedAllocation";

/// The plugin.
#[derive(Debug)]
pub struct NodeResourcesBalancedAllocation;

impl Plugin for NodeResourcesBalancedAllocation {
    fn name(&self) -> &'static str {
        NAME
    }

    fn may_help(&self, _: &PodInfo, _: &ClusterEvent<'_>) -> bool {
        false
    }
}

impl Score for NodeResourcesBalancedAllocation {
    fn pre_score(&self, state: &mut CycleState, pod: &PodInfo, _: &Snapshot) {
        // A pod that requests nothing unbalances nothing.
        if pod.request.milli_cpu == 0 && pod.request.memory == 0 {
            state.skip_score(NAME);
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "a fraction of 0..=1 times 100")]
    fn score(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> i64 {
        let fraction = |have: i64, used: i64| {
            if have == 0 { None } else { Some((used as f64 / have as f64).clamp(0.0, 1.0)) }
        };
        let cpu = fraction(node.allocatable.milli_cpu, node.requested.milli_cpu + pod.request.milli_cpu);
        let memory = fraction(node.allocatable.memory, node.requested.memory + pod.request.memory);
        // The standard deviation of two numbers is half their difference.
        let deviation = match (cpu, memory) {
            (Some(cpu), Some(memory)) => (cpu - memory).abs() / 2.0,
            _ => 0.0,
        };
        ((1.0 - deviation) * MAX_NODE_SCORE as f64) as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::{node, pod};
    use serde_json::json;

    #[test]
    fn even_use_scores_full() {
        let state = CycleState::default();
        let even =
            json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "1", "memory": "2Gi"}}}]});
        let odd = json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "2"}}}]});
        assert_eq!(NodeResourcesBalancedAllocation.score(&state, &pod(even), &node(json!({}))), 100);
        assert_eq!(NodeResourcesBalancedAllocation.score(&state, &pod(odd), &node(json!({}))), 50);
    }
}
