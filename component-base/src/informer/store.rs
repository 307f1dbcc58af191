//! The read side of an informer.

use std::{fmt, sync::Arc};

use apimachinery::meta::ObjectKey;

use super::{Object, cache::Cache, reflector::Effect};

/// The values under which an index files an object, as a plain function.
pub type IndexValues<K> = fn(&K) -> Vec<String>;

/// The objects an informer holds; clones share them. Reads never wait for the network.
pub struct Store<K> {
    cache: Arc<Cache<K>>,
}

impl<K> Clone for Store<K> {
    fn clone(&self) -> Self {
        Self { cache: Arc::clone(&self.cache) }
    }
}

impl<K> fmt::Debug for Store<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("len", &self.cache.read(|inner| inner.objects().len())).finish()
    }
}

impl<K: Object> Store<K> {
    pub(super) fn new(cache: Arc<Cache<K>>) -> Self {
        Self { cache }
    }

    /// A store with fixed content, for unit tests of what reads it.
    #[must_use]
    pub fn from_objects(objects: Vec<K>) -> Self {
        Self::from_objects_indexed(objects, Vec::new())
    }

    /// As [`Self::from_objects`], with the indexes that the informer would have.
    #[must_use]
    pub fn from_objects_indexed(objects: Vec<K>, indexes: Vec<(&'static str, IndexValues<K>)>) -> Self {
        let indexes = indexes.into_iter().map(|(name, values)| (name, Box::new(values) as _)).collect();
        let cache = Cache::new(indexes);
        cache.replace(objects);
        Self::new(Arc::new(cache))
    }

    /// Carries out what a reflector decided, for whoever drives one itself; see [`super::sans_io`].
    #[doc(hidden)]
    pub fn apply(&self, effect: Effect<K>) {
        match effect {
            Effect::Replace(objects) => self.cache.replace(objects),
            Effect::Upsert(object) => self.cache.upsert(object),
            Effect::Delete(key, last) => self.cache.delete(&key, last),
        }
    }

    /// The object with this key.
    #[must_use]
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<K>> {
        self.cache.read(|inner| inner.objects().get(key).cloned())
    }

    /// Every object, ordered by namespace and name.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<K>> {
        self.cache.read(|inner| inner.objects().values().cloned().collect())
    }

    /// Every key, ordered by namespace and name.
    #[must_use]
    pub fn keys(&self) -> Vec<ObjectKey> {
        self.cache.read(|inner| inner.objects().keys().map(|key| ObjectKey::clone(key)).collect())
    }

    /// The objects of one namespace, ordered by name.
    #[must_use]
    pub fn list_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        let first = ObjectKey { namespace: namespace.to_owned(), name: String::new() };
        self.cache.read(|inner| {
            let from_first = inner.objects().range::<ObjectKey, _>(&first..);
            from_first
                .take_while(|(key, _)| key.namespace == namespace)
                .map(|(_, object)| Arc::clone(object))
                .collect()
        })
    }

    /// The objects filed under `value` in an index of the builder, ordered by key.
    ///
    /// # Panics
    /// When the builder made no such index: a mistake in the program, found by its first test.
    #[must_use]
    pub fn by_index(&self, index: &str, value: &str) -> Vec<Arc<K>> {
        self.cache
            .read(|inner| inner.indexed(index, value))
            .unwrap_or_else(|| panic!("no index named {index:?}"))
    }

    /// The values of an index that have objects now, in no order.
    ///
    /// # Panics
    /// As [`Self::by_index`].
    #[must_use]
    pub fn index_values(&self, index: &str) -> Vec<String> {
        self.cache
            .read(|inner| inner.index_values(index))
            .unwrap_or_else(|| panic!("no index named {index:?}"))
    }

    /// How many objects there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.cache.read(|inner| inner.objects().len())
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
