//! The seam between an informer and its transport: what is asked, and what comes back.
//!
//! `http` implements it with Kubernetes' list and watch, `transport` with our gRPC watch service where the server has it.

use std::{error::Error, sync::Arc, time::Duration};

use apimachinery::meta::ObjectKey;
use futures::{future::BoxFuture, stream::BoxStream};
use k8s_openapi::Resource;

use crate::client::raw::RawError;

/// Which objects are wanted.
#[derive(Debug, Clone)]
pub(crate) struct Query {
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    pub(crate) resource: &'static str,
    pub(crate) namespace: Option<String>,
    pub(crate) field_selector: Option<String>,
    pub(crate) label_selector: Option<String>,
}

impl Query {
    pub(crate) fn of<K: Resource>() -> Self {
        Self {
            group: K::GROUP,
            version: K::VERSION,
            resource: K::URL_PATH_SEGMENT,
            namespace: None,
            field_selector: None,
            label_selector: None,
        }
    }
}

/// One page of a list of the newest state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListRequest {
    /// Most objects in the answer; `None` for all of them.
    pub limit: Option<u32>,
    /// Where the page before ended.
    pub continue_token: Option<String>,
}

/// Where a watch begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchFrom {
    /// With the newest state as additions, closed by a bookmark that says so (upstream's WatchList).
    InitialEvents,
    /// After this resource version.
    Version(String),
}

/// A watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchRequest {
    pub from: WatchFrom,
    /// When the server should end it, so that a forgotten connection does not live for ever.
    pub timeout: Duration,
}

/// An answer to [`ListRequest`].
#[derive(Debug)]
pub struct Page<K> {
    pub objects: Vec<K>,
    pub resource_version: String,
    pub continue_token: Option<String>,
}

/// One event of a watch.
#[derive(Debug)]
pub enum Event<K> {
    Added(K),
    Modified(K),
    Deleted(K),
    Bookmark {
        resource_version: String,
        /// The initial events end here.
        initial_events_end: bool,
    },
    /// The server ends the watch.
    Error(SourceError),
    /// An object that could not be decoded; the version and, of a deletion, the key as far as they could be.
    Malformed {
        resource_version: Option<String>,
        deleted: Option<ObjectKey>,
    },
}

/// Why there is no (further) answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SourceError {
    /// 410: the version or continue token is too old.
    #[error("expired: {0}")]
    Expired(String),
    /// The server answered with another refusal.
    #[error("{code}: {message}")]
    Refused {
        code: u16,
        message: String,
        /// The server asks not to be asked again before.
        retry_after: Duration,
    },
    /// The server could not be reached, or the connection broke.
    #[error("lost connection")]
    Disconnected(#[source] Arc<dyn Error + Send + Sync>),
    /// The server answered something that is no list or watch.
    #[error("malformed answer: {0}")]
    Malformed(String),
}

impl From<RawError> for SourceError {
    fn from(error: RawError) -> Self {
        match error {
            RawError::Api(status) => {
                let seconds = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
                Self::from_status(status.code, status.message, seconds)
            }
            other => Self::Disconnected(Arc::new(other)),
        }
    }
}

impl SourceError {
    /// What a `Status` says.
    pub(crate) fn from_status(code: u16, message: String, retry_after_seconds: u32) -> Self {
        if code == 410 {
            return Self::Expired(message);
        }
        Self::Refused { code, message, retry_after: Duration::from_secs(retry_after_seconds.into()) }
    }
}

/// The events of one watch.
pub(crate) type EventStream<K> = BoxStream<'static, Result<Event<K>, SourceError>>;

/// A transport.
pub(crate) trait ListWatch<K>: Send + Sync + 'static {
    /// What is asked for, in logs.
    fn describe(&self) -> String;
    /// Fetches one page.
    fn list(&self, request: ListRequest) -> BoxFuture<'_, Result<Page<K>, SourceError>>;
    /// Opens a watch.
    fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<EventStream<K>, SourceError>>;
    /// Counts the objects that could not be decoded since the last call.
    fn take_malformed(&self) -> u64;
}
