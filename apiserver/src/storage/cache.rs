//! The watch cache: every stored resource in memory, fed by one watch of etcd.
//!
//! One etcd watch over all keys feeds all caches in the order of revisions. Every revision of etcd has at least one
//! event, so the stream itself tells when a revision has been reached, and no progress notification is needed (old etcds
//! send them too early: etcd #15220, #17566). A read that must be fresh asks etcd for its revision, together with all
//! reads that wait at that moment, and then waits until the caches have come that far.
//!
//! `resource` is the cache of one resource, a state machine; `tree` its objects, `history` its latest changes, `groups` its
//! watchers; `feed` is the only part that talks to etcd, `revision_check` asks it for its revision.
//! Upstream: `apiserver/pkg/storage/cacher`, KEP-2340 (consistent reads from cache), KEP-3157, KEP-4988.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use crate::registry::ResourceInfo;
use crate::registry::resources::Resources;
use crate::selection::Selection;
use crate::storage::StorageError;
use crate::storage::compactor::COMPACT_REV_KEY;
use crate::storage::stored::{Selectable, Stored};

pub mod feed;
mod groups;
mod hints;
mod history;
pub(super) mod metrics;
mod progress;
mod resource;
pub(super) mod revision_check;
mod snapshot;
#[cfg(test)]
mod tests;
mod tree;
mod watcher;

pub(super) use progress::Progress;
pub use resource::Change;
use resource::ResourceCache;
pub use snapshot::Snapshot;
pub use watcher::CachedWatch;

/// The caches of all resources. Their inputs are [`load`](Self::load) and [`apply`](Self::apply), by one caller.
#[derive(Debug)]
pub struct Caches {
    /// By key prefix; none is the beginning of another.
    by_prefix: BTreeMap<String, Arc<ResourceCache>>,
    progress: Progress,
    /// The revision up to which API servers have compacted etcd: lists of what was before it are refused, here as there.
    compacted: AtomicI64,
    ready: watch::Sender<bool>,
    /// Whether the stream that feeds them is open.
    followed: watch::Sender<bool>,
}

impl Caches {
    /// Empty caches of all resources below `prefix` (`/registry`).
    pub fn new(resources: &Resources, prefix: &str) -> Self {
        let progress = Progress::default();
        let cache = |resource: &Arc<dyn crate::registry::Resource>| {
            let root = format!("{prefix}/{}/", resource.info().storage_prefix);
            let cache = ResourceCache::new(Arc::clone(resource), &root, progress.clone());
            (root, Arc::new(cache))
        };
        let native = resources.shared().iter().filter(|resource| !resource.info().converted);
        let by_prefix = native.map(cache).collect();
        Self {
            by_prefix,
            progress,
            compacted: AtomicI64::new(0),
            ready: watch::channel(false).0,
            followed: watch::channel(false).0,
        }
    }

    /// The cache in which a key or prefix lies.
    fn of(&self, key: &str) -> Option<&Arc<ResourceCache>> {
        self.root_of(key).map(|(_, cache)| cache)
    }

    fn root_of(&self, key: &str) -> Option<(&str, &Arc<ResourceCache>)> {
        let up_to = (Bound::Unbounded, Bound::Included(key));
        let (root, cache) = self.by_prefix.range::<str, _>(up_to).next_back()?;
        key.starts_with(root.as_str()).then_some((root, cache))
    }

    pub(super) fn covers(&self, key: &str) -> bool {
        self.of(key).is_some()
    }

    /// Starts again with everything there was at `revision`, where every key is a stored object; every watch ends.
    pub fn load(&self, objects: Vec<Stored>, revision: i64) {
        let mut by_root: BTreeMap<&str, Vec<Arc<Stored>>> = BTreeMap::new();
        for stored in objects {
            if let Some((root, _)) = self.root_of(&stored.key) {
                by_root.entry(root).or_default().push(Arc::new(stored));
            }
        }
        // Behind everything until all is loaded: a half-loaded state must not be taken for a reached one.
        self.progress.restart(0);
        // What was compacted in a history that a backup has replaced means nothing; what was compacted in this one lies
        // before `revision`, and is not held.
        self.compacted.store(0, Ordering::Relaxed);
        for (root, cache) in &self.by_prefix {
            cache.load(by_root.remove(root.as_str()).unwrap_or_default(), revision);
        }
        self.progress.restart(revision);
    }

    /// Takes in changes in the order of revisions, whole revisions only.
    pub fn apply(&self, changes: Vec<Change>) {
        let Some(reached) = changes.last().map(|change| change.revision) else { return };
        let mut changes = changes.into_iter().peekable();
        while let Some(change) = changes.next() {
            let Some((root, cache)) = self.root_of(&change.key) else {
                self.note_compaction(&change);
                continue;
            };
            let more = std::iter::from_fn(|| changes.next_if(|next| next.key.starts_with(root)));
            cache.apply(std::iter::once(change).chain(more));
        }
        self.progress.advance(reached);
    }

    fn note_compaction(&self, change: &Change) {
        if change.key != COMPACT_REV_KEY {
            return;
        }
        let revision =
            change.value.as_deref().and_then(|value| std::str::from_utf8(value).ok()?.parse().ok());
        self.compacted.fetch_max(revision.unwrap_or(0), Ordering::Relaxed);
    }

    /// How far the caches are.
    pub fn revision(&self) -> i64 {
        self.progress.revision()
    }

    /// Waits until the caches have reached a revision; false when they have not within `patience`.
    pub(super) async fn reach(&self, revision: i64, patience: Duration) -> bool {
        self.progress.reach(revision, patience).await
    }

    pub(super) fn set_ready(&self, ready: bool) {
        self.ready.send_replace(ready);
    }

    /// Whether they have been filled and have caught up once.
    pub fn is_ready(&self) -> bool {
        *self.ready.borrow()
    }

    /// Says whether they are fed: not from the moment when the feed's stream is lost until it is open again, on an etcd that
    /// still has what was seen last.
    pub fn set_followed(&self, followed: bool) {
        self.followed.send_replace(followed);
    }

    /// See [`Self::set_followed`].
    pub fn is_followed(&self) -> bool {
        *self.followed.borrow()
    }

    pub(super) async fn wait_followed(&self) {
        if !self.is_followed() {
            // The sender lives as long as `self`.
            let _ = self.followed.subscribe().wait_for(|followed| *followed).await;
        }
    }

    pub(super) async fn wait_ready(&self) {
        // The sender lives as long as `self`.
        let _ = self.ready.subscribe().wait_for(|ready| *ready).await;
    }

    /// An object as the cache has it.
    pub fn get(&self, key: &str) -> Option<Arc<Stored>> {
        self.of(key)?.get(key)
    }

    /// An object as the cache has it, and the revision at which it is so.
    pub fn get_at(&self, key: &str) -> (Option<Arc<Stored>>, i64) {
        self.of(key).map_or((None, self.progress.revision()), |cache| cache.get_at(key))
    }

    /// The latest state of the resource below whose prefix a key lies.
    pub fn snapshot(&self, key: &str) -> Option<Snapshot> {
        Some(self.of(key)?.snapshot())
    }

    /// The state at a revision; `None` if that is too far in the past or not reached.
    pub fn snapshot_at(&self, key: &str, revision: i64) -> Result<Option<Snapshot>, StorageError> {
        if revision < self.compacted.load(Ordering::Relaxed) {
            return Err(StorageError::Compacted);
        }
        Ok(self.of(key).and_then(|cache| cache.snapshot_at(revision)))
    }

    /// What a selection sees below a prefix, after a revision; `None` if no cached resource lies there.
    pub fn watch(
        &self,
        prefix: &str,
        selection: &Selection,
        after: i64,
    ) -> Option<Result<CachedWatch, StorageError>> {
        Some(self.of(prefix)?.watch(prefix, selection, after))
    }

    /// Says what selectors need of a value that is about to be written.
    pub(super) fn hint(&self, key: &str, value: &Bytes, selectable: Selectable) {
        if let Some(cache) = self.of(key) {
            cache.hints.lock().put(key, value.clone(), selectable);
        }
    }

    pub(super) fn forget_hint(&self, key: &str) {
        if let Some(cache) = self.of(key) {
            cache.hints.lock().forget(key);
        }
    }

    /// Objects, bytes and watchers of each resource.
    fn counts(&self) -> impl Iterator<Item = (&ResourceInfo, resource::Counts)> {
        self.by_prefix.values().map(|cache| (cache.resource().info(), cache.counts()))
    }
}
