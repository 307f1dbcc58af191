//! One test for each thing that a client of etcd relies on.

use super::*;
use crate::{
    Compare, CompareOperator as Is, CompareTarget as Target, Event, EventType, KeyRange, KeyValue, RequestOp,
    ResponseOp,
};

fn put(key: &'static str, value: &'static str) -> PutRequest {
    PutRequest::new(key, value)
}

fn put_leased(key: &'static str, lease: i64) -> PutRequest {
    PutRequest { lease, ..put(key, "x") }
}

fn all_at(revision: i64) -> RangeRequest {
    RangeRequest { revision, ..KeyRange::all().into() }
}

fn success(success: Vec<RequestOp>) -> TxnRequest {
    TxnRequest { success, ..TxnRequest::default() }
}

fn op_put(key: &'static str) -> RequestOp {
    RequestOp::Put(put(key, "x"))
}

fn op_delete(keys: KeyRange) -> RequestOp {
    RequestOp::DeleteRange(keys.into())
}

/// Puts of these keys, each a revision, from 2 on.
fn model_of(keys: &[&'static str]) -> Model {
    let mut model = Model::new();
    for key in keys {
        model.put(&put(key, "x")).unwrap();
    }
    model
}

fn watch_from(model: &mut Model, start_revision: i64) -> i64 {
    model
        .watch_create(&WatchCreateRequest { start_revision, prev_kv: true, ..KeyRange::all().into() })
        .watch_id
}

fn text(event: &Event) -> String {
    let kind = if event.kind == EventType::Put { '+' } else { '-' };
    format!("{}{kind}{}", event.kv.mod_revision, String::from_utf8_lossy(&event.kv.key))
}

/// What a watch delivers now: `5+a` for a put of `a` at revision 5, `6-a` for its deletion.
fn told(model: &mut Model, watch: i64) -> Vec<String> {
    model.watch_poll(watch).iter().flat_map(|response| &response.events).map(text).collect()
}

#[test]
fn what_changes_nothing_makes_no_revision() {
    let mut model = model_of(&["a"]);
    assert_eq!(model.delete_range(&KeyRange::one("b").into()).unwrap().revision, 2);
    let compare = vec![Compare::at_mod_revision("a", 1)];
    let failed = model.txn(&TxnRequest { compare, ..success(vec![op_put("a")]) }).unwrap();
    assert_eq!((failed.succeeded, failed.revision, model.revision()), (false, 2, 2));
    assert_eq!(model.lease_grant(1, 10).unwrap().revision, 2);
    assert_eq!(model.lease_revoke(1).unwrap(), 2);
    assert_eq!(model.txn(&success(vec![op_delete(KeyRange::one("b"))])).unwrap().revision, 2);
}

#[test]
fn a_transaction_is_one_revision_with_its_own_order() {
    let mut model = model_of(&["b", "d"]);
    let watch = watch_from(&mut model, 0);
    let ops = vec![op_put("c"), op_delete(KeyRange::all()), RequestOp::Range(KeyRange::all().into())];
    let done = model.txn(&success(ops)).unwrap();
    assert_eq!((done.revision, model.revision()), (4, 4));
    let ResponseOp::DeleteRange(deleted) = &done.responses[1] else { panic!("{done:?}") };
    let ResponseOp::Range(left) = &done.responses[2] else { panic!("{done:?}") };
    assert_eq!((deleted.deleted, left.count, left.revision), (3, 0, 4), "it sees its own changes");
    let responses = model.watch_poll(watch);
    assert_eq!(responses.len(), 1, "the revision is whole");
    let events: Vec<String> = responses[0].events.iter().map(text).collect();
    assert_eq!(events, ["4+c", "4-b", "4-c", "4-d"]);
}

#[test]
fn a_key_made_anew_starts_anew() {
    let mut model = model_of(&["a", "a"]);
    model.delete_range(&KeyRange::one("a").into()).unwrap();
    model.put(&put("a", "y")).unwrap();
    model.put(&put("a", "z")).unwrap();
    let of = |revision| {
        let kv = model.range(&all_at(revision)).unwrap().kvs.pop();
        kv.map(|kv| (kv.create_revision, kv.mod_revision, kv.version))
    };
    assert_eq!(of(3), Some((2, 3, 2)));
    assert_eq!(of(4), None);
    assert_eq!(of(5), Some((5, 5, 1)));
    assert_eq!(of(6), Some((5, 6, 2)));
}

#[test]
fn ranges_count_everything_and_return_what_was_asked_for() {
    let model = model_of(&["c", "a", "b", "a"]);
    let kvs = |request: RangeRequest| {
        let response = model.range(&request).unwrap();
        let keys: Vec<Bytes> = response.kvs.iter().map(|kv| kv.key.clone()).collect();
        (keys, response.more, response.count, response.revision)
    };
    assert_eq!(kvs(all_at(0)), (vec!["a".into(), "b".into(), "c".into()], false, 3, 5));
    assert_eq!(kvs(RangeRequest { limit: 2, ..all_at(0) }), (vec!["a".into(), "b".into()], true, 3, 5));
    assert!(!kvs(RangeRequest { limit: 3, ..all_at(0) }).1, "nothing is left after the third");
    assert_eq!(kvs(RangeRequest { count_only: true, limit: 1, ..all_at(0) }), (vec![], false, 3, 5));
    assert_eq!(
        kvs(all_at(3)),
        (vec!["a".into(), "c".into()], false, 2, 5),
        "at an old revision, told the new one"
    );
    assert_eq!(
        kvs(RangeRequest { min_mod_revision: 4, ..all_at(0) }),
        (vec!["a".into(), "b".into()], false, 3, 5)
    );
    assert_eq!(kvs(RangeRequest { max_create_revision: 2, ..all_at(0) }), (vec!["c".into()], false, 3, 5));
    let keys_only = model.range(&RangeRequest { keys_only: true, ..all_at(0) }).unwrap();
    assert!(keys_only.kvs.iter().all(|kv| kv.value.is_empty() && kv.version > 0));
}

#[test]
fn refusals_change_nothing() {
    let mut model = model_of(&["a"]);
    let before = model.clone();
    let nested = |ops| RequestOp::Txn(success(ops));
    let refused = [
        (success(vec![op_put("")]), Error::EmptyKey),
        (success(vec![op_put("a"), op_put("a")]), Error::DuplicateKey),
        (success(vec![op_put("a"), op_delete(KeyRange::between("a", "b"))]), Error::DuplicateKey),
        (success(vec![nested(vec![op_put("a")]), op_put("a")]), Error::DuplicateKey),
        (success(vec![op_delete(KeyRange::one("a")), nested(vec![op_put("a")])]), Error::DuplicateKey),
        (success(vec![op_put("a"), RequestOp::Put(put_leased("b", 5))]), Error::LeaseNotFound),
        (success(vec![op_put("a"), RequestOp::Range(all_at(3))]), Error::FutureRevision),
        (success(vec![RequestOp::Range(all_at(0)); 129]), Error::TooManyOps),
        (success(vec![nested(vec![RequestOp::Range(all_at(0)); 128])]), Error::TooManyOps),
    ];
    for (txn, error) in refused {
        assert_eq!(model.txn(&txn), Err(error), "{txn:?}");
    }
    assert_eq!(model.put(&put("", "x")), Err(Error::EmptyKey));
    assert_eq!(model.put(&put_leased("b", 5)), Err(Error::LeaseNotFound));
    assert_eq!(model.delete_range(&KeyRange::one("").into()), Err(Error::EmptyKey));
    assert_eq!(model.range(&all_at(3)), Err(Error::FutureRevision));
    assert_eq!(model.compact(3), Err(Error::FutureRevision));
    assert_eq!(model, before);
    let mut branches = success(vec![op_put("a")]);
    branches.failure = vec![op_put("a")];
    model.txn(&success(vec![RequestOp::Txn(branches)])).expect("only one of two branches puts the key");
    model.txn(&success(vec![op_put("c"), op_delete(KeyRange::from_key("b"))])).expect("etcd does not see it");
}

#[test]
fn compares_look_at_each_field_with_each_operator() {
    let mut model = model_of(&["z", "a", "a"]);
    model.lease_grant(7, 10).unwrap();
    model.put(&put_leased("a", 7)).unwrap();
    let mut holds = |key: &'static str, operator, target| {
        let compare = vec![Compare { keys: KeyRange::one(key), operator, target }];
        model.txn(&TxnRequest { compare, ..TxnRequest::default() }).unwrap().succeeded
    };
    // Version 3, created at 3, modified at 5, "x", lease 7.
    let targets: [fn(i64) -> Target; 4] =
        [Target::Version, Target::CreateRevision, Target::ModRevision, Target::Lease];
    for (target, is) in targets.into_iter().zip([3, 3, 5, 7]) {
        for (off, equal, greater) in [(-1, false, true), (0, true, false), (1, false, false)] {
            assert_eq!(holds("a", Is::Equal, target(is + off)), equal);
            assert_eq!(holds("a", Is::NotEqual, target(is + off)), !equal);
            assert_eq!(holds("a", Is::Greater, target(is + off)), greater);
            assert_eq!(holds("a", Is::Less, target(is + off)), !equal && !greater);
        }
        assert!(holds("none", Is::Equal, target(0)));
    }
    assert!(holds("a", Is::Equal, Target::Value("x".into())));
    assert!(holds("a", Is::Greater, Target::Value("w".into())));
    assert!(!holds("none", Is::NotEqual, Target::Value("x".into())), "what is not there has no value");
    let range = |operator, revision| {
        let target = Target::ModRevision(revision);
        vec![Compare { keys: KeyRange::all(), operator, target }]
    };
    let mut all = |compare| model.txn(&TxnRequest { compare, ..TxnRequest::default() }).unwrap().succeeded;
    assert!(all(range(Is::Greater, 1)) && !all(range(Is::Greater, 2)), "every key of the range has to");
}

#[test]
fn inner_transactions_compare_with_the_state_before_all() {
    let mut model = model_of(&["a"]);
    let compare = vec![Compare::at_mod_revision("b", 0)];
    let inner = TxnRequest { compare, success: vec![op_put("c")], failure: vec![] };
    let done = model.txn(&success(vec![op_put("b"), RequestOp::Txn(inner)])).unwrap();
    let ResponseOp::Txn(inner) = &done.responses[1] else { panic!("{done:?}") };
    assert_eq!((inner.succeeded, inner.revision, done.revision), (true, 0, 3));
    assert_eq!(model.range(&all_at(0)).unwrap().count, 3);
}

#[test]
fn leases_take_their_keys_with_them() {
    let mut model = Model::new();
    assert_eq!(model.lease_grant(1, 1).unwrap().ttl, 2, "etcd has a minimum");
    assert_eq!(model.lease_grant(1, 5), Err(Error::LeaseExists));
    assert_eq!(model.lease_grant(0, 5).unwrap().id, 2);
    assert_eq!(model.lease_grant(3, 9_000_000_001), Err(Error::LeaseTtlTooLarge));
    for (key, lease) in [("c", 1), ("a", 1), ("b", 1), ("b", 2), ("d", 2), ("d", 0)] {
        model.put(&put_leased(key, lease)).unwrap();
    }
    assert_eq!(model.lease_time_to_live(1).keys, ["a", "c"]);
    assert_eq!(model.lease_time_to_live(2).keys, ["b"], "a key hangs on its last lease");
    let watch = watch_from(&mut model, 0);
    model.advance(1999);
    assert_eq!(model.leases(), [1, 2]);
    assert_eq!(model.lease_keep_alive(1), 2);
    model.advance(3998);
    assert_eq!(model.lease_time_to_live(1).ttl, 0);
    model.advance(3999);
    assert_eq!((model.leases(), told(&mut model, watch)), (vec![2], vec!["8-a".into(), "8-c".into()]));
    model.promote();
    model.advance(8998);
    assert_eq!(model.leases(), [2], "a new leader gives the whole time anew");
    model.advance(8999);
    assert_eq!(told(&mut model, watch), ["9-b"]);
    assert_eq!((model.lease_keep_alive(2), model.lease_time_to_live(2).ttl), (0, -1));
    assert_eq!(model.lease_revoke(2), Err(Error::LeaseNotFound));
}

#[test]
fn leases_that_run_out_together_do_so_in_their_order() {
    let mut model = Model::new();
    for (id, ttl, key) in [(1, 9, "a"), (2, 3, "b"), (3, 3, "c")] {
        model.lease_grant(id, ttl).unwrap();
        model.put(&put_leased(key, id)).unwrap();
    }
    let watch = watch_from(&mut model, 0);
    model.advance(60_000);
    assert_eq!(told(&mut model, watch), ["5-b", "6-c", "7-a"]);
}

#[test]
fn a_compaction_leaves_its_revision_and_later_ones() {
    let mut model = model_of(&["a", "b", "a", "b"]);
    model.delete_range(&KeyRange::one("b").into()).unwrap();
    let at_4 = model.range(&all_at(4)).unwrap();
    assert_eq!(model.compact(4), Ok(6));
    assert_eq!(model.compact_revision(), 4);
    assert_eq!(model.range(&all_at(3)), Err(Error::Compacted));
    assert_eq!(model.range(&all_at(4)).unwrap(), at_4);
    assert_eq!(model.compact(4), Err(Error::Compacted));
    assert_eq!(model.txn(&success(vec![RequestOp::Range(all_at(3))])), Err(Error::Compacted));
    for (start, events) in [(4, vec!["4+a", "5+b", "6-b"]), (5, vec!["5+b", "6-b"]), (0, vec![])] {
        let watch = watch_from(&mut model, start);
        assert_eq!(told(&mut model, watch), events);
    }
}

#[test]
fn compactions_bound_what_is_kept() {
    let mut model = Model::new();
    for _ in 0..100 {
        for key in ["a", "b", "c"] {
            model.put(&put(key, "x")).unwrap();
        }
        model.delete_range(&KeyRange::all().into()).unwrap();
        model.put(&put("a", "x")).unwrap();
        model.compact(model.revision()).unwrap();
        assert_eq!(model.store.size(), (1, 1));
    }
}

#[test]
fn a_watch_begins_where_it_says() {
    let mut model = model_of(&["a", "b"]);
    let [now, old, future] = [0, 3, 6].map(|start| watch_from(&mut model, start));
    for key in ["c", "a", "d"] {
        model.put(&put(key, "x")).unwrap();
    }
    assert_eq!(told(&mut model, now), ["4+c", "5+a", "6+d"]);
    assert_eq!(told(&mut model, old), ["3+b", "4+c", "5+a", "6+d"]);
    assert_eq!(told(&mut model, future), ["6+d"]);
    assert!(model.watch_poll(old).is_empty(), "nothing is delivered twice");
    assert!(
        model.watch_cancel(old).is_some_and(|answer| answer.canceled) && model.watch_cancel(old).is_none()
    );
    let empty = model.watch_create(&KeyRange::between("b", "a").into());
    assert_eq!((empty.watch_id, empty.created, empty.canceled), (-1, true, true));
}

#[test]
fn a_watch_tells_what_it_was_asked_for() {
    let mut model = model_of(&["a"]);
    let request = WatchCreateRequest::from(KeyRange::prefix("a"));
    let plain = model.watch_create(&request).watch_id;
    let deletes = model.watch_create(&WatchCreateRequest { no_put: true, ..request.clone() }).watch_id;
    let puts = model.watch_create(&WatchCreateRequest { no_delete: true, ..request }).watch_id;
    for key in ["b", "a1"] {
        model.put(&put(key, "x")).unwrap();
    }
    model.delete_range(&KeyRange::all().into()).unwrap();
    assert_eq!(told(&mut model, puts), ["4+a1"]);
    assert_eq!(told(&mut model, deletes), ["5-a", "5-a1"]);
    let events = model.watch_poll(plain).remove(0).events;
    let tombstone = KeyValue { key: "a".into(), mod_revision: 5, ..KeyValue::default() };
    assert_eq!(events[1], Event { kind: EventType::Delete, kv: tombstone, prev_kv: None });
}

#[test]
fn previous_states_go_with_compactions() {
    let mut model = model_of(&["a", "a", "a"]);
    model.delete_range(&KeyRange::one("a").into()).unwrap();
    model.compact(3).unwrap();
    let watch = watch_from(&mut model, 3);
    let events = model.watch_poll(watch).remove(0).events;
    let before: Vec<Option<i64>> =
        events.iter().map(|event| event.prev_kv.as_ref().map(|kv| kv.mod_revision)).collect();
    assert_eq!(before, [None, Some(3), Some(4)]);
}

#[test]
fn a_compaction_cancels_a_watch_that_is_owed_what_it_drops() {
    let mut model = model_of(&["a"]);
    let [slow, idle] = ["a", "z"].map(|key| model.watch_create(&KeyRange::one(key).into()).watch_id);
    for key in ["a", "a", "b"] {
        model.put(&put(key, "x")).unwrap();
    }
    model.compact(5).unwrap();
    let canceled = model.watch_poll(slow);
    let answer =
        WatchResponse { watch_id: slow, canceled: true, compact_revision: 5, ..WatchResponse::default() };
    assert_eq!(canceled, [answer]);
    assert!(model.watch_poll(slow).is_empty());
    model.put(&put("z", "x")).unwrap();
    assert_eq!(told(&mut model, idle), ["6+z"], "one that was owed nothing goes on");
    assert_eq!(model.watch_progress([idle, slow]), None, "until its client cancels it");
    assert!(model.watch_cancel(slow).is_some());
    assert_eq!(model.watch_progress([idle]).unwrap().revision, 6);
}

#[test]
fn versions_of_etcd_differ() {
    let drops_and_overtakes = |version| {
        let quirks = Quirks::of_version(version);
        (quirks.compaction_drops_tombstones, quirks.progress_overtakes_events)
    };
    assert_eq!(drops_and_overtakes("3.4.23"), (true, true));
    assert_eq!(drops_and_overtakes("3.5.12"), (true, false));
    assert_eq!(drops_and_overtakes("3.5.16"), (false, false));
    assert_eq!(drops_and_overtakes("3.6.0-rc.1"), (false, false));
    for version in ["3.4.23", "3.5.16"] {
        let mut model = Model::with_quirks(Quirks::of_version(version));
        model.put(&put("a", "x")).unwrap();
        let behind = watch_from(&mut model, 2);
        assert_eq!(model.watch_progress([behind]).is_some(), version == "3.4.23");
        model.delete_range(&KeyRange::one("a").into()).unwrap();
        model.compact(3).unwrap();
        let watch = watch_from(&mut model, 3);
        assert_eq!(told(&mut model, watch).is_empty(), version == "3.4.23", "the deletion at revision 3");
    }
}

#[test]
fn long_histories_come_in_batches_of_whole_revisions() {
    let mut model = Model::new();
    for _ in 0..1001 {
        model.txn(&success(vec![op_put("a"), op_put("b")])).unwrap();
    }
    let watch = watch_from(&mut model, 1);
    let responses = model.watch_poll(watch);
    let sizes: Vec<usize> = responses.iter().map(|response| response.events.len()).collect();
    assert_eq!(sizes, [2000, 2]);
    assert!(
        responses.iter().all(|response| response.revision == 1002),
        "as etcd says, too early in the first"
    );
}

#[test]
fn progress_is_told_when_nothing_is_owed() {
    let mut model = model_of(&["a"]).with_progress_interval(1000);
    let request = WatchCreateRequest { progress_notify: true, ..KeyRange::one("a").into() };
    let watch = model.watch_create(&request).watch_id;
    let future = watch_from(&mut model, 9);
    model.put(&put("b", "x")).unwrap();
    assert_eq!(
        model.watch_progress([watch]).map(|progress| (progress.watch_id, progress.revision)),
        Some((-1, 3))
    );
    assert_eq!(model.watch_progress([watch, future]), None, "it would go back for the one in the future");
    assert_eq!(model.watch_progress([]), None);
    model.advance(999);
    assert!(model.watch_poll(watch).is_empty());
    model.advance(1000);
    let progress = model.watch_poll(watch);
    assert!(progress.len() == 1 && progress[0].is_progress() && progress[0].revision == 3, "{progress:?}");
    assert!(model.watch_poll(watch).is_empty());
    model.put(&put("a", "x")).unwrap();
    assert_eq!(model.watch_progress([watch]), None);
    model.advance(2000);
    assert_eq!(told(&mut model, watch), ["4+a"]);
    model.advance(2999);
    assert!(model.watch_poll(watch).is_empty(), "an event was sent less than an interval ago");
}
