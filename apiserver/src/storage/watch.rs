//! Watches: what one selection sees below a prefix, change by change, from the cache or from etcd itself.
//!
//! From etcd, a lost stream is opened again after the last revision received, so that a restart or a change of leader of
//! etcd is not seen above; only compaction ends a watch. Upstream: `apiserver/pkg/storage/etcd3/watcher.go`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use etcd_client::{EventType, WatchResponse, WatchStream};

use super::cache::CachedWatch;
use super::etcd::Etcd;
use super::event::{self, Delivered, Event};
use super::stored::Stored;
use super::{Interest, StorageError};

/// Pause before a lost stream is opened again.
const REOPEN_PAUSE: Duration = Duration::from_millis(250);

/// An open watch. Dropping it ends it.
#[derive(Debug)]
pub enum Watch {
    Cached(CachedWatch),
    Direct(Box<EtcdWatch>),
}

impl Watch {
    /// The revision up to which everything has been told.
    pub fn revision(&self) -> i64 {
        match self {
            Self::Cached(watch) => watch.revision(),
            Self::Direct(watch) => watch.told,
        }
    }

    /// An event that is here already.
    pub fn pending(&mut self) -> Option<Delivered> {
        match self {
            Self::Cached(watch) => watch.pending(),
            Self::Direct(watch) => watch.pending(),
        }
    }

    /// The next event. An error ends the watch. Cancel safe.
    pub async fn next(&mut self) -> Result<Delivered, StorageError> {
        match self {
            Self::Cached(watch) => watch.next().await,
            Self::Direct(watch) => Box::pin(watch.next()).await,
        }
    }
}

/// A watch of etcd itself.
#[derive(Debug)]
pub struct EtcdWatch {
    etcd: Etcd,
    interest: Interest,
    /// `None` while the stream is lost.
    stream: Option<WatchStream>,
    pending: VecDeque<Delivered>,
    /// Told up to here.
    told: i64,
    /// Received up to here; always whole revisions, since etcd does not split one over two responses.
    received: i64,
}

impl EtcdWatch {
    pub(super) async fn open(etcd: Etcd, interest: Interest, after: i64) -> Result<Self, StorageError> {
        let stream = Some(etcd.open_watch_of(&interest.prefix, after).await?);
        Ok(Self { etcd, interest, stream, pending: VecDeque::new(), told: after, received: after })
    }

    fn pending(&mut self) -> Option<Delivered> {
        let delivered = self.pending.pop_front()?;
        self.told = if self.pending.is_empty() { self.received } else { delivered.event.revision };
        Some(delivered)
    }

    async fn next(&mut self) -> Result<Delivered, StorageError> {
        loop {
            if let Some(delivered) = self.pending() {
                return Ok(delivered);
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
            tracing::debug!(prefix = %self.interest.prefix, reason = lost, "etcd watch lost");
            self.stream = None;
        }
    }

    async fn reopen(&mut self) -> Result<(), StorageError> {
        tokio::time::sleep(REOPEN_PAUSE).await;
        match self.etcd.open_watch_of(&self.interest.prefix, self.received).await {
            Ok(stream) => self.stream = Some(stream),
            Err(StorageError::Etcd(error)) => {
                tracing::debug!(prefix = %self.interest.prefix, %error, "etcd watch not opened")
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
            let Some(event) = decode(event)? else { continue };
            self.received = event.revision;
            if let Some(kind) = self.interest.judge(&event) {
                self.pending.push_back(Delivered { kind, event: Arc::new(event) });
            }
        }
        if response.events().is_empty()
            && !response.created()
            && let Some(header) = response.header()
        {
            self.received = self.received.max(header.revision());
        }
        if self.pending.is_empty() {
            self.told = self.received;
        }
        Ok(())
    }
}

/// `None`: of a key that is no text, which is nobody's object.
fn decode(event: &etcd_client::Event) -> Result<Option<Event>, StorageError> {
    let kv = event.kv().ok_or_else(|| StorageError::Corrupt("watch event without a key".to_owned()))?;
    let Ok(key) = kv.key_str() else { return Ok(None) };
    let revision = kv.mod_revision();
    let stored = |kv: &etcd_client::KeyValue| {
        Arc::new(Stored::new(key, Bytes::copy_from_slice(kv.value()), kv.mod_revision()))
    };
    let old = event.prev_kv().map(stored);
    match event.event_type() {
        EventType::Put => {
            // Without the previous state nobody could say what this change means to a selector.
            if old.is_none() && kv.create_revision() != revision {
                return Err(StorageError::Compacted);
            }
            Ok(Some(Event::new(revision, old, Some(stored(kv)))))
        }
        EventType::Delete if old.is_none() => Err(StorageError::Compacted),
        EventType::Delete => Ok(Some(Event::new(revision, old, None))),
    }
}

impl Interest {
    /// What an event is to this interest.
    fn judge(&self, event: &Event) -> Option<event::EventType> {
        let sees = |stored: &Option<Arc<Stored>>| {
            stored.as_ref().is_some_and(|stored| self.selection.matches(&*self.resource, stored))
        };
        event::EventType::classify(sees(&event.old), sees(&event.new))
    }
}
