//! Where objects live. Everything above uses [`Storage`], and nothing above knows etcd.
//!
//! Writes are etcd transactions. Reads and watches are answered by the watch cache ([`cache`]) where there is one for the
//! key, and by etcd otherwise; what they mean is the same. Stored values are the objects' JSON without `resourceVersion`;
//! readers get the bytes as etcd gave them and splice the revision in ([`encoded`]). Upstream: `apiserver/pkg/storage`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use component_base::Shutdown;
use component_base::metrics::Registry;
use tonic::Code;

use crate::allocation::SideWrite;
use crate::registry::Resource;
use crate::registry::resources::Resources;
use crate::selection::Selection;

pub mod cache;
mod compactor;
pub mod encoded;
mod etcd;
mod event;
mod leases;
mod metrics;
mod stored;
mod watch;

use cache::{Caches, Snapshot, revision_check::RevisionCheck};
pub use etcd::EtcdConfig;
pub use event::{Delivered, Event, EventType};
pub use metrics::StorageMetrics;
pub use stored::{Selectable, Stored, field_bits, label_bits, name_of_key, namespace_of_key};
pub use watch::Watch;

/// How long a read waits for the cache to reach a revision before it is refused or sent to etcd (upstream's
/// `blockTimeout`).
const PATIENCE: Duration = Duration::from_secs(3);
/// How long etcd may take to tell its revision.
const CHECK_PATIENCE: Duration = Duration::from_secs(5);
/// How long a read waits for the caches to be filled when the server has just started.
const FILL_PATIENCE: Duration = Duration::from_secs(10);

/// Why storage did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    #[error("etcd: {}", describe(.0))]
    Etcd(#[source] Box<etcd_client::Error>),
    #[error("read {file}")]
    File {
        file: String,
        #[source]
        source: std::io::Error,
    },
    /// The revision asked for is no longer held.
    #[error("required revision has been compacted")]
    Compacted,
    /// The revision that a watch should begin after is no longer held.
    #[error("too old resource version: {asked} ({oldest})")]
    TooOld { asked: i64, oldest: i64 },
    /// A watch fell behind what is held.
    #[error("too old resource version: {told} ({oldest})")]
    TooSlow { told: i64, oldest: i64 },
    /// The revision asked for has not happened yet.
    #[error("revision {asked} is in the future, current: {current}")]
    FutureRevision { asked: i64, current: i64 },
    #[error("a stored value is not what this server writes: {0}")]
    Corrupt(String),
    #[error("the watch was closed by etcd: {0}")]
    WatchClosed(String),
    /// Etcd was restored from a snapshot that is older than what this server has seen.
    #[error("etcd's revision went back from {seen} to {now}")]
    WentBack { seen: i64, now: i64 },
    /// Etcd was restored from a snapshot and has come as far again: what it has at a revision is not what was seen.
    #[error("etcd has another history than the one that was seen up to revision {seen}")]
    AnotherHistory { seen: i64 },
    #[error("{0}")]
    Unavailable(String),
}

/// The innermost message of an etcd error, without gRPC's wrapping.
fn describe(error: &etcd_client::Error) -> String {
    match error {
        etcd_client::Error::GRpcStatus(status) => status.message().to_owned(),
        other => other.to_string(),
    }
}

impl From<etcd_client::Error> for StorageError {
    fn from(error: etcd_client::Error) -> Self {
        if let etcd_client::Error::GRpcStatus(status) = &error
            && status.code() == Code::OutOfRange
            && status.message().contains("compacted")
        {
            return Self::Compacted;
        }
        Self::Etcd(Box::new(error))
    }
}

impl StorageError {
    /// Whether etcd could not be reached or had no quorum, as opposed to refusing the request.
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::Unavailable(_) => true,
            Self::Etcd(error) => match &**error {
                etcd_client::Error::GRpcStatus(status) => {
                    matches!(
                        status.code(),
                        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown
                    )
                }
                etcd_client::Error::TransportError(_) | etcd_client::Error::IoError(_) => true,
                _ => false,
            },
            _ => false,
        }
    }
}

/// How fresh a read must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// Whatever is at hand.
    Any,
    /// No older than the moment of the request.
    Consistent,
    /// At least this revision.
    NotOlderThan(i64),
    /// Exactly this revision.
    Exact(i64),
}

/// One range of keys to list.
#[derive(Debug, Clone, Copy)]
pub struct ListQuery<'a> {
    /// Full key prefix, with its trailing slash.
    pub prefix: &'a str,
    /// Start after this full key.
    pub start_after: Option<&'a str>,
    pub freshness: Freshness,
    /// At most this many; 0: all.
    pub limit: usize,
    /// Only these; `None`: all.
    pub selected: Option<Selected<'a>>,
}

/// What a list leaves in.
#[derive(Debug, Clone, Copy)]
pub struct Selected<'a> {
    pub resource: &'a dyn Resource,
    pub selection: &'a Selection,
}

impl<'a> ListQuery<'a> {
    /// Everything below a prefix, as of now.
    pub fn all(prefix: &'a str) -> Self {
        Self { prefix, start_after: None, freshness: Freshness::Consistent, limit: 0, selected: None }
    }
}

/// What a list found.
#[derive(Debug)]
pub struct Page {
    pub items: Vec<Arc<Stored>>,
    /// The revision of the snapshot.
    pub revision: i64,
    pub more: bool,
    /// How many keys follow the last item; unknown when a selection leaves some out.
    pub remaining: Option<i64>,
}

/// What a watch shows.
#[derive(Clone)]
pub struct Interest {
    /// Full key prefix, with its trailing slash.
    pub prefix: String,
    pub resource: Arc<dyn Resource>,
    pub selection: Selection,
}

impl std::fmt::Debug for Interest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Interest").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

/// A single-object write. It succeeds only if the key's revision is still `expected` (0: the key does not exist)
/// and every side write's too.
#[derive(Debug)]
pub struct Commit<'a> {
    pub key: &'a str,
    pub expected: i64,
    pub write: Write,
    pub side: &'a [SideWrite],
}

/// What to do with the key.
#[derive(Debug)]
pub enum Write {
    Put {
        value: Bytes,
        ttl_seconds: Option<i64>,
        /// What selectors need of the value, where the writer has it at hand.
        selectable: Option<Selectable>,
    },
    Delete,
}

/// The outcome of a [`Commit`].
#[derive(Debug)]
pub enum Committed {
    /// Done at this revision.
    At(i64),
    /// The object is not at the expected revision; this is what is there now.
    Conflict(Option<Arc<Stored>>),
    /// The object is as expected, but a side write's key is not.
    SideConflict,
}

/// The store of all objects. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Storage {
    etcd: etcd::Etcd,
    cache: Option<Cache>,
}

#[derive(Debug, Clone)]
struct Cache {
    caches: Arc<Caches>,
    check: RevisionCheck,
}

impl Storage {
    /// Connects; etcd itself need not be up yet. Every read goes to etcd until [`Self::with_cache`].
    pub async fn connect(config: &EtcdConfig, metrics: StorageMetrics) -> Result<Self, StorageError> {
        Ok(Self { etcd: etcd::Etcd::connect(config, metrics).await?, cache: None })
    }

    /// Puts the watch cache before etcd; it is fed until shutdown.
    #[must_use]
    pub fn with_cache(self, resources: &Resources, metrics: &Registry, shutdown: Shutdown) -> Self {
        let caches = Arc::new(Caches::new(resources, self.etcd.prefix()));
        metrics.register_collector(cache::metrics::CacheCollector(Arc::clone(&caches)));
        let check = RevisionCheck::start(self.etcd.clone(), CHECK_PATIENCE);
        let (etcd, fed) = (self.etcd.clone(), Arc::clone(&caches));
        tokio::spawn(async move {
            shutdown.run_until_cancelled(Box::pin(cache::feed::run(&etcd, &fed))).await;
        });
        Self { etcd: self.etcd, cache: Some(Cache { caches, check }) }
    }

    /// Whether reads can be answered: the caches have been filled.
    pub fn is_ready(&self) -> bool {
        self.cache.as_ref().is_none_or(|cache| cache.caches.is_ready())
    }

    /// Whether a key is read from the cache.
    pub fn is_cached(&self, key: &str) -> bool {
        self.cache.as_ref().is_some_and(|cache| cache.caches.covers(key))
    }

    /// The full key of something below the prefix: `pods/default/a` → `/registry/pods/default/a`.
    pub fn key(&self, relative: &str) -> String {
        self.etcd.key(relative)
    }

    /// The cache for a key or prefix, once it is filled; `None` where etcd is read.
    async fn cache(&self, key: &str) -> Result<Option<&Cache>, StorageError> {
        let Some(cache) = self.cache.as_ref().filter(|cache| cache.caches.covers(key)) else {
            return Ok(None);
        };
        if !cache.caches.is_ready() {
            let filled = tokio::time::timeout(FILL_PATIENCE, cache.caches.wait_ready()).await;
            filled.map_err(|_| StorageError::Unavailable("the watch cache is not filled yet".to_owned()))?;
        }
        Ok(Some(cache))
    }

    /// The state of a key and a revision at which it was so.
    pub async fn get(
        &self,
        key: &str,
        freshness: Freshness,
    ) -> Result<(Option<Arc<Stored>>, i64), StorageError> {
        if let Some(cache) = self.cache(key).await?
            && let Some(wanted) = cache.reach(freshness).await?
        {
            let (stored, revision) = cache.caches.get_at(key);
            if revision >= wanted {
                return Ok((stored, revision));
            }
        }
        let (stored, revision) = self.etcd.get(key).await?;
        not_older(freshness, revision)?;
        Ok((stored.map(Arc::new), revision))
    }

    pub async fn list(&self, query: &ListQuery<'_>) -> Result<Page, StorageError> {
        let snapshot = match self.cache(query.prefix).await? {
            Some(cache) => cache.snapshot(query).await?,
            None => None,
        };
        match snapshot {
            Some(snapshot) => Ok(page_of(&snapshot, query)),
            None => Box::pin(self.list_etcd(query)).await,
        }
    }

    async fn list_etcd(&self, query: &ListQuery<'_>) -> Result<Page, StorageError> {
        /// The least that is read for a page that a selector thins out.
        const MIN_READ: usize = 500;
        let mut revision = match query.freshness {
            Freshness::Exact(revision) => revision,
            _ => 0,
        };
        let mut start_after = query.start_after.map(str::to_owned);
        let mut items: Vec<Arc<Stored>> = Vec::new();
        loop {
            let limit = match (query.limit, query.selected) {
                (0, _) => 0,
                (limit, None) => limit - items.len(),
                (limit, Some(_)) => (limit - items.len()).max(MIN_READ),
            };
            let range = self.etcd.range(query.prefix, start_after.as_deref(), revision, limit).await?;
            not_older(query.freshness, range.revision)?;
            revision = range.revision;
            start_after = range.items.last().map(|last| last.key.to_string());
            for stored in range.items {
                if query.limit != 0 && items.len() == query.limit {
                    return Ok(Page { items, revision, more: true, remaining: None });
                }
                if query.selected.is_none_or(|selected| selected.matches(&stored)) {
                    items.push(Arc::new(stored));
                }
            }
            let full = query.limit != 0 && items.len() >= query.limit;
            if !range.more || full {
                let remaining = query.selected.is_none().then_some(range.remaining);
                return Ok(Page { items, revision, more: range.more, remaining });
            }
        }
    }

    pub async fn commit(&self, commit: &Commit<'_>) -> Result<Committed, StorageError> {
        let caches = self.cache.as_ref().map(|cache| &cache.caches);
        let hinted = match (&commit.write, caches) {
            (Write::Put { value, selectable: Some(selectable), .. }, Some(caches)) => {
                caches.hint(commit.key, value, selectable.clone());
                Some(caches)
            }
            _ => None,
        };
        let outcome = self.etcd.commit(commit).await;
        if let Some(caches) = hinted
            && !matches!(outcome, Ok(Committed::At(_)))
        {
            caches.forget_hint(commit.key);
        }
        outcome
    }

    /// Every change that the interest sees after revision `after`.
    pub async fn watch(&self, interest: &Interest, after: i64) -> Result<Watch, StorageError> {
        let Interest { prefix, selection, .. } = interest;
        if let Some(cache) = self.cache(prefix).await?
            && let Some(watch) = cache.caches.watch(prefix, selection, after)
        {
            return Ok(Watch::Cached(watch?));
        }
        let direct = watch::EtcdWatch::open(self.etcd.clone(), interest.clone(), after);
        Ok(Watch::Direct(Box::new(Box::pin(direct).await?)))
    }

    /// The store's revision now.
    pub async fn revision(&self) -> Result<i64, StorageError> {
        match &self.cache {
            Some(cache) => cache.check.revision().await,
            None => self.etcd.revision().await,
        }
    }

    /// Compacts old revisions at every `interval` until dropped; cooperates with other API servers on the same etcd.
    pub async fn run_compactor(&self, interval: Duration) {
        compactor::run(&self.etcd, interval).await;
    }
}

impl Cache {
    /// Waits until the cache is as fresh as asked, and says what revision that is; `None` where etcd must answer instead.
    /// The caches may be loaded anew at any moment: what is then taken from them must be of that revision or a later one.
    async fn reach(&self, freshness: Freshness) -> Result<Option<i64>, StorageError> {
        match freshness {
            Freshness::Any => Ok(Some(0)),
            Freshness::Exact(_) => Ok(None),
            Freshness::Consistent => {
                let seen = self.caches.revision();
                let revision = self.check.revision().await?;
                // Etcd has gone back behind what is cached: it was restored, and the feed has not noticed yet.
                if revision < seen {
                    return Ok(None);
                }
                let fresh = async {
                    // While the feed is cut off, nobody knows whether what is cached is of the same history.
                    self.caches.wait_followed().await;
                    self.caches.reach(revision, PATIENCE).await
                };
                let fresh = tokio::time::timeout(PATIENCE, fresh).await;
                Ok(matches!(fresh, Ok(true)).then_some(revision))
            }
            Freshness::NotOlderThan(asked) => {
                if self.caches.reach(asked, PATIENCE).await {
                    return Ok(Some(asked));
                }
                Err(StorageError::FutureRevision { asked, current: self.caches.revision() })
            }
        }
    }

    /// The state that a list is to be of; `None` where etcd must answer instead.
    async fn snapshot(&self, query: &ListQuery<'_>) -> Result<Option<Snapshot>, StorageError> {
        if let Freshness::Exact(revision) = query.freshness {
            // A revision that another server has told may be on its way.
            self.caches.reach(revision, Duration::from_millis(100)).await;
            return self.caches.snapshot_at(query.prefix, revision);
        }
        let Some(wanted) = self.reach(query.freshness).await? else { return Ok(None) };
        Ok(self.caches.snapshot(query.prefix).filter(|snapshot| snapshot.revision >= wanted))
    }
}

impl Selected<'_> {
    fn matches(&self, stored: &Stored) -> bool {
        self.selection.matches(self.resource, stored)
    }
}

fn not_older(freshness: Freshness, revision: i64) -> Result<(), StorageError> {
    match freshness {
        Freshness::NotOlderThan(asked) if revision < asked => {
            Err(StorageError::FutureRevision { asked, current: revision })
        }
        _ => Ok(()),
    }
}

fn page_of(snapshot: &Snapshot, query: &ListQuery<'_>) -> Page {
    let everything = Selection::everything();
    let selection = query.selected.map_or(&everything, |selected| selected.selection);
    let mut found = snapshot.scan(query.prefix, query.start_after, selection);
    let revision = snapshot.revision;
    if query.limit == 0 {
        return Page { items: found.cloned().collect(), revision, more: false, remaining: Some(0) };
    }
    let items: Vec<Arc<Stored>> = found.by_ref().take(query.limit).cloned().collect();
    let more = found.next().is_some();
    let remaining = match items.last() {
        Some(last) if selection.is_everything() => {
            i64::try_from(snapshot.count_after(query.prefix, &last.key)).ok()
        }
        _ => None,
    };
    Page { items, revision, more, remaining }
}
