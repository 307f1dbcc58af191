//! Every key's versions, and the log of changes that watches read. Upstream: `mvcc/kvstore.go`, `mvcc/kvstore_txn.go`,
//! `mvcc/key_index.go`.

use crate::lease::Lessor;
use crate::{
    DeleteRangeRequest, DeleteRangeResponse, Error, Event, EventType, KeyRange, KeyValue, PutRequest,
    PutResponse, RangeRequest, RangeResponse,
};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};

/// What a key became at a revision: a value, or nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Version {
    revision: i64,
    kv: Option<KeyValue>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Store {
    /// A key's versions, oldest first; never an empty list.
    keys: BTreeMap<Bytes, Vec<Version>>,
    /// Changes in their order, also within a revision.
    log: VecDeque<Event>,
    pub(crate) revision: i64,
    /// -1 before the first compaction.
    pub(crate) compacted: i64,
}

impl Store {
    pub(crate) fn new() -> Self {
        Self { keys: BTreeMap::new(), log: VecDeque::new(), revision: 1, compacted: -1 }
    }

    /// Whether a read at this revision can be answered.
    pub(crate) fn check_revision(&self, revision: i64) -> Result<(), Error> {
        match revision {
            revision if revision > self.revision => Err(Error::FutureRevision),
            revision if revision > 0 && revision < self.compacted => Err(Error::Compacted),
            _ => Ok(()),
        }
    }

    pub(crate) fn get(&self, key: &[u8], revision: i64) -> Option<&KeyValue> {
        self.keys.get(key).and_then(|versions| at(versions, revision))
    }

    pub(crate) fn alive(&self, keys: &KeyRange, revision: i64) -> impl Iterator<Item = &KeyValue> {
        let entries = keys.bounds().map(|bounds| self.keys.range::<[u8], _>(bounds));
        entries.into_iter().flatten().filter_map(move |(_, versions)| at(versions, revision))
    }

    /// The answer to a read whose revision has been checked; `newest` counts a transaction's own changes.
    pub(crate) fn range(&self, request: &RangeRequest, newest: i64) -> RangeResponse {
        let revision = if request.revision > 0 { request.revision } else { newest };
        let mut found: Vec<&KeyValue> = self.alive(&request.keys, revision).collect();
        let mut response =
            RangeResponse { revision: newest, count: length(&found), ..RangeResponse::default() };
        if request.count_only {
            return response;
        }
        found.retain(|kv| {
            within(kv.mod_revision, request.min_mod_revision, request.max_mod_revision)
                && within(kv.create_revision, request.min_create_revision, request.max_create_revision)
        });
        if request.limit > 0 && length(&found) > request.limit {
            response.more = true;
            found.truncate(usize::try_from(request.limit).expect("it is positive and less than a length"));
        }
        response.kvs = found.into_iter().cloned().collect();
        if request.keys_only {
            response.kvs.iter_mut().for_each(|kv| kv.value = Bytes::new());
        }
        response
    }

    /// The changes of a revision and later ones.
    pub(crate) fn changes_since(&self, revision: i64) -> impl Iterator<Item = &Event> {
        self.log.range(self.log.partition_point(|event| event.kv.mod_revision < revision)..)
    }

    /// Forgets what was superseded up to a revision. Of that revision's own changes the log keeps the puts, and the
    /// deletions if `keep_tombstones`.
    pub(crate) fn compact(&mut self, revision: i64, keep_tombstones: bool) {
        self.compacted = revision;
        self.keys.retain(|_, versions| {
            let passed = versions.partition_point(|version| version.revision <= revision);
            let survives = passed > 0 && versions[passed - 1].kv.is_some();
            versions.drain(..passed - usize::from(survives));
            !versions.is_empty()
        });
        let passed = self.log.partition_point(|event| event.kv.mod_revision <= revision);
        let passed: Vec<Event> = self.log.drain(..passed).collect();
        for event in passed.into_iter().rev().take_while(|event| event.kv.mod_revision == revision) {
            if match event.kind {
                EventType::Put => self.get(&event.kv.key, revision) == Some(&event.kv),
                EventType::Delete => keep_tombstones,
            } {
                self.log.push_front(event);
            }
        }
    }

    /// How many versions and how many changes are kept.
    #[cfg(test)]
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.keys.values().map(Vec::len).sum(), self.log.len())
    }

    fn push(&mut self, kind: EventType, kv: KeyValue) {
        let revision = kv.mod_revision;
        let version = Version { revision, kv: (kind == EventType::Put).then(|| kv.clone()) };
        self.keys.entry(kv.key.clone()).or_default().push(version);
        self.log.push_back(Event { kind, kv, prev_kv: None });
    }
}

/// Changes that become one revision when the transaction ends; there is no way back.
pub(crate) struct WriteTxn<'a> {
    store: &'a mut Store,
    lessor: &'a mut Lessor,
    changed: bool,
}

impl<'a> WriteTxn<'a> {
    pub(crate) fn begin(store: &'a mut Store, lessor: &'a mut Lessor) -> Self {
        Self { store, lessor, changed: false }
    }

    /// The revision that reads of this transaction see.
    fn newest(&self) -> i64 {
        self.store.revision + i64::from(self.changed)
    }

    pub(crate) fn range(&self, request: &RangeRequest) -> RangeResponse {
        self.store.range(request, self.newest())
    }

    /// The lease must exist.
    pub(crate) fn put(&mut self, request: &PutRequest) -> PutResponse {
        let old = self.store.get(&request.key, self.newest()).cloned();
        self.changed = true;
        let revision = self.newest();
        let kv = KeyValue {
            key: request.key.clone(),
            value: request.value.clone(),
            create_revision: old.as_ref().map_or(revision, |old| old.create_revision),
            mod_revision: revision,
            version: old.as_ref().map_or(1, |old| old.version + 1),
            lease: request.lease,
        };
        self.store.push(EventType::Put, kv);
        self.lessor.attach(&request.key, request.lease);
        PutResponse { revision, prev_kv: old.filter(|_| request.prev_kv) }
    }

    pub(crate) fn delete_range(&mut self, request: &DeleteRangeRequest) -> DeleteRangeResponse {
        let old: Vec<KeyValue> = self.store.alive(&request.keys, self.newest()).cloned().collect();
        self.changed |= !old.is_empty();
        let revision = self.newest();
        for KeyValue { key, .. } in &old {
            let tombstone = KeyValue { key: key.clone(), mod_revision: revision, ..KeyValue::default() };
            self.store.push(EventType::Delete, tombstone);
            self.lessor.attach(key, 0);
        }
        DeleteRangeResponse {
            revision,
            deleted: length(&old),
            prev_kvs: if request.prev_kv { old } else { Vec::new() },
        }
    }

    /// The revision of the store from now on, which is the old one if nothing changed.
    pub(crate) fn end(self) -> i64 {
        self.store.revision = self.newest();
        self.store.revision
    }
}

fn at(versions: &[Version], revision: i64) -> Option<&KeyValue> {
    let passed = versions.partition_point(|version| version.revision <= revision);
    versions[..passed].last()?.kv.as_ref()
}

fn within(revision: i64, min: i64, max: i64) -> bool {
    (min == 0 || revision >= min) && (max == 0 || revision <= max)
}

fn length<T>(items: &[T]) -> i64 {
    i64::try_from(items.len()).expect("no list in memory is that long")
}
