//! SchedulingGates: a pod with `spec.schedulingGates` is not tried (KEP-3521).

use crate::framework::{ClusterEvent, Plugin, PreEnqueue, Rejection};
use crate::pod_info::PodInfo;

/// Name of the plugin.
pub const NAME: &str = "SchedulingGates";

/// The plugin.
#[derive(Debug)]
pub struct SchedulingGates;

impl Plugin for SchedulingGates {
    fn name(&self) -> &'static str {
        NAME
    }

    fn may_help(&self, _: &PodInfo, event: &ClusterEvent<'_>) -> bool {
        matches!(event, ClusterEvent::PodUpdated { .. })
    }
}

impl PreEnqueue for SchedulingGates {
    fn pre_enqueue(&self, pod: &PodInfo) -> Result<(), Rejection> {
        let gates = pod.pod.spec.as_ref().and_then(|s| s.scheduling_gates.as_deref()).unwrap_or_default();
        if gates.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = gates.iter().map(|g| g.name.as_str()).collect();
        Err(Rejection::unresolvable(NAME, format!("waiting for scheduling gates: [{}]", names.join(" "))))
    }
}
