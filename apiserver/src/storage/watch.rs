//! A watch on a key prefix: etcd's responses taken apart into one event after the other.
//!
//! A lost stream is opened again after the last revision received, so that a restart or a change of leader of etcd is
//! not seen above; only compaction ends a watch. Upstream: `apiserver/pkg/storage/etcd3/watcher.go`.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use etcd_client::{EventType, WatchResponse, WatchStream};

use super::etcd::Etcd;
use super::{StorageError, Stored};

/// Pause before a lost stream is opened again.
const REOPEN_PAUSE: Duration = Duration::from_millis(250);

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

impl WatchEvent {
    fn revision(&self) -> i64 {
        match self {
            Self::Put { stored, .. } | Self::Deleted { stored } => stored.revision,
            Self::Progress(revision) => *revision,
        }
    }
}

/// An open watch. Dropping it ends it.
#[derive(Debug)]
pub struct Watch {
    etcd: Etcd,
    prefix: String,
    /// `None` while the stream is lost.
    stream: Option<WatchStream>,
    pending: VecDeque<WatchEvent>,
    /// Told up to here.
    told: i64,
    /// Received up to here; always whole revisions, since etcd does not split one over two responses.
    received: i64,
}

impl Watch {
    pub(super) async fn open(etcd: Etcd, prefix: &str, after: i64) -> Result<Self, StorageError> {
        let stream = Some(etcd.open_watch(prefix, after).await?);
        Ok(Self {
            etcd,
            prefix: prefix.to_owned(),
            stream,
            pending: VecDeque::new(),
            told: after,
            received: after,
        })
    }

    /// The revision up to which everything has been told.
    pub fn revision(&self) -> i64 {
        self.told
    }

    /// An event that is here already.
    pub fn pending(&mut self) -> Option<WatchEvent> {
        let event = self.pending.pop_front()?;
        self.told = event.revision();
        Some(event)
    }

    /// The next event. An error ends the watch. Cancel safe.
    pub async fn next(&mut self) -> Result<WatchEvent, StorageError> {
        loop {
            if let Some(event) = self.pending() {
                return Ok(event);
            }
            let Some(stream) = &mut self.stream else {
                self.reopen().await?;
                continue;
            };
            let lost = match stream.message().await {
                Ok(Some(response)) => match self.accept(&response) {
                    Ok(()) => continue,
                    Err(StorageError::WatchClosed(reason)) => reason,
                    Err(error) => return Err(error),
                },
                Ok(None) => "end of stream".to_owned(),
                Err(error) => match StorageError::from(error) {
                    error @ StorageError::Etcd(_) => error.to_string(),
                    error => return Err(error),
                },
            };
            tracing::debug!(prefix = self.prefix, reason = lost, "etcd watch lost");
            self.stream = None;
        }
    }

    async fn reopen(&mut self) -> Result<(), StorageError> {
        tokio::time::sleep(REOPEN_PAUSE).await;
        match self.etcd.open_watch(&self.prefix, self.received).await {
            Ok(stream) => self.stream = Some(stream),
            Err(StorageError::Etcd(error)) => {
                tracing::debug!(prefix = self.prefix, %error, "etcd watch not opened")
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn accept(&mut self, response: &WatchResponse) -> Result<(), StorageError> {
        if response.compact_revision() != 0 {
            return Err(StorageError::Compacted);
        }
        if response.canceled() {
            return Err(StorageError::WatchClosed(response.cancel_reason().to_owned()));
        }
        for event in response.events() {
            let event = decode(event)?;
            self.received = event.revision();
            self.pending.push_back(event);
        }
        if response.events().is_empty()
            && !response.created()
            && let Some(header) = response.header()
            && header.revision() > self.received
        {
            self.received = header.revision();
            self.pending.push_back(WatchEvent::Progress(header.revision()));
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
