//! Where objects live. Everything above uses [`Storage`], and nothing above knows etcd: the watch cache goes in here,
//! between these methods and `etcd`, without a change to any caller.
//!
//! Stored values are the objects' JSON without `resourceVersion`; readers get the bytes as etcd gave them and splice
//! the revision in ([`encoded`]). Upstream: `apiserver/pkg/storage`.

use bytes::Bytes;
use tonic::Code;

use crate::allocation::SideWrite;

mod compactor;
pub mod encoded;
mod etcd;
mod leases;
mod metrics;
mod watch;

pub use etcd::EtcdConfig;
pub use metrics::StorageMetrics;
pub use watch::{Watch, WatchEvent};

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
    /// The revision asked for has not happened yet.
    #[error("revision {asked} is in the future, current: {current}")]
    FutureRevision { asked: i64, current: i64 },
    #[error("a stored value is not what this server writes: {0}")]
    Corrupt(String),
    #[error("the watch was closed by etcd: {0}")]
    WatchClosed(String),
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

/// A stored object: its full etcd key, its JSON without resourceVersion, and the revision of its last write.
#[derive(Debug, Clone)]
pub struct Stored {
    pub key: String,
    pub value: Bytes,
    pub revision: i64,
}

impl Stored {
    pub fn name(&self) -> &str {
        name_of_key(&self.key)
    }

    /// The namespace segment of the key; meaningful for namespaced resources only.
    pub fn namespace(&self) -> &str {
        namespace_of_key(&self.key)
    }
}

/// The last segment of a key.
pub fn name_of_key(key: &str) -> &str {
    key.rsplit('/').next().unwrap_or_default()
}

/// The segment before the last.
pub fn namespace_of_key(key: &str) -> &str {
    key.rsplit('/').nth(1).unwrap_or_default()
}

/// How fresh a list must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// No older than the moment of the request.
    Consistent,
    /// At least this revision.
    NotOlderThan(i64),
    /// Exactly this revision.
    Exact(i64),
}

/// One range of keys to list.
#[derive(Debug, Clone)]
pub struct ListQuery<'a> {
    /// Full key prefix, with its trailing slash.
    pub prefix: &'a str,
    /// Start after this full key.
    pub start_after: Option<&'a str>,
    pub freshness: Freshness,
    /// At most this many; 0: all.
    pub limit: usize,
}

/// What a list found.
#[derive(Debug)]
pub struct Page {
    pub items: Vec<Stored>,
    /// The revision of the snapshot.
    pub revision: i64,
    pub more: bool,
    /// How many matching keys follow the last item.
    pub remaining: i64,
}

/// A single-object write. It succeeds only if the key's revision is still `expected` (0: the key does not exist)
/// and every side write's too.
#[derive(Debug, Clone)]
pub struct Commit<'a> {
    pub key: &'a str,
    pub expected: i64,
    pub write: Write,
    pub side: &'a [SideWrite],
}

/// What to do with the key.
#[derive(Debug, Clone)]
pub enum Write {
    Put { value: Bytes, ttl_seconds: Option<i64> },
    Delete,
}

/// The outcome of a [`Commit`].
#[derive(Debug)]
pub enum Committed {
    /// Done at this revision.
    At(i64),
    /// The object is not at the expected revision; this is what is there now.
    Conflict(Option<Stored>),
    /// The object is as expected, but a side write's key is not.
    SideConflict,
}

/// The store of all objects. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Storage {
    etcd: etcd::Etcd,
}

impl Storage {
    /// Connects; etcd itself need not be up yet.
    pub async fn connect(config: &EtcdConfig, metrics: StorageMetrics) -> Result<Self, StorageError> {
        Ok(Self { etcd: etcd::Etcd::connect(config, metrics).await? })
    }

    /// The full key of something below the prefix: `pods/default/a` → `/registry/pods/default/a`.
    pub fn key(&self, relative: &str) -> String {
        self.etcd.key(relative)
    }

    /// The current state of a key, by quorum read, and the revision it was read at.
    pub async fn get(&self, key: &str) -> Result<(Option<Stored>, i64), StorageError> {
        self.etcd.get(key).await
    }

    pub async fn list(&self, query: &ListQuery<'_>) -> Result<Page, StorageError> {
        self.etcd.list(query).await
    }

    pub async fn commit(&self, commit: &Commit<'_>) -> Result<Committed, StorageError> {
        self.etcd.commit(commit).await
    }

    /// Every change below the prefix after revision `after`.
    pub async fn watch(&self, prefix: &str, after: i64) -> Result<Watch, StorageError> {
        Watch::open(self.etcd.clone(), prefix, after).await
    }

    /// The store's revision now.
    pub async fn revision(&self) -> Result<i64, StorageError> {
        self.etcd.revision().await
    }

    /// Compacts old revisions at every `interval` until dropped; cooperates with other API servers on the same etcd.
    pub async fn run_compactor(&self, interval: std::time::Duration) {
        compactor::run(&self.etcd, interval).await;
    }
}
