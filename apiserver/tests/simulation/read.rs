//! Reads of a server as its clients make them, each checked against the truth: consistent lists, which wait until the
//! caches have reached etcd's revision (`storage.rs`, `Cache::reach`), and lists at an exact revision.

use anyhow::{Result, ensure};
use etcd_model::{Error, KeyRange, RangeRequest, RequestError};
use kube_apiserver::selection::Selection;
use kube_apiserver::storage::cache::Snapshot;
use kube_apiserver::storage::{StorageError, Stored};

use super::Bug;
use super::net::Net;
use super::truth::{Held, HistoryId};
use super::view::View;
use super::writer::COMPACT_REV_KEY;

/// Milliseconds that a read waits for the caches, as `PATIENCE`; the real server then asks etcd, ours gives up.
const PATIENCE: u64 = 3_000;

/// What a client wants to see of a resource.
#[derive(Debug)]
pub(super) struct Interest {
    pub(super) view: View,
    pub(super) selection: Selection,
}

impl Interest {
    pub(super) fn new(view: View) -> Self {
        Self { selection: view.selection(&super::net::RESOURCES), view }
    }
}

/// A consistent read under way.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) server: usize,
    incarnation: u64,
    /// The newest revision when it began; what is answered must not be older.
    floor: (HistoryId, i64),
    /// The revision of the caches when it began.
    seen: i64,
    /// What etcd said its revision was.
    wanted: Option<i64>,
    deadline: u64,
}

pub(super) enum Asked {
    Pending(Ask),
    Failed,
    Fresh(Snapshot, HistoryId),
}

impl Ask {
    pub(super) fn begin(net: &Net, server: usize) -> Self {
        Self {
            server,
            incarnation: net.servers[server].incarnation,
            floor: (net.truth.current(), net.truth.latest()),
            seen: net.servers[server].caches.revision(),
            wanted: None,
            deadline: net.now_ms + PATIENCE,
        }
    }

    pub(super) fn poll(mut self, net: &mut Net, interest: &Interest) -> Result<Asked> {
        if net.servers[self.server].incarnation != self.incarnation || net.now_ms > self.deadline {
            net.count("consistent read failed");
            return Ok(Asked::Failed);
        }
        if !net.servers[self.server].caches.is_ready() {
            return Ok(Asked::Pending(self));
        }
        let Some(wanted) = self.wanted else {
            let Ok(revision) = net.request(|etcd| Ok(etcd.revision())) else { return Ok(Asked::Failed) };
            if revision < self.seen {
                // The real server reads etcd then.
                net.count("consistent read of a cache that etcd went back behind");
                return Ok(Asked::Failed);
            }
            self.wanted = Some(revision);
            if self.floor.0 != net.truth.current() {
                // A backup was restored while the read waited, maybe one of an earlier revision.
                self.floor = (net.truth.current(), revision);
            }
            return self.poll(net, interest);
        };
        let server = &net.servers[self.server];
        let waits = server.caches.revision() < wanted || !server.caches.is_followed();
        if waits && net.bug != Some(Bug::AnswersWithoutWaiting) {
            net.count("consistent read waited");
            return Ok(Asked::Pending(self));
        }
        let snapshot = server.caches.snapshot(&interest.view.prefix).unwrap();
        let (history, (floor_history, floor)) = (server.history, self.floor);
        let agree = net.truth.agree(floor_history, history, floor);
        if agree || history < floor_history {
            let revision = snapshot.revision;
            ensure!(
                revision >= floor,
                "a consistent list at {revision}, when {floor} had been reached before"
            );
        }
        // A server that does not know yet that revisions went back has reached them all, in a history that is over.
        if !agree && history < floor_history {
            net.count("read of a lost history");
        }
        net.count("consistent read");
        Ok(Asked::Fresh(snapshot, history))
    }
}

/// A page of a list.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) items: Vec<(String, i64, bytes::Bytes)>,
    pub(super) more: bool,
}

/// A page of a snapshot of a server's caches, as `storage::page_of` makes it, which must be what was so.
pub(super) fn page(
    net: &Net,
    interest: &Interest,
    snapshot: &Snapshot,
    history: HistoryId,
    start_after: Option<&str>,
    limit: usize,
) -> Result<Page> {
    let Interest { view, selection } = interest;
    let found = snapshot.scan(&view.prefix, start_after, selection);
    check_page(net, view, (history, snapshot.revision), start_after, limit, found.map(|stored| &**stored))
}

fn check_page<'a>(
    net: &Net,
    view: &View,
    (history, revision): (HistoryId, i64),
    start_after: Option<&str>,
    limit: usize,
    mut found: impl Iterator<Item = &'a Stored>,
) -> Result<Page> {
    let of = |stored: &Stored| (stored.key.to_string(), stored.revision, stored.value.clone());
    let items: Vec<_> = found.by_ref().take(limit).map(of).collect();
    let more = found.next().is_some();
    let mut wanted = net
        .truth
        .state(view, history, revision)
        .filter(|(key, _)| start_after.is_none_or(|after| *key > after));
    let of = |(key, held): (&str, &Held)| (key.to_owned(), held.revision, held.value.clone());
    let expected: Vec<_> = wanted.by_ref().take(limit).map(of).collect();
    ensure!(
        items == expected && more == wanted.next().is_some(),
        "a list of {view:?} at {revision} of history {history} after {start_after:?} is {:?} (more: {more}), not {:?}",
        brief(&items),
        brief(&expected)
    );
    Ok(Page { items, more })
}

fn brief(items: &[(String, i64, bytes::Bytes)]) -> Vec<(&str, i64)> {
    items.iter().map(|(key, revision, _)| (key.as_str(), *revision)).collect()
}

/// The outcome of a list at an exact revision.
pub(super) enum Exact {
    Page(Page),
    Expired,
    Failed,
}

/// A list at a revision of a history, from where `Cache::snapshot` and `list_etcd` take it: the cache's past, then etcd's.
pub(super) fn exact(
    net: &mut Net,
    interest: &Interest,
    server: usize,
    (history, revision): (HistoryId, i64),
    start_after: Option<&str>,
    limit: usize,
) -> Result<Exact> {
    let prefix = &interest.view.prefix;
    let of = &net.servers[server];
    if !of.caches.is_ready() || net.is_ambiguous(history, revision, server) {
        return Ok(Exact::Failed);
    }
    match of.caches.snapshot_at(prefix, revision) {
        Ok(Some(snapshot)) => {
            let agree = net.truth.agree(history, of.history, revision);
            ensure!(agree, "a list at {revision}, which is of another history than the server's");
            net.count("exact list from the cache");
            return page(net, interest, &snapshot, history, start_after, limit).map(Exact::Page);
        }
        Ok(None) => {}
        Err(StorageError::Compacted) => {
            let noted = net.truth.number_at(COMPACT_REV_KEY, of.history, of.caches.revision());
            let compacted = noted.max(net.cluster.model().compact_revision());
            ensure!(revision < compacted, "410 for a list at {revision}, though {compacted} is compacted");
            net.count("exact list expired");
            return Ok(Exact::Expired);
        }
        Err(other) => return Err(other.into()),
    }
    let present = net.truth.current();
    if net.truth.ambiguous(history, revision, present) {
        return Ok(Exact::Failed);
    }
    let range = RangeRequest { revision, ..KeyRange::prefix(prefix.clone()).into() };
    match net.request(|etcd| etcd.range(&range)) {
        Ok(found) => {
            let stored = found
                .kvs
                .into_iter()
                .map(|kv| Stored::new(String::from_utf8_lossy(&kv.key), kv.value, kv.mod_revision));
            let stored: Vec<Stored> = stored.collect();
            let resource = super::net::RESOURCES.get("", "v1", interest.view.resource).unwrap();
            let found = stored
                .iter()
                .filter(|stored| start_after.is_none_or(|after| *stored.key > *after))
                .filter(|stored| interest.selection.matches(resource, stored));
            net.count("exact list from etcd");
            let page = check_page(net, &interest.view, (history, revision), start_after, limit, found)?;
            Ok(Exact::Page(page))
        }
        Err(RequestError::Refused(Error::Compacted)) => Ok(Exact::Expired),
        Err(_) => Ok(Exact::Failed),
    }
}
