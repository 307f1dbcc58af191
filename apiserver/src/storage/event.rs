//! A change of one object, shared by everybody who watches it, with its encodings.
//!
//! Upstream: `storage/cacher`'s `watchCacheEvent` and the caching object that keeps an encoding for all watchers.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::Mutex;

use super::stored::Stored;

/// What a change is to one watcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventType {
    Added,
    Modified,
    Deleted,
}

impl EventType {
    /// `matched`: the object before the change was there and selected; `matches`: it is now.
    pub fn classify(matched: bool, matches: bool) -> Option<Self> {
        match (matched, matches) {
            (false, true) => Some(Self::Added),
            (true, true) => Some(Self::Modified),
            (true, false) => Some(Self::Deleted),
            (false, false) => None,
        }
    }

    /// The `type` of a `metav1.WatchEvent`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

/// One object's step from one state to the next.
#[derive(Debug)]
pub struct Event {
    /// The revision of the change.
    pub revision: i64,
    /// The state before; `None`: it was created.
    pub old: Option<Arc<Stored>>,
    /// The state after; `None`: it was deleted.
    pub new: Option<Arc<Stored>>,
    /// The event as a line of a JSON watch, by type.
    lines: [OnceLock<Bytes>; 3],
    /// Other encodings, by the number that their maker gave them.
    others: Mutex<Vec<(u32, EventType, Bytes)>>,
}

impl Event {
    /// At least one of `old` and `new` is there.
    pub fn new(revision: i64, old: Option<Arc<Stored>>, new: Option<Arc<Stored>>) -> Self {
        Self { revision, old, new, lines: Default::default(), others: Mutex::default() }
    }

    /// The key of the object.
    pub fn key(&self) -> &str {
        self.new.as_ref().or(self.old.as_ref()).map_or("", |stored| &stored.key)
    }

    /// The state that a watcher is shown: the last one it could see for a deletion, otherwise the new one.
    pub fn shown(&self, kind: EventType) -> Option<&Arc<Stored>> {
        match kind {
            EventType::Deleted => self.old.as_ref(),
            EventType::Added | EventType::Modified => self.new.as_ref(),
        }
    }

    /// The line of a JSON watch, rendered by the first who asks.
    pub fn line(&self, kind: EventType, render: impl FnOnce() -> Bytes) -> Bytes {
        let [added, modified, deleted] = &self.lines;
        let line = match kind {
            EventType::Added => added,
            EventType::Modified => modified,
            EventType::Deleted => deleted,
        };
        line.get_or_init(render).clone()
    }

    /// Another encoding, rendered by the first who asks. `encoding` says which, the same number for the same bytes.
    pub fn encoded<E>(
        &self,
        encoding: u32,
        kind: EventType,
        render: impl FnOnce() -> Result<Bytes, E>,
    ) -> Result<Bytes, E> {
        let held = |others: &[(u32, EventType, Bytes)]| {
            let found = others.iter().find(|(other, of, _)| (*other, *of) == (encoding, kind));
            found.map(|(_, _, bytes)| bytes.clone())
        };
        let found = held(&self.others.lock());
        if let Some(bytes) = found {
            return Ok(bytes);
        }
        let bytes = render()?;
        let mut others = self.others.lock();
        if held(&others).is_none() {
            others.push((encoding, kind, bytes.clone()));
        }
        Ok(bytes)
    }

    /// The bytes that this event keeps in memory, roughly, once it has been told to somebody.
    pub(super) fn weight(&self) -> usize {
        let old = self.old.as_ref().map_or(0, |old| old.weight());
        let new = self.new.as_ref().map_or(old, |new| new.weight());
        old + 2 * new
    }
}

/// An event as one watcher sees it.
#[derive(Debug, Clone)]
pub struct Delivered {
    pub kind: EventType,
    pub event: Arc<Event>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_turn_changes_into_what_they_see() {
        assert_eq!(EventType::classify(false, true), Some(EventType::Added));
        assert_eq!(EventType::classify(true, true), Some(EventType::Modified));
        assert_eq!(EventType::classify(true, false), Some(EventType::Deleted));
        assert_eq!(EventType::classify(false, false), None);
    }

    #[test]
    fn each_encoding_is_made_once() {
        let event = Event::new(1, None, Some(Arc::new(Stored::new("/a", Bytes::new(), 1))));
        for _ in 0..2 {
            let first = std::cell::Cell::new(false);
            let line = event.line(EventType::Added, || {
                first.set(true);
                Bytes::from_static(b"a")
            });
            assert_eq!(line, "a");
            let other = event.encoded(7, EventType::Added, || Ok::<_, ()>(Bytes::from_static(b"b")));
            assert_eq!(other, Ok(Bytes::from_static(b"b")));
        }
        assert_eq!(event.encoded(7, EventType::Added, || Err(())), Ok(Bytes::from_static(b"b")));
        assert_eq!(event.encoded(8, EventType::Added, || Err(())), Err(()));
    }
}
