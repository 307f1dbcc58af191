//! What really happened: after every step each new revision is read from the model as a whole state, and what differs
//! from the state before is what changed. The caches learn of changes by another way, the model's watches.
//!
//! Histories form a tree: an etcd restored from a backup leaves the path that it went before.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use etcd_model::{KeyRange, Model, RangeRequest};
use kube_apiserver::storage::EventType;

use super::view::{Facts, View};

/// A key's value at some revision.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Held {
    pub(super) value: Bytes,
    pub(super) revision: i64,
    facts: Arc<Facts>,
}

impl Held {
    fn weight(&self, key: &str) -> usize {
        self.value.len() + key.len() + 256
    }
}

pub(super) type State = BTreeMap<Arc<str>, Held>;

#[derive(Debug)]
struct Change {
    key: Arc<str>,
    old: Option<Held>,
    new: Option<Held>,
}

/// One revision: what it changed, and the state since.
#[derive(Debug)]
pub(super) struct Revision {
    number: i64,
    changes: Vec<Change>,
    state: State,
}

/// An event as a watch should tell it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Told {
    pub(super) revision: i64,
    pub(super) key: Arc<str>,
    pub(super) kind: EventType,
    /// The object that is shown.
    pub(super) value: Bytes,
}

/// One path through the tree.
#[derive(Debug, Clone, Default)]
struct History {
    revisions: Vec<Rc<Revision>>,
    latest: i64,
    /// Where numbers were left out: the last one before and the first one after.
    jumps: Vec<(i64, i64)>,
}

impl History {
    fn at(&self, revision: i64) -> Option<&Rc<Revision>> {
        let after = self.revisions.partition_point(|held| held.number <= revision);
        self.revisions[..after].last()
    }

    fn between(&self, after: i64, up_to: i64) -> &[Rc<Revision>] {
        let begin = self.revisions.partition_point(|held| held.number <= after);
        let end = self.revisions.partition_point(|held| held.number <= up_to);
        &self.revisions[begin..end.max(begin)]
    }
}

/// The number of a history; the last one is the present.
pub(super) type HistoryId = usize;

#[derive(Debug)]
pub(super) struct Truth {
    histories: Vec<History>,
}

impl Truth {
    pub(super) fn new() -> Self {
        Self { histories: vec![History { latest: 1, ..History::default() }] }
    }

    pub(super) fn current(&self) -> HistoryId {
        self.histories.len() - 1
    }

    /// The newest revision.
    pub(super) fn latest(&self) -> i64 {
        self.histories[self.current()].latest
    }

    /// The highest number that any revision of any history has.
    pub(super) fn highest(&self) -> i64 {
        self.histories.iter().map(|history| history.latest).max().unwrap_or(0)
    }

    /// Takes in what has happened since the last time; nothing of it may be compacted yet.
    pub(super) fn absorb(&mut self, model: &Model) {
        let current = self.current();
        let history = &mut self.histories[current];
        for number in history.latest + 1..=model.revision() {
            let request = RangeRequest { revision: number, ..KeyRange::all().into() };
            let found = model.range(&request).unwrap().kvs;
            let old = history.revisions.last().map(|last| last.state.clone()).unwrap_or_default();
            let mut state = State::new();
            let mut changes = Vec::new();
            for kv in found {
                let key = String::from_utf8_lossy(&kv.key);
                let before = old.get_key_value(&*key);
                if let Some((key, held)) = before.filter(|_| kv.mod_revision != number) {
                    state.insert(Arc::clone(key), held.clone());
                    continue;
                }
                assert_eq!(kv.mod_revision, number, "a state that nothing led to");
                let facts = Arc::new(Facts::of(&kv.value));
                let held = Held { value: kv.value, revision: number, facts };
                let key: Arc<str> = key.into();
                let old = before.map(|(_, held)| held.clone());
                changes.push(Change { key: Arc::clone(&key), old, new: Some(held.clone()) });
                state.insert(key, held);
            }
            let gone = old.into_iter().filter(|(key, _)| !state.contains_key(key));
            changes.extend(gone.map(|(key, old)| Change { key, old: Some(old), new: None }));
            history.revisions.push(Rc::new(Revision { number, changes, state }));
            history.latest = number;
        }
    }

    /// A restored backup of a history at a revision, whose numbers go on after `bumped` if that is given.
    pub(super) fn fork(&mut self, of: HistoryId, at: i64, bumped: Option<i64>) {
        let mut forked = self.histories[of].clone();
        forked.revisions.retain(|held| held.number <= at);
        forked.jumps.retain(|(_, to)| *to <= at);
        forked.jumps.extend(bumped.map(|to| (at, to)));
        forked.latest = bumped.unwrap_or(at);
        self.histories.push(forked);
    }

    /// Whether two histories are the same up to a revision.
    pub(super) fn agree(&self, one: HistoryId, other: HistoryId, up_to: i64) -> bool {
        let at = |history: HistoryId| self.histories[history].at(up_to).map(Rc::as_ptr);
        one == other || at(one) == at(other)
    }

    /// Whether a revision of one history is taken for one of another by whoever only sees its number. Nobody can help
    /// that: those who restore a backup restart everything, or bump the revision.
    pub(super) fn ambiguous(&self, of: HistoryId, revision: i64, seen_by: HistoryId) -> bool {
        let other = &self.histories[seen_by];
        let left_out = other.jumps.iter().any(|(from, to)| (from + 1..*to).contains(&revision));
        let may_be = seen_by == self.current() || revision <= other.latest;
        !self.agree(of, seen_by, revision) && !left_out && may_be
    }

    /// Moves whoever has seen a history up to a revision to the present one, if that has the same past.
    pub(super) fn rebase(&self, history: HistoryId, seen: i64) -> HistoryId {
        if self.agree(history, self.current(), seen) { self.current() } else { history }
    }

    /// What a view shows at a revision, as keys and revisions of objects, with their values.
    pub(super) fn state<'a>(
        &'a self,
        view: &'a View,
        history: HistoryId,
        revision: i64,
    ) -> impl Iterator<Item = (&'a str, &'a Held)> {
        let state = self.histories[history].at(revision).map(|held| &held.state);
        let seen = state.into_iter().flatten().filter(|(key, held)| view.sees(key, &held.facts));
        seen.map(|(key, held)| (&**key, held))
    }

    /// What a watch of a view tells after one revision and up to another, within a revision by key.
    pub(super) fn seen(&self, view: &View, history: HistoryId, after: i64, up_to: i64) -> Vec<Told> {
        let revisions = self.histories[history].between(after, up_to);
        let changes =
            revisions.iter().flat_map(|held| held.changes.iter().map(|change| (held.number, change)));
        let seen = changes.filter_map(|(revision, change)| {
            let sees =
                |held: &Option<Held>| held.as_ref().is_some_and(|held| view.sees(&change.key, &held.facts));
            let kind = EventType::classify(sees(&change.old), sees(&change.new))?;
            let shown = if kind == EventType::Deleted { &change.old } else { &change.new };
            let value = shown.as_ref()?.value.clone();
            Some(Told { revision, key: Arc::clone(&change.key), kind, value })
        });
        let mut seen: Vec<Told> = seen.collect();
        seen.sort_by(|a, b| (a.revision, &a.key).cmp(&(b.revision, &b.key)));
        seen
    }

    /// The bytes that the changes of a resource after a revision weigh in a cache's history.
    pub(super) fn weight(&self, view: &View, history: HistoryId, after: i64, up_to: i64) -> usize {
        let root = format!("/registry/{}/", view.resource);
        let changes = self.histories[history].between(after, up_to).iter().flat_map(|held| &held.changes);
        let weights = changes.filter(|change| change.key.starts_with(&root)).map(|change| {
            let old = change.old.as_ref().map_or(0, |old| old.weight(&change.key));
            old + 2 * change.new.as_ref().map_or(old, |new| new.weight(&change.key))
        });
        weights.sum()
    }

    /// The number that a key holds as text at a revision; 0 where there is none.
    pub(super) fn number_at(&self, key: &str, history: HistoryId, revision: i64) -> i64 {
        let held = self.histories[history].at(revision).and_then(|held| held.state.get(key));
        held.and_then(|held| std::str::from_utf8(&held.value).ok()?.parse().ok()).unwrap_or(0)
    }
}
