//! NodeName: a pod that names its node goes there or nowhere.

use crate::framework::{ClusterEvent, CycleState, Filter, Plugin, Rejection};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;

/// Name of the plugin.
pub const NAME: &str = "NodeName";

/// The plugin.
#[derive(Debug)]
pub struct NodeName;

impl Plugin for NodeName {
    fn name(&self) -> &'static str {
        NAME
    }

    fn may_help(&self, pod: &PodInfo, event: &ClusterEvent<'_>) -> bool {
        matches!(event, ClusterEvent::NodeAdded(node) if node.metadata.name.as_deref() == Some(pod.node_name()))
    }
}

impl Filter for NodeName {
    fn filter(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        if pod.node_name().is_empty() || pod.node_name() == node.name() {
            return Ok(());
        }
        Err(Rejection::unresolvable(NAME, "node(s) didn't match the requested node name"))
    }
}
