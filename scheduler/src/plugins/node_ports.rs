//! NodePorts: two pods on one node can't claim one port of the host.

use crate::framework::{ClusterEvent, CycleState, Filter, Plugin, Rejection};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;

/// Name of the plugin.
pub const NAME: &str = "NodePorts";

/// The plugin.
#[derive(Debug)]
pub struct NodePorts;

impl Plugin for NodePorts {
    fn name(&self) -> &'static str {
        NAME
    }

    fn may_help(&self, _: &PodInfo, event: &ClusterEvent<'_>) -> bool {
        matches!(event, ClusterEvent::NodeAdded(_) | ClusterEvent::AssignedPodDeleted(_))
    }
}

impl Filter for NodePorts {
    fn filter(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        if pod.host_ports.is_empty() {
            return Ok(());
        }
        let taken = node.pods.values().flat_map(|p| &p.host_ports);
        if taken.into_iter().any(|t| pod.host_ports.iter().any(|p| p.conflicts(t))) {
            return Err(Rejection::unschedulable(
                NAME,
                "node(s) didn't have free ports for the requested pod ports",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::{node, pod};
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn with_port(port: Value) -> PodInfo {
        pod(json!({"containers": [{"name": "c", "ports": [port]}]}))
    }

    #[test]
    fn claims_conflict_by_port_protocol_and_address() {
        let mut busy = node(json!({}));
        busy.add_pod(Arc::new(with_port(
            json!({"containerPort": 80, "hostPort": 80, "hostIP": "127.0.0.1"}),
        )));
        for (port, fits) in [
            (json!({"containerPort": 80, "hostPort": 81}), true),
            (json!({"containerPort": 80, "hostPort": 80}), false),
            (json!({"containerPort": 80, "hostPort": 80, "hostIP": "127.0.0.1"}), false),
            (json!({"containerPort": 80, "hostPort": 80, "hostIP": "127.0.0.2"}), true),
            (json!({"containerPort": 80, "hostPort": 80, "protocol": "UDP"}), true),
            (json!({"containerPort": 80}), true),
        ] {
            let result = NodePorts.filter(&CycleState::default(), &with_port(port.clone()), &busy);
            assert_eq!(result.is_ok(), fits, "{port}");
        }
    }
}
