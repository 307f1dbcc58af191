//! Watchers of one resource, those that see the same together: an event is judged once for each distinct selection.
//!
//! A group keeps the numbers of the events it sees; its watchers read them at their own pace, so a slow watcher costs
//! nothing but its place. An event is shown only to groups that its key, its namespace or its trigger field can concern,
//! so that the watches of a thousand kubelets cost nothing to the pods of one. Upstream: the cacher's
//! `indexedWatchers` and `triggerFunc`.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tokio::sync::watch;

use super::history::History;
use crate::registry::Resource;
use crate::selection::Selection;
use crate::storage::event::{Event, EventType};
use crate::storage::stored::Stored;

/// What one group of watchers sees.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Interest {
    /// Keys below this prefix: of one namespace, or of the resource.
    pub(super) prefix: Box<str>,
    pub(super) selection: Selection,
}

/// By what an event finds a group.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Route {
    /// The group sees one object only.
    Key(Box<str>),
    /// The group sees objects with one value in the trigger field only.
    Trigger(Box<str>),
    /// The group sees one namespace only.
    Prefix(Box<str>),
    Everything,
}

/// The number of a group.
pub(super) type GroupId = u64;

#[derive(Debug)]
pub(super) struct Group {
    interest: Interest,
    route: Route,
    /// Numbers of seen events still held by the history, with what they are to this group.
    seen: VecDeque<(u64, EventType)>,
    /// How many entries of `seen` have been dropped at its front.
    dropped: u64,
    watchers: usize,
    /// Told the count of events seen so far.
    wake: watch::Sender<u64>,
}

impl Group {
    /// How many events the group has seen.
    pub(super) fn count(&self) -> u64 {
        self.dropped + self.seen.len() as u64
    }

    /// The number of the event at a place, and what it is; `None` if it is forgotten or still to come.
    pub(super) fn at(&self, place: u64) -> Option<(u64, EventType)> {
        let index = usize::try_from(place.checked_sub(self.dropped)?).ok()?;
        self.seen.get(index).copied()
    }

    fn forget(&mut self, before: u64) {
        while self.seen.front().is_some_and(|(number, _)| *number < before) {
            self.seen.pop_front();
            self.dropped += 1;
        }
    }
}

/// All groups of a resource.
#[derive(Debug, Default)]
pub(super) struct Groups {
    groups: HashMap<GroupId, Group>,
    next: GroupId,
    by_interest: HashMap<Interest, GroupId>,
    by_route: HashMap<Route, Vec<GroupId>>,
}

impl Groups {
    pub(super) fn get(&self, id: GroupId) -> Option<&Group> {
        self.groups.get(&id)
    }

    pub(super) fn watchers(&self) -> usize {
        self.groups.values().map(|group| group.watchers).sum()
    }

    /// Adds a watcher; it reads from the returned place on.
    pub(super) fn join(
        &mut self,
        interest: Interest,
        resource: &dyn Resource,
        root: &str,
    ) -> (GroupId, u64, watch::Receiver<u64>) {
        let id = match self.by_interest.get(&interest) {
            Some(id) => *id,
            None => self.found(interest, resource, root),
        };
        match self.groups.get_mut(&id) {
            Some(group) => {
                group.watchers += 1;
                (id, group.count(), group.wake.subscribe())
            }
            // `found` has just put it there.
            None => (id, 0, watch::channel(0).1),
        }
    }

    fn found(&mut self, interest: Interest, resource: &dyn Resource, root: &str) -> GroupId {
        let id = self.next;
        self.next += 1;
        let route = route(&interest, resource, root);
        self.by_interest.insert(interest.clone(), id);
        self.by_route.entry(route.clone()).or_default().push(id);
        let wake = watch::channel(0).0;
        let group = Group { interest, route, seen: VecDeque::new(), dropped: 0, watchers: 0, wake };
        self.groups.insert(id, group);
        id
    }

    /// Takes a watcher out; its group goes with the last one.
    pub(super) fn leave(&mut self, id: GroupId) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        group.watchers = group.watchers.saturating_sub(1);
        if group.watchers > 0 {
            return;
        }
        let Some(group) = self.groups.remove(&id) else { return };
        self.by_interest.remove(&group.interest);
        if let Some(ids) = self.by_route.get_mut(&group.route) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.by_route.remove(&group.route);
            }
        }
    }

    /// Shows an event, which has this number in the history, to every group that it can concern; returns those that see it.
    pub(super) fn show(
        &mut self,
        event: &Arc<Event>,
        number: u64,
        history: &History,
        resource: &dyn Resource,
        touched: &mut Vec<GroupId>,
    ) {
        if self.groups.is_empty() {
            return;
        }
        for id in self.concerned(event, resource) {
            let Some(group) = self.groups.get_mut(&id) else { continue };
            if let Some(kind) = judge(&group.interest, event, resource) {
                group.forget(history.first());
                group.seen.push_back((number, kind));
                touched.push(id);
            }
        }
    }

    fn concerned(&self, event: &Event, resource: &dyn Resource) -> Vec<GroupId> {
        let mut ids = Vec::new();
        let mut add = |route: &Route| ids.extend(self.by_route.get(route).into_iter().flatten().copied());
        let key = event.key();
        add(&Route::Everything);
        add(&Route::Key(key.into()));
        if let Some(slash) = key.rfind('/') {
            add(&Route::Prefix(key.get(..=slash).unwrap_or_default().into()));
        }
        if let Some(field) = trigger(resource) {
            let value =
                |stored: &Arc<Stored>| crate::selection::selectable(resource, stored).field(field).to_owned();
            let (old, new) = (event.old.as_ref().map(value), event.new.as_ref().map(value));
            if let Some(old) = &old {
                add(&Route::Trigger(old.as_str().into()));
            }
            if let Some(new) = new.filter(|new| Some(new) != old.as_ref()) {
                add(&Route::Trigger(new.into()));
            }
        }
        ids
    }

    /// Wakes the watchers of groups that have seen something, or of all when everything is over.
    pub(super) fn wake(&self, ids: &[GroupId]) {
        for group in ids.iter().filter_map(|id| self.groups.get(id)) {
            group.wake.send_replace(group.count());
        }
    }

    pub(super) fn wake_all(&self) {
        for group in self.groups.values() {
            group.wake.send_replace(u64::MAX);
        }
    }
}

/// The selectable field by which events find their watchers (upstream's index functions): pods by node.
pub(super) fn trigger(resource: &dyn Resource) -> Option<usize> {
    let info = resource.info();
    if info.group.is_empty() && info.plural == "pods" {
        return resource.selectable_fields().iter().position(|field| *field == "spec.nodeName");
    }
    None
}

fn route(interest: &Interest, resource: &dyn Resource, root: &str) -> Route {
    let Interest { prefix, selection } = interest;
    let whole = **prefix == *root;
    if let Some(name) = selection.single_name() {
        match selection.single_namespace() {
            Some(namespace) if whole && resource.info().namespaced => {
                return Route::Key(format!("{prefix}{namespace}/{name}").into());
            }
            _ if !whole || !resource.info().namespaced => {
                return Route::Key(format!("{prefix}{name}").into());
            }
            _ => {}
        }
    }
    if let Some(value) = trigger(resource).and_then(|field| selection.exact_field(field)) {
        return Route::Trigger(value.into());
    }
    if whole { Route::Everything } else { Route::Prefix(prefix.clone()) }
}

/// What an event is to an interest.
pub(super) fn judge(interest: &Interest, event: &Event, resource: &dyn Resource) -> Option<EventType> {
    if !event.key().starts_with(&*interest.prefix) {
        return None;
    }
    let sees = |stored: &Option<Arc<Stored>>| {
        stored.as_ref().is_some_and(|stored| interest.selection.matches(resource, stored))
    };
    EventType::classify(sees(&event.old), sees(&event.new))
}
