//! What a simulator relies on.

use super::*;
use crate::{KeyRange, PutRequest, WatchCreateRequest};
use rand::SeedableRng;
use rand::rngs::SmallRng;

fn put(cluster: &mut Cluster, key: &'static str) -> i64 {
    cluster.request(Fate::Answered, |etcd| etcd.put(&PutRequest::new(key, "x"))).unwrap().revision
}

fn everything() -> WatchCreateRequest {
    KeyRange::all().into()
}

/// A cluster with a stream on which a watch of everything has been created.
fn watched() -> (Cluster, StreamId) {
    let mut cluster = Cluster::default();
    let stream = cluster.open_stream();
    cluster.watch(stream, &everything()).unwrap();
    assert!(cluster.receive(stream).unwrap()[0].created);
    (cluster, stream)
}

fn revisions(responses: &[WatchResponse]) -> Vec<i64> {
    responses.iter().flat_map(|response| &response.events).map(|event| event.kv.mod_revision).collect()
}

#[test]
fn fates_are_what_they_say() {
    let (mut cluster, _) = watched();
    let mut attempt = |fate| {
        let answer = cluster.request(fate, |etcd| etcd.put(&PutRequest::new("a", "x")));
        (answer.map(|answer| answer.revision), cluster.model().revision())
    };
    assert_eq!(attempt(Fate::Answered), (Ok(2), 2));
    assert_eq!(attempt(Fate::Unavailable), (Err(RequestError::Unavailable), 2));
    assert_eq!(attempt(Fate::UnknownNotApplied), (Err(RequestError::Unknown), 2));
    assert_eq!(attempt(Fate::UnknownApplied), (Err(RequestError::Unknown), 3));
    let refused = cluster.request(Fate::Answered, |etcd| etcd.compact(9));
    assert_eq!(refused, Err(RequestError::Refused(Error::FutureRevision)));
}

#[test]
fn chances_become_fates() {
    let mut rng = SmallRng::seed_from_u64(1);
    let faults =
        Faults { unavailable: 0.1, unknown_applied: 0.2, unknown_not_applied: 0.3, ..Faults::default() };
    let mut counts = BTreeMap::new();
    for _ in 0..10_000 {
        *counts.entry(format!("{:?}", faults.fate(&mut rng))).or_insert(0) += 1;
    }
    for (fate, expected) in
        [("Answered", 4000), ("Unavailable", 1000), ("UnknownApplied", 2000), ("UnknownNotApplied", 3000)]
    {
        assert!((expected - 200..expected + 200).contains(&counts[fate]), "{counts:?}");
    }
    assert!((0..1000).all(|_| Faults::default().fate(&mut rng) == Fate::Answered));
}

#[test]
fn delayed_events_arrive_later_in_order_and_in_spite_of_compactions() {
    let (mut cluster, stream) = watched();
    cluster.delay(stream, 50);
    put(&mut cluster, "a");
    cluster.delay(stream, 0);
    put(&mut cluster, "a");
    cluster.request(Fate::Answered, |etcd| etcd.compact(3)).unwrap();
    assert_eq!(cluster.next_arrival(), Some(50));
    cluster.advance(49);
    assert!(cluster.receive(stream).unwrap().is_empty());
    cluster.advance(50);
    assert_eq!(revisions(&cluster.receive(stream).unwrap()), [2, 3]);
}

#[test]
fn a_frozen_stream_catches_up_unless_compacted() {
    let (mut cluster, stream) = watched();
    cluster.freeze(stream);
    put(&mut cluster, "a");
    put(&mut cluster, "b");
    assert!(cluster.receive(stream).unwrap().is_empty());
    cluster.thaw(stream);
    assert_eq!(revisions(&cluster.receive(stream).unwrap()), [2, 3]);
    cluster.freeze(stream);
    put(&mut cluster, "a");
    put(&mut cluster, "b");
    cluster.request(Fate::Answered, |etcd| etcd.compact(5)).unwrap();
    cluster.thaw(stream);
    let canceled = cluster.receive(stream).unwrap();
    assert!(canceled.len() == 1 && canceled[0].compact_revision == 5, "{canceled:?}");
}

#[test]
fn progress_comes_after_the_events_unless_it_overtakes_them() {
    for (overtakes, expected) in [(false, vec![]), (true, vec![2])] {
        let quirks = crate::Quirks { progress_overtakes_events: overtakes, ..Default::default() };
        let mut cluster = Cluster::new(Model::with_quirks(quirks));
        let stream = cluster.open_stream();
        let watch = cluster.watch(stream, &everything()).unwrap();
        cluster.receive(stream).unwrap();
        cluster.freeze(stream);
        put(&mut cluster, "a");
        cluster.request_progress(stream).unwrap();
        let arrived = cluster.receive(stream).unwrap();
        assert_eq!(arrived.iter().map(|progress| progress.revision).collect::<Vec<_>>(), expected);
        cluster.thaw(stream);
        assert_eq!(revisions(&cluster.receive(stream).unwrap()), [2]);
        cluster.request_progress(stream).unwrap();
        assert!(cluster.receive(stream).unwrap()[0].is_progress());
        cluster.cancel(stream, watch).unwrap();
        put(&mut cluster, "a");
        let last = cluster.receive(stream).unwrap();
        assert!(last.len() == 1 && last[0].canceled, "{last:?}");
    }
}

#[test]
fn a_new_leader_cuts_every_stream_and_extends_leases() {
    let (mut cluster, stream) = watched();
    let other = cluster.open_stream();
    cluster.request(Fate::Answered, |etcd| etcd.lease_grant(1, 10)).unwrap();
    cluster.advance(9_000);
    put(&mut cluster, "a");
    cluster.leader_change();
    assert_eq!((cluster.receive(stream), cluster.receive(other)), (Err(StreamCut), Err(StreamCut)));
    assert_eq!(cluster.watch(stream, &everything()), Err(StreamCut));
    cluster.advance(18_999);
    assert_eq!(cluster.model().leases(), [1]);
    let again = cluster.open_stream();
    let resumed = WatchCreateRequest { start_revision: 2, ..everything() };
    cluster.watch(again, &resumed).unwrap();
    assert_eq!(revisions(&cluster.receive(again).unwrap()), [2], "a watch resumes without a gap");
}

#[test]
fn a_restored_backup_goes_back_unless_bumped() {
    let (mut cluster, stream) = watched();
    put(&mut cluster, "a");
    let backup = cluster.snapshot();
    put(&mut cluster, "b");
    cluster.advance(100);
    cluster.restore(&backup, None);
    assert_eq!(cluster.receive(stream), Err(StreamCut));
    assert_eq!((cluster.model().revision(), cluster.model().now_ms()), (2, 100));
    assert_eq!(put(&mut cluster, "c"), 3, "a revision that was another's");
    cluster.restore(&backup, Some(1000));
    assert_eq!((cluster.model().revision(), cluster.model().compact_revision()), (1002, 1002));
    assert_eq!(put(&mut cluster, "c"), 1003);
    let stream = cluster.open_stream();
    cluster.watch(stream, &WatchCreateRequest { start_revision: 4, ..everything() }).unwrap();
    assert_eq!(cluster.receive(stream).unwrap()[1].compact_revision, 1002);
}

/// A history under every fault, as text.
fn history(seed: u64) -> String {
    let mut rng = SmallRng::seed_from_u64(seed);
    let faults = Faults {
        unavailable: 0.1,
        unknown_applied: 0.1,
        unknown_not_applied: 0.1,
        cut: 0.02,
        freeze: 0.05,
        thaw: 0.2,
        delay: 0.1,
        max_delay_ms: 30,
        leader_change: 0.01,
    };
    let (mut cluster, mut history, mut seen) = (Cluster::default(), String::new(), 0);
    let mut stream = cluster.open_stream();
    for step in 0..2000 {
        cluster.advance(step * 10);
        cluster.disturb(&faults, &mut rng);
        let fate = faults.fate(&mut rng);
        let answer = cluster.request(fate, |etcd| etcd.put(&PutRequest::new("a", "x")));
        history += &format!("{answer:?}\n");
        match cluster.receive(stream) {
            Ok(responses) => {
                for revision in revisions(&responses) {
                    assert_eq!(revision, seen + 1, "a gap or a repeat");
                    seen = revision;
                }
                history += &format!("{responses:?}\n");
            }
            Err(StreamCut) => {
                stream = cluster.open_stream();
                seen = seen.max(1);
                cluster
                    .watch(stream, &WatchCreateRequest { start_revision: seen + 1, ..everything() })
                    .unwrap();
            }
        }
    }
    history
}

#[test]
fn the_same_seed_makes_the_same_history() {
    let first = history(1);
    assert_eq!(first, history(1));
    assert_ne!(first, history(2));
    for part in ["Ok(", "Unavailable", "Unknown", "created: true"] {
        assert!(first.contains(part), "no {part} in it");
    }
}
