//! NodeUnschedulable: a cordoned node takes only pods that tolerate its taint.

use apimachinery::{node, taints};
use k8s_openapi::api::core::v1::Taint;

use crate::framework::{ClusterEvent, CycleState, Filter, Plugin, Rejection};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;

/// Name of the plugin.
pub const NAME: &str = "NodeUnschedulable";

/// The plugin.
#[derive(Debug)]
pub struct NodeUnschedulable;

impl Plugin for NodeUnschedulable {
    fn name(&self) -> &'static str {
        NAME
    }

    fn may_help(&self, _: &PodInfo, event: &ClusterEvent<'_>) -> bool {
        match event {
            ClusterEvent::NodeAdded(new) => !node::is_unschedulable(new),
            ClusterEvent::NodeUpdated { old, new } => {
                node::is_unschedulable(old) && !node::is_unschedulable(new)
            }
            ClusterEvent::PodUpdated { .. } => true,
            ClusterEvent::AssignedPodDeleted(_) | ClusterEvent::AssignedPodUpdated { .. } => false,
        }
    }
}

impl Filter for NodeUnschedulable {
    fn filter(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        if !node.node.as_ref().is_some_and(|n| node::is_unschedulable(n)) {
            return Ok(());
        }
        let taint = Taint {
            key: "node.kubernetes.io/unschedulable".to_owned(),
            effect: taints::NO_SCHEDULE.to_owned(),
            ..Taint::default()
        };
        if pod.tolerations().iter().any(|t| taints::tolerates(t, &taint)) {
            return Ok(());
        }
        Err(Rejection::unresolvable(NAME, "node(s) were unschedulable"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::{node, pod};
    use serde_json::json;

    #[test]
    fn cordoned_nodes_take_tolerating_pods() {
        let cordoned = node(json!({"spec": {"unschedulable": true}}));
        let tolerating =
            pod(json!({"tolerations": [{"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}]}));
        let state = CycleState::default();
        assert!(NodeUnschedulable.filter(&state, &pod(json!({})), &cordoned).is_err());
        assert!(NodeUnschedulable.filter(&state, &tolerating, &cordoned).is_ok());
        assert!(NodeUnschedulable.filter(&state, &pod(json!({})), &node(json!({}))).is_ok());
    }
}
