//! A stored object and what selectors need of it.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::OnceLock;

use bytes::Bytes;

/// A stored object: its full etcd key, its JSON without resourceVersion, and the revision of its last write.
///
/// What selectors look at is worked out once, on the first question, and kept.
#[derive(Clone)]
pub struct Stored {
    pub key: Box<str>,
    pub value: Bytes,
    pub revision: i64,
    selectable: OnceLock<Selectable>,
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stored")
            .field("key", &self.key)
            .field("revision", &self.revision)
            .field("bytes", &self.value.len())
            .finish_non_exhaustive()
    }
}

impl Stored {
    pub fn new(key: impl Into<Box<str>>, value: Bytes, revision: i64) -> Self {
        Self { key: key.into(), value, revision, selectable: OnceLock::new() }
    }

    /// With what selectors need, where it is known already.
    pub fn with_selectable(
        key: impl Into<Box<str>>,
        value: Bytes,
        revision: i64,
        selectable: Selectable,
    ) -> Self {
        Self { key: key.into(), value, revision, selectable: OnceLock::from(selectable) }
    }

    pub fn name(&self) -> &str {
        name_of_key(&self.key)
    }

    /// The namespace segment of the key; meaningful for namespaced resources only.
    pub fn namespace(&self) -> &str {
        namespace_of_key(&self.key)
    }

    /// What selectors need; `compute` works it out if nobody has yet.
    pub fn selectable(&self, compute: impl FnOnce(&[u8]) -> Selectable) -> &Selectable {
        self.selectable.get_or_init(|| compute(&self.value))
    }

    /// See [`Selectable::signature`]; of an object whose labels nobody has asked for, one that rules nothing out.
    pub(super) fn signature(&self) -> u64 {
        self.selectable.get().map_or(u64::MAX, |selectable| selectable.signature)
    }

    /// The bytes this object keeps in memory, roughly.
    pub(super) fn weight(&self) -> usize {
        const OVERHEAD: usize = 256;
        self.value.len() + self.key.len() + OVERHEAD
    }
}

/// The last segment of a key.
pub fn name_of_key(key: &str) -> &str {
    key.rsplit('/').next().unwrap_or_default()
}

/// The segment before the last.
pub fn namespace_of_key(key: &str) -> &str {
    key.rsplit('/').nth(1).unwrap_or_default()
}

/// An object's labels and the values of its resource's selectable fields, in one piece of text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selectable {
    text: Box<str>,
    /// Where each piece ends in `text`: key and value of each label in turn, then the fields' values.
    ends: Box<[u32]>,
    labels: u32,
    signature: u64,
}

impl Selectable {
    /// `fields`: the values, in the order of the resource's selectable fields.
    pub fn new<'a>(
        labels: impl Iterator<Item = (&'a str, &'a str)>,
        fields: impl Iterator<Item = impl AsRef<str>>,
    ) -> Self {
        let (mut text, mut ends, mut count, mut signature) = (String::new(), Vec::new(), 0, 0);
        // Labels beyond four gigabytes can't come out of a request body.
        let mut push = |text: &mut String, piece: &str| {
            text.push_str(piece);
            ends.push(u32::try_from(text.len()).unwrap_or(u32::MAX));
        };
        for (key, value) in labels {
            push(&mut text, key);
            push(&mut text, value);
            signature |= label_bits(key, None) | label_bits(key, Some(value));
            count += 1;
        }
        for (index, value) in fields.enumerate() {
            push(&mut text, value.as_ref());
            signature |= field_bits(index, value.as_ref());
        }
        Self { text: text.into(), ends: ends.into(), labels: count, signature }
    }

    fn piece(&self, index: usize) -> &str {
        let end = |index: usize| self.ends.get(index).map_or(0, |end| *end as usize);
        let start = index.checked_sub(1).map_or(0, end);
        self.text.get(start..end(index)).unwrap_or_default()
    }

    /// The value of a label.
    pub fn label(&self, key: &str) -> Option<&str> {
        let index = (0..self.labels as usize).find(|index| self.piece(2 * index) == key)?;
        Some(self.piece(2 * index + 1))
    }

    /// The value of the resource's selectable field at `index`.
    pub fn field(&self, index: usize) -> &str {
        self.piece(2 * self.labels as usize + index)
    }

    /// Bits of every label, every label's key and every field: an object can have one only if its bits are all set.
    pub fn signature(&self) -> u64 {
        self.signature
    }
}

fn bits(what: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    let hash = hasher.finish();
    (1 << (hash & 63)) | (1 << ((hash >> 6) & 63))
}

/// The signature bits of a label, or of having a label at all.
pub fn label_bits(key: &str, value: Option<&str>) -> u64 {
    bits((key, value))
}

/// The signature bits of a field.
pub fn field_bits(index: usize, value: &str) -> u64 {
    bits((index, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_fields_are_found() {
        let labels = [("app", "web"), ("empty", ""), ("tier", "front")];
        let selectable = Selectable::new(labels.into_iter(), ["node-1", "", "Running"].into_iter());
        assert_eq!(selectable.label("app"), Some("web"));
        assert_eq!(selectable.label("empty"), Some(""));
        assert_eq!(selectable.label("tier"), Some("front"));
        assert_eq!(selectable.label("web"), None);
        assert_eq!([0, 1, 2, 3].map(|index| selectable.field(index)), ["node-1", "", "Running", ""]);
        for bits in [label_bits("app", None), label_bits("app", Some("web")), field_bits(2, "Running")] {
            assert_eq!(selectable.signature() & bits, bits);
        }
        let none = Selectable::new([].into_iter(), [""; 0].into_iter());
        assert_eq!((none.label("app"), none.field(0), none.signature()), (None, "", 0));
    }
}
