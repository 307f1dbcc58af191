//! What a subscriber of an informer receives, and the queue in which changes of one object merge.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    fmt,
    sync::Arc,
};

use apimachinery::meta::ObjectKey;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{Object, key_of};

/// One change of one object.
#[derive(Debug)]
pub enum Change<K> {
    /// Was not there before (or: is there, for a new subscriber).
    Added(Arc<K>),
    /// Is another version of the same object.
    Updated {
        /// The version this subscriber saw last.
        old: Arc<K>,
        /// The version now.
        new: Arc<K>,
    },
    /// Is gone; this is the last version known, which may not be the last there was.
    Deleted(Arc<K>),
}

impl<K> Clone for Change<K> {
    fn clone(&self) -> Self {
        match self {
            Self::Added(object) => Self::Added(Arc::clone(object)),
            Self::Updated { old, new } => Self::Updated { old: Arc::clone(old), new: Arc::clone(new) },
            Self::Deleted(object) => Self::Deleted(Arc::clone(object)),
        }
    }
}

impl<K> Change<K> {
    /// The object as it is now, or as it was last.
    #[must_use]
    pub fn object(&self) -> &Arc<K> {
        match self {
            Self::Added(object) | Self::Deleted(object) | Self::Updated { new: object, .. } => object,
        }
    }

    /// The version before, if there was one.
    #[must_use]
    pub fn old(&self) -> Option<&Arc<K>> {
        match self {
            Self::Updated { old, .. } | Self::Deleted(old) => Some(old),
            Self::Added(_) => None,
        }
    }

    /// The version now, if there is one.
    #[must_use]
    #[expect(clippy::new_ret_no_self, reason = "the pair of `old`, not a constructor")]
    pub fn new(&self) -> Option<&Arc<K>> {
        match self {
            Self::Updated { new, .. } | Self::Added(new) => Some(new),
            Self::Deleted(_) => None,
        }
    }
}

impl<K: Object> Change<K> {
    /// The object's key.
    #[must_use]
    pub fn key(&self) -> ObjectKey {
        key_of(&**self.object())
    }
}

/// The receiving end of a subscription.
pub struct Changes<K> {
    queue: Arc<Queue<K>>,
    /// The second half of a replaced object: its predecessor's deletion was handed out just before.
    replacement: Option<Arc<K>>,
}

impl<K> fmt::Debug for Changes<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changes")
            .field("pending", &self.queue.state.lock().order.len())
            .finish_non_exhaustive()
    }
}

impl<K: Object> Changes<K> {
    /// The next change; `None` when the informer was shut down. Dropping the future loses nothing.
    pub async fn recv(&mut self) -> Option<Change<K>> {
        loop {
            if let Some(change) = self.try_recv() {
                return Some(change);
            }
            if self.queue.state.lock().closed {
                return None;
            }
            // A change pushed since the look above left a permit, so this does not wait for it.
            self.queue.wake.notified().await;
        }
    }

    /// The next change if there is one now.
    pub fn try_recv(&mut self) -> Option<Change<K>> {
        if let Some(object) = self.replacement.take() {
            return Some(Change::Added(object));
        }
        let pending = self.queue.state.lock().pop()?;
        Some(match (pending.old, pending.new) {
            (Some(old), Some(new)) if old.metadata().uid == new.metadata().uid => {
                Change::Updated { old, new }
            }
            (Some(old), Some(new)) => {
                // Deleted and made anew between two receipts: two objects, so two changes.
                self.replacement = Some(new);
                Change::Deleted(old)
            }
            (None, Some(new)) => Change::Added(new),
            (Some(old), None) => Change::Deleted(old),
            (None, None) => unreachable!("an empty change is never queued"),
        })
    }
}

/// Pending changes of one subscriber.
pub(super) struct Queue<K> {
    state: Mutex<State<K>>,
    wake: Notify,
}

struct State<K> {
    order: VecDeque<Arc<ObjectKey>>,
    pending: HashMap<Arc<ObjectKey>, Pending<K>>,
    closed: bool,
}

/// From what the subscriber saw last to what is there now; never both `None`.
struct Pending<K> {
    old: Option<Arc<K>>,
    new: Option<Arc<K>>,
}

impl<K> State<K> {
    fn pop(&mut self) -> Option<Pending<K>> {
        loop {
            let key = self.order.pop_front()?;
            // A key whose changes cancelled each other stays in the order as a hole.
            if let Some(pending) = self.pending.remove(&key) {
                if self.order.is_empty() {
                    // The burst of an initial list must not be paid for ever after.
                    self.order.shrink_to(64);
                    self.pending.shrink_to(64);
                }
                return Some(pending);
            }
        }
    }
}

impl<K> State<K> {
    /// Many short-lived objects must not pile up holes while nobody receives.
    fn drop_holes(&mut self) {
        if self.order.len() > 2 * self.pending.len() + 64 {
            let mut seen = HashSet::new();
            let pending = &self.pending;
            self.order.retain(|key| pending.contains_key(key) && seen.insert(Arc::clone(key)));
        }
    }
}

impl<K: Object> Queue<K> {
    /// A queue and its receiver, beginning with `initial` as additions.
    pub(super) fn new<'a>(
        initial: impl Iterator<Item = (&'a Arc<ObjectKey>, &'a Arc<K>)>,
    ) -> (Arc<Self>, Changes<K>) {
        let mut state = State { order: VecDeque::new(), pending: HashMap::new(), closed: false };
        for (key, object) in initial {
            state.order.push_back(Arc::clone(key));
            state.pending.insert(Arc::clone(key), Pending { old: None, new: Some(Arc::clone(object)) });
        }
        let queue = Arc::new(Self { state: Mutex::new(state), wake: Notify::new() });
        let changes = Changes { queue: Arc::clone(&queue), replacement: None };
        (queue, changes)
    }

    /// Queues the step from `old` to `new`, merged with what is pending for the key.
    pub(super) fn push(&self, key: &Arc<ObjectKey>, old: Option<&Arc<K>>, new: Option<&Arc<K>>) {
        let mut state = self.state.lock();
        match state.pending.get_mut(key) {
            Some(pending) => {
                pending.new = new.cloned();
                if pending.old.is_none() && pending.new.is_none() {
                    state.pending.remove(key);
                    state.drop_holes();
                }
            }
            None => {
                state.order.push_back(Arc::clone(key));
                state.pending.insert(Arc::clone(key), Pending { old: old.cloned(), new: new.cloned() });
            }
        }
        drop(state);
        self.wake.notify_one();
    }

    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.wake.notify_one();
    }
}
