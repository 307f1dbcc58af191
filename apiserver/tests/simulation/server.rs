//! An API server as far as reads go: the caches, and the feed's thin shell with the model in the place of etcd.
//!
//! The steps are those of `storage/cache/feed.rs` (`fill`, then `Feed::step`), one request or one look at the stream at
//! a time, so that anything can happen between two of them. What a response means is decided by the real `Follower`.

use etcd_model::{
    Error, EventType, KeyRange, RangeRequest, RequestError, StreamId, WatchCreateRequest, WatchResponse,
};
use kube_apiserver::storage::cache::feed::{Follower, Told};
use kube_apiserver::storage::cache::{Caches, Change};
use kube_apiserver::storage::{StorageError, Stored};
use rand::Rng;

use super::Bug;
use super::net::Net;
use super::truth::HistoryId;
use super::writer::COMPACT_REV_KEY;

/// Milliseconds before etcd is tried again, as in the feed.
const RETRY: u64 = 100;

#[derive(Debug)]
enum Feed {
    Revision {
        at: u64,
    },
    Compacted {
        now: i64,
    },
    Everything {
        now: i64,
        from: i64,
    },
    /// Without a stream.
    Lost {
        at: u64,
        follower: Follower,
        /// Whether there has been one.
        reopens: bool,
    },
    Open {
        stream: StreamId,
        follower: Follower,
    },
}

#[derive(Debug)]
pub(super) struct Server {
    pub(super) caches: Caches,
    /// Counts starts: whoever was connected to another one is cut.
    pub(super) incarnation: u64,
    /// Counts loads of the caches, which end every watch.
    pub(super) loads: u64,
    /// What the caches hold is of this history.
    pub(super) history: HistoryId,
    /// The revision they were loaded at.
    pub(super) from: i64,
    /// Servers without WatchList refuse initial events.
    pub(super) watch_list: bool,
    feed: Feed,
}

impl Server {
    pub(super) fn new(caches: Caches, incarnation: u64, watch_list: bool, history: HistoryId) -> Self {
        let feed = Feed::Revision { at: 0 };
        Self { caches, incarnation, loads: 0, history, from: 0, watch_list, feed }
    }

    pub(super) fn stream(&self) -> Option<StreamId> {
        match self.feed {
            Feed::Open { stream, .. } => Some(stream),
            _ => None,
        }
    }

    /// One step of the feed.
    pub(super) fn step(&mut self, net: &mut Net) {
        self.history = net.truth.rebase(self.history, self.caches.revision());
        let retry = net.now_ms + RETRY;
        let failed = Feed::Revision { at: retry };
        if let Feed::Revision { at } | Feed::Lost { at, .. } = self.feed
            && net.now_ms < at
        {
            return;
        }
        self.feed = match std::mem::replace(&mut self.feed, Feed::Revision { at: retry }) {
            Feed::Revision { .. } => {
                let revision = net.request(|etcd| Ok(etcd.revision()));
                revision.map_or(failed, |now| Feed::Compacted { now })
            }
            Feed::Compacted { now } => self.ask_compacted(net, now).unwrap_or(failed),
            Feed::Everything { now, from } => self.fill(net, now, from).unwrap_or(failed),
            Feed::Lost { follower, reopens, .. } => self.open(net, follower, retry, reopens),
            Feed::Open { stream, follower } => self.receive(net, stream, follower, retry),
        };
    }

    fn ask_compacted(&self, net: &mut Net, now: i64) -> Option<Feed> {
        let range = RangeRequest::from(KeyRange::one(COMPACT_REV_KEY));
        let found = net.request(|etcd| etcd.range(&range)).ok()?;
        let compacted = found.kvs.first().and_then(|kv| std::str::from_utf8(&kv.value).ok()?.parse().ok());
        let from = (now - net.head_start).max(compacted.unwrap_or(0)).max(1).min(now);
        Some(Feed::Everything { now, from })
    }

    fn fill(&mut self, net: &mut Net, now: i64, from: i64) -> Option<Feed> {
        let mut read = RangeRequest { revision: from, ..KeyRange::prefix("/registry/").into() };
        if net.bug == Some(Bug::LoadsAnotherRevision) {
            read.revision = now;
        }
        let found = match net.request(|etcd| etcd.range(&read)) {
            Ok(found) => found.kvs,
            Err(RequestError::Refused(Error::Compacted)) if from < now => {
                net.count("filled without a head start");
                return Some(Feed::Everything { now, from: now });
            }
            Err(_) => return None,
        };
        let stored = found
            .into_iter()
            .map(|kv| Stored::new(String::from_utf8_lossy(&kv.key), kv.value, kv.mod_revision));
        let stored: Vec<Stored> = stored.collect();
        let last = stored.iter().max_by_key(|stored| stored.revision).map(Change::of);
        self.caches.load(stored, from);
        (self.loads, self.history, self.from) = (self.loads + 1, net.truth.current(), from);
        net.count("filled");
        net.note(|| format!("a server filled at {from}, etcd was at {now}"));
        Some(Feed::Lost { at: 0, follower: Follower::new(from, now, last), reopens: false })
    }

    fn open(&self, net: &mut Net, follower: Follower, retry: u64, reopens: bool) -> Feed {
        let evidence = follower.evidence().filter(|_| reopens && net.bug.is_none());
        match evidence.map_or(Ok(true), |last| has(net, last, follower.received())) {
            Ok(true) => {}
            Ok(false) => {
                net.count("another history");
                return Feed::Revision { at: retry };
            }
            Err(RequestError::Refused(Error::Compacted)) => {
                net.count("feed compacted");
                return Feed::Revision { at: retry };
            }
            Err(_) => return Feed::Lost { at: retry, follower, reopens },
        }
        if net.request(|_| Ok(())).is_err() {
            return Feed::Lost { at: retry, follower, reopens };
        }
        let late = i64::from(net.bug == Some(Bug::ReopensLate));
        let stream = net.cluster.open_stream();
        let start_revision = follower.received() + 1 + late;
        let watch = WatchCreateRequest { start_revision, ..KeyRange::all().into() };
        net.cluster.watch(stream, &watch).unwrap();
        net.count("etcd watch opened");
        self.caches.set_followed(true);
        Feed::Open { stream, follower }
    }

    fn receive(&mut self, net: &mut Net, stream: StreamId, mut follower: Follower, retry: u64) -> Feed {
        let Ok(responses) = net.cluster.receive(stream) else {
            self.caches.set_followed(false);
            return Feed::Lost { at: retry, follower, reopens: true };
        };
        for response in responses {
            let told = told(net, response);
            let outcome = match (net.bug, told.compacted) {
                (Some(Bug::OverlooksCompaction), 1..) => {
                    let follower = Follower::new(told.compacted - 1, 0, None);
                    net.cluster.cut(stream);
                    return Feed::Lost { at: retry, follower, reopens: true };
                }
                _ => follower.accept(told, &self.caches),
            };
            let Err(error) = outcome else { continue };
            net.cluster.cut(stream);
            self.caches.set_followed(false);
            net.note(|| format!("a server's feed ended: {error}"));
            match error {
                StorageError::WatchClosed(_) => return Feed::Lost { at: retry, follower, reopens: true },
                StorageError::WentBack { .. } => net.count("went back"),
                StorageError::Compacted => net.count("feed compacted"),
                other => panic!("the feed can't fail so: {other}"),
            }
            return Feed::Revision { at: retry };
        }
        Feed::Open { stream, follower }
    }
}

/// As `Etcd::has`.
fn has(net: &mut Net, change: &Change, seen: i64) -> Result<bool, RequestError> {
    let mut at = |revision: i64| {
        let read = RangeRequest { revision, ..KeyRange::one(change.key.clone()).into() };
        match net.request(|etcd| etcd.range(&read)) {
            Ok(found) => Ok(Some(found.kvs.into_iter().next())),
            Err(RequestError::Refused(Error::FutureRevision)) => Ok(None),
            Err(error) => Err(error),
        }
    };
    match (at(seen)?, &change.value) {
        (Some(Some(kv)), Some(value)) => Ok(kv.mod_revision == change.revision && kv.value == *value),
        (Some(None), None) => match at(change.revision - 1) {
            Ok(before) => Ok(matches!(before, Some(Some(_)))),
            Err(RequestError::Refused(Error::Compacted)) => Ok(true),
            Err(error) => Err(error),
        },
        _ => Ok(false),
    }
}

fn told(net: &mut Net, response: WatchResponse) -> Told {
    let mut changes: Vec<Change> = response
        .events
        .into_iter()
        .map(|event| Change {
            key: String::from_utf8_lossy(&event.kv.key).into_owned(),
            value: (event.kind == EventType::Put).then_some(event.kv.value),
            revision: event.kv.mod_revision,
        })
        .collect();
    let mut revision = response.revision;
    match net.bug {
        Some(Bug::DropsAnEvent) if changes.len() > 1 && net.rng.random_bool(0.2) => {
            changes.remove(0);
        }
        Some(Bug::RepeatsAnEvent) if !changes.is_empty() && net.rng.random_bool(0.2) => {
            changes.insert(0, changes[0].clone());
        }
        Some(Bug::OverlooksARestore) => revision = i64::MAX,
        _ => {}
    }
    let cancelled = response.canceled.then(String::new);
    Told { revision, compacted: response.compact_revision, cancelled, changes }
}
