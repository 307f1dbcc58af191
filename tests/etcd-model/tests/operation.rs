//! What a program consists of, what it is answered, and the model's way from one to the other.

use etcd_model::{
    DeleteRangeRequest, DeleteRangeResponse, Error, LeaseGrantResponse, LeaseTimeToLiveResponse, Model,
    PutRequest, PutResponse, RangeRequest, RangeResponse, ResponseOp, TxnRequest, TxnResponse,
};

/// A request of KV or Lease.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    Range(RangeRequest),
    Put(PutRequest),
    DeleteRange(DeleteRangeRequest),
    Txn(TxnRequest),
    Compact(i64),
    LeaseGrant { id: i64, ttl: i64 },
    LeaseRevoke(i64),
    LeaseKeepAlive(i64),
    LeaseTimeToLive(i64),
    Leases,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Answer {
    Range(RangeResponse),
    Put(PutResponse),
    DeleteRange(DeleteRangeResponse),
    Txn(TxnResponse),
    Compact(i64),
    LeaseGrant(LeaseGrantResponse),
    LeaseRevoke(i64),
    LeaseKeepAlive(i64),
    LeaseTimeToLive(LeaseTimeToLiveResponse),
    Leases(Vec<i64>),
    Refused { code: i32, message: String },
}

impl Answer {
    /// How many operations were carried out: a transaction counts each of its own.
    pub(crate) fn operations(&self) -> u64 {
        match self {
            Answer::Txn(txn) => operations(txn),
            _ => 1,
        }
    }
}

fn operations(txn: &TxnResponse) -> u64 {
    let inner = txn.responses.iter().map(|response| match response {
        ResponseOp::Txn(txn) => operations(txn),
        _ => 1,
    });
    inner.sum::<u64>().max(1)
}

pub(crate) fn apply(model: &mut Model, operation: &Operation) -> Answer {
    let answer = match operation {
        Operation::Range(range) => model.range(range).map(Answer::Range),
        Operation::Put(put) => model.put(put).map(Answer::Put),
        Operation::DeleteRange(delete) => model.delete_range(delete).map(Answer::DeleteRange),
        Operation::Txn(txn) => model.txn(txn).map(Answer::Txn),
        Operation::Compact(revision) => model.compact(*revision).map(Answer::Compact),
        Operation::LeaseGrant { id, ttl } => model.lease_grant(*id, *ttl).map(Answer::LeaseGrant),
        Operation::LeaseRevoke(id) => model.lease_revoke(*id).map(Answer::LeaseRevoke),
        Operation::LeaseKeepAlive(id) => Ok(Answer::LeaseKeepAlive(model.lease_keep_alive(*id))),
        Operation::LeaseTimeToLive(id) => Ok(Answer::LeaseTimeToLive(model.lease_time_to_live(*id))),
        Operation::Leases => Ok(Answer::Leases(model.leases())),
    };
    answer.unwrap_or_else(|error: Error| Answer::Refused { code: error.code(), message: error.to_string() })
}
