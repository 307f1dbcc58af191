//! The cache of one resource: its objects, its latest changes and its watchers. A state machine without IO: [`load`] and
//! [`apply`] are its inputs, one caller at a time; everything else reads.
//!
//! [`load`]: ResourceCache::load
//! [`apply`]: ResourceCache::apply

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use super::groups::{GroupId, Groups, Interest, judge, trigger};
use super::hints::Hints;
use super::history::History;
use super::progress::Progress;
use super::snapshot::{ByField, Snapshot, State};
use super::watcher::CachedWatch;
use crate::registry::Resource;
use crate::selection::{Selection, selectable};
use crate::storage::StorageError;
use crate::storage::event::{Delivered, Event};
use crate::storage::stored::Stored;

/// Changes that a list of the past may undo; what lies further back is read from etcd.
const MAX_UNDONE: usize = 20_000;

/// A change of one key, as etcd tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub key: String,
    /// The new value; `None`: the key was deleted.
    pub value: Option<Bytes>,
    pub revision: i64,
}

impl Change {
    /// The change that made an object what it is.
    pub fn of(stored: &Stored) -> Self {
        Self { key: stored.key.to_string(), value: Some(stored.value.clone()), revision: stored.revision }
    }
}

/// See the module.
pub(super) struct ResourceCache {
    resource: Arc<dyn Resource>,
    /// The prefix of all keys, with its trailing slash.
    root: Box<str>,
    progress: Progress,
    pub(super) hints: Mutex<Hints>,
    pub(super) inner: RwLock<Inner>,
}

impl std::fmt::Debug for ResourceCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResourceCache").field("root", &self.root).finish_non_exhaustive()
    }
}

#[derive(Debug)]
pub(super) struct Inner {
    state: State,
    /// The objects' bytes.
    bytes: usize,
    pub(super) history: History,
    pub(super) groups: Groups,
    /// Counts loads: watches opened before one can't go on after it.
    pub(super) epoch: u64,
}

impl ResourceCache {
    pub(super) fn new(resource: Arc<dyn Resource>, root: &str, progress: Progress) -> Self {
        let inner = Inner {
            state: State::new(by_field(&resource)),
            bytes: 0,
            history: History::since(0),
            groups: Groups::default(),
            epoch: 0,
        };
        Self { resource, root: root.into(), progress, hints: Mutex::default(), inner: RwLock::new(inner) }
    }

    pub(super) fn resource(&self) -> &dyn Resource {
        &*self.resource
    }

    /// How far all caches are; see [`Progress`].
    pub(super) fn progress(&self) -> i64 {
        self.progress.revision()
    }

    /// Forgets everything and starts with the objects there were at `revision`. Every watch ends.
    pub(super) fn load(&self, objects: Vec<Arc<Stored>>, revision: i64) {
        let mut state = State::new(by_field(&self.resource));
        let mut bytes = 0;
        for stored in &objects {
            selectable(&*self.resource, stored);
            bytes += stored.weight();
            state.insert(stored);
        }
        let mut inner = self.inner.write();
        let old = std::mem::replace(&mut inner.state, state);
        let history = std::mem::replace(&mut inner.history, History::since(revision));
        inner.bytes = bytes;
        inner.epoch += 1;
        inner.groups.wake_all();
        drop(inner);
        drop((old, history));
    }

    /// Takes changes in, in the order of their revisions, and wakes who sees them.
    pub(super) fn apply(&self, changes: impl Iterator<Item = Change>) {
        let prepared: Vec<_> = changes.map(|change| self.prepare(change)).collect();
        let mut touched = Vec::new();
        let mut garbage = Vec::new();
        let mut inner = self.inner.write();
        for change in prepared {
            garbage.push(inner.step(change, &*self.resource, &mut touched));
        }
        drop(inner);
        drop(garbage);
        touched.sort_unstable();
        touched.dedup();
        self.inner.read().groups.wake(&touched);
    }

    /// What is costly is done before the lock is taken.
    fn prepare(&self, change: Change) -> Prepared {
        let Change { key, value, revision } = change;
        let new = value.map(|value| {
            let stored = match self.hints.lock().take(&key, &value) {
                Some((value, known)) => Stored::with_selectable(key.as_str(), value, revision, known),
                None => Stored::new(key.as_str(), value, revision),
            };
            selectable(&*self.resource, &stored);
            Arc::new(stored)
        });
        Prepared { key, new, revision }
    }

    pub(super) fn get(&self, key: &str) -> Option<Arc<Stored>> {
        self.inner.read().state.get(key).cloned()
    }

    /// An object, and the revision at which it is so.
    pub(super) fn get_at(&self, key: &str) -> (Option<Arc<Stored>>, i64) {
        let inner = self.inner.read();
        (inner.state.get(key).cloned(), self.revision_of(&inner))
    }

    /// The latest state.
    pub(super) fn snapshot(&self) -> Snapshot {
        let inner = self.inner.read();
        let revision = self.revision_of(&inner);
        Snapshot { state: inner.state.clone(), resource: Arc::clone(&self.resource), revision }
    }

    /// The revision that a state is of. The progress is read under the state's lock: it has come only so far as this
    /// state has, and a load begins with setting it back.
    fn revision_of(&self, inner: &Inner) -> i64 {
        self.progress.revision().max(inner.history.last_revision())
    }

    /// The state at a revision in the past; `None` if too much has happened since or it has not been reached.
    pub(super) fn snapshot_at(&self, revision: i64) -> Option<Snapshot> {
        let (mut state, undo) = {
            let inner = self.inner.read();
            if revision > self.revision_of(&inner) {
                return None;
            }
            let later: Vec<Arc<Event>> = inner.history.after(revision)?.cloned().collect();
            if later.len() > MAX_UNDONE {
                return None;
            }
            (inner.state.clone(), later)
        };
        for event in undo.iter().rev() {
            match &event.old {
                Some(old) => drop(state.insert(old)),
                None => drop(state.remove(event.key())),
            }
        }
        Some(Snapshot { state, resource: Arc::clone(&self.resource), revision })
    }

    /// Opens a watch of what a selection sees below a prefix, after a revision.
    pub(super) fn watch(
        self: &Arc<Self>,
        prefix: &str,
        selection: &Selection,
        after: i64,
    ) -> Result<CachedWatch, StorageError> {
        let interest = Interest { prefix: prefix.into(), selection: selection.clone() };
        let mut inner = self.inner.write();
        let Some(missed) = inner.history.after(after) else {
            return Err(StorageError::TooOld { asked: after, oldest: inner.history.complete_after() });
        };
        let resource = &*self.resource;
        let missed = missed.filter_map(|event| {
            let kind = judge(&interest, event, resource)?;
            Some(Delivered { kind, event: Arc::clone(event) })
        });
        let missed = missed.collect();
        let (group, place, wake) = inner.groups.join(interest, resource, &self.root);
        let epoch = inner.epoch;
        drop(inner);
        Ok(CachedWatch::new(Arc::clone(self), group, place, epoch, after, missed, wake))
    }

    pub(super) fn leave(&self, group: GroupId) {
        self.inner.write().groups.leave(group);
    }

    pub(super) fn counts(&self) -> Counts {
        let inner = self.inner.read();
        Counts { objects: inner.state.len(), bytes: inner.bytes, watchers: inner.groups.watchers() }
    }
}

/// What a cache holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counts {
    pub(super) objects: usize,
    pub(super) bytes: usize,
    pub(super) watchers: usize,
}

fn by_field(resource: &Arc<dyn Resource>) -> Option<ByField> {
    trigger(&**resource).map(|field| ByField { resource: Arc::clone(resource), field })
}

/// A change with its new object made up.
struct Prepared {
    key: String,
    new: Option<Arc<Stored>>,
    revision: i64,
}

impl Inner {
    /// Takes one change in; returns what may be dropped when the lock is free.
    fn step(
        &mut self,
        change: Prepared,
        resource: &dyn Resource,
        touched: &mut Vec<GroupId>,
    ) -> Option<Arc<Stored>> {
        let Prepared { key, new, revision } = change;
        if revision < self.history.last_revision() {
            tracing::error!(key, revision, "etcd told an event out of order; it is passed over");
            return None;
        }
        let old = match &new {
            Some(new) => {
                self.bytes += new.weight();
                self.state.insert(new)
            }
            None => self.state.remove(&key),
        };
        if let Some(old) = &old {
            self.bytes = self.bytes.saturating_sub(old.weight());
        }
        if old.is_none() && new.is_none() {
            return None;
        }
        let event = Arc::new(Event::new(revision, old.clone(), new));
        let number = self.history.next();
        self.history.push(Arc::clone(&event), self.bytes);
        self.groups.show(&event, number, &self.history, resource, touched);
        old
    }
}
