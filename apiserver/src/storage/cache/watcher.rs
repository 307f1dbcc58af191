//! One watcher's place in what its group sees.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::watch;

use super::groups::GroupId;
use super::resource::ResourceCache;
use crate::storage::StorageError;
use crate::storage::event::Delivered;

/// Events taken at a time.
const BATCH: usize = 256;

/// An open watch. It holds no events but those it has taken: one that falls behind the history ends with
/// [`StorageError::TooSlow`].
#[derive(Debug)]
pub struct CachedWatch {
    cache: Arc<ResourceCache>,
    group: GroupId,
    /// The next event of the group.
    place: u64,
    epoch: u64,
    /// Nothing up to this revision is told.
    after: i64,
    pending: VecDeque<Delivered>,
    /// The revision of the last event told.
    told: i64,
    /// Everything up to here has been told: of `told`, there may be more.
    whole: i64,
    wake: watch::Receiver<u64>,
}

impl CachedWatch {
    pub(super) fn new(
        cache: Arc<ResourceCache>,
        group: GroupId,
        place: u64,
        epoch: u64,
        after: i64,
        pending: VecDeque<Delivered>,
        wake: watch::Receiver<u64>,
    ) -> Self {
        Self { cache, group, place, epoch, after, pending, told: after, whole: after, wake }
    }

    /// An event that is here already.
    pub fn pending(&mut self) -> Option<Delivered> {
        let delivered = self.pending.pop_front()?;
        if delivered.event.revision > self.told {
            (self.whole, self.told) = (self.told, delivered.event.revision);
        }
        if self.pending.is_empty() {
            // The room of a burst must not be paid for by a watch that idles.
            self.pending.shrink_to(0);
        }
        Some(delivered)
    }

    /// The revision up to which everything has been told, as far as the server knows now.
    pub fn revision(&self) -> i64 {
        if let Some(next) = self.pending.front() {
            return if next.event.revision > self.told { self.told } else { self.whole };
        }
        let inner = self.cache.inner.read();
        match inner.groups.get(self.group) {
            Some(group) if inner.epoch == self.epoch && group.count() == self.place => {
                // Under the lock: what the group has seen covers everything up to here.
                self.cache.progress().max(self.whole)
            }
            _ => self.whole,
        }
    }

    /// The next event. An error ends the watch. Cancel safe.
    pub async fn next(&mut self) -> Result<Delivered, StorageError> {
        loop {
            if let Some(delivered) = self.pending() {
                return Ok(delivered);
            }
            // Marked before looking: what comes after the look wakes again.
            self.wake.mark_unchanged();
            self.take()?;
            if self.pending.is_empty() && self.wake.changed().await.is_err() {
                return Err(StorageError::WatchClosed("the cache is gone".to_owned()));
            }
        }
    }

    fn take(&mut self) -> Result<(), StorageError> {
        let inner = self.cache.inner.read();
        let too_slow = || StorageError::TooSlow { told: self.told, oldest: inner.history.complete_after() };
        let group =
            inner.groups.get(self.group).filter(|_| inner.epoch == self.epoch).ok_or_else(too_slow)?;
        let mut taken = VecDeque::new();
        while taken.len() < BATCH && self.place < group.count() {
            let event = group.at(self.place).and_then(|(number, kind)| {
                let event = Arc::clone(inner.history.get(number)?);
                Some(Delivered { kind, event })
            });
            let event = event.ok_or_else(too_slow)?;
            self.place += 1;
            if event.event.revision > self.after {
                taken.push_back(event);
            }
        }
        drop(inner);
        self.pending = taken;
        Ok(())
    }
}

impl Drop for CachedWatch {
    fn drop(&mut self) {
        self.cache.leave(self.group);
    }
}
