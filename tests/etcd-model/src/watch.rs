//! What a watch has been sent and what it is owed. Upstream: `mvcc/watchable_store.go`, `etcdserver/api/v3rpc/watch.go`.
//!
//! A watch keeps a position in the store's log and no events: what it is owed is read when it is polled.

use crate::mvcc::Store;
use crate::{Event, EventType, WatchCreateRequest, WatchResponse};

/// Revisions of one response at most.
const BATCH_REVISIONS: usize = 1000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Watch {
    id: i64,
    request: WatchCreateRequest,
    /// Everything before this revision has been sent.
    next: i64,
    /// When it was last sent something.
    sent_ms: u64,
    /// Canceled because what it was owed is compacted. It is kept until its client cancels it too.
    compacted: bool,
}

impl Watch {
    pub(crate) fn new(id: i64, request: &WatchCreateRequest, store: &Store, now_ms: u64) -> Self {
        let next = if request.start_revision == 0 { store.revision + 1 } else { request.start_revision };
        Self { id, request: request.clone(), next, sent_ms: now_ms, compacted: false }
    }

    /// Whether it has been sent everything. One that begins in the future has.
    fn is_synced(&self, store: &Store) -> bool {
        !self.compacted
            && (self.next > store.revision
                || self.next >= store.compacted && self.owed(store).next().is_none())
    }

    /// Moves a synced watch on, so that no compaction takes what it has no use for.
    pub(crate) fn settle(&mut self, store: &Store) {
        if self.is_synced(store) {
            self.next = self.next.max(store.revision + 1);
        }
    }

    /// What it is owed, and progress if it asked for that and was sent nothing for `progress_ms`.
    pub(crate) fn poll(&mut self, store: &Store, now_ms: u64, progress_ms: u64) -> Vec<WatchResponse> {
        if self.compacted {
            return Vec::new();
        }
        if self.next <= store.revision && self.next < store.compacted {
            self.compacted = true;
            let (watch_id, compact_revision) = (self.id, store.compacted);
            return vec![WatchResponse {
                watch_id,
                canceled: true,
                compact_revision,
                ..WatchResponse::default()
            }];
        }
        let owed: Vec<&Event> = self.owed(store).collect();
        let revisions: Vec<&[&Event]> =
            owed.chunk_by(|event, next| event.kv.mod_revision == next.kv.mod_revision).collect();
        let mut responses: Vec<WatchResponse> = revisions
            .chunks(BATCH_REVISIONS)
            .map(|batch| WatchResponse {
                watch_id: self.id,
                revision: store.revision,
                events: batch.iter().copied().flatten().map(|event| self.sent(event, store)).collect(),
                ..WatchResponse::default()
            })
            .collect();
        self.next = self.next.max(store.revision + 1);
        let idle = now_ms.saturating_sub(self.sent_ms) >= progress_ms;
        if responses.is_empty() && self.request.progress_notify && idle {
            responses.extend(self.progress(store));
        }
        if !responses.is_empty() {
            self.sent_ms = now_ms;
        }
        responses
    }

    /// That it has been sent everything, if it has; not for one that begins in the future, which would then seem to go
    /// back.
    pub(crate) fn progress(&self, store: &Store) -> Option<WatchResponse> {
        let reached = self.is_synced(store) && self.request.start_revision <= store.revision;
        let progress =
            WatchResponse { watch_id: self.id, revision: store.revision, ..WatchResponse::default() };
        reached.then_some(progress)
    }

    fn owed<'a>(&self, store: &'a Store) -> impl Iterator<Item = &'a Event> {
        store.changes_since(self.next).filter(|event| {
            let unwanted = match event.kind {
                EventType::Put => self.request.no_put,
                EventType::Delete => self.request.no_delete,
            };
            !unwanted && self.request.keys.contains(&event.kv.key)
        })
    }

    /// As in etcd, the previous state is looked up when the event is sent; a compaction may have dropped it by then.
    fn sent(&self, event: &Event, store: &Store) -> Event {
        let before = event.kv.mod_revision - 1;
        let prev_kv = if self.request.prev_kv { store.get(&event.kv.key, before).cloned() } else { None };
        Event { prev_kv, ..event.clone() }
    }
}
