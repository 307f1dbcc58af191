//! What is written to etcd: objects, by transactions that compare revisions; keys that are nobody's; leases; compaction as
//! the API servers' compactor does it and as an operator does it.

use bytes::Bytes;
use etcd_model::{
    Compare, CompareOperator, CompareTarget, DeleteRangeRequest, KeyRange, PutRequest, RangeRequest,
    RequestError, RequestOp, ResponseOp, TxnRequest,
};
use kube_apiserver::storage::{name_of_key, namespace_of_key};
use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};

use super::net::Net;

/// As in `storage/compactor.rs`.
pub(super) const COMPACT_REV_KEY: &str = "compact_rev_key";

/// Some look like those of a resource and are none, and one is no text.
const FOREIGN: [&[u8]; 6] =
    [b"elsewhere", b"/registry/pods", b"/registryx/pods/a/x1", b"/registry/podsx/a/x1", b"z\xff", b"\x01"];

/// Bytes of a large object: a few of them are more than a cache's history holds.
const LARGE: usize = 400 << 10;

fn object(net: &mut Net, key: &str) -> Bytes {
    let (namespace, name) = (namespace_of_key(key), name_of_key(key));
    let labels = match net.rng.random_range(0..4) {
        3 => String::new(),
        label => format!(r#","labels":{{"l":"{label}"}}"#),
    };
    // What makes every state of an object another one.
    let version = net.rng.random_range(0..1_000_000);
    let metadata = format!(r#"{{"name":"{name}","namespace":"{namespace}","uid":"{version}"{labels}}}"#);
    if key.starts_with("/registry/pods/") {
        let node = ["", "n1", "n2"].choose(&mut net.rng).unwrap();
        return Bytes::from(format!(
            r#"{{"apiVersion":"v1","kind":"Pod","metadata":{metadata},"spec":{{"nodeName":"{node}","containers":[]}}}}"#
        ));
    }
    let data = if net.large && net.rng.random_bool(0.15) { "x".repeat(LARGE) } else { String::new() };
    Bytes::from(format!(
        r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{metadata},"data":{{"d":"{data}"}}}}"#
    ))
}

fn random_key(net: &mut Net) -> Bytes {
    if net.rng.random_bool(0.1) {
        return Bytes::from_static(FOREIGN.choose(&mut net.rng).copied().unwrap());
    }
    let (resource, names) = if net.rng.random_bool(0.6) { ("pods", 5) } else { ("configmaps", 3) };
    let namespace = if net.rng.random_bool(0.6) { "a" } else { "b" };
    format!("/registry/{resource}/{namespace}/x{}", net.rng.random_range(0..names)).into()
}

/// A transaction on one key or several, on condition that they are still what the writer has seen: most of the time.
fn transaction(net: &mut Net) -> TxnRequest {
    let mut keys: Vec<Bytes> = Vec::new();
    for _ in 0..[1, 1, 1, 2, 4][net.rng.random_range(0..5)] {
        let key = random_key(net);
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys.shuffle(&mut net.rng);
    let mut txn = TxnRequest::default();
    for key in keys {
        let found = net.cluster.model().range(&KeyRange::one(key.clone()).into()).unwrap();
        let seen = found.kvs.first().map_or(0, |kv| kv.mod_revision);
        let believed = if net.rng.random_bool(0.9) { seen } else { seen - 1 };
        txn.compare.push(Compare::at_mod_revision(key.clone(), believed));
        if seen != 0 && net.rng.random_bool(0.35) {
            txn.success.push(RequestOp::DeleteRange(DeleteRangeRequest::from(KeyRange::one(key))));
            continue;
        }
        let leases = net.cluster.model().leases();
        let lease = if net.rng.random_bool(0.2) { leases.choose(&mut net.rng).copied() } else { None };
        let value = object(net, &String::from_utf8_lossy(&key));
        txn.success
            .push(RequestOp::Put(PutRequest { lease: lease.unwrap_or(0), ..PutRequest::new(key, value) }));
    }
    txn
}

/// One write. One whose answer is lost may come to pass later.
pub(super) fn write(net: &mut Net) {
    if !net.late.is_empty() && net.rng.random_bool(0.3) {
        let txn = net.late.swap_remove(0);
        // Nobody waits for the answer; a lease may be gone by now.
        let _ = net.request(|etcd| etcd.txn(&txn));
        net.count("late write");
        return;
    }
    if net.rng.random_bool(0.08) {
        let (id, ttl) = (net.rng.random_range(1..=4), net.rng.random_range(2..5));
        // One that exists is refused.
        let _ = net.request(|etcd| etcd.lease_grant(id, ttl));
        return;
    }
    let txn = transaction(net);
    let outcome = net.request(|etcd| etcd.txn(&txn));
    net.note(|| {
        let what: Vec<String> = txn.success.iter().map(describe).collect();
        let outcome = outcome.as_ref().map(|done| done.succeeded);
        format!("{}: {outcome:?}", what.join(", "))
    });
    match outcome {
        Ok(done) if done.succeeded => net.count("written"),
        Ok(_) => net.count("conflict"),
        Err(RequestError::Unknown) => net.late.push(txn),
        Err(_) => {}
    }
}

fn describe(operation: &RequestOp) -> String {
    match operation {
        RequestOp::Put(put) => format!("put {}", String::from_utf8_lossy(&put.key)),
        RequestOp::DeleteRange(delete) => format!("delete {}", String::from_utf8_lossy(&delete.keys.key)),
        other => format!("{other:?}"),
    }
}

/// What an API server's compactor knows of the shared key, as in `storage/compactor.rs`.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Compactor {
    version: i64,
    revision: i64,
}

impl Compactor {
    /// Its step, which comes every few minutes elsewhere.
    pub(super) fn step(self, net: &mut Net) -> Self {
        let target = CompareTarget::Version(self.version);
        let keys = KeyRange::one(COMPACT_REV_KEY);
        let txn = TxnRequest {
            compare: vec![Compare { keys: keys.clone(), operator: CompareOperator::Equal, target }],
            success: vec![RequestOp::Put(PutRequest::new(COMPACT_REV_KEY, self.revision.to_string()))],
            failure: vec![RequestOp::Range(RangeRequest::from(keys))],
        };
        let Ok(done) = net.request(|etcd| etcd.txn(&txn)) else { return self };
        let revision = done.revision;
        if !done.succeeded {
            let found = match done.responses.first() {
                Some(ResponseOp::Range(range)) => range.kvs.first().map(|kv| kv.version),
                _ => None,
            };
            return Self { version: found.unwrap_or(0), revision };
        }
        if self.revision > 0 {
            compact(net, self.revision);
        }
        Self { version: self.version + 1, revision }
    }
}

/// Compaction by whomever.
pub(super) fn compact(net: &mut Net, revision: i64) {
    if net.request(|etcd| etcd.compact(revision)).is_ok() {
        net.count("compacted");
        net.note(|| format!("compacted at {revision}"));
    }
}
