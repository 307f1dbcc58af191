//! Hand-written programs, for what a random one meets too seldom or can't wait for. Both sides must agree in each step; what
//! a reader should know of it is asserted too.

use crate::differential::{Delivery, Differential};
use crate::operation::{Answer, Operation};
use anyhow::{Context, Result, ensure};
use etcd_model::{
    Compare, DeleteRangeRequest, EventType, KeyRange, PutRequest, RangeRequest, RequestOp, TxnRequest,
    WatchCreateRequest,
};
use std::time::{Duration, Instant};

const KEYS: &[&str] = &["a", "b", "c"];

fn put(key: &'static str, lease: i64) -> PutRequest {
    PutRequest { lease, ..PutRequest::new(key, "x") }
}

fn read_at(revision: i64) -> Operation {
    Operation::Range(RangeRequest { revision, ..KeyRange::all().into() })
}

fn watch_from(start_revision: i64) -> WatchCreateRequest {
    WatchCreateRequest { start_revision, prev_kv: true, ..KeyRange::all().into() }
}

fn delete(key: &'static str) -> DeleteRangeRequest {
    KeyRange::one(key).into()
}

/// Five puts of `a`, at revisions 2 to 6.
async fn start_with_history() -> Result<Differential> {
    let mut both = Differential::start(KEYS).await?;
    for _ in 0..5 {
        both.step(&Operation::Put(put("a", 0))).await?;
    }
    Ok(both)
}

/// The revisions and previous revisions that a watch from `start` delivers; `None` where it is canceled instead.
async fn history_from(both: &mut Differential, start: i64) -> Result<Option<Vec<(i64, Option<i64>)>>> {
    let id = both.watch(0, &watch_from(start)).await?;
    let drained = both.drain().await?;
    let (_, deliveries) =
        drained.into_iter().find(|(drained, _)| *drained == id).context("it was drained")?;
    let events = deliveries.into_iter().map(|delivery| match delivery {
        Delivery::Event(event) => Some((event.kv.mod_revision, event.prev_kv.map(|kv| kv.mod_revision))),
        Delivery::Compacted { .. } => None,
    });
    Ok(events.collect())
}

#[tokio::test]
async fn the_compacted_revision_can_be_read_and_watched_and_none_before_it() -> Result<()> {
    let mut both = start_with_history().await?;
    both.step(&Operation::Compact(4)).await?;
    for revision in [3, 4, 5, 6, 7] {
        let answer = both.step(&read_at(revision)).await?;
        let readable = matches!(answer, Answer::Range(_));
        ensure!(readable == (4..=6).contains(&revision), "revision {revision}: {answer:?}");
    }
    for revision in [3, 4, 7] {
        let answer = both.step(&Operation::Compact(revision)).await?;
        ensure!(matches!(answer, Answer::Refused { .. }), "compaction at {revision}: {answer:?}");
    }
    let latest = vec![(5, Some(4)), (6, Some(5))];
    ensure!(history_from(&mut both, 3).await?.is_none());
    // Its previous state went with the compaction.
    ensure!(history_from(&mut both, 4).await? == Some([vec![(4, None)], latest.clone()].concat()));
    ensure!(history_from(&mut both, 5).await? == Some(latest));
    Ok(())
}

#[tokio::test]
async fn a_deletion_at_the_compacted_revision_is_lost_to_watches_in_old_versions() -> Result<()> {
    let mut both = start_with_history().await?;
    both.step(&Operation::DeleteRange(delete("a"))).await?;
    both.step(&Operation::Put(put("a", 0))).await?;
    both.step(&Operation::Compact(7)).await?;
    let told = history_from(&mut both, 7).await?.context("the watch is canceled")?;
    let deletion = if both.quirks.compaction_drops_tombstones { vec![] } else { vec![(7, None)] };
    ensure!(told == [deletion, vec![(8, None)]].concat(), "{told:?}");
    Ok(())
}

#[tokio::test]
async fn a_compacted_watch_keeps_its_stream_from_progress_until_it_is_canceled() -> Result<()> {
    let mut both = start_with_history().await?;
    both.step(&Operation::Compact(6)).await?;
    both.watch(0, &watch_from(0)).await?;
    let compacted = both.watch(0, &watch_from(3)).await?;
    both.drain().await?;
    both.ask_for_progress(0).await?;
    both.cancel(compacted).await?;
    both.step(&Operation::Put(put("a", 0))).await?;
    both.drain().await?;
    both.ask_for_progress(0).await?;
    let first = both.next_progress(0).await?;
    let answered = if both.quirks.progress_overtakes_events { 6 } else { 7 };
    ensure!(first.revision == answered, "{first:?}");
    Ok(())
}

#[tokio::test]
async fn a_transaction_is_one_revision_and_its_events_keep_their_order() -> Result<()> {
    let mut both = Differential::start(KEYS).await?;
    let id = both.watch(0, &watch_from(0)).await?;
    both.step(&Operation::Put(put("b", 0))).await?;
    let success = vec![
        RequestOp::Put(put("c", 0)),
        RequestOp::Range(KeyRange::all().into()),
        RequestOp::DeleteRange(delete("b")),
        RequestOp::Put(put("a", 0)),
    ];
    let compare = vec![Compare::at_mod_revision("b", 2)];
    let txn = Operation::Txn(TxnRequest { compare, success, failure: vec![] });
    both.step(&txn).await?;
    let again = both.step(&txn).await?;
    ensure!(
        matches!(&again, Answer::Txn(txn) if !txn.succeeded && txn.revision == 3),
        "a failed one makes no revision: {again:?}"
    );
    let drained = both.drain().await?;
    let (_, deliveries) =
        drained.into_iter().find(|(drained, _)| *drained == id).context("it was drained")?;
    let events = deliveries.iter().filter_map(|delivery| match delivery {
        Delivery::Event(event) => Some((event.kv.mod_revision, &event.kv.key[..])),
        Delivery::Compacted { .. } => None,
    });
    ensure!(events.eq([(2, &b"b"[..]), (3, b"c"), (3, b"b"), (3, b"a")]), "{deliveries:?}");
    Ok(())
}

#[tokio::test]
async fn a_watch_of_no_keys_is_not_created() -> Result<()> {
    let mut both = Differential::start(KEYS).await?;
    both.watch(0, &watch_from(0)).await?;
    for (key, end) in [("b", "a"), ("b", "b")] {
        ensure!(both.watch(0, &KeyRange::between(key, end).into()).await? == -1);
    }
    both.watch(0, &KeyRange::between("", "b").into()).await?;
    both.step(&Operation::Put(put("a", 0))).await?;
    both.drain().await?;
    Ok(())
}

#[tokio::test]
async fn many_revisions_reach_a_late_watch_whole() -> Result<()> {
    let mut both = Differential::start(KEYS).await?;
    let pair = vec![RequestOp::Put(put("a", 0)), RequestOp::Put(put("b", 0))];
    let txn = Operation::Txn(TxnRequest { success: pair, ..TxnRequest::default() });
    for _ in 0..1001 {
        both.step(&txn).await?;
    }
    let told = history_from(&mut both, 1).await?.context("the watch is canceled")?;
    ensure!(told.len() == 2002, "{} events", told.len());
    Ok(())
}

/// The only one in which time passes for the model, and it passes as for etcd.
#[tokio::test]
async fn a_lease_that_runs_out_takes_its_keys_in_one_revision() -> Result<()> {
    let mut both = Differential::start(KEYS).await?;
    let id = both.watch(0, &watch_from(0)).await?;
    let granted = both.step(&Operation::LeaseGrant { id: 7, ttl: 1 }).await?;
    ensure!(matches!(&granted, Answer::LeaseGrant(lease) if lease.ttl == 2), "{granted:?}");
    for (key, lease) in [("c", 7), ("a", 7), ("b", 7), ("b", 0)] {
        both.step(&Operation::Put(put(key, lease))).await?;
    }
    both.drain().await?;
    let until = Instant::now() + Duration::from_secs(20);
    while both.real.apply(&Operation::Leases).await? != Answer::Leases(vec![]) {
        ensure!(Instant::now() < until, "the lease is still there");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    both.model.advance(2000);
    let drained = both.drain().await?;
    let (_, deliveries) =
        drained.into_iter().find(|(drained, _)| *drained == id).context("it was drained")?;
    let deleted = deliveries.iter().filter_map(|delivery| match delivery {
        Delivery::Event(event) if event.kind == EventType::Delete => {
            Some((event.kv.mod_revision, &event.kv.key[..]))
        }
        _ => None,
    });
    ensure!(deleted.eq([(6, &b"a"[..]), (6, b"c")]), "{deliveries:?}");
    both.step(&Operation::LeaseRevoke(7)).await?;
    both.step(&Operation::LeaseTimeToLive(7)).await?;
    both.step(&Operation::Put(put("a", 7))).await?;
    Ok(())
}
