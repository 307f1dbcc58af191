//! Sequences of updates and outcomes, and what the workers do.

use k8s_openapi::api::core::v1::PodSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use super::*;
use crate::pod::{CONFIG_SOURCE_ANNOTATION, FILE_SOURCE};

fn api_pod(uid: &str) -> Pod {
    Pod {
        metadata: ObjectMeta {
            uid: Some(uid.to_owned()),
            name: Some(format!("pod-{uid}")),
            namespace: Some("ns".to_owned()),
            ..Default::default()
        },
        spec: Some(PodSpec { termination_grace_period_seconds: Some(20), ..Default::default() }),
        ..Default::default()
    }
}

fn static_pod(uid: &str) -> Pod {
    let mut pod = api_pod(uid);
    pod.metadata.name = Some("static".to_owned());
    pod.metadata.annotations = Some([(CONFIG_SOURCE_ANNOTATION.to_owned(), FILE_SOURCE.to_owned())].into());
    pod
}

fn deleted(mut pod: Pod, grace: i64) -> Arc<Pod> {
    pod.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
    pod.metadata.deletion_grace_period_seconds = Some(grace);
    Arc::new(pod)
}

fn grace(work: Option<Work>) -> i64 {
    match work {
        Some(Work::Terminate(termination)) => termination.grace_period_seconds,
        other => panic!("not terminating: {other:?}"),
    }
}

const SYNCED: Outcome = Outcome::Synced { again_after: None };

#[test]
fn updates_during_a_sync_are_coalesced_into_one_more() {
    let mut workers = PodWorkers::default();
    workers.update(Arc::new(api_pod("a")));
    assert!(matches!(workers.start("a"), Some(Work::Sync(_))));
    for _ in 0..5 {
        workers.update(Arc::new(api_pod("a")));
        assert!(workers.start("a").is_none(), "never two works at once");
    }
    assert_eq!(workers.complete("a", &SYNCED).wake, ["a"]);
    assert!(matches!(workers.start("a"), Some(Work::Sync(_))));
    assert_eq!(workers.complete("a", &SYNCED), Effects::default());
    assert!(workers.start("a").is_none());
}

#[test]
fn a_deleted_pod_goes_through_all_phases() {
    let mut workers = PodWorkers::default();
    workers.update(Arc::new(api_pod("a")));
    workers.start("a");
    let effects = workers.update(deleted(api_pod("a"), 5));
    assert_eq!(effects.cancel, ["a"], "a sync under way is cut short");
    assert_eq!(workers.complete("a", &Outcome::Cancelled).wake, ["a"]);
    assert!(!workers.containers_are_gone("a"));
    assert_eq!(grace(workers.start("a")), 5);
    assert_eq!(workers.complete("a", &Outcome::Terminated).wake, ["a"]);
    assert!(workers.containers_are_gone("a"));
    assert!(matches!(workers.start("a"), Some(Work::Finish(_))));
    workers.complete("a", &Outcome::Finished);
    assert!(workers.start("a").is_none());
    assert!(workers.collect(&HashSet::from(["a".to_owned()])).is_empty(), "the source still has it");
    assert_eq!(workers.collect(&HashSet::new()), ["a"]);
}

#[test]
fn a_shorter_grace_period_cuts_a_termination_short_and_a_longer_one_does_not() {
    let mut workers = PodWorkers::default();
    workers.update(deleted(api_pod("a"), 30));
    assert_eq!(grace(workers.start("a")), 30);
    assert!(workers.update(deleted(api_pod("a"), 60)).cancel.is_empty());
    assert_eq!(workers.update(deleted(api_pod("a"), 0)).cancel, ["a"]);
    workers.complete("a", &Outcome::Cancelled);
    assert_eq!(grace(workers.start("a")), 1, "never less than a second");
}

#[test]
fn a_failed_work_is_retried_later() {
    let mut workers = PodWorkers::default();
    workers.update(Arc::new(api_pod("a")));
    workers.start("a");
    let effects = workers.complete("a", &Outcome::Failed { again_after: BACK_OFF_PERIOD });
    assert_eq!(effects.wake_after, Some(("a".to_owned(), BACK_OFF_PERIOD)));
    assert!(workers.start("a").is_none(), "not before the timer");
    workers.retry("a");
    assert!(matches!(workers.start("a"), Some(Work::Sync(_))));
}

#[test]
fn a_pod_that_ended_is_terminated_and_kept_until_its_source_forgets_it() {
    let mut workers = PodWorkers::default();
    workers.update(Arc::new(api_pod("a")));
    workers.start("a");
    workers.complete("a", &Outcome::Ended);
    assert_eq!(grace(workers.start("a")), 20, "its own grace period");
    workers.complete("a", &Outcome::Terminated);
    workers.start("a");
    workers.complete("a", &Outcome::Finished);
    assert_eq!(workers.update(deleted(api_pod("a"), 0)), Effects::default(), "nothing is left to do");
    assert!(workers.start("a").is_none());
}

#[test]
fn a_pod_first_seen_in_a_final_phase_starts_nothing() {
    let mut pod = api_pod("a");
    pod.status = Some(k8s_openapi::api::core::v1::PodStatus {
        phase: Some("Failed".to_owned()),
        ..Default::default()
    });
    let mut workers = PodWorkers::default();
    workers.update(Arc::new(pod));
    assert!(matches!(workers.start("a"), Some(Work::Terminate(_))));
}

#[test]
fn a_changed_manifest_waits_for_its_predecessor() {
    let mut workers = PodWorkers::default();
    workers.update(Arc::new(static_pod("old")));
    assert!(workers.start("old").is_some());
    workers.complete("old", &SYNCED);
    workers.remove("old");
    workers.update(Arc::new(static_pod("new")));
    workers.update(Arc::new(static_pod("newer")));
    workers.remove("new");
    assert!(workers.start("newer").is_none(), "the old one still runs");
    workers.start("old");
    workers.complete("old", &Outcome::Terminated);
    workers.start("old");
    let effects = workers.complete("old", &Outcome::Finished);
    assert!(effects.wake.contains(&"newer".to_owned()));
    assert!(matches!(workers.start("newer"), Some(Work::Sync(_))), "a removed one in between is skipped");
}

#[test]
fn a_manifest_put_back_starts_again_after_it_has_ended() {
    let mut workers = PodWorkers::default();
    workers.update(Arc::new(static_pod("a")));
    workers.start("a");
    workers.complete("a", &SYNCED);
    workers.remove("a");
    assert!(matches!(workers.start("a"), Some(Work::Terminate(_))));
    workers.update(Arc::new(static_pod("a")));
    workers.complete("a", &Outcome::Terminated);
    workers.start("a");
    let effects = workers.complete("a", &Outcome::Finished);
    assert_eq!(effects.wake.first().map(String::as_str), Some("a"));
    assert!(matches!(workers.start("a"), Some(Work::Sync(_))));
}

#[test]
fn orphans_are_terminated_and_forgotten() {
    let mut workers = PodWorkers::default();
    let summary = RuntimePodSummary { uid: "o".to_owned(), ..Default::default() };
    assert_eq!(workers.terminate_orphan(summary.clone()).wake, ["o"]);
    assert_eq!(workers.terminate_orphan(summary), Effects::default(), "once");
    assert_eq!(grace(workers.start("o")), 1);
    workers.complete("o", &Outcome::Terminated);
    workers.start("o");
    workers.complete("o", &Outcome::Finished);
    assert_eq!(workers.collect(&HashSet::new()), ["o"]);
}

#[test]
fn an_evicted_pod_keeps_the_first_reason() {
    let eviction = |reason: &str, grace| Eviction {
        reason: reason.to_owned(),
        message: String::new(),
        grace_period_seconds: Some(grace),
    };
    let mut workers = PodWorkers::default();
    workers.update(Arc::new(api_pod("a")));
    workers.evict("a", eviction("Evicted", 10));
    workers.evict("a", eviction("Other", 0));
    let Some(Work::Terminate(termination)) = workers.start("a") else { panic!("not terminating") };
    assert_eq!(termination.eviction.map(|e| e.reason).as_deref(), Some("Evicted"));
    assert_eq!(termination.grace_period_seconds, 1);
}
