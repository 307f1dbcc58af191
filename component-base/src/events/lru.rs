//! A map that forgets the entries used longest ago, so that a stream of ever new keys costs bounded memory.

use std::{collections::HashMap, hash::Hash};

/// client-go's size of each of its event caches.
pub(super) const CACHE_SIZE: usize = 4096;

/// See the module.
#[derive(Debug)]
pub(super) struct Lru<K, V> {
    entries: HashMap<K, (V, u64)>,
    clock: u64,
    size: usize,
}

impl<K: Eq + Hash + Clone, V> Lru<K, V> {
    pub(super) fn new(size: usize) -> Self {
        Self { entries: HashMap::new(), clock: 0, size }
    }

    /// The entry of `key`, made by `new` if there is none.
    pub(super) fn entry(&mut self, key: &K, new: impl FnOnce() -> V) -> &mut V {
        self.clock += 1;
        if self.entries.len() >= self.size && !self.entries.contains_key(key) {
            self.evict();
        }
        let clock = self.clock;
        let (value, used) = self.entries.entry(key.clone()).or_insert_with(|| (new(), clock));
        *used = clock;
        value
    }

    pub(super) fn remove(&mut self, key: &K) {
        self.entries.remove(key);
    }

    pub(super) fn each(&mut self, visit: impl FnMut(&mut V)) {
        self.entries.values_mut().map(|(value, _)| value).for_each(visit);
    }

    /// Removes the values that `gone` says are over and returns them.
    pub(super) fn take_if(&mut self, gone: impl Fn(&V) -> bool) -> Vec<V> {
        let keys: Vec<K> =
            self.entries.iter().filter(|(_, (value, _))| gone(value)).map(|(key, _)| key.clone()).collect();
        keys.iter().filter_map(|key| self.entries.remove(key)).map(|(value, _)| value).collect()
    }

    /// Forgets the older half at once: a scan per insertion would cost more.
    fn evict(&mut self) {
        let mut used: Vec<u64> = self.entries.values().map(|(_, used)| *used).collect();
        let middle = used.len() / 2;
        let (_, median, _) = used.select_nth_unstable(middle);
        let median = *median;
        self.entries.retain(|_, (_, used)| *used >= median);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_are_forgotten() {
        let mut lru = Lru::new(4);
        for key in 0..4 {
            *lru.entry(&key, || 0) = key;
        }
        lru.entry(&0, || 99);
        lru.entry(&9, || 9);
        assert!(lru.entries.len() <= 4);
        assert_eq!(*lru.entry(&0, || 99), 0, "used lately");
        assert_eq!(*lru.entry(&1, || 99), 99, "forgotten");
    }
}
