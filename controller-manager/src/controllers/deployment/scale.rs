//! Scaling a deployment without rolling anything: to the one active ReplicaSet, or proportionally over all when a rollout
//! is half way. Upstream: `scale` and `isScalingEvent` of pkg/controller/deployment/sync.go.

use std::cmp::Reverse;

use super::bounds::{self, DESIRED_REPLICAS};
use super::revision;
use super::rollout::Rollout;

/// Whether `spec.replicas` changed since a ReplicaSet was last scaled.
pub(super) fn is_scaling_event(rollout: &Rollout) -> bool {
    let wanted = bounds::replicas(&rollout.deployment);
    rollout
        .all()
        .filter(|set| bounds::set_replicas(set) > 0)
        .filter_map(|set| bounds::annotated(set, DESIRED_REPLICAS))
        .any(|desired| desired != wanted)
}

/// Brings the ReplicaSets to the deployment's size.
pub(super) fn scale(rollout: &mut Rollout) {
    let wanted = bounds::replicas(&rollout.deployment);
    let active: Vec<usize> = (0..rollout.sets.len())
        .filter(|&index| bounds::set_replicas(&rollout.sets[index].current) > 0)
        .collect();
    match active.as_slice() {
        [] => {
            // Nothing runs: the new ReplicaSet, or else the latest, takes it all.
            if let Some(latest) = rollout.new.or_else(|| rollout.old().last().copied()) {
                rollout.scale_to(latest, wanted);
            }
        }
        [only] => {
            rollout.scale_to(*only, wanted);
        }
        _ if bounds::is_saturated(&rollout.deployment, rollout.new_set()) => {
            let new = rollout.new;
            for index in active.into_iter().filter(|index| Some(*index) != new) {
                rollout.scale_to(index, 0);
            }
        }
        _ if !bounds::is_recreate(&rollout.deployment) => scale_proportionally(rollout, active),
        _ => {}
    }
}

/// Larger ReplicaSets get more of what is added or removed; among equals the newer gains first and the older loses first.
fn scale_proportionally(rollout: &mut Rollout, mut active: Vec<usize>) {
    let wanted = bounds::replicas(&rollout.deployment);
    let allowed = if wanted > 0 { wanted + bounds::max_surge(&rollout.deployment) } else { 0 };
    let total: i32 = active.iter().map(|&index| bounds::set_replicas(&rollout.sets[index].current)).sum();
    let to_add = allowed - total;
    let size = |rollout: &Rollout, index: usize| bounds::set_replicas(&rollout.sets[index].current);
    active.sort_by(|&a, &b| {
        let by_age = revision::by_creation(&rollout.sets[a].current, &rollout.sets[b].current);
        let by_age = if to_add > 0 { by_age.reverse() } else { by_age };
        Reverse(size(rollout, a)).cmp(&Reverse(size(rollout, b))).then(by_age)
    });
    let mut added = 0;
    let mut sizes = Vec::with_capacity(active.len());
    for &index in &active {
        let proportion = bounds::proportion(&rollout.deployment, &rollout.sets[index].current, to_add, added);
        sizes.push(size(rollout, index) + proportion);
        added += proportion;
    }
    if let Some(largest) = sizes.first_mut() {
        *largest = (*largest + to_add - added).max(0);
    }
    for (index, size) in active.into_iter().zip(sizes) {
        rollout.scale_to(index, size);
    }
}
