//! An apiserver of ConfigMaps inside the test: one history, told over HTTP and over the watch service. Requests reach it
//! through a `kube::Client` without a network, as bytes all the same.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use apimachinery::labels::Selector;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;

/// What the server can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::informer) enum Offers {
    Grpc,
    /// HTTP with initial events.
    WatchList,
    /// HTTP as of old.
    List,
}

/// How open watches end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Orderly,
    Broken,
}

/// The server; clones share it.
#[derive(Clone)]
pub(in crate::informer) struct Fake {
    pub(super) world: Arc<Mutex<World>>,
    changed: Arc<watch::Sender<()>>,
    ended: Arc<watch::Sender<End>>,
}

pub(super) struct World {
    pub(super) offers: Offers,
    pub(super) version: i64,
    compacted: i64,
    /// What watches are told a bookmark of, and how many have been.
    marked: i64,
    pub(super) bookmarks: usize,
    pub(super) objects: BTreeMap<String, Value>,
    history: Vec<Change>,
    /// Who may not watch: the label selector of the request.
    pub(super) forbidden: Option<String>,
    /// What was asked, in a word each.
    pub(super) asked: Vec<String>,
    open: usize,
    /// Bytes of objects that the watch service has sent, by label selector.
    pub(super) sent: BTreeMap<String, usize>,
}

#[derive(Clone)]
struct Change {
    version: i64,
    old: Option<Value>,
    new: Option<Value>,
}

/// A ConfigMap with the label `on` and a value.
fn config_map(name: &str, on: &str, value: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"value": value},
        "metadata": {"name": name, "namespace": "ns", "uid": name, "labels": {"on": on}}})
}

impl Fake {
    pub(in crate::informer) fn new(offers: Offers) -> Self {
        let world = World {
            offers,
            version: 100,
            compacted: 100,
            marked: 0,
            bookmarks: 0,
            objects: BTreeMap::new(),
            history: Vec::new(),
            forbidden: None,
            asked: Vec::new(),
            open: 0,
            sent: BTreeMap::new(),
        };
        let (changed, ended) = (watch::Sender::new(()), watch::Sender::new(End::Orderly));
        Self { world: Arc::new(Mutex::new(world)), changed: Arc::new(changed), ended: Arc::new(ended) }
    }

    /// Makes or changes an object; a value that is no text cannot be decoded.
    pub(in crate::informer) fn put(&self, name: &str, on: &str, value: impl Into<Value>) {
        self.change(name, Some(config_map(name, on, value.into())));
    }

    pub(in crate::informer) fn delete(&self, name: &str) {
        self.change(name, None);
    }

    fn change(&self, name: &str, new: Option<Value>) {
        let world = &mut *self.world.lock();
        world.version += 1;
        let new = new.map(|new| versioned(new, world.version));
        let old = match &new {
            Some(new) => world.objects.insert(name.to_owned(), new.clone()),
            None => world.objects.remove(name),
        };
        world.history.push(Change { version: world.version, old, new });
        self.changed.send_replace(());
    }

    /// Forgets what has happened.
    pub(super) fn compact(&self) {
        let world = &mut *self.world.lock();
        world.compacted = world.version;
        world.history.clear();
    }

    /// Lets something happen elsewhere, and sends every watch a bookmark of it.
    pub(super) fn mark(&self) {
        let world = &mut *self.world.lock();
        world.version += 1;
        world.marked = world.version;
        self.changed.send_replace(());
    }

    /// Ends every connection.
    pub(super) fn end(&self, how: End) {
        self.ended.send_replace(how);
    }

    /// Becomes another server.
    pub(super) fn offer(&self, offers: Offers) {
        self.world.lock().offers = offers;
    }

    /// What was asked since the last call.
    pub(super) fn take_asked(&self) -> Vec<String> {
        std::mem::take(&mut self.world.lock().asked)
    }

    /// Bytes of objects that the watch service has sent to watches with a selector.
    pub(in crate::informer) fn sent(&self, selector: &str) -> usize {
        self.world.lock().sent.get(selector).copied().unwrap_or_default()
    }

    pub(super) fn open_watches(&self) -> usize {
        self.world.lock().open
    }
}

fn versioned(mut object: Value, version: i64) -> Value {
    object["metadata"]["resourceVersion"] = version.to_string().into();
    object
}

fn matches(selector: &Selector, object: Option<&Value>) -> bool {
    let label = |key: &str| object.and_then(|object| object["metadata"]["labels"][key].as_str());
    object.is_some() && selector.matches_by(label)
}

/// One message of a watch, whatever carries it.
#[derive(Debug)]
pub(super) enum Told {
    Event(&'static str, i64, Value),
    Synced(i64),
    Bookmark(i64),
    /// 410, and the end.
    Gone,
    End(End),
}

/// One watch.
pub(super) struct Feed {
    fake: Fake,
    selector: Selector,
    initial: VecDeque<Value>,
    synced: bool,
    at: i64,
    changed: watch::Receiver<()>,
    ended: watch::Receiver<End>,
}

impl Feed {
    /// From a version, or from the present state.
    pub(super) fn open(fake: &Fake, selector: &str, from: Option<i64>) -> Self {
        let (mut changed, mut ended) = (fake.changed.subscribe(), fake.ended.subscribe());
        changed.mark_unchanged();
        ended.mark_unchanged();
        let selector = Selector::parse(selector).unwrap();
        let world = &mut *fake.world.lock();
        world.open += 1;
        world.asked.push(from.map_or("watch".to_owned(), |from| format!("watch {from}")));
        let initial = world.objects.values().filter(|object| matches(&selector, Some(object))).cloned();
        let initial = if from.is_none() { initial.collect() } else { VecDeque::new() };
        Self {
            fake: fake.clone(),
            selector,
            initial,
            synced: from.is_some(),
            at: from.unwrap_or(world.version),
            changed,
            ended,
        }
    }

    pub(super) async fn next(&mut self) -> Told {
        loop {
            if self.ended.has_changed().unwrap() {
                return Told::End(*self.ended.borrow());
            }
            if let Some(told) = self.ready() {
                return told;
            }
            // Not marked as seen: the look above is what tells the end.
            let mut ended = self.ended.clone();
            tokio::select! {
                changed = self.changed.changed() => changed.unwrap(),
                changed = ended.changed() => changed.unwrap(),
            }
        }
    }

    /// What can be told without waiting.
    pub(super) fn ready(&mut self) -> Option<Told> {
        if let Some(object) = self.initial.pop_front() {
            let version = object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
            return Some(Told::Event("ADDED", version, object));
        }
        if !std::mem::replace(&mut self.synced, true) {
            return Some(Told::Synced(self.at));
        }
        let world = &mut *self.fake.world.lock();
        if self.at < world.compacted {
            return Some(Told::Gone);
        }
        let at = self.at;
        for change in world.history.iter().filter(|change| change.version > at) {
            self.at = change.version;
            let seen = matches(&self.selector, change.old.as_ref());
            let (kind, object) = match (seen, matches(&self.selector, change.new.as_ref())) {
                (false, true) => ("ADDED", &change.new),
                (true, true) => ("MODIFIED", &change.new),
                (true, false) => ("DELETED", &change.old),
                (false, false) => continue,
            };
            let object = versioned(object.clone().unwrap(), change.version);
            return Some(Told::Event(kind, change.version, object));
        }
        (self.at < world.marked).then(|| {
            self.at = world.marked;
            world.bookmarks += 1;
            Told::Bookmark(self.at)
        })
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.fake.world.lock().open -= 1;
    }
}
