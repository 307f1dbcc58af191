//! What clients, etcd and the faults did, as records: one JSON line each, so that a failed run can be judged again.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::io::BufRead;
use std::path::Path;

mod recorder;

pub use recorder::{Recorder, fingerprint, version_of};

/// Microseconds since the run began, on one monotonic clock for everybody.
pub type Instant = u64;

/// etcd's revision, Kubernetes' resourceVersion.
pub type Revision = i64;

/// A kind of objects that traffic touches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Resource {
    ConfigMaps,
    Pods,
}

impl Resource {
    pub const ALL: [Resource; 2] = [Resource::ConfigMaps, Resource::Pods];

    /// As in paths and in etcd's keys.
    pub fn plural(self) -> &'static str {
        match self {
            Resource::ConfigMaps => "configmaps",
            Resource::Pods => "pods",
        }
    }
}

/// An object's place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    pub resource: Resource,
    pub namespace: String,
    pub name: String,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.resource.plural(), self.namespace, self.name)
    }
}

/// An object as somebody saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// metadata.resourceVersion, or etcd's mod revision.
    pub revision: Revision,
    pub uid: String,
    /// Which write made it: unique in a run. Empty for objects that are not of the traffic.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub write: String,
    /// The label that selectors look at.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub shade: String,
    /// Of everything but resourceVersion, kind and apiVersion.
    pub fingerprint: u64,
}

/// What a read may answer with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Freshness {
    /// resourceVersion unset: the most recent state.
    Consistent,
    /// resourceVersion=0.
    Any,
    NotOlderThan(Revision),
    Exact(Revision),
}

/// What a client asked of one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Create,
    /// PUT of an object with this resourceVersion.
    Update {
        expected: Revision,
    },
    /// Merge patch without resourceVersion.
    Patch,
    Delete,
    Get(Freshness),
}

/// How a request ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome<T> {
    Done(T),
    /// A Status that says that nothing was done.
    Refused {
        code: u16,
        reason: String,
    },
    /// It may have been done or not: a server error, a cut connection, no answer in time.
    Unknown {
        code: Option<u16>,
        reason: String,
    },
}

/// A request for one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    pub client: u32,
    pub server: usize,
    pub action: Action,
    pub key: Key,
    /// The write's identity; empty for reads and deletes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub write: String,
    pub call: Instant,
    pub answer: Instant,
    /// What the answer showed: the object, or of a deletion what it names.
    pub outcome: Outcome<Shown>,
}

/// The object of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shown {
    Version(Version),
    /// A deletion that answers with a Status only names the uid.
    Deleted {
        uid: String,
    },
}

/// Which objects a list or watch is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    pub resource: Resource,
    /// `None`: all.
    pub namespace: Option<String>,
    pub selector: Selector,
}

/// Labels and fields that traffic selects by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Selector {
    Everything,
    Shade(String),
    Name(String),
}

impl Scope {
    /// Whether the place is in it, whatever the labels.
    pub fn covers(&self, key: &Key) -> bool {
        let in_place = self.resource == key.resource
            && self.namespace.as_ref().is_none_or(|namespace| *namespace == key.namespace);
        match &self.selector {
            Selector::Name(name) => in_place && *name == key.name,
            Selector::Everything | Selector::Shade(_) => in_place,
        }
    }

    /// Whether an object with this label is selected.
    pub fn selects(&self, shade: &str) -> bool {
        match &self.selector {
            Selector::Shade(wanted) => wanted == shade,
            Selector::Everything | Selector::Name(_) => true,
        }
    }
}

/// One page of a list, or all of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct List {
    pub client: u32,
    pub server: usize,
    pub scope: Scope,
    pub freshness: Freshness,
    /// The chain of pages that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page: Option<Page>,
    pub call: Instant,
    pub answer: Instant,
    pub outcome: Outcome<Listed>,
}

/// A page's place in a chain of `continue`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// Unique in a run.
    pub chain: u64,
    /// 0 for the first.
    pub number: u32,
    /// The chain goes on from the present state after this place, because its own snapshot was compacted away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restarted_after: Option<(String, String)>,
}

/// What a list showed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    pub revision: Revision,
    pub items: Vec<Item>,
    /// Whether there was a continue token.
    pub more: bool,
}

/// One object of a list or of an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    pub namespace: String,
    pub name: String,
    #[serde(flatten)]
    pub version: Version,
}

/// How a watch begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// With everything after this revision.
    After(Revision),
    /// sendInitialEvents with a state this fresh.
    InitialEvents(Freshness),
}

/// A watch request that was answered with 200.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchOpened {
    /// Unique in a run.
    pub stream: u64,
    /// Who goes on from stream to stream.
    pub watcher: u32,
    pub server: usize,
    /// Over the gRPC watch service, and not over HTTP.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub grpc: bool,
    pub scope: Scope,
    pub start: Start,
    pub call: Instant,
    pub answer: Instant,
}

/// A watch event's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum EventType {
    Added,
    Modified,
    Deleted,
}

/// What a watch sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sent {
    Event {
        kind: EventType,
        item: Item,
    },
    Bookmark {
        revision: Revision,
        initial_end: bool,
    },
    /// An ERROR event: the last of its stream.
    Error {
        code: u16,
        reason: String,
    },
    /// The stream ended: by the server, a cut connection, or the watcher itself.
    End {
        why: String,
    },
}

/// Something received on a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Received {
    pub stream: u64,
    pub at: Instant,
    pub sent: Sent,
}

/// A change that etcd itself told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// When it was received: it happened before.
    pub at: Instant,
    pub revision: Revision,
    pub key: Key,
    /// `None`: deleted.
    pub version: Option<Version>,
    /// Last write of each client that the object remembers; empty for deletions.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub slots: BTreeMap<String, String>,
}

/// Something that was done to a process or a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    pub begin: Instant,
    pub end: Instant,
    pub kind: String,
    /// Whether it could be done.
    pub done: bool,
    pub detail: String,
}

/// A line of a history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    /// First of all.
    Run {
        seed: u64,
        servers: usize,
        etcd_members: usize,
    },
    Operation(Operation),
    List(List),
    WatchOpened(WatchOpened),
    Received(Received),
    Change(Change),
    Fault(Fault),
    /// etcd was told to forget what is older; `call` is when.
    Compaction {
        call: Instant,
        revision: Revision,
    },
    /// Traffic was as asked until here: faults begin.
    CalmOver {
        at: Instant,
    },
    /// Faults and writes are over. Whoever watches has had time until `at` to hear of everything up to `revision`.
    Settled {
        at: Instant,
        revision: Revision,
    },
    /// How far etcd's own watch has told.
    TruthEnd {
        revision: Revision,
    },
}

/// Reads a history.
///
/// # Errors
/// The file cannot be read, or a line is none of a history.
pub fn read(path: &Path) -> anyhow::Result<Vec<Record>> {
    use anyhow::Context as _;
    let file = std::fs::File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let lines = std::io::BufReader::new(file).lines().enumerate();
    lines
        .map(|(number, line)| {
            serde_json::from_str(&line?).with_context(|| format!("{}, line {}", path.display(), number + 1))
        })
        .collect()
}
