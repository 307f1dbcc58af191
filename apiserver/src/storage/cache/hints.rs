//! What this server knows of values that it is about to write: when etcd's watch brings them back, they need not be
//! decoded again, and the bytes in hand serve in their place.

use std::collections::HashMap;

use bytes::Bytes;

use crate::storage::stored::Selectable;

/// Values under way at most; a write that never comes back leaves its hint until it is pushed out.
const MAX: usize = 4_096;

/// By key; of two writers of one key the later hint stays, and the other's value is decoded.
#[derive(Debug, Default)]
pub(super) struct Hints {
    by_key: HashMap<String, (Bytes, Selectable)>,
}

impl Hints {
    pub(super) fn put(&mut self, key: &str, value: Bytes, selectable: Selectable) {
        if self.by_key.len() >= MAX {
            self.by_key.clear();
        }
        self.by_key.insert(key.to_owned(), (value, selectable));
    }

    /// The hint for exactly this value.
    pub(super) fn take(&mut self, key: &str, value: &Bytes) -> Option<(Bytes, Selectable)> {
        if self.by_key.is_empty() {
            return None;
        }
        let (_, hint) = self.by_key.remove_entry(key)?;
        (hint.0 == *value).then_some(hint)
    }

    /// Forgets the hint of a write that did not happen.
    pub(super) fn forget(&mut self, key: &str) {
        self.by_key.remove(key);
    }
}
