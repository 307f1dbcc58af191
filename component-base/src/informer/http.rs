//! List and watch over Kubernetes' HTTP API, as JSON.

mod lines;

use std::{
    borrow::Cow,
    marker::PhantomData,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use futures::{FutureExt as _, StreamExt as _, future::BoxFuture};
use kube::Client;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    Object,
    decode::{self, Remains},
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
    /// Objects that cannot be decoded are counted in `malformed`.
    pub(super) fn new(client: Client, query: Query, malformed: Arc<AtomicU64>) -> Self {
        Self { client: ClientHandle(client), query, malformed, kind: PhantomData }
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

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawStatus {
    code: u16,
    message: String,
    details: Option<RawStatusDetails>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawStatusDetails {
    retry_after_seconds: u32,
}

fn decode_page<K: Object>(body: &[u8], malformed: &AtomicU64) -> Result<Page<K>, SourceError> {
    let list: RawList<'_> =
        serde_json::from_slice(body).map_err(|error| SourceError::Malformed(error.to_string()))?;
    let items = list.items.unwrap_or_default();
    let objects =
        items.iter().filter_map(|item| decode::object(item.get().as_bytes(), malformed).ok()).collect();
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
    let object = event.object.get().as_bytes();
    let made: fn(K) -> Event<K> = match &*event.event_type {
        "ADDED" => Event::Added,
        "MODIFIED" => Event::Modified,
        "DELETED" => Event::Deleted,
        "BOOKMARK" => {
            let remains = Remains::of(object);
            let resource_version = remains
                .resource_version
                .ok_or_else(|| SourceError::Malformed("bookmark without resourceVersion".to_owned()))?;
            let end = remains
                .annotations
                .is_some_and(|all| all.get(INITIAL_EVENTS_END).is_some_and(|v| v == "true"));
            return Ok(Event::Bookmark { resource_version, initial_events_end: end });
        }
        "ERROR" => {
            let status: RawStatus = serde_json::from_slice(object).unwrap_or_default();
            let retry_after = status.details.unwrap_or_default().retry_after_seconds;
            return Ok(Event::Error(SourceError::from_status(status.code, status.message, retry_after)));
        }
        other => return Err(SourceError::Malformed(format!("unknown watch event type {other:?}"))),
    };
    Ok(match decode::object(object, malformed) {
        Ok(object) => made(object),
        Err(remains) => remains.into_event(event.event_type == "DELETED"),
    })
}

#[cfg(test)]
mod tests;
