//! The etcd client: single-key transactions on modification revisions, range reads, watches.
//!
//! Upstream: `apiserver/pkg/storage/etcd3/store.go`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use etcd_client::{
    Certificate, Client, Compare, CompareOp, ConnectOptions, GetOptions, Identity, KvClient, PutOptions,
    SortOrder, SortTarget, TlsOptions, Txn, TxnOp, TxnOpResponse, WatchOptions, WatchStream,
};

use super::cache::Change;
use super::leases::Leases;
use super::metrics::StorageMetrics;
use super::stored::Stored;
use super::{Commit, Committed, StorageError, Write};

/// Keys fetched by one range request, so that a list of everything makes no message of unbounded size.
const RANGE_PAGE: i64 = 10_000;

/// Keys of one request when everything is read.
const FILL_PAGE: i64 = 2_000;

/// What a watch that feeds the caches looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WatchScope {
    /// All keys of etcd: then every revision has an event.
    Everything,
    /// The keys below this server's prefix.
    Prefix,
}

/// What a range read found.
#[derive(Debug)]
pub(super) struct Range {
    pub(super) items: Vec<Stored>,
    /// The revision read at.
    pub(super) revision: i64,
    pub(super) more: bool,
    /// Keys in the range after the last item.
    pub(super) remaining: i64,
}

/// The flags `--etcd-*`.
#[derive(Debug, Clone, Default)]
pub struct EtcdConfig {
    pub servers: Vec<String>,
    pub prefix: String,
    pub ca_file: Option<PathBuf>,
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
}

/// A handle on one etcd cluster under one prefix. The client's futures are boxed: they are large, and would sit in every
/// future above.
#[derive(Clone)]
pub(super) struct Etcd {
    client: Client,
    kv: KvClient,
    /// Begins with `/`, ends without.
    prefix: String,
    leases: Leases,
    metrics: StorageMetrics,
}

impl std::fmt::Debug for Etcd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Etcd").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

fn read(path: &std::path::Path) -> Result<Vec<u8>, StorageError> {
    std::fs::read(path).map_err(|source| StorageError::File { file: path.display().to_string(), source })
}

impl Etcd {
    pub(super) async fn connect(config: &EtcdConfig, metrics: StorageMetrics) -> Result<Self, StorageError> {
        let mut options = ConnectOptions::new()
            .with_connect_timeout(Duration::from_secs(5))
            .with_keep_alive(Duration::from_secs(30), Duration::from_secs(10))
            .with_keep_alive_while_idle(true)
            .with_tcp_keepalive(Duration::from_secs(30))
            // A member without a leader must not serve a watch that can't move.
            .with_require_leader(true);
        if config.servers.iter().any(|server| server.starts_with("https://")) {
            let mut tls = TlsOptions::new();
            if let Some(ca) = &config.ca_file {
                tls = tls.ca_certificate(Certificate::from_pem(read(ca)?));
            }
            if let (Some(cert), Some(key)) = (&config.cert_file, &config.key_file) {
                tls = tls.identity(Identity::from_pem(read(cert)?, read(key)?));
            }
            options = options.with_tls(tls);
        }
        let client = Client::connect(&config.servers, Some(options)).await?;
        let kv =
            client.kv_client().max_decoding_message_size(usize::MAX).max_encoding_message_size(usize::MAX);
        let prefix = format!("/{}", config.prefix.trim_matches('/'));
        Ok(Self { leases: Leases::new(client.lease_client()), client, kv, prefix, metrics })
    }

    pub(super) fn key(&self, relative: &str) -> String {
        format!("{}/{relative}", self.prefix)
    }

    /// `/registry`, say.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// The resource label of metrics: the first segment below the prefix.
    fn resource<'a>(&self, key: &'a str) -> &'a str {
        key.strip_prefix(self.prefix.as_str())
            .and_then(|rest| rest.trim_start_matches('/').split('/').next())
            .unwrap_or_default()
    }

    pub(super) async fn get(&self, key: &str) -> Result<(Option<Stored>, i64), StorageError> {
        let started = Instant::now();
        let mut response = Box::pin(self.kv.clone().get(key, None)).await?;
        self.metrics.observe("get", self.resource(key), started);
        let revision = response.header().map_or(0, etcd_client::ResponseHeader::revision);
        let stored = response.take_kvs().into_iter().next().map(stored).transpose()?;
        Ok((stored, revision))
    }

    pub(super) async fn revision(&self) -> Result<i64, StorageError> {
        let options = GetOptions::new().with_count_only();
        let response = Box::pin(self.kv.clone().get(self.prefix.as_str(), Some(options))).await?;
        Ok(response.header().map_or(0, etcd_client::ResponseHeader::revision))
    }

    /// The keys below a prefix after `start_after`, at a revision (0: now); at most `limit` (0: all).
    pub(super) async fn range(
        &self,
        prefix: &str,
        start_after: Option<&str>,
        mut revision: i64,
        limit: usize,
    ) -> Result<Range, StorageError> {
        let started = Instant::now();
        let end = prefix_end(prefix.as_bytes());
        let mut from = start_after.map_or_else(|| prefix.as_bytes().to_vec(), |key| after(key.as_bytes()));
        let wanted = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut items = Vec::new();
        loop {
            let left = if wanted == 0 { RANGE_PAGE } else { (wanted - count(&items)).min(RANGE_PAGE) };
            let options = GetOptions::new()
                .with_range(end.clone())
                .with_limit(left)
                .with_revision(revision)
                .with_sort(SortTarget::Key, SortOrder::Ascend);
            let mut response = Box::pin(self.kv.clone().get(from, Some(options)))
                .await
                .map_err(future_revision(revision))?;
            if revision == 0 {
                revision = response.header().map_or(0, etcd_client::ResponseHeader::revision);
            }
            let (more, total) = (response.more(), response.count());
            let kvs = response.take_kvs();
            let fetched = count(&kvs);
            let end_of_page = kvs.last().map(|kv| after(kv.key()));
            items.extend(kvs.into_iter().filter_map(object));
            let full = wanted != 0 && count(&items) >= wanted;
            match end_of_page {
                Some(next) if more && !full => from = next,
                _ => {
                    self.metrics.observe("list", self.resource(prefix), started);
                    return Ok(Range { items, revision, more, remaining: (total - fetched).max(0) });
                }
            }
        }
    }

    /// Every key below the prefix at a revision.
    pub(super) async fn everything(&self, revision: i64) -> Result<Vec<Stored>, StorageError> {
        let started = Instant::now();
        let prefix = format!("{}/", self.prefix);
        let end = prefix_end(prefix.as_bytes());
        let (mut from, mut items) = (prefix.into_bytes(), Vec::new());
        loop {
            let options =
                GetOptions::new().with_range(end.clone()).with_limit(FILL_PAGE).with_revision(revision);
            let mut response = Box::pin(self.kv.clone().get(from, Some(options))).await?;
            let kvs = response.take_kvs();
            let end_of_page = kvs.last().map(|kv| after(kv.key()));
            items.extend(kvs.into_iter().filter_map(object));
            match end_of_page {
                Some(next) if response.more() => from = next,
                _ => {
                    self.metrics.observe("list", "", started);
                    return Ok(items);
                }
            }
        }
    }

    /// Whether etcd has, at revision `seen`, the change that was the last one then: an etcd that was restored from a backup has
    /// another, or none.
    pub(super) async fn has(&self, change: &Change, seen: i64) -> Result<bool, StorageError> {
        match (self.at(&change.key, seen).await?, &change.value) {
            (Some(Some(kv)), Some(value)) => {
                Ok(kv.mod_revision() == change.revision && *kv.value() == **value)
            }
            (Some(None), None) => match self.at(&change.key, change.revision - 1).await {
                Ok(before) => Ok(matches!(before, Some(Some(_)))),
                // That it is gone is all that can be known.
                Err(StorageError::Compacted) => Ok(true),
                Err(error) => Err(error),
            },
            _ => Ok(false),
        }
    }

    /// A key at a revision; `None` if etcd has not come so far.
    async fn at(
        &self,
        key: &str,
        revision: i64,
    ) -> Result<Option<Option<etcd_client::KeyValue>>, StorageError> {
        let options = GetOptions::new().with_revision(revision);
        let answer = Box::pin(self.kv.clone().get(key, Some(options))).await;
        match answer.map_err(future_revision(revision)) {
            Ok(mut response) => Ok(Some(response.take_kvs().into_iter().next())),
            Err(StorageError::FutureRevision { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The revision up to which API servers have compacted etcd; 0 if none has.
    pub(super) async fn compacted(&self) -> Result<i64, StorageError> {
        let mut response = Box::pin(self.kv.clone().get(super::compactor::COMPACT_REV_KEY, None)).await?;
        let value = response.take_kvs().into_iter().next();
        Ok(value.and_then(|kv| kv.value_str().ok()?.parse().ok()).unwrap_or(0))
    }

    pub(super) async fn commit(&self, commit: &Commit<'_>) -> Result<Committed, StorageError> {
        let started = Instant::now();
        let mut compares = vec![Compare::mod_revision(commit.key, CompareOp::Equal, commit.expected)];
        let mut operations = Vec::with_capacity(1 + commit.side.len());
        let operation = match &commit.write {
            Write::Put { value, ttl_seconds, .. } => {
                let options = match ttl_seconds {
                    Some(seconds) => Some(PutOptions::new().with_lease(self.leases.lease(*seconds).await?)),
                    None => None,
                };
                operations.push(TxnOp::put(commit.key, value.as_ref(), options));
                if commit.expected == 0 { "create" } else { "update" }
            }
            Write::Delete => {
                operations.push(TxnOp::delete(commit.key, None));
                "delete"
            }
        };
        for side in commit.side {
            let key = self.key(&side.key);
            compares.push(Compare::mod_revision(key.as_str(), CompareOp::Equal, side.expected_revision));
            operations.push(match &side.value {
                Some(value) => TxnOp::put(key, value.as_ref(), None),
                None => TxnOp::delete(key, None),
            });
        }
        let txn = Txn::new().when(compares).and_then(operations).or_else([TxnOp::get(commit.key, None)]);
        let response = Box::pin(self.kv.clone().txn(txn)).await?;
        self.metrics.observe(operation, self.resource(commit.key), started);
        if response.succeeded() {
            return Ok(Committed::At(response.header().map_or(0, etcd_client::ResponseHeader::revision)));
        }
        let current = match response.op_responses().into_iter().next() {
            Some(TxnOpResponse::Get(mut get)) => get.take_kvs().into_iter().next().map(stored).transpose()?,
            _ => None,
        };
        if current.as_ref().map_or(0, |stored: &Stored| stored.revision) == commit.expected {
            return Ok(Committed::SideConflict);
        }
        Ok(Committed::Conflict(current.map(Arc::new)))
    }

    /// A watch of every change of all keys, or of those below the server's prefix, after a revision.
    pub(super) async fn open_watch(
        &self,
        scope: WatchScope,
        after: i64,
    ) -> Result<WatchStream, StorageError> {
        let options = WatchOptions::new().with_start_revision(after + 1);
        match scope {
            WatchScope::Everything => self.watch("\0".to_owned(), options.with_all_keys()).await,
            WatchScope::Prefix => self.watch(format!("{}/", self.prefix), options.with_prefix()).await,
        }
    }

    /// A watch of one prefix, with the previous state of what changes, after a revision.
    pub(super) async fn open_watch_of(&self, prefix: &str, after: i64) -> Result<WatchStream, StorageError> {
        let options = WatchOptions::new()
            .with_prefix()
            .with_prev_key()
            .with_progress_notify()
            .with_start_revision(after + 1);
        self.watch(prefix.to_owned(), options).await
    }

    async fn watch(&self, key: String, options: WatchOptions) -> Result<WatchStream, StorageError> {
        let mut client = self.client.watch_client().max_decoding_message_size(usize::MAX);
        Ok(Box::pin(client.watch(key, Some(options))).await?)
    }
}

fn count<T>(items: &[T]) -> i64 {
    i64::try_from(items.len()).unwrap_or(i64::MAX)
}

/// The key just after `key`.
fn after(key: &[u8]) -> Vec<u8> {
    let mut next = key.to_vec();
    next.push(0);
    next
}

/// The end of the range of keys that begin with `prefix`.
fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}

fn stored(kv: etcd_client::KeyValue) -> Result<Stored, StorageError> {
    let revision = kv.mod_revision();
    let (key, value) = kv.into_key_value();
    let key = String::from_utf8(key).map_err(|error| StorageError::Corrupt(error.to_string()))?;
    Ok(Stored::new(key, Bytes::from(value), revision))
}

/// What a range read found at a key; `None`, and a warning, where the key is no text: API servers write no such keys, and
/// one that somebody else has put there must not keep everything else from being read.
fn object(kv: etcd_client::KeyValue) -> Option<Stored> {
    if kv.key_str().is_err() {
        tracing::warn!(key = %kv.key().escape_ascii(), "a key in etcd is no UTF-8; it is passed over");
        return None;
    }
    stored(kv).ok()
}

/// Names etcd's "future revision" refusal of a read at `asked`.
fn future_revision(asked: i64) -> impl Fn(etcd_client::Error) -> StorageError {
    move |error| match &error {
        etcd_client::Error::GRpcStatus(status) if status.message().contains("future revision") => {
            StorageError::FutureRevision { asked, current: 0 }
        }
        _ => StorageError::from(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_ranges_end_where_the_prefix_does() {
        assert_eq!(prefix_end(b"/registry/pods/"), b"/registry/pods0");
        assert_eq!(prefix_end(&[1, 0xff]), [2]);
        assert_eq!(prefix_end(&[0xff]), [0]);
    }
}
