//! Requests and answers, in the shape and with the names of etcd's `rpc.proto` and `kv.proto`. The revision of a
//! response header is the field `revision` of each answer.

use crate::KeyRange;
use bytes::Bytes;

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct KeyValue {
    pub key: Bytes,
    pub value: Bytes,
    pub create_revision: i64,
    pub mod_revision: i64,
    pub version: i64,
    pub lease: i64,
}

/// `revision` 0 reads the newest state, `limit` 0 is none, and so is 0 in each bound on revisions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct RangeRequest {
    pub keys: KeyRange,
    pub revision: i64,
    pub limit: i64,
    pub count_only: bool,
    pub keys_only: bool,
    pub min_mod_revision: i64,
    pub max_mod_revision: i64,
    pub min_create_revision: i64,
    pub max_create_revision: i64,
}

impl From<KeyRange> for RangeRequest {
    fn from(keys: KeyRange) -> Self {
        Self { keys, ..Self::default() }
    }
}

/// Keys come in ascending order. `count` is of the whole range, whatever the limit and the bounds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct RangeResponse {
    pub revision: i64,
    pub kvs: Vec<KeyValue>,
    pub more: bool,
    pub count: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PutRequest {
    pub key: Bytes,
    pub value: Bytes,
    pub lease: i64,
    pub prev_kv: bool,
}

impl PutRequest {
    pub fn new(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self { key: key.into(), value: value.into(), ..Self::default() }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PutResponse {
    pub revision: i64,
    pub prev_kv: Option<KeyValue>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct DeleteRangeRequest {
    pub keys: KeyRange,
    pub prev_kv: bool,
}

impl From<KeyRange> for DeleteRangeRequest {
    fn from(keys: KeyRange) -> Self {
        Self { keys, prev_kv: false }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct DeleteRangeResponse {
    pub revision: i64,
    pub deleted: i64,
    pub prev_kvs: Vec<KeyValue>,
}

/// Compares decide between two lists of operations, one of which is applied as a whole, in one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TxnRequest {
    pub compare: Vec<Compare>,
    pub success: Vec<RequestOp>,
    pub failure: Vec<RequestOp>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RequestOp {
    Range(RangeRequest),
    Put(PutRequest),
    DeleteRange(DeleteRangeRequest),
    Txn(TxnRequest),
}

/// The `revision` of a transaction inside another is 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TxnResponse {
    pub revision: i64,
    pub succeeded: bool,
    pub responses: Vec<ResponseOp>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ResponseOp {
    Range(RangeResponse),
    Put(PutResponse),
    DeleteRange(DeleteRangeResponse),
    Txn(TxnResponse),
}

/// Holds if every key of the range compares so; a range without keys compares as one key of zeros, which has no value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Compare {
    pub keys: KeyRange,
    pub operator: CompareOperator,
    pub target: CompareTarget,
}

impl Compare {
    /// The compare of an optimistic write: the key is at this revision; 0: it does not exist.
    pub fn at_mod_revision(key: impl Into<Bytes>, revision: i64) -> Self {
        let (operator, target) = (CompareOperator::Equal, CompareTarget::ModRevision(revision));
        Self { keys: KeyRange::one(key), operator, target }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CompareOperator {
    Equal,
    Greater,
    Less,
    NotEqual,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CompareTarget {
    Version(i64),
    CreateRevision(i64),
    ModRevision(i64),
    Value(Bytes),
    Lease(i64),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct LeaseGrantResponse {
    pub revision: i64,
    pub id: i64,
    /// In seconds: what was asked for, but no less than etcd's minimum.
    pub ttl: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct LeaseTimeToLiveResponse {
    pub revision: i64,
    /// Seconds left; -1 if there is no such lease.
    pub ttl: i64,
    pub granted_ttl: i64,
    pub keys: Vec<Bytes>,
}

/// `start_revision` 0 means every change from now on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct WatchCreateRequest {
    pub keys: KeyRange,
    pub start_revision: i64,
    pub prev_kv: bool,
    pub progress_notify: bool,
    pub no_put: bool,
    pub no_delete: bool,
}

impl From<KeyRange> for WatchCreateRequest {
    fn from(keys: KeyRange) -> Self {
        Self { keys, ..Self::default() }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    Put,
    Delete,
}

/// The `kv` of a deletion has the key and the revision of the deletion, and nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Event {
    pub kind: EventType,
    pub kv: KeyValue,
    pub prev_kv: Option<KeyValue>,
}

/// No events, nothing created and nothing canceled: progress, everything up to `revision` has been sent.
///
/// Two traps are etcd's own. `revision` is 0 where a compaction cancels a watch. Where events fill more than one response,
/// each has the revision that the store had when they were read, even though later events of it are still to come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct WatchResponse {
    /// -1 where it is about a whole stream, or about a watch that could not be created.
    pub watch_id: i64,
    pub revision: i64,
    pub created: bool,
    pub canceled: bool,
    /// Not 0 where the watch is canceled because it asked for what a compaction has dropped.
    pub compact_revision: i64,
    pub events: Vec<Event>,
}

impl WatchResponse {
    pub fn is_progress(&self) -> bool {
        self.events.is_empty() && !self.created && !self.canceled
    }
}
