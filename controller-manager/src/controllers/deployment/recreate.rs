//! Recreate: old pods all go, and only when none runs any more the new ReplicaSet is made and scaled up.
//! Upstream: pkg/controller/deployment/recreate.go.

use apimachinery::{owner, pod};

use super::bounds;
use super::rollout::Rollout;

/// Scales old ReplicaSets down, or the new one up; whether any size changed.
pub(super) fn step(rollout: &mut Rollout) -> bool {
    rollout.sync_new(false);
    let mut scaled = false;
    for old in rollout.old() {
        if bounds::set_replicas(&rollout.sets[old].current) > 0 {
            scaled |= rollout.scale_to(old, 0);
        }
    }
    if scaled || old_pods_running(rollout) {
        return true;
    }
    if rollout.new.is_none() {
        rollout.sync_new(true);
    }
    let wanted = bounds::replicas(&rollout.deployment);
    match rollout.new {
        Some(new) if bounds::set_replicas(&rollout.sets[new].current) != wanted => {
            rollout.scale_to(new, wanted)
        }
        _ => false,
    }
}

fn old_pods_running(rollout: &Rollout) -> bool {
    if rollout.old().iter().any(|&old| bounds::actual_replicas(&rollout.sets[old].current) > 0) {
        return true;
    }
    let new_uid = rollout.new_set().and_then(|set| set.metadata.uid.as_deref());
    rollout
        .pods
        .iter()
        .filter(|pod| {
            owner::controller_of(&pod.metadata).is_some_and(|owner| Some(owner.uid.as_str()) != new_uid)
        })
        .any(|pod| !pod::is_terminal(pod))
}
