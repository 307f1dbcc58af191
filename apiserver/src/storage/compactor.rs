//! Compaction of etcd's history by the API server. Each server tries every interval; a version-guarded key lets one of
//! them win, and it compacts to the revision noted one interval ago, so that history is kept for one to two intervals.
//!
//! Upstream: `apiserver/pkg/storage/etcd3/compact.go` (same key, so that both can share an etcd).

use std::time::Duration;

use etcd_client::{Compare, CompareOp, Txn, TxnOp, TxnOpResponse};

use super::StorageError;
use super::etcd::Etcd;

/// Its value is the revision compacted to.
pub(super) const COMPACT_REV_KEY: &str = "compact_rev_key";

/// What this server knows of the shared key.
#[derive(Debug, Default, PartialEq, Eq)]
struct State {
    /// The key's version when last seen.
    version: i64,
    /// The store's revision then.
    revision: i64,
}

pub(super) async fn run(etcd: &Etcd, interval: Duration) {
    let mut state = State::default();
    loop {
        tokio::time::sleep(interval).await;
        match step(etcd, &state).await {
            Ok(next) => state = next,
            Err(error) => tracing::warn!(%error, "compaction failed"),
        }
    }
}

async fn step(etcd: &Etcd, state: &State) -> Result<State, StorageError> {
    let mut kv = etcd.client().kv_client();
    let txn = Txn::new()
        .when([Compare::version(COMPACT_REV_KEY, CompareOp::Equal, state.version)])
        .and_then([TxnOp::put(COMPACT_REV_KEY, state.revision.to_string(), None)])
        .or_else([TxnOp::get(COMPACT_REV_KEY, None)]);
    let response = kv.txn(txn).await?;
    let revision = response.header().map_or(0, etcd_client::ResponseHeader::revision);
    if !response.succeeded() {
        let version = response.op_responses().into_iter().find_map(|response| match response {
            TxnOpResponse::Get(get) => get.kvs().first().map(etcd_client::KeyValue::version),
            _ => None,
        });
        return Ok(State { version: version.unwrap_or(0), revision });
    }
    if state.revision > 0 {
        kv.compact(state.revision, None).await?;
        tracing::debug!(revision = state.revision, "compacted etcd");
    }
    Ok(State { version: state.version + 1, revision })
}
