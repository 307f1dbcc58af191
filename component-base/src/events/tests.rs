//! The correlator's and series' rules, with the clock in hand.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ObjectReference;

use super::{
    Action, EventRecorder, EventType, RecordedEvent,
    correlator::Correlator,
    series::{Outcome, Series},
};

fn start() -> Timestamp {
    Timestamp::from_second(1_700_000_000).unwrap()
}

fn after(seconds: i64) -> Timestamp {
    start() + SignedDuration::from_secs(seconds)
}

fn event(name: &str, reason: &str, message: &str) -> RecordedEvent {
    RecordedEvent {
        regarding: ObjectReference {
            kind: Some("Pod".into()),
            namespace: Some("default".into()),
            name: Some(name.into()),
            ..ObjectReference::default()
        },
        event_type: EventType::Warning,
        reason: reason.into(),
        message: message.into(),
        action: None,
    }
}

#[test]
fn the_same_event_again_raises_the_count() {
    let mut correlator = Correlator::new();
    let first = correlator.observe(&event("web", "BackOff", "m"), start()).unwrap();
    assert_eq!((first.count, first.name.as_str()), (1, "web.17979cfe362a0000"));
    let second = correlator.observe(&event("web", "BackOff", "m"), after(5)).unwrap();
    assert_eq!((second.count, &second.name), (2, &first.name));
    assert_eq!((second.first, second.last), (start(), after(5)));
    assert_eq!(correlator.observe(&event("web", "BackOff", "other"), after(6)).unwrap().count, 1);
    assert_eq!(correlator.observe(&event("api", "BackOff", "m"), after(6)).unwrap().count, 1);
}

#[test]
fn ten_messages_of_one_reason_are_combined() {
    let mut correlator = Correlator::new();
    let outcomes: Vec<_> = (0..12)
        .map(|i| correlator.observe(&event("web", "Unhealthy", &format!("m{i}")), after(i)).unwrap())
        .collect();
    assert!(outcomes[..9].iter().all(|outcome| outcome.count == 1 && !outcome.message.starts_with('(')));
    assert_eq!(outcomes[9].message, "(combined from similar events): m9");
    assert_eq!(outcomes[9].count, 1);
    assert_eq!((outcomes[11].count, &outcomes[11].name), (3, &outcomes[9].name));
    // A pause of more than ten minutes starts over.
    let later = correlator.observe(&event("web", "Unhealthy", "new"), after(12 + 601)).unwrap();
    assert_eq!((later.count, later.message.as_str()), (1, "new"));
}

#[test]
fn an_object_that_spams_is_not_listened_to() {
    let mut correlator = Correlator::new();
    let accepted = (0..100).filter_map(|_| correlator.observe(&event("web", "R", "m"), start())).count();
    assert_eq!(accepted, 25);
    assert!(correlator.observe(&event("other", "R", "m"), start()).is_some(), "another object is");
    assert!(correlator.observe(&event("web", "R", "m"), after(299)).is_none());
    assert!(correlator.observe(&event("web", "R", "m"), after(301)).is_some(), "one token in five minutes");
}

#[test]
fn repeated_action_becomes_a_series() {
    let mut series = Series::new();
    let mut scheduled = event("web", "FailedScheduling", "0/1 nodes");
    scheduled.action = Some(Action { action: "Scheduling".into(), related: None });
    let name = match series.observe(&scheduled, "default", start()) {
        Outcome::Create { name, .. } => name,
        other => panic!("{other:?}"),
    };
    match series.observe(&scheduled, "default", after(1)) {
        Outcome::Series(update) => assert_eq!((update.count, update.name), (2, name.clone())),
        other => panic!("{other:?}"),
    }
    assert_eq!(series.observe(&scheduled, "default", after(2)), Outcome::Counted);
    assert_eq!(series.sweep(after(60)), []);
    let ended = series.sweep(after(2 + 361));
    assert_eq!(ended.iter().map(|update| (update.count, &update.name)).collect::<Vec<_>>(), [(3, &name)]);
    assert!(matches!(series.observe(&scheduled, "default", after(400)), Outcome::Create { .. }));
}

#[test]
fn the_fake_collects() {
    let recorder = EventRecorder::fake();
    recorder.event_for(&event("web", "", "").regarding, EventType::Normal, "Scheduled", "assigned");
    assert_eq!(recorder.recorded()[0].to_string(), "Normal Scheduled assigned");
}
