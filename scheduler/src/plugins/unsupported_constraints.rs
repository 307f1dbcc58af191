//! UnsupportedConstraints: keeps pods waiting that depend on plugins which are not here yet.
//!
//! Not upstream's: it stands in for the Filter parts of InterPodAffinity, PodTopologySpread, VolumeBinding and
//! DynamicResources. A pod that they would have to judge is refused by name, never placed wrongly.

use crate::cache::Snapshot;
use crate::framework::{ClusterEvent, CycleState, Plugin, PreFilter, PreFilterResult, Rejection};
use crate::pod_info::PodInfo;

/// Name of the plugin.
pub const NAME: &str = "UnsupportedConstraints";

/// The plugin.
#[derive(Debug)]
pub struct UnsupportedConstraints;

fn unsupported(pod: &PodInfo) -> Option<&'static str> {
    let spec = pod.pod.spec.as_ref()?;
    let affinity = spec.affinity.as_ref();
    let required_affinity = affinity
        .and_then(|a| a.pod_affinity.as_ref())
        .and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    let required_anti_affinity = affinity
        .and_then(|a| a.pod_anti_affinity.as_ref())
        .and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    let mut volumes = spec.volumes.iter().flatten();
    let spread = spec.topology_spread_constraints.iter().flatten();
    if required_affinity.is_some_and(|t| !t.is_empty()) {
        Some("required pod affinity")
    } else if required_anti_affinity.is_some_and(|t| !t.is_empty()) {
        Some("required pod anti-affinity")
    } else if spread.into_iter().any(|c| c.when_unsatisfiable == "DoNotSchedule") {
        Some("topology spread constraints with DoNotSchedule")
    } else if volumes.any(|v| v.persistent_volume_claim.is_some() || v.ephemeral.is_some()) {
        Some("persistent volume claims")
    } else if spec.resource_claims.as_ref().is_some_and(|c| !c.is_empty()) {
        Some("resource claims")
    } else {
        None
    }
}

impl Plugin for UnsupportedConstraints {
    fn name(&self) -> &'static str {
        NAME
    }

    fn may_help(&self, _: &PodInfo, event: &ClusterEvent<'_>) -> bool {
        matches!(event, ClusterEvent::PodUpdated { .. })
    }
}

impl PreFilter for UnsupportedConstraints {
    fn pre_filter(
        &self,
        _: &mut CycleState,
        pod: &PodInfo,
        _: &Snapshot,
    ) -> Result<PreFilterResult, Rejection> {
        match unsupported(pod) {
            None => Ok(PreFilterResult::Skip),
            Some(what) => {
                Err(Rejection::unresolvable(NAME, format!("{what} not supported by this scheduler yet")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::pod;
    use serde_json::json;

    #[test]
    fn hard_constraints_are_refused_and_soft_ones_are_not() {
        let term = json!({"topologyKey": "zone", "labelSelector": {}});
        for (spec, refused) in [
            (json!({}), false),
            (
                json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}),
                true,
            ),
            (
                json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "z", "whenUnsatisfiable": "ScheduleAnyway"}]}),
                false,
            ),
            (
                json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "z", "whenUnsatisfiable": "DoNotSchedule"}]}),
                true,
            ),
            (json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}), true),
            (json!({"volumes": [{"name": "v", "emptyDir": {}}]}), false),
        ] {
            assert_eq!(unsupported(&pod(spec.clone())).is_some(), refused, "{spec}");
        }
    }
}
