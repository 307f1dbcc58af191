//! The properties, one name each, and what breaking one looks like.

use serde::{Deserialize, Serialize};
use std::fmt;

/// What a history can break.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Property {
    /// A write was answered with success, and etcd never saw it.
    LostAcknowledgedWrite,
    /// A write was acknowledged at a revision that holds another value.
    AcknowledgedElsewhere,
    /// One write changed etcd more than once, or two deletions of one object were both acknowledged.
    AppliedTwice,
    /// A write was refused with a Status that says so, and was done.
    RefusedButApplied,
    /// A write has a revision that was already seen before it was begun.
    WriteOrder,
    /// An object was created where there was one, or replaced though it was not at the expected revision.
    CompareAndSet,
    /// A write undid another client's that it was not asked to touch.
    LostUpdate,
    /// A refusal that no state between call and answer explains.
    UnexplainedRefusal,
    /// A read without resourceVersion showed a state older than what was known before it was called.
    StaleRead,
    /// A read showed what was only written after it was answered.
    FutureRead,
    /// A read showed what was never stored.
    NeverWritten,
    /// A read showed a state older than the resourceVersion it asked for.
    OlderThanAsked,
    /// A server showed with resourceVersion=0 a state older than what it had shown before.
    WentBack,
    /// With resourceVersion=0 a server did not show the last writes though faults and writes were over for long.
    StaleCache,
    /// A list is not the state at its resourceVersion, or the pages of one chain are not one snapshot.
    NotASnapshot,
    /// A list is at another revision than the one asked for.
    WrongRevision,
    /// 410 for a revision that etcd still holds.
    UnjustifiedGone,
    /// A watch left out an event.
    Gap,
    /// A watch sent an event again, or one from before its start.
    Duplicate,
    /// A watch sent an event after a later one.
    Reordered,
    /// A watch sent a change that never happened.
    EventNotInTruth,
    /// A watch sent a change under a wrong type, or one that its selector does not see.
    WrongEventType,
    /// A watch sent an object that is not what was stored.
    WrongEventObject,
    /// A bookmark at a revision up to which not everything had been sent.
    BookmarkLies,
    /// A bookmark older than what was sent before it.
    BookmarkBackwards,
    /// The initial events of a watch are not the state at the bookmark that ends them.
    InitialEventsNotASnapshot,
    /// Something came after the ERROR event that ends a stream.
    AfterTheEnd,
    /// A watcher did not hear of everything though faults and writes were over for long.
    StalledWatch,
}

impl fmt::Display for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// One case of a broken property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub property: Property,
    /// Lines of the history that show it, the accused first.
    pub lines: Vec<usize>,
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} (lines {:?})", self.property, self.detail, self.lines)
    }
}
