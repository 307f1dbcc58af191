//! The status of a ReplicaSet as a function of its pods. Upstream: pkg/controller/replicaset/replica_set_utils.go.

use std::sync::Arc;
use std::time::Duration;

use apimachinery::labels::Selector;
use apimachinery::pod;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

const REPLICA_FAILURE: &str = "ReplicaFailure";

/// What went wrong when pods were to be made or removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaFailure {
    /// `FailedCreate` or `FailedDelete`.
    pub reason: &'static str,
    /// The first error.
    pub message: String,
}

/// The status that `active` and `terminating` pods amount to.
pub fn calculate(
    replica_set: &ReplicaSet,
    active: &[Arc<Pod>],
    terminating: usize,
    failure: Option<&ReplicaFailure>,
    now: Timestamp,
) -> ReplicaSetStatus {
    let spec = replica_set.spec.as_ref();
    let template_labels = spec
        .and_then(|spec| spec.template.as_ref())
        .and_then(|template| template.metadata.as_ref())
        .and_then(|metadata| metadata.labels.clone())
        .unwrap_or_default();
    let template_selector = Selector::from_set(&template_labels);
    let min_ready_seconds = min_ready_seconds(replica_set);
    let count = |holds: &dyn Fn(&Pod) -> bool| int32(active.iter().filter(|pod| holds(pod)).count());

    let current = replica_set.status.clone().unwrap_or_default();
    ReplicaSetStatus {
        replicas: int32(active.len()),
        fully_labeled_replicas: nonzero(count(&|pod| {
            template_selector.matches_opt(pod.metadata.labels.as_ref())
        })),
        ready_replicas: nonzero(count(&|pod| pod::is_ready(pod))),
        available_replicas: nonzero(count(&|pod| pod::is_available(pod, min_ready_seconds, now))),
        terminating_replicas: Some(int32(terminating)),
        observed_generation: replica_set.metadata.generation,
        conditions: conditions(current.conditions.unwrap_or_default(), failure, now),
    }
}

/// When the next pod becomes available by the passing of time alone, if any will.
pub fn next_availability_check(
    replica_set: &ReplicaSet,
    active: &[Arc<Pod>],
    now: Timestamp,
) -> Option<Duration> {
    let min_ready_seconds = min_ready_seconds(replica_set);
    if min_ready_seconds == 0 {
        return None;
    }
    let waiting =
        active.iter().filter(|pod| pod::is_ready(pod) && !pod::is_available(pod, min_ready_seconds, now));
    waiting
        .filter_map(|pod| pod::condition(pod, "Ready")?.last_transition_time.as_ref().map(|time| time.0))
        .map(|ready_since| {
            let left =
                i64::from(min_ready_seconds) * 1_000 - (now.as_millisecond() - ready_since.as_millisecond());
            Duration::from_millis(u64::try_from(left).unwrap_or(0).max(1))
        })
        .min()
}

/// `spec.minReadySeconds`, which defaults to 0.
pub fn min_ready_seconds(replica_set: &ReplicaSet) -> i32 {
    replica_set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0)
}

/// Whether writing `new` would change anything.
pub fn differs(replica_set: &ReplicaSet, new: &ReplicaSetStatus) -> bool {
    replica_set.status.as_ref() != Some(new)
}

fn conditions(
    mut conditions: Vec<ReplicaSetCondition>,
    failure: Option<&ReplicaFailure>,
    now: Timestamp,
) -> Option<Vec<ReplicaSetCondition>> {
    let failing = conditions.iter().any(|condition| condition.type_ == REPLICA_FAILURE);
    match failure {
        Some(failure) if !failing => conditions.push(ReplicaSetCondition {
            type_: REPLICA_FAILURE.to_owned(),
            status: "True".to_owned(),
            reason: Some(failure.reason.to_owned()),
            message: Some(failure.message.clone()),
            last_transition_time: Some(Time(now)),
        }),
        None if failing => conditions.retain(|condition| condition.type_ != REPLICA_FAILURE),
        _ => {}
    }
    (!conditions.is_empty()).then_some(conditions)
}

fn int32(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// Optional counts are left out when zero, as upstream's `omitempty` does.
fn nonzero(count: i32) -> Option<i32> {
    (count != 0).then_some(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{at, pod, replica_set};

    #[test]
    fn counts() {
        let mut rs = replica_set("web", 3);
        rs.metadata.generation = Some(4);
        if let Some(spec) = rs.spec.as_mut() {
            spec.min_ready_seconds = Some(10);
        }
        let pods: Vec<_> = [
            pod("available").label("app", "web").ready(at(80)),
            pod("ready").label("app", "web").ready(at(95)),
            pod("unlabelled").phase("Pending"),
        ]
        .map(|p| Arc::new(p.build()))
        .to_vec();
        let status = calculate(&rs, &pods, 2, None, at(100));
        assert_eq!(status.replicas, 3);
        assert_eq!(status.fully_labeled_replicas, Some(2));
        assert_eq!(status.ready_replicas, Some(2));
        assert_eq!(status.available_replicas, Some(1));
        assert_eq!(status.terminating_replicas, Some(2));
        assert_eq!(status.observed_generation, Some(4));
        assert_eq!(next_availability_check(&rs, &pods, at(100)), Some(Duration::from_secs(5)));
    }

    #[test]
    fn zero_counts_are_left_out() {
        let status = calculate(&replica_set("web", 0), &[], 0, None, at(1));
        assert_eq!(
            (status.ready_replicas, status.available_replicas, status.fully_labeled_replicas),
            (None, None, None)
        );
    }

    #[test]
    fn failure_condition_comes_and_goes_and_keeps_its_time() {
        let mut rs = replica_set("web", 1);
        let failure = ReplicaFailure { reason: "FailedCreate", message: "quota".into() };
        let status = calculate(&rs, &[], 0, Some(&failure), at(5));
        let condition = &status.conditions.as_ref().unwrap()[0];
        assert_eq!((condition.type_.as_str(), condition.status.as_str()), ("ReplicaFailure", "True"));
        assert_eq!(condition.reason.as_deref(), Some("FailedCreate"));
        rs.status = Some(status.clone());
        assert!(!differs(&rs, &calculate(&rs, &[], 0, Some(&failure), at(50))));
        assert_eq!(calculate(&rs, &[], 0, None, at(60)).conditions, None);
    }
}
