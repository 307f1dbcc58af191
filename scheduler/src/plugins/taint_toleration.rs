//! TaintToleration: taints that the pod does not tolerate keep it off; soft ones count against a node.

use apimachinery::taints;

use crate::framework::{ClusterEvent, CycleState, Filter, Plugin, Rejection, Score, default_normalize};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;

/// Name of the plugin.
pub const NAME: &str = "TaintToleration";

/// The plugin.
#[derive(Debug)]
pub struct TaintToleration;

impl Plugin for TaintToleration {
    fn name(&self) -> &'static str {
        NAME
    }

    fn may_help(&self, pod: &PodInfo, event: &ClusterEvent<'_>) -> bool {
        let (ClusterEvent::NodeAdded(node) | ClusterEvent::NodeUpdated { new: node, .. }) = event else {
            return matches!(event, ClusterEvent::PodUpdated { .. });
        };
        let taints = node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default();
        taints::find_unschedulable(taints, pod.tolerations()).is_none()
    }
}

impl Filter for TaintToleration {
    fn filter(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        match taints::find_unschedulable(node.taints(), pod.tolerations()) {
            None => Ok(()),
            Some(taint) => {
                let value = taint.value.as_deref().unwrap_or_default();
                let text = format!("node(s) had untolerated taint {{{}: {value}}}", taint.key);
                Err(Rejection::unresolvable(NAME, text))
            }
        }
    }
}

impl Score for TaintToleration {
    fn score(&self, _: &CycleState, pod: &PodInfo, node: &NodeInfo) -> i64 {
        // Only tolerations that can mean soft taints count, as upstream.
        let soft = |effect: Option<&str>| matches!(effect, None | Some("" | taints::PREFER_NO_SCHEDULE));
        let tolerated = |taint| {
            pod.tolerations().iter().any(|t| soft(t.effect.as_deref()) && taints::tolerates(t, taint))
        };
        let intolerable =
            node.taints().iter().filter(|t| t.effect == taints::PREFER_NO_SCHEDULE && !tolerated(t)).count();
        i64::try_from(intolerable).unwrap_or(i64::MAX)
    }

    fn normalize(&self, scores: &mut [i64]) {
        default_normalize(scores, true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::{node, pod};
    use serde_json::json;

    #[test]
    fn untolerated_taints_reject_and_soft_ones_score() {
        let state = CycleState::default();
        let tainted =
            |effect: &str| node(json!({"spec": {"taints": [{"key": "k", "value": "v", "effect": effect}]}}));
        let rejection =
            TaintToleration.filter(&state, &pod(json!({})), &tainted("NoSchedule")).expect_err("rejected");
        assert_eq!(rejection.reasons, ["node(s) had untolerated taint {k: v}"]);
        assert!(TaintToleration.filter(&state, &pod(json!({})), &tainted("NoExecute")).is_err());
        assert!(TaintToleration.filter(&state, &pod(json!({})), &tainted("PreferNoSchedule")).is_ok());
        let tolerating = pod(json!({"tolerations": [{"operator": "Exists"}]}));
        assert!(TaintToleration.filter(&state, &tolerating, &tainted("NoSchedule")).is_ok());
        assert_eq!(TaintToleration.score(&state, &pod(json!({})), &tainted("PreferNoSchedule")), 1);
        assert_eq!(TaintToleration.score(&state, &tolerating, &tainted("PreferNoSchedule")), 0);
    }
}
