//! The objects of one informer with their indexes and subscribers, behind one lock.
//!
//! Writers are the informer's driver alone; readers take the lock for the length of a look-up. Every step updates
//! objects, indexes and subscribers together, so a subscriber that looks into the store sees at least the change it
//! was given.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use apimachinery::meta::ObjectKey;
use parking_lot::RwLock;

use super::{Changes, IndexFunction, Object, changes::Queue, key_of, reflector::is_older};

/// See the module.
pub(super) struct Cache<K> {
    inner: RwLock<Inner<K>>,
    malformed: AtomicU64,
}

pub(super) struct Inner<K> {
    /// Ordered by namespace, then name: a namespace is a range.
    objects: BTreeMap<Arc<ObjectKey>, Arc<K>>,
    indexes: Vec<Index<K>>,
    subscribers: Vec<Weak<Queue<K>>>,
    closed: bool,
}

struct Index<K> {
    name: &'static str,
    values: IndexFunction<K>,
    keys: HashMap<String, BTreeSet<Arc<ObjectKey>>>,
}

impl<K: Object> Cache<K> {
    pub(super) fn new(indexes: Vec<(&'static str, IndexFunction<K>)>) -> Self {
        let indexes =
            indexes.into_iter().map(|(name, values)| Index { name, values, keys: HashMap::new() }).collect();
        let inner = Inner { objects: BTreeMap::new(), indexes, subscribers: Vec::new(), closed: false };
        Self { inner: RwLock::new(inner), malformed: AtomicU64::new(0) }
    }

    /// Makes `objects` the whole content, even where it holds newer versions: an etcd that was restored from a backup has
    /// older ones, and versions that it gave before. What is missing is deleted.
    pub(super) fn replace(&self, objects: Vec<K>) {
        let mut inner = self.inner.write();
        let mut vanished: BTreeSet<Arc<ObjectKey>> = inner.objects.keys().cloned().collect();
        for object in objects {
            let key = key_of(&object);
            vanished.remove(&key);
            if inner.objects.get(&key).is_none_or(|held| **held != object) {
                inner.put(key, object);
            }
        }
        for key in vanished {
            inner.remove(&key);
        }
    }

    /// Adds or updates one object, unless a newer version of it is held.
    pub(super) fn upsert(&self, object: K) {
        let key = key_of(&object);
        let mut inner = self.inner.write();
        let is_news = inner.objects.get(&key).is_none_or(|held| {
            held.metadata().resource_version != object.metadata().resource_version
                && !is_older(object.metadata(), held.metadata())
        });
        if is_news {
            inner.put(key, object);
        }
    }

    /// Removes an object; the last state that the server reported is what subscribers get.
    pub(super) fn delete(&self, key: &ObjectKey, last: Option<K>) {
        let mut inner = self.inner.write();
        let Some(held) = inner.objects.get(key) else { return };
        if let Some(last) = last {
            if is_older(last.metadata(), held.metadata()) {
                return;
            }
            inner.put_quietly(key, last);
        }
        inner.remove(key);
    }

    /// Runs every index function, so that one that panics does it before anything is changed.
    pub(super) fn try_indexes(&self, object: &K) {
        for index in &self.inner.read().indexes {
            drop((index.values)(object));
        }
    }

    pub(super) fn subscribe(&self) -> Changes<K> {
        let mut inner = self.inner.write();
        let (queue, changes) = Queue::new(inner.objects.iter());
        if inner.closed {
            queue.close();
        }
        inner.subscribers.retain(|subscriber| subscriber.strong_count() > 0);
        inner.subscribers.push(Arc::downgrade(&queue));
        changes
    }

    /// Ends every subscription once its pending changes are received.
    pub(super) fn close(&self) {
        let mut inner = self.inner.write();
        inner.closed = true;
        for subscriber in inner.subscribers.iter().filter_map(Weak::upgrade) {
            subscriber.close();
        }
    }

    pub(super) fn count_malformed(&self) {
        self.malformed.fetch_add(1, Ordering::Relaxed);
    }
}

impl<K> Cache<K> {
    pub(super) fn read<T>(&self, look: impl FnOnce(&Inner<K>) -> T) -> T {
        look(&self.inner.read())
    }

    pub(super) fn malformed(&self) -> u64 {
        self.malformed.load(Ordering::Relaxed)
    }
}

impl<K> Inner<K> {
    pub(super) fn objects(&self) -> &BTreeMap<Arc<ObjectKey>, Arc<K>> {
        &self.objects
    }

    /// The objects filed under `value`; `None` when there is no such index.
    pub(super) fn indexed(&self, index: &str, value: &str) -> Option<Vec<Arc<K>>> {
        let index = self.indexes.iter().find(|candidate| candidate.name == index)?;
        let keys = index.keys.get(value);
        Some(keys.into_iter().flatten().filter_map(|key| self.objects.get(key).cloned()).collect())
    }

    /// The values that have at least one object; `None` when there is no such index.
    pub(super) fn index_values(&self, index: &str) -> Option<Vec<String>> {
        let index = self.indexes.iter().find(|candidate| candidate.name == index)?;
        Some(index.keys.keys().cloned().collect())
    }
}

impl<K: Object> Inner<K> {
    fn put(&mut self, key: ObjectKey, object: K) {
        let (key, old) = match self.objects.get_key_value(&key) {
            Some((key, held)) => (Arc::clone(key), Some(Arc::clone(held))),
            None => (Arc::new(key), None),
        };
        let new = Arc::new(object);
        for index in &mut self.indexes {
            index.update(&key, old.as_deref(), Some(&new));
        }
        self.objects.insert(Arc::clone(&key), Arc::clone(&new));
        self.tell(&key, old.as_ref(), Some(&new));
    }

    /// Replaces a held object that is about to be removed; indexes follow, subscribers hear of the removal only.
    fn put_quietly(&mut self, key: &ObjectKey, object: K) {
        let Some((key, old)) =
            self.objects.get_key_value(key).map(|(key, old)| (Arc::clone(key), Arc::clone(old)))
        else {
            return;
        };
        let new = Arc::new(object);
        for index in &mut self.indexes {
            index.update(&key, Some(&old), Some(&new));
        }
        self.objects.insert(key, new);
    }

    fn remove(&mut self, key: &ObjectKey) {
        let Some((key, old)) = self.objects.remove_entry(key) else { return };
        for index in &mut self.indexes {
            index.update(&key, Some(&old), None);
        }
        self.tell(&key, Some(&old), None);
    }

    fn tell(&mut self, key: &Arc<ObjectKey>, old: Option<&Arc<K>>, new: Option<&Arc<K>>) {
        self.subscribers.retain(|subscriber| match subscriber.upgrade() {
            Some(queue) => {
                queue.push(key, old, new);
                true
            }
            None => false,
        });
    }
}

impl<K> Index<K> {
    fn update(&mut self, key: &Arc<ObjectKey>, old: Option<&K>, new: Option<&K>) {
        let before = old.map(|object| (self.values)(object)).unwrap_or_default();
        let after = new.map(|object| (self.values)(object)).unwrap_or_default();
        if before == after {
            return;
        }
        for value in before.iter().filter(|value| !after.contains(value)) {
            if let Some(keys) = self.keys.get_mut(value) {
                keys.remove(key);
                if keys.is_empty() {
                    self.keys.remove(value);
                }
            }
        }
        for value in after {
            self.keys.entry(value).or_default().insert(Arc::clone(key));
        }
    }
}

#[cfg(test)]
mod tests;
