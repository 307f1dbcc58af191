//! The model's surface: one method for each call of etcd's services KV, Lease and Watch.

use crate::lease::Lessor;
use crate::mvcc::{Store, WriteTxn};
use crate::txn::{self, check_key};
use crate::watch::Watch;
use crate::{
    DeleteRangeRequest, DeleteRangeResponse, Error, LeaseGrantResponse, LeaseTimeToLiveResponse, PutRequest,
    PutResponse, RangeRequest, RangeResponse, TxnRequest, TxnResponse, WatchCreateRequest, WatchResponse,
};
use bytes::Bytes;
use std::collections::BTreeMap;

/// Where versions of etcd differ in what a client sees. The default is the newest etcd.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Quirks {
    /// A compaction at a revision of deletions drops them, and a watch from that very revision never hears of them
    /// (etcd #18089).
    pub compaction_drops_tombstones: bool,
    /// Requested progress is answered at once, ahead of events that are still on their way (etcd #15220).
    pub progress_overtakes_events: bool,
}

impl Quirks {
    /// Those of an etcd of this version, `3.4.23` say.
    pub fn of_version(version: &str) -> Self {
        let mut numbers = version.split(['.', '-', '+', '~']).map_while(|part| part.parse::<u32>().ok());
        let version = (numbers.next(), numbers.next(), numbers.next().unwrap_or(0));
        let older_than = |of_3_4, of_3_5| match version {
            (Some(3), Some(4), patch) => patch < of_3_4,
            (Some(3), Some(5), patch) => patch < of_3_5,
            (Some(major), Some(minor), _) => (major, minor) < (3, 4),
            _ => false,
        };
        Self { compaction_drops_tombstones: older_than(34, 16), progress_overtakes_events: older_than(25, 8) }
    }
}

/// An etcd. Time is what [`advance`](Self::advance) says, in milliseconds from any beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    store: Store,
    lessor: Lessor,
    watches: BTreeMap<i64, Watch>,
    next_watch: i64,
    now_ms: u64,
    progress_ms: u64,
    quirks: Quirks,
}

impl Default for Model {
    fn default() -> Self {
        Self::new()
    }
}

impl Model {
    pub fn new() -> Self {
        Self::with_quirks(Quirks::default())
    }

    pub fn with_quirks(quirks: Quirks) -> Self {
        Self {
            store: Store::new(),
            lessor: Lessor::default(),
            watches: BTreeMap::new(),
            next_watch: 0,
            now_ms: 0,
            // etcd's default.
            progress_ms: 600_000,
            quirks,
        }
    }

    /// etcd's flag `--experimental-watch-progress-notify-interval`.
    #[must_use]
    pub fn with_progress_interval(mut self, progress_ms: u64) -> Self {
        self.progress_ms = progress_ms;
        self
    }

    /// The newest revision; 1 in an empty etcd.
    pub fn revision(&self) -> i64 {
        self.store.revision
    }

    /// The oldest revision that can be read; 0 before the first compaction.
    pub fn compact_revision(&self) -> i64 {
        self.store.compacted.max(0)
    }

    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// # Errors
    /// No key, or a revision that is compacted or to come.
    pub fn range(&self, request: &RangeRequest) -> Result<RangeResponse, Error> {
        check_key(&request.keys.key)?;
        self.store.check_revision(request.revision)?;
        Ok(self.store.range(request, self.store.revision))
    }

    /// # Errors
    /// No key, or a lease that does not exist.
    pub fn put(&mut self, request: &PutRequest) -> Result<PutResponse, Error> {
        check_key(&request.key)?;
        self.lessor.check(request.lease)?;
        let mut txn = WriteTxn::begin(&mut self.store, &mut self.lessor);
        let response = txn.put(request);
        txn.end();
        Ok(response)
    }

    /// # Errors
    /// No key.
    pub fn delete_range(&mut self, request: &DeleteRangeRequest) -> Result<DeleteRangeResponse, Error> {
        check_key(&request.keys.key)?;
        let mut txn = WriteTxn::begin(&mut self.store, &mut self.lessor);
        let response = txn.delete_range(request);
        txn.end();
        Ok(response)
    }

    /// # Errors
    /// It is malformed, or one of the operations that it comes to would be refused alone.
    pub fn txn(&mut self, request: &TxnRequest) -> Result<TxnResponse, Error> {
        txn::apply(&mut self.store, &mut self.lessor, request)
    }

    /// Forgets what was superseded up to a revision, which stays readable itself. Answers the newest revision.
    ///
    /// # Errors
    /// The revision is compacted already, or to come.
    pub fn compact(&mut self, revision: i64) -> Result<i64, Error> {
        if revision <= self.store.compacted {
            return Err(Error::Compacted);
        }
        if revision > self.store.revision {
            return Err(Error::FutureRevision);
        }
        self.watches.values_mut().for_each(|watch| watch.settle(&self.store));
        self.store.compact(revision, !self.quirks.compaction_drops_tombstones);
        Ok(self.store.revision)
    }

    /// The id 0 asks for any free one; the time to live is in seconds.
    ///
    /// # Errors
    /// The id is taken, or the time too long.
    pub fn lease_grant(&mut self, id: i64, ttl: i64) -> Result<LeaseGrantResponse, Error> {
        let (id, ttl) = self.lessor.grant(id, ttl, self.now_ms)?;
        Ok(LeaseGrantResponse { revision: self.store.revision, id, ttl })
    }

    /// Deletes the lease's keys, in one revision. Answers the newest revision.
    ///
    /// # Errors
    /// There is no such lease.
    pub fn lease_revoke(&mut self, id: i64) -> Result<i64, Error> {
        let lease = self.lessor.leases.remove(&id).ok_or(Error::LeaseNotFound)?;
        let mut txn = WriteTxn::begin(&mut self.store, &mut self.lessor);
        for key in lease.keys {
            txn.delete_range(&crate::KeyRange::one(key).into());
        }
        Ok(txn.end())
    }

    /// Starts the lease's time anew. Answers how long that is in seconds, 0 if there is no such lease.
    pub fn lease_keep_alive(&mut self, id: i64) -> i64 {
        self.lessor.renew(id, self.now_ms).unwrap_or(0)
    }

    pub fn lease_time_to_live(&self, id: i64) -> LeaseTimeToLiveResponse {
        let revision = self.store.revision;
        let Some(lease) = self.lessor.leases.get(&id) else {
            return LeaseTimeToLiveResponse { revision, ttl: -1, ..LeaseTimeToLiveResponse::default() };
        };
        let left = lease.expires_ms.saturating_sub(self.now_ms) / 1000;
        LeaseTimeToLiveResponse {
            revision,
            ttl: i64::try_from(left).unwrap_or(i64::MAX),
            granted_ttl: lease.ttl,
            keys: lease.keys.iter().cloned().collect(),
        }
    }

    pub fn leases(&self) -> Vec<i64> {
        self.lessor.leases.keys().copied().collect()
    }

    /// Lets time pass and revokes the leases that have run out, the one that ran out first first. Time does not go back.
    pub fn advance(&mut self, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
        while let Some(id) = self.lessor.first_expired(self.now_ms) {
            self.lease_revoke(id).expect("it is there, having been found");
        }
    }

    /// As a member does that becomes the leader: every lease gets its whole time anew.
    pub fn promote(&mut self) {
        self.lessor.extend_all(self.now_ms);
    }

    /// The answer has the id, or -1 and `canceled` where the range holds no key. A start that is compacted is told by the
    /// first poll.
    pub fn watch_create(&mut self, request: &WatchCreateRequest) -> WatchResponse {
        let mut request = request.clone();
        if request.keys.key.is_empty() {
            request.keys.key = Bytes::from_static(b"\0");
        }
        let answer =
            WatchResponse { revision: self.store.revision, created: true, ..WatchResponse::default() };
        if request.keys.is_inverted() {
            return WatchResponse { watch_id: -1, canceled: true, ..answer };
        }
        let watch_id = self.next_watch;
        self.next_watch += 1;
        self.watches.insert(watch_id, Watch::new(watch_id, &request, &self.store, self.now_ms));
        WatchResponse { watch_id, ..answer }
    }

    /// Everything that a watch has not been sent yet; whole revisions, in order. Nothing for a watch that does not exist.
    pub fn watch_poll(&mut self, id: i64) -> Vec<WatchResponse> {
        let watch = self.watches.get_mut(&id);
        watch.map_or_else(Vec::new, |watch| watch.poll(&self.store, self.now_ms, self.progress_ms))
    }

    /// `None` for a watch that does not exist. One that a compaction has canceled still does.
    pub fn watch_cancel(&mut self, id: i64) -> Option<WatchResponse> {
        self.watches.remove(&id)?;
        let revision = self.store.revision;
        Some(WatchResponse { watch_id: id, revision, canceled: true, ..WatchResponse::default() })
    }

    /// The answer to a progress request on a stream of these watches. There is none while one of them is owed events or
    /// begins in the future, and none either while one that a compaction has canceled was not canceled by its client too.
    pub fn watch_progress(&self, ids: impl IntoIterator<Item = i64>) -> Option<WatchResponse> {
        let everywhere =
            WatchResponse { watch_id: -1, revision: self.store.revision, ..WatchResponse::default() };
        if self.quirks.progress_overtakes_events {
            return Some(everywhere);
        }
        let mut watches = ids.into_iter().filter_map(|id| self.watches.get(&id)).peekable();
        watches.peek()?;
        watches.all(|watch| watch.progress(&self.store).is_some()).then_some(everywhere)
    }

    /// What a backup of it holds, started now: no watches, leases with their whole time, and time where `self` is.
    pub(crate) fn restored_from(&self, backup: &Model) -> Model {
        let mut restored = backup.clone();
        restored.watches.clear();
        (restored.next_watch, restored.now_ms) = (self.next_watch, self.now_ms);
        restored.promote();
        restored
    }

    /// As `etcdutl snapshot restore --bump-revision N --mark-compacted`.
    pub(crate) fn bump_revision(&mut self, by: i64) {
        self.store.revision += by;
        self.store.compact(self.store.revision, true);
    }
}

#[cfg(test)]
mod tests;
