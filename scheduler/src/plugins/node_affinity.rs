//! NodeAffinity: `spec.nodeSelector` and node affinity, required and preferred.

use std::collections::BTreeSet;

use apimachinery::node_affinity;
use k8s_openapi::api::core::v1::PreferredSchedulingTerm;

use crate::cache::Snapshot;
use crate::framework::{
    ClusterEvent, CycleState, Filter, Plugin, PreFilter, PreFilterResult, Rejection, Score, default_normalize,
};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;

/// Name of the plugin.
pub const NAME: &str = "NodeAffinity";

/// The plugin.
#[derive(Debug)]
pub struct NodeAffinity;

fn preferred(pod: &PodInfo) -> &[PreferredSchedulingTerm] {
    let affinity =
        pod.pod.spec.as_ref().and_then(|s| s.affinity.as_ref()).and_then(|a| a.node_affinity.as_ref());
    affinity
        .and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_deref())
        .unwrap_or_default()
}

fn has_requirements(pod: &PodInfo) -> bool {
    pod.pod.spec.as_ref().is_some_and(|spec| {
        spec.node_selector.as_ref().is_some_and(|s| !s.is_empty())
            || spec
                .affinity
                .as_ref()
                .and_then(|a| a.node_affinity.as_ref())
                .is_some_and(|a| a.required_during_scheduling_ignored_during_execution.is_some())
    })
}

impl Plugin for NodeAffinity {
    fn name(&self) -> &'static str {
        NAME
    }

    fn may_help(&self, pod: &PodInfo, event: &ClusterEvent<'_>) -> bool {
        match event {
            ClusterEvent::NodeAdded(node) => node_affinity::required_matches(&pod.pod, node),
            ClusterEvent::NodeUpdated { old, new } => {
                node_affinity::required_matches(&pod.pod, new)
                    && !node_affinity::required_matches(&pod.pod, old)
            }
            ClusterEvent::PodUpdated { .. } => true,
            ClusterEvent::AssignedPodDeleted(_) | ClusterEvent::AssignedPodUpdated { .. } => false,
        }
    }
}

impl PreFilter for NodeAffinity {
    fn pre_filter(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        _: &Snapshot,
    ) -> Result<PreFilterResult, Rejection> {
        if !has_requirements(pod) {
            state.skip_filter(NAME);
            return Ok(PreFilterResult::Skip);
        }
        // A pod pinned by name, as DaemonSet pods are, needs a look at one node, not at all.
        Ok(match node_affinity::pinned_node_name(&pod.pod) {
            Some(name) => PreFilterResult::Nodes(BTreeSet::from([name.to_owned()])),
            None => PreFilterResult::AllNodes,
        })
    }
}

impl Filter for NodeAffinity {
    fn filter(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        match &node.node {
            Some(object) if node_affinity::required_matches(&pod.pod, object) => Ok(()),
            _ => Err(Rejection::unresolvable(NAME, "node(s) didn't match Pod's node affinity/selector")),
        }
    }
}

impl Score for NodeAffinity {
    fn pre_score(&self, state: &mut CycleState, pod: &PodInfo, _: &Snapshot) {
        if preferred(pod).is_empty() {
            state.skip_score(NAME);
        }
    }

    fn score(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> i64 {
        node.node.as_ref().map_or(0, |n| node_affinity::preferred_score(preferred(pod), n))
    }

    fn normalize(&self, scores: &mut [i64]) {
        default_normalize(scores, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::{node, pod};
    use serde_json::json;

    #[test]
    fn selector_and_preference() {
        let state = CycleState::default();
        let labelled = node(json!({"metadata": {"labels": {"disk": "ssd"}}}));
        let picky = pod(json!({"nodeSelector": {"disk": "ssd"}}));
        assert!(NodeAffinity.filter(&state, &picky, &labelled).is_ok());
        let rejection = NodeAffinity.filter(&state, &picky, &node(json!({}))).expect_err("rejected");
        assert_eq!(rejection.reasons, ["node(s) didn't match Pod's node affinity/selector"]);
        let term =
            json!({"weight": 7, "preference": {"matchExpressions": [{"key": "disk", "operator": "Exists"}]}});
        let affinity = json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [term]}});
        let fond = pod(json!({"affinity": affinity}));
        assert_eq!(NodeAffinity.score(&state, &fond, &labelled), 7);
        assert_eq!(NodeAffinity.score(&state, &fond, &node(json!({}))), 0);
    }

    #[test]
    fn pinned_pods_look_at_one_node() {
        let field = json!({"key": "metadata.name", "operator": "In", "values": ["n7"]});
        let required = json!({"nodeSelectorTerms": [{"matchFields": [field]}]});
        let affinity = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}});
        let result = NodeAffinity.pre_filter(
            &mut CycleState::default(),
            &pod(json!({"affinity": affinity})),
            &Snapshot::default(),
        );
        assert!(matches!(result, Ok(PreFilterResult::Nodes(names)) if names.contains("n7")));
    }
}
