//! Transactions: what is refused before anything is looked at, which branch is taken, and its application. Upstream:
//! `etcdserver/api/v3rpc/key.go` for the refusals, `etcdserver/apply.go` for the rest.

use crate::lease::Lessor;
use crate::mvcc::{Store, WriteTxn};
use crate::{
    Compare, CompareOperator, CompareTarget, DeleteRangeRequest, Error, KeyRange, KeyValue, PutRequest,
    RangeRequest, RequestOp, ResponseOp, TxnRequest, TxnResponse,
};
use bytes::Bytes;
use std::cmp::Ordering;
use std::collections::BTreeSet;

const MAX_OPS: usize = 128;

pub(crate) fn apply(
    store: &mut Store,
    lessor: &mut Lessor,
    request: &TxnRequest,
) -> Result<TxnResponse, Error> {
    check_shape(request, MAX_OPS)?;
    Touched::of(&request.success)?;
    Touched::of(&request.failure)?;
    let branch = Branch::take(store, request);
    branch.check(&|step| if let Step::Put(put) = step { lessor.check(put.lease) } else { Ok(()) })?;
    branch.check(&|step| {
        if let Step::Range(range) = step { store.check_revision(range.revision) } else { Ok(()) }
    })?;
    let mut txn = WriteTxn::begin(store, lessor);
    let mut response = branch.apply(&mut txn);
    response.revision = txn.end();
    Ok(response)
}

pub(crate) fn check_key(key: &Bytes) -> Result<(), Error> {
    if key.is_empty() { Err(Error::EmptyKey) } else { Ok(()) }
}

fn check_shape(request: &TxnRequest, budget: usize) -> Result<(), Error> {
    let operations = request.compare.len().max(request.success.len()).max(request.failure.len());
    let budget = budget.checked_sub(operations).ok_or(Error::TooManyOps)?;
    request.compare.iter().try_for_each(|compare| check_key(&compare.keys.key))?;
    request.success.iter().chain(&request.failure).try_for_each(|op| match op {
        RequestOp::Range(range) => check_key(&range.keys.key),
        RequestOp::Put(put) => check_key(&put.key),
        RequestOp::DeleteRange(delete) => check_key(&delete.keys.key),
        RequestOp::Txn(txn) => check_shape(txn, budget),
    })
}

/// What a list of operations may write, to refuse one that would write a key twice. Two ways to do so are open, as in etcd:
/// a deletion without an end is held against no put, and one in an inner transaction not against the puts of those before
/// it.
#[derive(Default)]
struct Touched<'a> {
    puts: BTreeSet<&'a Bytes>,
    deletes: Vec<&'a KeyRange>,
}

impl<'a> Touched<'a> {
    fn of(operations: &'a [RequestOp]) -> Result<Self, Error> {
        let mut touched = Self::default();
        for op in operations {
            if let RequestOp::DeleteRange(delete) = op {
                touched.deletes.push(&delete.keys);
            }
        }
        for op in operations {
            if let RequestOp::Txn(txn) = op {
                touched.merge(Self::of(&txn.success)?, Self::of(&txn.failure)?)?;
            }
        }
        for op in operations {
            if let RequestOp::Put(put) = op {
                touched.put(&put.key)?;
            }
        }
        Ok(touched)
    }

    /// Of an inner transaction only one branch will be taken, so both may put the same key.
    fn merge(&mut self, success: Self, failure: Self) -> Result<(), Error> {
        success.puts.iter().try_for_each(|key| self.put(key))?;
        failure.puts.iter().filter(|key| !success.puts.contains(*key)).try_for_each(|key| self.put(key))?;
        self.deletes.extend(success.deletes);
        self.deletes.extend(failure.deletes);
        Ok(())
    }

    fn put(&mut self, key: &'a Bytes) -> Result<(), Error> {
        if self.deletes.iter().any(|range| !range.is_endless() && range.contains(key))
            || !self.puts.insert(key)
        {
            return Err(Error::DuplicateKey);
        }
        Ok(())
    }
}

/// What will be done: every compare, those of inner transactions too, sees the state before the first operation.
struct Branch<'a> {
    succeeded: bool,
    steps: Vec<Step<'a>>,
}

enum Step<'a> {
    Range(&'a RangeRequest),
    Put(&'a PutRequest),
    DeleteRange(&'a DeleteRangeRequest),
    Txn(Branch<'a>),
}

impl<'a> Branch<'a> {
    fn take(store: &Store, request: &'a TxnRequest) -> Self {
        let succeeded = request.compare.iter().all(|compare| holds(store, compare));
        let operations = if succeeded { &request.success } else { &request.failure };
        let step = |op: &'a RequestOp| match op {
            RequestOp::Range(range) => Step::Range(range),
            RequestOp::Put(put) => Step::Put(put),
            RequestOp::DeleteRange(delete) => Step::DeleteRange(delete),
            RequestOp::Txn(txn) => Step::Txn(Self::take(store, txn)),
        };
        Self { succeeded, steps: operations.iter().map(step).collect() }
    }

    fn check(&self, rule: &dyn Fn(&Step<'_>) -> Result<(), Error>) -> Result<(), Error> {
        self.steps.iter().try_for_each(|step| match step {
            Step::Txn(branch) => branch.check(rule),
            plain => rule(plain),
        })
    }

    fn apply(&self, txn: &mut WriteTxn<'_>) -> TxnResponse {
        let responses = self.steps.iter().map(|step| match step {
            Step::Range(range) => ResponseOp::Range(txn.range(range)),
            Step::Put(put) => ResponseOp::Put(txn.put(put)),
            Step::DeleteRange(delete) => ResponseOp::DeleteRange(txn.delete_range(delete)),
            Step::Txn(branch) => ResponseOp::Txn(branch.apply(txn)),
        });
        TxnResponse { revision: 0, succeeded: self.succeeded, responses: responses.collect() }
    }
}

fn holds(store: &Store, compare: &Compare) -> bool {
    let mut found = store.alive(&compare.keys, store.revision).peekable();
    if found.peek().is_none() {
        let missing = !matches!(compare.target, CompareTarget::Value(_));
        return missing && holds_for(compare, &KeyValue::default());
    }
    found.all(|kv| holds_for(compare, kv))
}

fn holds_for(compare: &Compare, kv: &KeyValue) -> bool {
    let ordering = match &compare.target {
        CompareTarget::Version(version) => kv.version.cmp(version),
        CompareTarget::CreateRevision(revision) => kv.create_revision.cmp(revision),
        CompareTarget::ModRevision(revision) => kv.mod_revision.cmp(revision),
        CompareTarget::Value(value) => kv.value.cmp(value),
        CompareTarget::Lease(lease) => kv.lease.cmp(lease),
    };
    match compare.operator {
        CompareOperator::Equal => ordering == Ordering::Equal,
        CompareOperator::Greater => ordering == Ordering::Greater,
        CompareOperator::Less => ordering == Ordering::Less,
        CompareOperator::NotEqual => ordering != Ordering::Equal,
    }
}
