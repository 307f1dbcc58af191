//! Keeps the caches fed from etcd: fills them at one revision, then follows every change after it.
//!
//! They are filled at a revision a little in the past and caught up by the watch, so that the history holds something from
//! the start: clients that come back to a restarted server go on with their watches where they were (KEP-1904). A lost
//! stream is opened again after the last revision received, if etcd still has what was received last; only compaction beyond
//! that, or an etcd whose revisions went back or which has another history (a restored snapshot), makes the caches start anew,
//! which ends every watch.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use etcd_client::{EventType, WatchResponse, WatchStream};
use tonic::Code;

use super::{Caches, Change};
use crate::storage::StorageError;
use crate::storage::etcd::{Etcd, WatchScope};

/// Pause before etcd is tried again.
const RETRY: Duration = Duration::from_millis(100);
/// While etcd is away, it is said again after this long.
const SAY_AGAIN: Duration = Duration::from_secs(30);
/// Revisions that are replayed into the history when the caches are filled.
const HEAD_START: i64 = 1_000;

/// Feeds the caches for ever.
pub(in crate::storage) async fn run(etcd: &Etcd, caches: &Arc<Caches>) {
    let mut scope = WatchScope::Everything;
    let mut said: Option<Instant> = None;
    loop {
        let ended = match fill(etcd, caches, scope).await {
            Ok(feed) => {
                said = None;
                feed.follow(etcd, caches).await
            }
            Err(error) => error,
        };
        match &ended {
            StorageError::Etcd(error) if is_denied(error) && scope == WatchScope::Everything => {
                tracing::warn!(
                    "etcd lets this server watch its own prefix only: fresh reads go to etcd when others write there"
                );
                scope = WatchScope::Prefix;
            }
            StorageError::WentBack { .. } | StorageError::AnotherHistory { .. } => {
                tracing::error!(error = %ended, "the caches start anew");
            }
            error if said.is_none_or(|said| said.elapsed() > SAY_AGAIN) => {
                tracing::warn!(%error, "the watch cache is to be filled again");
                said = Some(Instant::now());
            }
            error => tracing::debug!(%error, "the watch cache is to be filled again"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

fn is_denied(error: &etcd_client::Error) -> bool {
    matches!(error, etcd_client::Error::GRpcStatus(status) if status.code() == Code::PermissionDenied)
}

/// What one response of an etcd watch tells.
#[derive(Debug, Clone, Default)]
pub struct Told {
    /// Etcd's revision when it sent this.
    pub revision: i64,
    /// Etcd no longer has what the watch should begin with; 0: it has.
    pub compacted: i64,
    /// The watch is over, for this reason.
    pub cancelled: Option<String>,
    /// Whole revisions, in order.
    pub changes: Vec<Change>,
}

/// How far the caches follow etcd, and what a response means to that. Decides and does no IO.
#[derive(Debug)]
pub struct Follower {
    /// Received up to here: always whole revisions, since etcd does not split one over two responses.
    received: i64,
    /// The caches can be served once they are here.
    ready_at: i64,
    /// The last change that they hold: an etcd that has it is still the same.
    last: Option<Change>,
}

impl Follower {
    /// For caches that were loaded at `from`, when etcd was at `now`. `last` is the latest change that they hold.
    pub fn new(from: i64, now: i64, last: Option<Change>) -> Self {
        Self { received: from, ready_at: now, last }
    }

    /// What an etcd must have, at its revision, on which the watch can be opened again.
    pub fn evidence(&self) -> Option<&Change> {
        self.last.as_ref()
    }

    /// The revision after which the watch is to be opened again.
    pub fn received(&self) -> i64 {
        self.received
    }

    /// Gives a response to the caches. An error says that the stream is lost ([`StorageError::WatchClosed`]) or that the
    /// caches must be filled anew.
    pub fn accept(&mut self, told: Told, caches: &Caches) -> Result<(), StorageError> {
        if told.compacted != 0 {
            return Err(StorageError::Compacted);
        }
        if let Some(reason) = told.cancelled {
            return Err(StorageError::WatchClosed(reason));
        }
        if told.revision < self.received {
            return Err(StorageError::WentBack { seen: self.received, now: told.revision });
        }
        if let Some(last) = told.changes.last() {
            self.received = last.revision;
            // A key that is no text cannot be asked for.
            if let Some(last) = told.changes.iter().rfind(|change| !change.key.is_empty()) {
                self.last = Some(last.clone());
            }
            caches.apply(told.changes);
        }
        // Etcd had that revision when the caches were filled: it has been restored in the meantime, or a member lags.
        if told.revision < self.ready_at {
            return Err(StorageError::WentBack { seen: self.ready_at, now: told.revision });
        }
        self.note(caches);
        Ok(())
    }

    fn note(&self, caches: &Caches) {
        if self.received >= self.ready_at && !caches.is_ready() {
            caches.set_ready(true);
        }
    }
}

/// The stream that follows etcd.
struct Feed {
    /// `None` while it is lost.
    stream: Option<WatchStream>,
    /// Whether there has been one.
    reopens: bool,
    scope: WatchScope,
    follower: Follower,
}

async fn fill(etcd: &Etcd, caches: &Arc<Caches>, scope: WatchScope) -> Result<Feed, StorageError> {
    let now = etcd.revision().await?;
    // Not into the past of what has been served already.
    let head_start = if caches.is_ready() { 0 } else { HEAD_START };
    let from = (now - head_start).max(etcd.compacted().await?).max(1).min(now);
    let (from, objects) = match etcd.everything(from).await {
        Ok(objects) => (from, objects),
        // Somebody compacts in other ways than API servers do.
        Err(StorageError::Compacted) => (now, etcd.everything(now).await?),
        Err(error) => return Err(error),
    };
    let count = objects.len();
    let last = objects.iter().max_by_key(|stored| stored.revision).map(Change::of);
    caches.load(objects, from);
    tracing::info!(objects = count, revision = from, now, "watch cache filled");
    let follower = Follower::new(from, now, last);
    follower.note(caches);
    Ok(Feed { stream: None, reopens: false, scope, follower })
}

impl Feed {
    /// Follows until the caches must be filled again.
    async fn follow(mut self, etcd: &Etcd, caches: &Arc<Caches>) -> StorageError {
        loop {
            if let Err(error) = self.step(etcd, caches).await {
                caches.set_followed(false);
                return error;
            }
        }
    }

    async fn step(&mut self, etcd: &Etcd, caches: &Arc<Caches>) -> Result<(), StorageError> {
        let received = self.follower.received();
        let Some(stream) = &mut self.stream else {
            match self.open(etcd).await {
                Ok(stream) => {
                    (self.stream, self.reopens) = (Some(stream), true);
                    caches.set_followed(true);
                }
                Err(error) if error.is_unavailable() => {
                    tracing::debug!(%error, "etcd watch not opened");
                    tokio::time::sleep(RETRY).await;
                }
                Err(error) => return Err(error),
            }
            return Ok(());
        };
        let lost = match stream.message().await {
            Ok(Some(response)) => match self.follower.accept(told(&response), caches) {
                Ok(()) => return Ok(()),
                Err(StorageError::WatchClosed(reason)) => reason,
                // A member that lags says so too: only a quorum knows.
                Err(error @ StorageError::WentBack { seen, .. }) => match etcd.revision().await {
                    Ok(now) if now >= seen => return Ok(()),
                    Ok(_) => return Err(error),
                    Err(error) => error.to_string(),
                },
                Err(error) => return Err(error),
            },
            Ok(None) => "end of stream".to_owned(),
            Err(error) => StorageError::from(error).to_string(),
        };
        tracing::info!(reason = lost, revision = received, "etcd watch lost, opening it again");
        self.stream = None;
        caches.set_followed(false);
        tokio::time::sleep(RETRY).await;
        Ok(())
    }

    /// Opens the stream, on an etcd that has what was received last.
    async fn open(&self, etcd: &Etcd) -> Result<WatchStream, StorageError> {
        let received = self.follower.received();
        if let Some(last) = self.follower.evidence().filter(|_| self.reopens)
            && !etcd.has(last, received).await?
        {
            return Err(StorageError::AnotherHistory { seen: received });
        }
        etcd.open_watch(self.scope, received).await
    }
}

fn told(response: &WatchResponse) -> Told {
    Told {
        revision: response.header().map_or(i64::MAX, etcd_client::ResponseHeader::revision),
        compacted: response.compact_revision(),
        cancelled: response.canceled().then(|| response.cancel_reason().to_owned()),
        changes: response.events().iter().filter_map(change).collect(),
    }
}

/// A key that is no text is nobody's, but its revision counts.
fn change(event: &etcd_client::Event) -> Option<Change> {
    let kv = event.kv()?;
    let key = kv.key_str().map(str::to_owned).unwrap_or_default();
    let value = match event.event_type() {
        EventType::Put => Some(Bytes::copy_from_slice(kv.value())),
        EventType::Delete => None,
    };
    Some(Change { key, value, revision: kv.mod_revision() })
}
