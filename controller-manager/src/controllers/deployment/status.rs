//! Deployment status and conditions as a function of its ReplicaSets, and whether a rollout is complete, moving or stuck.
//! Pure. Upstream: pkg/controller/deployment/{sync,progress}.go and util.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::bounds;

pub const PROGRESSING: &str = "Progressing";
pub const AVAILABLE: &str = "Available";
pub const REPLICA_FAILURE: &str = "ReplicaFailure";

/// Reasons of the Progressing condition.
pub mod reason {
    pub const FOUND_NEW_REPLICA_SET: &str = "FoundNewReplicaSet";
    pub const NEW_REPLICA_SET_CREATED: &str = "NewReplicaSetCreated";
    pub const REPLICA_SET_CREATE_ERROR: &str = "ReplicaSetCreateError";
    pub const REPLICA_SET_UPDATED: &str = "ReplicaSetUpdated";
    pub const NEW_REPLICA_SET_AVAILABLE: &str = "NewReplicaSetAvailable";
    pub const PROGRESS_DEADLINE_EXCEEDED: &str = "ProgressDeadlineExceeded";
    pub const DEPLOYMENT_PAUSED: &str = "DeploymentPaused";
    pub const DEPLOYMENT_RESUMED: &str = "DeploymentResumed";
}

/// A condition that holds from now on.
pub fn new_condition(
    type_: &str,
    status: &str,
    reason: &str,
    message: String,
    now: Timestamp,
) -> DeploymentCondition {
    DeploymentCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    }
}

/// The condition of that type.
pub fn condition<'a>(status: &'a DeploymentStatus, type_: &str) -> Option<&'a DeploymentCondition> {
    status.conditions.iter().flatten().find(|condition| condition.type_ == type_)
}

/// Sets a condition; one that says the same already is left alone, and the transition time moves only with the status.
pub fn set_condition(status: &mut DeploymentStatus, mut new: DeploymentCondition) {
    if let Some(current) = condition(status, &new.type_) {
        if current.status == new.status && current.reason == new.reason {
            return;
        }
        if current.status == new.status {
            new.last_transition_time.clone_from(&current.last_transition_time);
        }
    }
    remove_condition(status, &new.type_);
    status.conditions.get_or_insert_default().push(new);
}

/// Removes the condition of that type.
pub fn remove_condition(status: &mut DeploymentStatus, type_: &str) {
    if let Some(conditions) = status.conditions.as_mut() {
        conditions.retain(|condition| condition.type_ != type_);
        if conditions.is_empty() {
            status.conditions = None;
        }
    }
}

/// Whether anybody asked for progress to be watched.
pub fn has_progress_deadline(deployment: &Deployment) -> bool {
    progress_deadline(deployment).is_some()
}

fn progress_deadline(deployment: &Deployment) -> Option<i32> {
    deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.progress_deadline_seconds)
        .filter(|seconds| *seconds != i32::MAX)
}

/// Counts and the Available condition; other conditions are carried over.
pub fn calculate<'a>(
    deployment: &Deployment,
    sets: impl Iterator<Item = &'a ReplicaSet> + Clone,
    new: Option<&ReplicaSet>,
    now: Timestamp,
) -> DeploymentStatus {
    let current = deployment.status.clone().unwrap_or_default();
    let available: i32 = sets.clone().map(bounds::available_replicas).sum();
    let total: i32 = sets.clone().map(bounds::set_replicas).sum();
    let ready: i32 =
        sets.clone().filter_map(|set| set.status.as_ref()).filter_map(|status| status.ready_replicas).sum();
    // Unknown as long as one ReplicaSet's controller does not report it.
    let terminating: Option<i32> = sets
        .clone()
        .map(|set| set.status.as_ref().map_or(Some(0), |status| status.terminating_replicas))
        .sum();
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: nonzero(sets.map(bounds::actual_replicas).sum()),
        updated_replicas: nonzero(new.map_or(0, bounds::actual_replicas)),
        ready_replicas: nonzero(ready),
        available_replicas: nonzero(available),
        unavailable_replicas: nonzero((total - available).max(0)),
        terminating_replicas: terminating,
        collision_count: current.collision_count,
        conditions: current.conditions,
    };
    let minimum = bounds::replicas(deployment) - bounds::max_unavailable(deployment);
    let available = if available >= minimum {
        let message = "Deployment has minimum availability.".to_owned();
        new_condition(AVAILABLE, "True", "MinimumReplicasAvailable", message, now)
    } else {
        let message = "Deployment does not have minimum availability.".to_owned();
        new_condition(AVAILABLE, "False", "MinimumReplicasUnavailable", message, now)
    };
    set_condition(&mut status, available);
    status
}

/// Status of a rollout: [`calculate`] plus the Progressing and ReplicaFailure conditions.
pub fn calculate_rollout<'a>(
    deployment: &Deployment,
    sets: impl Iterator<Item = &'a ReplicaSet> + Clone,
    new: Option<&'a ReplicaSet>,
    now: Timestamp,
) -> DeploymentStatus {
    let mut status = calculate(deployment, sets.clone(), new, now);
    let before = deployment.status.clone().unwrap_or_default();
    let current = condition(&before, PROGRESSING).cloned();
    let done_before = status.replicas == status.updated_replicas
        && current
            .as_ref()
            .is_some_and(|current| current.reason.as_deref() == Some(reason::NEW_REPLICA_SET_AVAILABLE));
    if !has_progress_deadline(deployment) {
        remove_condition(&mut status, PROGRESSING);
    } else if !done_before {
        estimate_progress(deployment, &mut status, current.as_ref(), new, now);
    }
    match failure(sets, new) {
        Some(failure) => set_condition(&mut status, failure),
        None => remove_condition(&mut status, REPLICA_FAILURE),
    }
    status
}

fn estimate_progress(
    deployment: &Deployment,
    status: &mut DeploymentStatus,
    current: Option<&DeploymentCondition>,
    new: Option<&ReplicaSet>,
    now: Timestamp,
) {
    let subject = match new {
        Some(set) => format!("ReplicaSet \"{}\"", set.metadata.name.as_deref().unwrap_or("")),
        None => format!("Deployment \"{}\"", deployment.metadata.name.as_deref().unwrap_or("")),
    };
    if is_complete(deployment, status) {
        let message = format!("{subject} has successfully progressed.");
        set_condition(
            status,
            new_condition(PROGRESSING, "True", reason::NEW_REPLICA_SET_AVAILABLE, message, now),
        );
    } else if is_progressing(deployment, status) {
        let message = format!("{subject} is progressing.");
        let mut condition = new_condition(PROGRESSING, "True", reason::REPLICA_SET_UPDATED, message, now);
        if let Some(current) = current {
            if current.status == "True" {
                condition.last_transition_time.clone_from(&current.last_transition_time);
            }
            // Progress moves lastUpdateTime even though status and reason stay the same.
            remove_condition(status, PROGRESSING);
        }
        set_condition(status, condition);
    } else if is_timed_out(deployment, status, now) {
        let message = format!("{subject} has timed out progressing.");
        set_condition(
            status,
            new_condition(PROGRESSING, "False", reason::PROGRESS_DEADLINE_EXCEEDED, message, now),
        );
    }
}

/// All wanted replicas run the new template and are available, and no old one is left.
pub fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = bounds::replicas(deployment);
    status.updated_replicas.unwrap_or(0) == wanted
        && status.replicas.unwrap_or(0) == wanted
        && status.available_replicas.unwrap_or(0) == wanted
        && status.observed_generation.unwrap_or(0) >= deployment.metadata.generation.unwrap_or(0)
}

fn is_progressing(deployment: &Deployment, new: &DeploymentStatus) -> bool {
    let old = deployment.status.clone().unwrap_or_default();
    let updated = |status: &DeploymentStatus| status.updated_replicas.unwrap_or(0);
    let outdated = |status: &DeploymentStatus| status.replicas.unwrap_or(0) - updated(status);
    updated(new) > updated(&old)
        || outdated(new) < outdated(&old)
        || new.ready_replicas.unwrap_or(0) > old.ready_replicas.unwrap_or(0)
        || new.available_replicas.unwrap_or(0) > old.available_replicas.unwrap_or(0)
}

fn is_timed_out(deployment: &Deployment, status: &DeploymentStatus, now: Timestamp) -> bool {
    let Some(deadline) = progress_deadline(deployment) else { return false };
    let Some(condition) = condition(status, PROGRESSING) else { return false };
    match condition.reason.as_deref() {
        Some(reason::NEW_REPLICA_SET_AVAILABLE) => false,
        Some(reason::PROGRESS_DEADLINE_EXCEEDED) => true,
        _ => condition.last_update_time.as_ref().is_some_and(|from| left(from, deadline, now) < 0),
    }
}

/// Milliseconds until `deadline` seconds after `from` have passed.
fn left(from: &Time, deadline: i32, now: Timestamp) -> i64 {
    from.0.as_millisecond() + i64::from(deadline) * 1_000 - now.as_millisecond()
}

/// When a rollout that shows no progress has to be looked at again for its deadline.
pub fn next_deadline_check(
    deployment: &Deployment,
    status: &DeploymentStatus,
    now: Timestamp,
) -> Option<Duration> {
    let deadline = progress_deadline(deployment)?;
    let condition = condition(status, PROGRESSING)?;
    if is_complete(deployment, status)
        || condition.reason.as_deref() == Some(reason::PROGRESS_DEADLINE_EXCEEDED)
        || condition.reason.as_deref() == Some(reason::NEW_REPLICA_SET_AVAILABLE)
    {
        return None;
    }
    let left = left(condition.last_update_time.as_ref()?, deadline, now);
    // A second later, since times are stored in seconds.
    Some(Duration::from_millis(u64::try_from(left).unwrap_or(0)) + Duration::from_secs(1))
}

/// The failure of the new ReplicaSet or, without one, of any.
fn failure<'a>(
    sets: impl Iterator<Item = &'a ReplicaSet>,
    new: Option<&'a ReplicaSet>,
) -> Option<DeploymentCondition> {
    let of = |set: &ReplicaSet| {
        let conditions = set.status.as_ref()?.conditions.as_ref()?;
        let failure = conditions.iter().find(|condition| condition.type_ == REPLICA_FAILURE)?;
        Some(DeploymentCondition {
            type_: failure.type_.clone(),
            status: failure.status.clone(),
            reason: failure.reason.clone(),
            message: failure.message.clone(),
            last_transition_time: failure.last_transition_time.clone(),
            last_update_time: failure.last_transition_time.clone(),
        })
    };
    new.and_then(of).or_else(|| sets.into_iter().find_map(of))
}

/// Condition for `spec.paused` having been set or unset, if it is due.
pub fn paused_condition(deployment: &Deployment, now: Timestamp) -> Option<DeploymentCondition> {
    if !has_progress_deadline(deployment) {
        return None;
    }
    let current = deployment.status.as_ref().and_then(|status| condition(status, PROGRESSING));
    let current = current.and_then(|condition| condition.reason.as_deref());
    // A rollout that timed out stays reported as such.
    if current == Some(reason::PROGRESS_DEADLINE_EXCEEDED) {
        return None;
    }
    let known_paused = current == Some(reason::DEPLOYMENT_PAUSED);
    let (reason, message) = match (is_paused(deployment), known_paused) {
        (true, false) => (reason::DEPLOYMENT_PAUSED, "Deployment is paused"),
        (false, true) => (reason::DEPLOYMENT_RESUMED, "Deployment is resumed"),
        _ => return None,
    };
    Some(new_condition(PROGRESSING, "Unknown", reason, message.to_owned(), now))
}

/// `spec.paused`.
pub fn is_paused(deployment: &Deployment) -> bool {
    deployment.spec.as_ref().and_then(|spec| spec.paused).unwrap_or(false)
}

fn nonzero(count: i32) -> Option<i32> {
    (count != 0).then_some(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{at, deployment, owned_replica_set};

    fn set(deployment: &Deployment, name: &str, replicas: i32, available: i32) -> ReplicaSet {
        let mut set = owned_replica_set(deployment, name, replicas);
        let status = set.status.get_or_insert_default();
        status.replicas = replicas;
        status.ready_replicas = Some(available);
        status.available_replicas = Some(available);
        set
    }

    fn with_deadline(seconds: i32) -> Deployment {
        let mut d = deployment("web", 4);
        d.metadata.generation = Some(2);
        d.spec.as_mut().unwrap().progress_deadline_seconds = Some(seconds);
        d
    }

    fn progressing(status: &DeploymentStatus) -> (&str, &str) {
        let condition = condition(status, PROGRESSING).expect("a Progressing condition");
        (condition.status.as_str(), condition.reason.as_deref().unwrap_or(""))
    }

    #[test]
    fn availability() {
        let d = deployment("web", 4);
        for (available, expected) in [
            (4, "MinimumReplicasAvailable"),
            (3, "MinimumReplicasAvailable"),
            (2, "MinimumReplicasUnavailable"),
        ] {
            let new = set(&d, "new", 4, available);
            let status = calculate(&d, [&new].into_iter(), Some(&new), at(1));
            assert_eq!(condition(&status, AVAILABLE).unwrap().reason.as_deref(), Some(expected));
            assert_eq!(status.unavailable_replicas, nonzero(4 - available));
        }
    }

    #[test]
    fn progress_then_complete_then_quiet() {
        let mut d = with_deadline(60);
        let half = set(&d, "web-1", 4, 2);
        d.status = Some(calculate_rollout(&d, [&half].into_iter(), Some(&half), at(10)));
        assert_eq!(progressing(d.status.as_ref().unwrap()), ("True", reason::REPLICA_SET_UPDATED));
        let full = set(&d, "web-1", 4, 4);
        d.status = Some(calculate_rollout(&d, [&full].into_iter(), Some(&full), at(20)));
        let status = d.status.as_ref().unwrap();
        assert_eq!(progressing(status), ("True", reason::NEW_REPLICA_SET_AVAILABLE));
        assert_eq!(
            condition(status, PROGRESSING).unwrap().message.as_deref(),
            Some("ReplicaSet \"web-1\" has successfully progressed.")
        );
        let later = calculate_rollout(&d, [&full].into_iter(), Some(&full), at(9_000));
        assert_eq!(d.status.as_ref(), Some(&later), "nothing changes once complete");
    }

    #[test]
    fn no_progress_times_out() {
        let mut d = with_deadline(60);
        let stuck = set(&d, "web-1", 4, 2);
        d.status = Some(calculate_rollout(&d, [&stuck].into_iter(), Some(&stuck), at(10)));
        let check = next_deadline_check(&d, d.status.as_ref().unwrap(), at(30));
        assert_eq!(check, Some(Duration::from_secs(41)));
        let early = calculate_rollout(&d, [&stuck].into_iter(), Some(&stuck), at(70));
        assert_eq!(progressing(&early), ("True", reason::REPLICA_SET_UPDATED));
        let late = calculate_rollout(&d, [&stuck].into_iter(), Some(&stuck), at(71));
        assert_eq!(progressing(&late), ("False", reason::PROGRESS_DEADLINE_EXCEEDED));
        assert_eq!(next_deadline_check(&d, &late, at(71)), None);
    }

    #[test]
    fn without_a_deadline_no_progress_is_reported() {
        let d = deployment("web", 4);
        let full = set(&d, "web-1", 4, 4);
        let status = calculate_rollout(&d, [&full].into_iter(), Some(&full), at(10));
        assert!(condition(&status, PROGRESSING).is_none());
    }

    #[test]
    fn paused_and_resumed() {
        let mut d = with_deadline(60);
        assert!(paused_condition(&d, at(1)).is_none());
        d.spec.as_mut().unwrap().paused = Some(true);
        let paused = paused_condition(&d, at(1)).unwrap();
        assert_eq!(paused.reason.as_deref(), Some(reason::DEPLOYMENT_PAUSED));
        set_condition(d.status.get_or_insert_default(), paused);
        assert!(paused_condition(&d, at(2)).is_none());
        d.spec.as_mut().unwrap().paused = None;
        assert_eq!(paused_condition(&d, at(3)).unwrap().reason.as_deref(), Some(reason::DEPLOYMENT_RESUMED));
    }

    #[test]
    fn a_condition_that_says_the_same_keeps_its_times() {
        let mut status = DeploymentStatus::default();
        set_condition(&mut status, new_condition(AVAILABLE, "True", "A", String::new(), at(1)));
        set_condition(&mut status, new_condition(AVAILABLE, "True", "A", String::new(), at(2)));
        assert_eq!(condition(&status, AVAILABLE).unwrap().last_update_time, Some(Time(at(1))));
        set_condition(&mut status, new_condition(AVAILABLE, "True", "B", String::new(), at(3)));
        let current = condition(&status, AVAILABLE).unwrap();
        assert_eq!(current.last_update_time, Some(Time(at(3))));
        assert_eq!(current.last_transition_time, Some(Time(at(1))));
    }

    #[test]
    fn replica_failure_is_taken_from_the_new_set_first() {
        let d = deployment("web", 1);
        let failing = |name: &str, message: &str| {
            let mut failing = set(&d, name, 1, 0);
            failing.status.as_mut().unwrap().conditions =
                Some(vec![k8s_openapi::api::apps::v1::ReplicaSetCondition {
                    type_: REPLICA_FAILURE.into(),
                    status: "True".into(),
                    message: Some(message.into()),
                    ..Default::default()
                }]);
            failing
        };
        let (old, new) = (failing("old", "old"), failing("new", "new"));
        let status = calculate_rollout(&d, [&old, &new].into_iter(), Some(&new), at(1));
        assert_eq!(condition(&status, REPLICA_FAILURE).unwrap().message.as_deref(), Some("new"));
    }
}
