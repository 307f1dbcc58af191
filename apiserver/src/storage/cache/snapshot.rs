//! The state of one resource at one revision, to read at leisure.

use std::cmp::Ordering;
use std::sync::Arc;

use super::tree::{ByKey, Order, Tree};
use crate::registry::Resource;
use crate::selection::{Selection, selectable};
use crate::storage::stored::Stored;

/// By the value of the trigger field (its index), then by key.
#[derive(Clone)]
pub(super) struct ByField {
    pub(super) resource: Arc<dyn Resource>,
    pub(super) field: usize,
}

impl std::fmt::Debug for ByField {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ByField").field("field", &self.field).finish_non_exhaustive()
    }
}

impl ByField {
    fn value<'a>(&self, stored: &'a Stored) -> &'a str {
        selectable(&*self.resource, stored).field(self.field)
    }
}

impl Order for ByField {
    fn compare(&self, a: &Stored, b: &Stored) -> Ordering {
        self.value(a).cmp(self.value(b)).then_with(|| a.key.cmp(&b.key))
    }
}

/// The objects of a resource, by key and by trigger field.
#[derive(Debug, Clone)]
pub(super) struct State {
    by_key: Tree<ByKey>,
    by_field: Option<(ByField, Tree<ByField>)>,
}

impl State {
    pub(super) fn new(by_field: Option<ByField>) -> Self {
        Self { by_key: Tree::new(ByKey), by_field: by_field.map(|order| (order.clone(), Tree::new(order))) }
    }

    pub(super) fn get(&self, key: &str) -> Option<&Arc<Stored>> {
        self.by_key.get(|held| (*held.key).cmp(key))
    }

    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Puts an object in the place of its former state, which is returned.
    pub(super) fn insert(&mut self, stored: &Arc<Stored>) -> Option<Arc<Stored>> {
        let old = self.by_key.insert(Arc::clone(stored));
        if let Some((order, tree)) = &mut self.by_field {
            if let Some(old) = &old
                && order.compare(old, stored).is_ne()
            {
                tree.remove(|held| order.compare(held, old));
            }
            tree.insert(Arc::clone(stored));
        }
        old
    }

    pub(super) fn remove(&mut self, key: &str) -> Option<Arc<Stored>> {
        let old = self.by_key.remove(|held| (*held.key).cmp(key))?;
        if let Some((order, tree)) = &mut self.by_field {
            tree.remove(|held| order.compare(held, &old));
        }
        Some(old)
    }
}

/// A resource's objects as they were at one revision. Holding it keeps that state in memory.
#[derive(Clone)]
pub struct Snapshot {
    pub(super) state: State,
    pub(super) resource: Arc<dyn Resource>,
    /// The revision; the list's resourceVersion.
    pub revision: i64,
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot").field("revision", &self.revision).finish_non_exhaustive()
    }
}

impl Snapshot {
    /// The selected objects below a prefix, in key order, after `start_after` if that is given.
    pub fn scan<'a>(
        &'a self,
        prefix: &'a str,
        start_after: Option<&'a str>,
        selection: &'a Selection,
    ) -> Box<dyn Iterator<Item = &'a Arc<Stored>> + Send + 'a> {
        let resource = &*self.resource;
        let begins = move |stored: &&Arc<Stored>| stored.key.starts_with(prefix);
        if let Some((order, tree)) = &self.state.by_field
            && let Some(value) = selection.exact_field(order.field)
        {
            let from = start_after.unwrap_or(prefix);
            let probe = |held: &Stored| {
                let after = if start_after.is_some_and(|after| *held.key == *after) {
                    Ordering::Less
                } else {
                    (*held.key).cmp(from)
                };
                order.value(held).cmp(value).then(after)
            };
            let within = tree.iter_from(probe).map(|slot| &slot.stored);
            let within = within.take_while(move |stored| order.value(stored) == value && begins(stored));
            return Box::new(within.filter(move |stored| selection.matches(resource, stored)));
        }
        let slots = self.state.by_key.iter_from(|held| match start_after {
            Some(after) if (*held.key).cmp(after).is_le() => Ordering::Less,
            Some(_) => Ordering::Greater,
            None => (*held.key).cmp(prefix),
        });
        let within = slots.take_while(move |slot| begins(&&slot.stored));
        if selection.is_everything() {
            return Box::new(within.map(|slot| &slot.stored));
        }
        let possible = within.filter(move |slot| selection.may_match(slot.signature));
        Box::new(possible.map(|slot| &slot.stored).filter(move |stored| selection.matches(resource, stored)))
    }

    /// How many objects lie below a prefix after a key.
    pub fn count_after(&self, prefix: &str, after: &str) -> usize {
        // Keys below the prefix end where the prefix with its last slash counted up would begin.
        let end = self
            .state
            .by_key
            .rank(|held| if held.key.starts_with(prefix) { Ordering::Less } else { (*held.key).cmp(prefix) });
        let begin = self.state.by_key.rank(|held| match (*held.key).cmp(after) {
            Ordering::Equal => Ordering::Less,
            other => other,
        });
        end.saturating_sub(begin)
    }
}
