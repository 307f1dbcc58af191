//! The numbers that bound a rollout: maxSurge, maxUnavailable, the room for new pods, the share of each ReplicaSet in a
//! proportional scaling. Pure arithmetic on specs. Upstream: pkg/controller/deployment/util.

use apimachinery::intstr;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// Replicas that the deployment wanted when its ReplicaSet was last scaled.
pub const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
/// Most replicas allowed (desired and surge) when the ReplicaSet was last scaled.
pub const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";

const DEFAULT_FENCEPOST: &str = "25%";

/// `spec.replicas`, which defaults to 1.
pub fn replicas(deployment: &Deployment) -> i32 {
    deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

/// `spec.replicas` of a ReplicaSet, which defaults to 1.
pub fn set_replicas(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

/// `status.replicas` of a ReplicaSet.
pub fn actual_replicas(set: &ReplicaSet) -> i32 {
    set.status.as_ref().map_or(0, |status| status.replicas)
}

/// `status.availableReplicas` of a ReplicaSet.
pub fn available_replicas(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0)
}

/// Whether old pods go all at once before new ones come.
pub fn is_recreate(deployment: &Deployment) -> bool {
    let strategy = deployment.spec.as_ref().and_then(|spec| spec.strategy.as_ref());
    strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate")
}

/// Pods allowed above `spec.replicas` during a rolling update.
pub fn max_surge(deployment: &Deployment) -> i32 {
    if is_recreate(deployment) { 0 } else { fenceposts(deployment).0 }
}

/// Pods that may be missing during a rolling update.
pub fn max_unavailable(deployment: &Deployment) -> i32 {
    let replicas = replicas(deployment);
    if is_recreate(deployment) || replicas == 0 { 0 } else { fenceposts(deployment).1.min(replicas) }
}

/// Surge rounds up, unavailability down; both zero would never progress, so then one may be unavailable.
fn fenceposts(deployment: &Deployment) -> (i32, i32) {
    let default = IntOrString::String(DEFAULT_FENCEPOST.to_owned());
    let rolling = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.strategy.as_ref())
        .and_then(|strategy| strategy.rolling_update.as_ref());
    let replicas = replicas(deployment);
    let surge = rolling.and_then(|rolling| rolling.max_surge.as_ref()).unwrap_or(&default);
    let unavailable = rolling.and_then(|rolling| rolling.max_unavailable.as_ref()).unwrap_or(&default);
    // Validation admits only integers and percentages; anything else counts as zero.
    let surge = intstr::scaled_value(surge, replicas, true).unwrap_or(0);
    let unavailable = intstr::scaled_value(unavailable, replicas, false).unwrap_or(0);
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

/// The size that the new ReplicaSet may have now, given the size of all (itself included).
pub fn new_set_replicas(deployment: &Deployment, total: i32, new: i32) -> i32 {
    let wanted = replicas(deployment);
    if is_recreate(deployment) {
        return wanted;
    }
    let room = wanted + fenceposts(deployment).0 - total;
    if room <= 0 { new } else { new + room.min(wanted - new) }
}

/// How much of `to_add` (which may be negative) goes to a ReplicaSet, `added` being given out already.
pub fn proportion(deployment: &Deployment, set: &ReplicaSet, to_add: i32, added: i32) -> i32 {
    if set_replicas(set) == 0 || to_add == 0 || to_add == added {
        return 0;
    }
    let fraction = fraction(deployment, set);
    let allowed = to_add - added;
    if to_add > 0 { fraction.min(allowed) } else { fraction.max(allowed) }
}

/// The change that keeps the ReplicaSet's share of the deployment's former maximum.
fn fraction(deployment: &Deployment, set: &ReplicaSet) -> i32 {
    if replicas(deployment) == 0 {
        return -set_replicas(set);
    }
    let maximum = i64::from(replicas(deployment) + max_surge(deployment));
    let before = match annotated(set, MAX_REPLICAS) {
        Some(before) if before != 0 => before,
        _ => match deployment.status.as_ref().and_then(|status| status.replicas).unwrap_or(0) {
            0 => return 0,
            current => current,
        },
    };
    let scaled = i64::from(set_replicas(set)) * maximum;
    i32::try_from(rounded_quotient(scaled, i64::from(before))).unwrap_or(i32::MAX) - set_replicas(set)
}

/// Nearest integer, halves away from zero.
fn rounded_quotient(dividend: i64, divisor: i64) -> i64 {
    let half = divisor / 2;
    if dividend >= 0 { (dividend + half) / divisor } else { (dividend - half) / divisor }
}

/// A replica count kept in an annotation.
pub fn annotated(set: &ReplicaSet, annotation: &str) -> Option<i32> {
    set.metadata.annotations.as_ref()?.get(annotation)?.parse().ok()
}

/// Whether the new ReplicaSet has everything the deployment wants, available.
pub fn is_saturated(deployment: &Deployment, new: Option<&ReplicaSet>) -> bool {
    let wanted = replicas(deployment);
    new.is_some_and(|set| {
        set_replicas(set) == wanted
            && annotated(set, DESIRED_REPLICAS) == Some(wanted)
            && available_replicas(set) == wanted
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{deployment, owned_replica_set, rolling};

    #[test]
    fn resolve_fenceposts() {
        for (surge, unavailable, replicas, expected_surge, expected_unavailable) in [
            ("0", "0%", 0, 0, 0),
            ("39%", "39%", 0, 0, 0),
            ("0%", "0%", 10, 0, 1),
            ("1", "0", 10, 1, 0),
            ("39%", "39%", 10, 4, 3),
            ("0", "200%", 5, 0, 5),
            ("25%", "25%", 3, 1, 0),
        ] {
            let d = rolling(deployment("d", replicas), surge, unavailable);
            assert_eq!(
                (max_surge(&d), max_unavailable(&d)),
                (expected_surge, expected_unavailable),
                "{surge} {unavailable}"
            );
        }
    }

    #[test]
    fn new_rs_new_replicas() {
        for (name, replicas, surge, total, new, expected) in [
            ("can not scale up - to newRSReplicas", 10, "0", 10, 5, 5),
            ("scale up - to depReplicas", 6, "3", 6, 0, 3),
            ("recreate ignores the rest", 10, "25%", 0, 0, 10),
        ] {
            let d = rolling(deployment("d", replicas), surge, "1");
            assert_eq!(new_set_replicas(&d, total, new), expected, "{name}");
        }
    }

    #[test]
    fn proportions() {
        let d = rolling(deployment("d", 20), "0", "1");
        let mut set = owned_replica_set(&d, "a", 5);
        set.metadata.annotations.get_or_insert_default().insert(MAX_REPLICAS.into(), "10".into());
        assert_eq!(proportion(&d, &set, 10, 0), 5);
        assert_eq!(proportion(&d, &set, 10, 8), 2, "no more than is left");
        let down = rolling(deployment("d", 5), "0", "1");
        assert_eq!(proportion(&down, &set, -5, 0), -2, "half rounds away from zero: 2.5 becomes 3");
        assert_eq!(proportion(&deployment("d", 0), &set, -5, 0), -5);
    }
}
