//! A watch on a key prefix: etcd's responses taken apart into one event after the other.
//!
//! Upstream: `apiserver/pkg/storage/etcd3/watcher.go`.

use std::collections::VecDeque;

use bytes::Bytes;
use etcd_client::{EventType, WatchResponse, WatchStream};

use super::{StorageError, Stored};

/// A change below the prefix, in the order of revisions.
#[derive(Debug, Clone)]
pub enum WatchEvent {
    /// Created (`previous` is `None`) or replaced.
    Put { stored: Stored, previous: Option<Bytes> },
    /// Deleted; `stored` is the last state, with the revision of the deletion.
    Deleted { stored: Stored },
    /// Nothing happened up to this revision that was not told.
    Progress(i64),
}

/// An open watch. Dropping it ends it.
#[derive(Debug)]
pub struct Watch {
    stream: WatchStream,
    pending: VecDeque<WatchEvent>,
    revision: i64,
}

impl Watch {
    pub(super) fn new(stream: WatchStream, after: i64) -> Self {
        Self { stream, pending: VecDeque::new(), revision: after }
    }

    /// The revision up to which everything has been told.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// An event that is here already.
    pub fn pending(&mut self) -> Option<WatchEvent> {
        let event = self.pending.pop_front()?;
        match &event {
            WatchEvent::Put { stored, .. } | WatchEvent::Deleted { stored } => self.revision = stored.revision,
            WatchEvent::Progress(revision) => self.revision = *revision,
        }
        Some(event)
    }

    /// The next event. An error ends the watch. Cancel safe.
    pub async fn next(&mut self) -> Result<WatchEvent, StorageError> {
        loop {
            if let Some(event) = self.pending() {
                return Ok(event);
            }
            let Some(response) = self.stream.message().await? else {
                return Err(StorageError::WatchClosed("end of stream".to_owned()));
            };
            self.accept(&response)?;
        }
    }

    fn accept(&mut self, response: &WatchResponse) -> Result<(), StorageError> {
        if response.compact_revision() != 0 {
            return Err(StorageError::Compacted);
        }
        if response.canceled() {
            return Err(StorageError::WatchClosed(response.cancel_reason().to_owned()));
        }
        if response.events().is_empty() {
            if !response.created()
                && let Some(header) = response.header()
                && header.revision() > self.revision
            {
                self.pending.push_back(WatchEvent::Progress(header.revision()));
            }
            return Ok(());
        }
        for event in response.events() {
            self.pending.push_back(decode(event)?);
        }
        Ok(())
    }
}

fn decode(event: &etcd_client::Event) -> Result<WatchEvent, StorageError> {
    let kv = event.kv().ok_or_else(|| StorageError::Corrupt("watch event without a key".to_owned()))?;
    let key = kv.key_str().map_err(|error| StorageError::Corrupt(error.to_string()))?.to_owned();
    let previous = event.prev_kv().map(|previous| Bytes::copy_from_slice(previous.value()));
    let revision = kv.mod_revision();
    match event.event_type() {
        EventType::Put => {
            // Without the previous state nobody could say what this change means to a selector.
            if previous.is_none() && kv.create_revision() != revision {
                return Err(StorageError::Compacted);
            }
            let value = Bytes::copy_from_slice(kv.value());
            Ok(WatchEvent::Put { stored: Stored { key, value, revision }, previous })
        }
        EventType::Delete => {
            let value = previous.ok_or(StorageError::Compacted)?;
            Ok(WatchEvent::Deleted { stored: Stored { key, value, revision } })
        }
    }
}
