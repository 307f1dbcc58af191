//! Makes histories: ConfigMaps in namespace `n`, etcd's side first, then what clients were told.

use crate::history::{
    Action, Change, EventType, Freshness, Instant, Item, Key, List, Listed, Operation, Outcome, Page,
    Received, Record, Resource, Revision, Scope, Selector, Sent, Shown, Start, Version, WatchOpened,
};
use std::collections::BTreeMap;

/// A history under construction. Changes reach the truth's watch long after everything else, so that only what clients
/// were told says what was known when.
pub(super) struct History {
    records: Vec<Record>,
    versions: BTreeMap<(String, Revision), Version>,
    head: Revision,
}

pub(super) fn key(name: &str) -> Key {
    Key { resource: Resource::ConfigMaps, namespace: "n".to_owned(), name: name.to_owned() }
}

pub(super) fn scope(selector: Selector) -> Scope {
    Scope { resource: Resource::ConfigMaps, namespace: Some("n".to_owned()), selector }
}

pub(super) fn dark() -> Scope {
    scope(Selector::Shade("dark".to_owned()))
}

impl History {
    pub(super) fn new() -> History {
        History { records: Vec::new(), versions: BTreeMap::new(), head: 0 }
    }

    /// etcd stores a write of this object.
    pub(super) fn change(&mut self, revision: Revision, name: &str, write: &str, shade: &str) -> Version {
        let before = self.before(name);
        let uid = before.as_ref().map_or(format!("{name}-{revision}"), |before| before.uid.clone());
        let version = Version {
            revision,
            uid,
            write: write.to_owned(),
            shade: shade.to_owned(),
            fingerprint: u64::try_from(revision).unwrap() * 7,
        };
        let mut slots = before.map_or(BTreeMap::new(), |before| self.slots(name, before.revision));
        if let Some((client, _)) = write.split_once('-') {
            slots.insert(client.to_owned(), write.to_owned());
        }
        self.push(revision, name, Some(version.clone()), slots);
        version
    }

    /// etcd deletes this object; returns its uid.
    pub(super) fn removal(&mut self, revision: Revision, name: &str) -> String {
        let uid = self.before(name).map(|before| before.uid).unwrap_or_default();
        self.push(revision, name, None, BTreeMap::new());
        self.versions.retain(|(of, _), _| of != name);
        uid
    }

    fn push(
        &mut self,
        revision: Revision,
        name: &str,
        version: Option<Version>,
        slots: BTreeMap<String, String>,
    ) {
        if let Some(version) = &version {
            self.versions.insert((name.to_owned(), revision), version.clone());
        }
        self.head = self.head.max(revision);
        let change = Change { at: 1_000_000, revision, key: key(name), version, slots };
        self.records.push(Record::Change(change));
    }

    fn before(&self, name: &str) -> Option<Version> {
        let of = self.versions.iter().filter(|((of, _), _)| of == name);
        of.map(|(_, version)| version.clone()).next_back()
    }

    fn slots(&self, name: &str, revision: Revision) -> BTreeMap<String, String> {
        let found = self.records.iter().find_map(|record| match record {
            Record::Change(change) if change.key == key(name) && change.revision == revision => {
                Some(change.slots.clone())
            }
            _ => None,
        });
        found.unwrap_or_default()
    }

    /// The latest change made to forget another client's write.
    pub(super) fn forget(&mut self, client: &str) {
        if let Some(Record::Change(change)) = self.records.last_mut() {
            change.slots.remove(client);
        }
    }

    pub(super) fn record(&mut self, record: Record) {
        self.records.push(record);
    }

    /// A client's request.
    pub(super) fn operation(
        &mut self,
        (call, answer): (Instant, Instant),
        action: Action,
        name: &str,
        write: &str,
        outcome: Outcome<Shown>,
    ) {
        let client = write.strip_prefix('c').and_then(|rest| rest.split_once('-'));
        let client = client.map_or(9, |(client, _)| client.parse().unwrap());
        self.records.push(Record::Operation(Operation {
            client,
            server: 0,
            action,
            key: key(name),
            write: write.to_owned(),
            call,
            answer,
            outcome,
        }));
    }

    /// An acknowledged write.
    pub(super) fn wrote(&mut self, time: (Instant, Instant), action: Action, name: &str, version: &Version) {
        let write = version.write.clone();
        self.operation(time, action, name, &write, shown(version));
    }

    /// An acknowledged read.
    pub(super) fn got(
        &mut self,
        time: (Instant, Instant),
        freshness: Freshness,
        name: &str,
        version: &Version,
    ) {
        self.operation(time, Action::Get(freshness), name, "", shown(version));
    }

    /// A list of everything that shows these objects.
    pub(super) fn listed(
        &mut self,
        time: (Instant, Instant),
        freshness: Freshness,
        revision: Revision,
        items: &[(&str, &Version)],
    ) {
        self.list(time, freshness, None, scope(Selector::Everything), listed(revision, items, false));
    }

    pub(super) fn list(
        &mut self,
        (call, answer): (Instant, Instant),
        freshness: Freshness,
        page: Option<Page>,
        scope: Scope,
        outcome: Outcome<Listed>,
    ) {
        let list = List { client: 9, server: 0, scope, freshness, page, call, answer, outcome };
        self.records.push(Record::List(list));
    }

    /// A watch opened at instant 5.
    pub(super) fn watch(&mut self, start: Start, scope: Scope) {
        self.records.push(Record::WatchOpened(WatchOpened {
            stream: 1,
            watcher: 1,
            server: 0,
            grpc: false,
            scope,
            start,
            call: 5,
            answer: 6,
        }));
    }

    pub(super) fn received(&mut self, sent: Sent) {
        self.records.push(Record::Received(Received { stream: 1, at: 500_000, sent }));
    }

    pub(super) fn event(&mut self, kind: EventType, name: &str, version: &Version) {
        self.received(Sent::Event { kind, item: item(name, version) });
    }

    pub(super) fn bookmark(&mut self, revision: Revision, initial_end: bool) {
        self.received(Sent::Bookmark { revision, initial_end });
    }

    /// The whole history.
    pub(super) fn end(mut self) -> Vec<Record> {
        self.records.push(Record::TruthEnd { revision: self.head });
        self.records
    }
}

pub(super) fn shown(version: &Version) -> Outcome<Shown> {
    Outcome::Done(Shown::Version(version.clone()))
}

pub(super) fn refused<T>(code: u16) -> Outcome<T> {
    Outcome::Refused { code, reason: "for a reason".to_owned() }
}

pub(super) fn item(name: &str, version: &Version) -> Item {
    Item { namespace: "n".to_owned(), name: name.to_owned(), version: version.clone() }
}

pub(super) fn listed(revision: Revision, items: &[(&str, &Version)], more: bool) -> Outcome<Listed> {
    let items = items.iter().map(|(name, version)| item(name, version)).collect();
    Outcome::Done(Listed { revision, items, more })
}
