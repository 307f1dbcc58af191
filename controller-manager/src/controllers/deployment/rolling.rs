//! RollingUpdate: one step of moving pods from old ReplicaSets to the new one within maxSurge and maxUnavailable.
//! Upstream: pkg/controller/deployment/rolling.go.

use super::bounds;
use super::rollout::Rollout;

/// Scales the new ReplicaSet up, or old ones down; whether any size changed.
pub(super) fn step(rollout: &mut Rollout) -> bool {
    rollout.sync_new(true);
    reconcile_new(rollout) || reconcile_old(rollout)
}

fn reconcile_new(rollout: &mut Rollout) -> bool {
    let Some(new) = rollout.new else { return false };
    let wanted = bounds::replicas(&rollout.deployment);
    let current = bounds::set_replicas(&rollout.sets[new].current);
    if current == wanted {
        return false;
    }
    let target = if current > wanted {
        wanted
    } else {
        bounds::new_set_replicas(&rollout.deployment, rollout.total_replicas(), current)
    };
    target != current && rollout.scale_to(new, target)
}

fn reconcile_old(rollout: &mut Rollout) -> bool {
    let old: Vec<usize> = rollout
        .old()
        .into_iter()
        .filter(|&old| bounds::set_replicas(&rollout.sets[old].current) > 0)
        .collect();
    if old.is_empty() {
        return false;
    }
    let minimum = bounds::replicas(&rollout.deployment) - bounds::max_unavailable(&rollout.deployment);
    let new_unavailable =
        rollout.new_set().map_or(0, |new| bounds::set_replicas(new) - bounds::available_replicas(new));
    let most = rollout.total_replicas() - minimum - new_unavailable;
    if most <= 0 {
        return false;
    }
    let cleaned = clean_up_unhealthy(rollout, &old, most);
    let scaled = scale_down_healthy(rollout, &old, minimum);
    cleaned || scaled
}

/// Unavailable old pods serve nobody: they go first, whatever maxUnavailable says.
fn clean_up_unhealthy(rollout: &mut Rollout, old: &[usize], most: i32) -> bool {
    let mut left = most;
    for &index in old {
        let set = &rollout.sets[index].current;
        let (replicas, available) = (bounds::set_replicas(set), bounds::available_replicas(set));
        let unhealthy = (replicas - available).min(left);
        if unhealthy > 0 {
            left -= unhealthy;
            rollout.scale_to(index, replicas - unhealthy);
        }
    }
    left < most
}

fn scale_down_healthy(rollout: &mut Rollout, old: &[usize], minimum: i32) -> bool {
    let available: i32 = rollout.all().map(bounds::available_replicas).sum();
    let mut left = available - minimum;
    let mut scaled = false;
    for &index in old {
        let replicas = bounds::set_replicas(&rollout.sets[index].current);
        let fewer = replicas.min(left);
        if fewer > 0 {
            left -= fewer;
            scaled |= rollout.scale_to(index, replicas - fewer);
        }
    }
    scaled
}
