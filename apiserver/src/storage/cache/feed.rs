//! Keeps the caches fed from etcd: fills them at one revision, then follows every change after it.
//!
//! They are filled at a revision a little in the past and caught up by the watch, so that the history holds something from
//! the start: clients that come back to a restarted server go on with their watches where they were (KEP-1904). A lost
//! stream is opened again after the last revision received; only compaction beyond that, or an etcd whose revisions went
//! back (a restored snapshot), makes the caches start anew, which ends every watch.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use etcd_client::{EventType, WatchResponse, WatchStream};
use tonic::Code;

use super::{Caches, Change};
use crate::storage::StorageError;
use crate::storage::etcd::{Etcd, WatchScope};

/// Pause before etcd is tried again.
const RETRY: Duration = Duration::from_millis(100);
/// Revisions that are replayed into the history when the caches are filled.
const HEAD_START: i64 = 1_000;

/// Feeds the caches for ever.
pub(crate) async fn run(etcd: &Etcd, caches: &Arc<Caches>) {
    let mut scope = WatchScope::Everything;
    loop {
        let ended = match fill(etcd, caches, scope).await {
            Ok(feed) => feed.follow(etcd, caches).await,
            Err(error) => error,
        };
        match &ended {
            StorageError::Etcd(error) if is_denied(error) && scope == WatchScope::Everything => {
                tracing::warn!(
                    "etcd lets this server watch its own prefix only: fresh reads go to etcd when others write there"
                );
                scope = WatchScope::Prefix;
            }
            StorageError::WentBack { .. } => tracing::error!(error = %ended, "the caches start anew"),
            error => tracing::warn!(%error, "the caches are filled again"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

fn is_denied(error: &etcd_client::Error) -> bool {
    matches!(error, etcd_client::Error::GRpcStatus(status) if status.code() == Code::PermissionDenied)
}

/// The stream that follows etcd.
struct Feed {
    /// `None` while it is lost.
    stream: Option<WatchStream>,
    scope: WatchScope,
    /// Received up to here: always whole revisions, since etcd does not split one over two responses.
    received: i64,
    /// The caches can be served once they are here.
    ready_at: i64,
}

async fn fill(etcd: &Etcd, caches: &Arc<Caches>, scope: WatchScope) -> Result<Feed, StorageError> {
    let now = etcd.revision().await?;
    let from = (now - HEAD_START).max(etcd.compacted().await?).max(1).min(now);
    let (from, objects) = match etcd.everything(from).await {
        Ok(objects) => (from, objects),
        // Somebody compacts in other ways than API servers do.
        Err(StorageError::Compacted) => (now, etcd.everything(now).await?),
        Err(error) => return Err(error),
    };
    let count = objects.len();
    caches.load(objects, from);
    tracing::info!(objects = count, revision = from, now, "watch cache filled");
    let mut feed = Feed { stream: None, scope, received: from, ready_at: now };
    feed.note(caches);
    Ok(feed)
}

impl Feed {
    /// Follows until the caches must be filled again.
    async fn follow(mut self, etcd: &Etcd, caches: &Arc<Caches>) -> StorageError {
        loop {
            if let Err(error) = self.step(etcd, caches).await {
                return error;
            }
        }
    }

    async fn step(&mut self, etcd: &Etcd, caches: &Arc<Caches>) -> Result<(), StorageError> {
        let Some(stream) = &mut self.stream else {
            match etcd.open_watch(self.scope, self.received).await {
                Ok(stream) => self.stream = Some(stream),
                Err(error) if error.is_unavailable() => {
                    tracing::debug!(%error, "etcd watch not opened");
                    tokio::time::sleep(RETRY).await;
                }
                Err(error) => return Err(error),
            }
            return Ok(());
        };
        let lost = match stream.message().await {
            Ok(Some(response)) => match self.accept(&response) {
                Ok(changes) => {
                    caches.apply(changes);
                    self.note(caches);
                    return Ok(());
                }
                Err(StorageError::WatchClosed(reason)) => reason,
                Err(error) => return Err(error),
            },
            Ok(None) => "end of stream".to_owned(),
            Err(error) => StorageError::from(error).to_string(),
        };
        tracing::info!(reason = lost, revision = self.received, "etcd watch lost, opening it again");
        self.stream = None;
        tokio::time::sleep(RETRY).await;
        Ok(())
    }

    fn note(&mut self, caches: &Arc<Caches>) {
        if self.received >= self.ready_at && !caches.is_ready() {
            caches.set_ready(true);
        }
    }

    /// Takes a response apart.
    fn accept(&mut self, response: &WatchResponse) -> Result<Vec<Change>, StorageError> {
        if response.compact_revision() != 0 {
            return Err(StorageError::Compacted);
        }
        if response.canceled() {
            return Err(StorageError::WatchClosed(response.cancel_reason().to_owned()));
        }
        let now = response.header().map_or(i64::MAX, etcd_client::ResponseHeader::revision);
        if now < self.received {
            return Err(StorageError::WentBack { seen: self.received, now });
        }
        let changes: Vec<Change> = response.events().iter().filter_map(change).collect();
        if let Some(last) = changes.last() {
            self.received = last.revision;
        }
        Ok(changes)
    }
}

/// A key that is no text is nobody's here, but its revision counts.
fn change(event: &etcd_client::Event) -> Option<Change> {
    let kv = event.kv()?;
    let key = String::from_utf8_lossy(kv.key()).into_owned();
    let value = match event.event_type() {
        EventType::Put => Some(Bytes::copy_from_slice(kv.value())),
        EventType::Delete => None,
    };
    Some(Change { key, value, revision: kv.mod_revision() })
}
