//! List and watch over Kubernetes' HTTP API, as JSON.
//!
//! Objects are decoded one by one from the raw bytes, so that one the server should not have (a CRD changed, a newer
//! server) costs itself only.

mod lines;

use std::{
    borrow::Cow,
    marker::PhantomData,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use apimachinery::meta::ObjectKey;
use futures::{FutureExt as _, StreamExt as _, future::BoxFuture};
use kube::Client;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    Object,
    source::{Event, EventStream, ListRequest, ListWatch, Page, Query, SourceError, WatchFrom, WatchRequest},
};
use crate::client::raw;

const JSON: &str = "application/json";

/// Marks the bookmark that closes the initial events.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// The transport for one query.
#[derive(Debug)]
pub(super) struct HttpListWatch<K> {
    client: ClientHandle,
    query: Query,
    malformed: Arc<AtomicU64>,
    kind: PhantomData<fn() -> K>,
}

/// `kube::Client` has no `Debug`.
struct ClientHandle(Client);

impl std::fmt::Debug for ClientHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

impl<K: Object> HttpListWatch<K> {
    pub(super) fn new(client: Client, query: Query) -> Self {
        Self { client: ClientHandle(client), query, malformed: Arc::default(), kind: PhantomData }
    }
}

impl<K: Object> ListWatch<K> for HttpListWatch<K> {
    fn describe(&self) -> String {
        let group = if self.query.group.is_empty() { "" } else { "." };
        format!("{}{group}{}", self.query.resource, self.query.group)
    }

    fn list(&self, request: ListRequest) -> BoxFuture<'_, Result<Page<K>, SourceError>> {
        async move {
            let response = raw::get(&self.client.0, &list_uri(&self.query, &request), JSON).await?;
            let body = raw::collect(response).await?;
            decode_page(&body, &self.malformed)
        }
        .boxed()
    }

    fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<EventStream<K>, SourceError>> {
        async move {
            let response = raw::get(&self.client.0, &watch_uri(&self.query, &request), JSON).await?;
            let malformed = Arc::clone(&self.malformed);
            let events = lines::split(raw::stream(response)).map(move |line| match line {
                Ok(line) => decode_event(&line, &malformed),
                Err(error) => Err(error),
            });
            Ok(events.boxed())
        }
        .boxed()
    }

    fn take_malformed(&self) -> u64 {
        self.malformed.swap(0, Ordering::Relaxed)
    }
}

fn base_uri(query: &Query) -> (String, Vec<(&'static str, String)>) {
    let mut path = if query.group.is_empty() {
        format!("/api/{}", query.version)
    } else {
        format!("/apis/{}/{}", query.group, query.version)
    };
    if let Some(namespace) = &query.namespace {
        path.push_str("/namespaces/");
        path.push_str(namespace);
    }
    path.push('/');
    path.push_str(query.resource);
    let mut parameters = Vec::new();
    parameters.extend(query.field_selector.clone().map(|selector| ("fieldSelector", selector)));
    parameters.extend(query.label_selector.clone().map(|selector| ("labelSelector", selector)));
    (path, parameters)
}

fn list_uri(query: &Query, request: &ListRequest) -> String {
    let (path, mut parameters) = base_uri(query);
    // No resourceVersion: the newest state.
    parameters.extend(request.limit.map(|limit| ("limit", limit.to_string())));
    parameters.extend(request.continue_token.clone().map(|token| ("continue", token)));
    with_parameters(path, &parameters)
}

fn watch_uri(query: &Query, request: &WatchRequest) -> String {
    let (path, mut parameters) = base_uri(query);
    parameters.push(("watch", "true".to_owned()));
    parameters.push(("allowWatchBookmarks", "true".to_owned()));
    parameters.push(("timeoutSeconds", request.timeout.as_secs().to_string()));
    match &request.from {
        WatchFrom::InitialEvents => {
            parameters.push(("sendInitialEvents", "true".to_owned()));
            parameters.push(("resourceVersionMatch", "NotOlderThan".to_owned()));
        }
        WatchFrom::Version(version) => parameters.push(("resourceVersion", version.clone())),
    }
    with_parameters(path, &parameters)
}

fn with_parameters(mut uri: String, parameters: &[(&'static str, String)]) -> String {
    for (position, (name, value)) in parameters.iter().enumerate() {
        uri.push(if position == 0 { '?' } else { '&' });
        uri.push_str(name);
        uri.push('=');
        percent_encode(value, &mut uri);
    }
    uri
}

/// RFC 3986: everything but the unreserved characters.
fn percent_encode(text: &str, into: &mut String) {
    use std::fmt::Write as _;
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            into.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(into, "%{byte:02X}");
        }
    }
}

#[derive(Deserialize)]
struct RawList<'a> {
    #[serde(default)]
    metadata: RawListMeta,
    #[serde(borrow, default)]
    items: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawListMeta {
    resource_version: String,
    #[serde(rename = "continue")]
    continue_token: String,
}

#[derive(Deserialize)]
struct RawEvent<'a> {
    #[serde(rename = "type", borrow)]
    event_type: Cow<'a, str>,
    #[serde(borrow)]
    object: &'a RawValue,
}

/// What can be saved of an object that cannot be decoded, and all that is needed of a bookmark.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Remains {
    metadata: RemainingMeta,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RemainingMeta {
    name: Option<String>,
    namespace: Option<String>,
    resource_version: Option<String>,
    annotations: Option<std::collections::BTreeMap<String, String>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawStatus {
    code: u16,
    message: String,
}

fn decode_page<K: Object>(body: &[u8], malformed: &AtomicU64) -> Result<Page<K>, SourceError> {
    let list: RawList<'_> =
        serde_json::from_slice(body).map_err(|error| SourceError::Malformed(error.to_string()))?;
    let items = list.items.unwrap_or_default();
    let mut objects = Vec::with_capacity(items.len());
    for item in items {
        match serde_json::from_str::<K>(item.get()) {
            Ok(object) if object.metadata().name.is_some() => objects.push(object),
            Ok(_) => skip::<K>(item, "no metadata.name", malformed),
            Err(error) => skip::<K>(item, &error.to_string(), malformed),
        }
    }
    let token = list.metadata.continue_token;
    Ok(Page {
        objects,
        resource_version: list.metadata.resource_version,
        continue_token: (!token.is_empty()).then_some(token),
    })
}

fn decode_event<K: Object>(line: &[u8], malformed: &AtomicU64) -> Result<Event<K>, SourceError> {
    let event: RawEvent<'_> =
        serde_json::from_slice(line).map_err(|error| SourceError::Malformed(error.to_string()))?;
    let made: fn(K) -> Event<K> = match &*event.event_type {
        "ADDED" => Event::Added,
        "MODIFIED" => Event::Modified,
        "DELETED" => Event::Deleted,
        "BOOKMARK" => {
            let remains = remains(event.object);
            let resource_version = remains
                .resource_version
                .ok_or_else(|| SourceError::Malformed("bookmark without resourceVersion".to_owned()))?;
            let end = remains
                .annotations
                .is_some_and(|all| all.get(INITIAL_EVENTS_END).is_some_and(|v| v == "true"));
            return Ok(Event::Bookmark { resource_version, initial_events_end: end });
        }
        "ERROR" => {
            let status: RawStatus = serde_json::from_str(event.object.get()).unwrap_or_default();
            return Ok(Event::Error(SourceError::from_status(status.code, status.message)));
        }
        other => return Err(SourceError::Malformed(format!("unknown watch event type {other:?}"))),
    };
    let problem = match serde_json::from_str::<K>(event.object.get()) {
        Ok(object) if object.metadata().name.is_some() => return Ok(made(object)),
        Ok(_) => "no metadata.name".to_owned(),
        Err(error) => error.to_string(),
    };
    skip::<K>(event.object, &problem, malformed);
    let remains = remains(event.object);
    let key = remains.name.map(|name| ObjectKey { namespace: remains.namespace.unwrap_or_default(), name });
    Ok(Event::Malformed {
        resource_version: remains.resource_version,
        deleted: key.filter(|_| event.event_type == "DELETED"),
    })
}

fn remains(object: &RawValue) -> RemainingMeta {
    serde_json::from_str::<Remains>(object.get()).unwrap_or_default().metadata
}

fn skip<K: Object>(object: &RawValue, problem: &str, malformed: &AtomicU64) {
    malformed.fetch_add(1, Ordering::Relaxed);
    let remains = remains(object);
    tracing::error!(
        kind = K::KIND,
        namespace = remains.namespace.unwrap_or_default(),
        name = remains.name.unwrap_or_default(),
        error = problem,
        "object cannot be decoded and is left out"
    );
}

#[cfg(test)]
mod tests;
