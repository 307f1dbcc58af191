//! etcd as a value: revisions, ranges at a revision, transactions, leases, compaction and watches, in memory and without
//! IO, clock or chance. Equal programs give equal answers.
//!
//! [`Model`] is one member of a healthy cluster; `tests/main.rs` runs it beside a real etcd and compares every answer.
//! [`Cluster`] puts between it and its clients what can go wrong on the way: requests with unknown results, watch
//! streams that stall or break, a new leader, a restored backup.
//!
//! What it does not know: authentication, size limits, alarms, sorted ranges, several members and reads that may be
//! stale.

mod cluster;
mod error;
mod key_range;
mod lease;
mod messages;
mod model;
mod mvcc;
mod txn;
mod watch;

pub use cluster::{Cluster, Fate, Faults, RequestError, Snapshot, StreamCut, StreamId};
pub use error::Error;
pub use key_range::KeyRange;
pub use messages::{
    Compare, CompareOperator, CompareTarget, DeleteRangeRequest, DeleteRangeResponse, Event, EventType,
    KeyValue, LeaseGrantResponse, LeaseTimeToLiveResponse, PutRequest, PutResponse, RangeRequest,
    RangeResponse, RequestOp, ResponseOp, TxnRequest, TxnResponse, WatchCreateRequest, WatchResponse,
};
pub use model::{Model, Quirks};
