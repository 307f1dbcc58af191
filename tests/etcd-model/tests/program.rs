//! Random programs over few keys, so that conflicts, deletions and re-creations are frequent. What comes next depends on
//! the seed and on the model alone, so a seed makes the same program every time.

use crate::operation::Operation;
use bytes::Bytes;
use etcd_model::{
    Compare, CompareOperator, CompareTarget, DeleteRangeRequest, KeyRange, KeyValue, Model, PutRequest,
    RangeRequest, RequestOp, TxnRequest, WatchCreateRequest,
};
use rand::rngs::SmallRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};

/// Some are prefixes of others, and one has the byte that ends ranges.
pub(crate) const KEYS: &[&str] =
    &["a", "a/1", "a/2", "a/2\0", "a0", "b", "b/1", "b/2", "b/3", "c", "c/1", "\u{7f}"];

/// Live for the whole run.
const TTL: i64 = 1_000_000;
const LEASES: i64 = 6;
const STREAMS: usize = 3;
const WATCHES: usize = 9;

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Do(Operation),
    Watch {
        stream: usize,
        request: WatchCreateRequest,
    },
    /// The watch of this place among those there are.
    Cancel(usize),
    Progress(usize),
    /// Has the model's watches give what they have, so that they give it in pieces of various sizes.
    Poll,
    Drain,
}

pub(crate) struct Program {
    rng: SmallRng,
    streams: usize,
}

impl Program {
    pub(crate) fn new(seed: u64) -> Self {
        Self { rng: SmallRng::seed_from_u64(seed), streams: 0 }
    }

    pub(crate) fn next(&mut self, model: &Model, watches: usize) -> Step {
        match self.rng.random_range(0..1000) {
            0..180 => Step::Do(Operation::Put(self.put(model))),
            180..280 => Step::Do(Operation::DeleteRange(self.delete())),
            280..460 => Step::Do(Operation::Range(self.range(model))),
            460..860 => {
                let mut keys = KEYS.to_vec();
                keys.shuffle(&mut self.rng);
                Step::Do(Operation::Txn(self.txn(model, &mut keys, 2)))
            }
            860..900 => Step::Do(self.lease()),
            900..907 => Step::Do(Operation::Compact(self.revision(model))),
            907..922 if watches < WATCHES => self.watch(model),
            907..925 if watches > 0 => Step::Cancel(self.rng.random_range(0..watches)),
            925..929 => Step::Do(self.malformed()),
            929..931 if self.streams > 0 => Step::Progress(self.rng.random_range(0..self.streams)),
            931..936 => Step::Drain,
            _ => Step::Poll,
        }
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_ratio(percent, 100)
    }

    fn key(&mut self) -> Bytes {
        Bytes::from_static(KEYS.choose(&mut self.rng).expect("there are keys").as_bytes())
    }

    fn keys(&mut self) -> KeyRange {
        match self.rng.random_range(0..100) {
            0..40 => KeyRange::one(self.key()),
            40..60 => KeyRange::prefix(self.key()),
            60..75 => KeyRange::from_key(self.key()),
            75..90 => KeyRange::between(self.key(), self.key()),
            _ => KeyRange::all(),
        }
    }

    fn value(&mut self) -> Bytes {
        (0..self.rng.random_range(0..4)).map(|_| self.rng.random_range(b'x'..=b'z')).collect()
    }

    /// A lease that may exist, or none, or seldom one that can't exist.
    fn attached_lease(&mut self) -> i64 {
        match self.rng.random_range(0..100) {
            0..75 => 0,
            75..98 => self.rng.random_range(1..=LEASES),
            _ => 99,
        }
    }

    fn put(&mut self, model: &Model) -> PutRequest {
        let lease = self.attached_lease();
        let lease = if self.chance(95) && !model.leases().contains(&lease) { 0 } else { lease };
        PutRequest { key: self.key(), value: self.value(), lease, prev_kv: self.chance(30) }
    }

    fn delete(&mut self) -> DeleteRangeRequest {
        let keys = if self.chance(80) { KeyRange::one(self.key()) } else { self.keys() };
        DeleteRangeRequest { keys, prev_kv: self.chance(30) }
    }

    /// One that is compacted, can be read, or is to come; often one at a border.
    fn revision(&mut self, model: &Model) -> i64 {
        let (oldest, newest) = (model.compact_revision(), model.revision());
        match self.rng.random_range(0..100) {
            0..50 => self.rng.random_range(oldest.max(1)..=newest),
            50..65 => self.rng.random_range((newest - 40).max(oldest.max(1))..=newest),
            65..75 => oldest.max(1),
            75..82 => (oldest - 1).max(1),
            82..94 => newest,
            94..97 => newest + 1,
            _ => newest + 1000,
        }
    }

    /// Often about the compacted revision, where a watch is canceled or just not.
    fn start(&mut self, model: &Model) -> i64 {
        match self.rng.random_range(0..100) {
            0..20 => 0,
            20..40 => model.compact_revision().max(1),
            40..50 => (model.compact_revision() + self.rng.random_range(-2..=2)).max(1),
            50..60 => model.revision() + self.rng.random_range(0..20),
            _ => self.revision(model),
        }
    }

    fn bound(&mut self, model: &Model) -> i64 {
        if self.chance(15) { self.revision(model) } else { 0 }
    }

    fn range(&mut self, model: &Model) -> RangeRequest {
        RangeRequest {
            keys: self.keys(),
            revision: if self.chance(50) { 0 } else { self.revision(model) },
            limit: if self.chance(50) { 0 } else { self.rng.random_range(1..6) },
            count_only: self.chance(10),
            keys_only: self.chance(10),
            min_mod_revision: self.bound(model),
            max_mod_revision: self.bound(model),
            min_create_revision: self.bound(model),
            max_create_revision: self.bound(model),
        }
    }

    /// Writes each key of `keys` once, most of the time, so that it is seldom refused.
    fn txn(&mut self, model: &Model, keys: &mut Vec<&'static str>, depth: u32) -> TxnRequest {
        TxnRequest {
            compare: (0..self.rng.random_range(0..4)).map(|_| self.compare(model)).collect(),
            success: self.operations(model, keys, depth),
            failure: self.operations(model, keys, depth),
        }
    }

    fn operations(&mut self, model: &Model, keys: &mut Vec<&'static str>, depth: u32) -> Vec<RequestOp> {
        let mut operations = Vec::new();
        for _ in 0..self.rng.random_range(0..6) {
            let key =
                if self.chance(4) { None } else { keys.pop().map(|key| Bytes::from_static(key.as_bytes())) };
            let key = key.unwrap_or_else(|| self.key());
            operations.push(match self.rng.random_range(0..100) {
                0..45 => RequestOp::Put(PutRequest { key, ..self.put(model) }),
                45..65 => RequestOp::DeleteRange(DeleteRangeRequest {
                    keys: KeyRange::one(key),
                    prev_kv: self.chance(30),
                }),
                65..68 => RequestOp::DeleteRange(self.bounded_delete()),
                68..92 => RequestOp::Range(self.range_in_txn(model)),
                _ if depth > 0 => RequestOp::Txn(self.txn(model, keys, depth - 1)),
                _ => RequestOp::Range(RangeRequest::from(KeyRange::all())),
            });
        }
        operations
    }

    /// With an end: one without may come before a put of the same key, which etcd allows, and which 3.5.16 does not
    /// survive when that revision is compacted.
    fn bounded_delete(&mut self) -> DeleteRangeRequest {
        DeleteRangeRequest { keys: KeyRange::prefix(self.key()), prev_kv: self.chance(30) }
    }

    /// Seldom at a revision that would have the whole transaction refused.
    fn range_in_txn(&mut self, model: &Model) -> RangeRequest {
        let range = self.range(model);
        let readable = (model.compact_revision()..=model.revision()).contains(&range.revision);
        if readable || self.chance(10) { range } else { RangeRequest { revision: 0, ..range } }
    }

    fn compare(&mut self, model: &Model) -> Compare {
        let keys = if self.chance(85) { KeyRange::one(self.key()) } else { self.keys() };
        let read = model.range(&RangeRequest::from(keys.clone())).expect("the key is not empty");
        let now = read.kvs.choose(&mut self.rng).cloned().unwrap_or_default();
        let operators = [
            CompareOperator::Equal,
            CompareOperator::Equal,
            CompareOperator::Equal,
            CompareOperator::Greater,
            CompareOperator::Less,
            CompareOperator::NotEqual,
        ];
        let operator = *operators.choose(&mut self.rng).expect("there are operators");
        Compare { keys, operator, target: self.target(&now) }
    }

    /// What the key is now, or close to it.
    fn target(&mut self, now: &KeyValue) -> CompareTarget {
        let off = if self.chance(75) { 0 } else { self.rng.random_range(-1..=1) };
        match self.rng.random_range(0..5) {
            0 => CompareTarget::Version(now.version + off),
            1 => CompareTarget::CreateRevision(now.create_revision + off),
            2 => CompareTarget::ModRevision(now.mod_revision + off),
            3 => CompareTarget::Lease(now.lease + off),
            _ => CompareTarget::Value(if off == 0 { now.value.clone() } else { self.value() }),
        }
    }

    fn lease(&mut self) -> Operation {
        let id = self.rng.random_range(1..=LEASES);
        match self.rng.random_range(0..100) {
            0..50 => Operation::LeaseGrant { id, ttl: TTL },
            50..70 => Operation::LeaseRevoke(id),
            70..80 => Operation::LeaseKeepAlive(id),
            80..95 => Operation::LeaseTimeToLive(id),
            _ => Operation::Leases,
        }
    }

    fn watch(&mut self, model: &Model) -> Step {
        let stream = self.rng.random_range(0..STREAMS).min(self.streams);
        let request = WatchCreateRequest {
            keys: self.keys(),
            start_revision: self.start(model),
            prev_kv: self.chance(50),
            progress_notify: self.chance(20),
            no_put: self.chance(15),
            no_delete: self.chance(15),
        };
        self.streams = self.streams.max(stream + 1);
        Step::Watch { stream, request }
    }

    fn malformed(&mut self) -> Operation {
        let nothing = KeyRange::one("");
        let read = RequestOp::Range(RangeRequest::from(KeyRange::one("a")));
        let txn = |success| Operation::Txn(TxnRequest { success, ..TxnRequest::default() });
        match self.rng.random_range(0..8) {
            0 => Operation::Put(PutRequest::new("", "x")),
            1 => Operation::Range(RangeRequest::from(nothing)),
            2 => Operation::DeleteRange(DeleteRangeRequest::from(nothing)),
            3 => txn(vec![RequestOp::Put(PutRequest::new("", "x"))]),
            4 => txn(vec![read; 129]),
            5 => txn(vec![read; 128]),
            6 => Operation::LeaseRevoke(99),
            _ => Operation::LeaseGrant { id: 99, ttl: 9_000_000_001 },
        }
    }
}
