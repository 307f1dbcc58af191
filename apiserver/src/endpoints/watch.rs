//! Watches: a stream of JSON events, from a revision on or from the present state.
//!
//! Selectors turn changes of what they see into ADDED and DELETED (`classify`). Upstream:
//! `endpoints/handlers/watch.go`, `etcd3/watcher.go`, KEP-3157 (initial events).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::status::ApiError;
use bytes::{BufMut, Bytes, BytesMut};
use http::Response;
use http::header::{CONTENT_TYPE, HeaderValue};
use tokio::time::Instant;

use super::negotiation::{self, Format, Shape};
use super::options::{ListOptions, ResourceVersion};
use super::table::{self, IncludeObject};
use super::{Call, list, respond};
use crate::body::Body;
use crate::registry::{Resource, ResourceInfo};
use crate::selection::Selection;
use crate::server::ApiContext;
use crate::storage::encoded::Layout;
use crate::storage::{Storage, StorageError, Stored, Watch, WatchEvent};
use crate::store::api_error;

/// Time between bookmarks, when there is something new to mark.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// Watches live for this long to twice this long when the client sets no timeout (`--min-request-timeout`).
const MIN_TIMEOUT: u64 = 1800;
/// Events are joined into frames up to this size.
const FRAME: usize = 32 * 1024;

pub async fn watch(call: Call<'_>) -> Result<Response<Body>, ApiError> {
    let accepted = negotiation::accept(call.headers)?;
    if accepted.format != Format::Json {
        return Err(ApiError::not_acceptable(&[negotiation::JSON]));
    }
    let options = ListOptions::parse(call.query, true)?;
    let mut selection_query = call.query.clone();
    if !call.target.name.is_empty() && call.query.get("fieldSelector").is_none() {
        // The legacy path /watch/.../NAME.
        selection_query.set("fieldSelector", format!("metadata.name={}", call.target.name));
    }
    let selection = Selection::parse(call.target.resource, &selection_query)?;
    let include = IncludeObject::parse(call.query.get("includeObject"))?;
    let info = *call.target.info();
    let renderer = Renderer {
        api: Arc::clone(call.api),
        info,
        selection,
        shape: accepted.shape,
        include,
        columns_sent: false,
    };
    let stream = open(call, &options, renderer).await?;
    let mut response =
        Response::new(Body::stream(futures::stream::unfold(stream, |mut stream| async move {
            stream.frame().await.map(|frame| (frame, stream))
        })));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

async fn open(call: Call<'_>, options: &ListOptions, renderer: Renderer) -> Result<Stream, ApiError> {
    let store = &call.api.store;
    let prefix = store.prefix(call.target.info(), call.target.namespace);
    let initial_events = options.send_initial_events == Some(true);
    let mut stream = Stream {
        storage: store.storage().clone(),
        prefix,
        watch: None,
        after: 0,
        renderer,
        initial: VecDeque::new(),
        initial_end: initial_events && options.allow_watch_bookmarks,
        bookmarks: options.allow_watch_bookmarks,
        next_bookmark: Instant::now() + BOOKMARK_EVERY,
        last_marked: 0,
        deadline: Instant::now() + timeout(options.timeout_seconds),
        done: false,
    };
    let from_state = match options.resource_version {
        ResourceVersion::Unset => options.send_initial_events != Some(false),
        ResourceVersion::Any => options.send_initial_events != Some(false),
        ResourceVersion::At(_) => initial_events,
    };
    if from_state {
        let list_options = ListOptions { limit: 0, continue_token: None, exact: false, ..options.clone() };
        let selection = stream.renderer.selection.clone();
        let (metadata, items) = list::collect(call, &list_options, &selection).await?;
        stream.after = metadata.revision;
        stream.initial = items.into();
    } else {
        stream.after = match options.resource_version {
            ResourceVersion::At(revision) => revision,
            ResourceVersion::Unset | ResourceVersion::Any => {
                store.storage().revision().await.map_err(api_error)?
            }
        };
    }
    stream.last_marked = stream.after;
    Ok(stream)
}

fn timeout(asked: Option<u64>) -> Duration {
    match asked {
        Some(seconds) if seconds > 0 => Duration::from_secs(seconds),
        _ => Duration::from_secs(MIN_TIMEOUT + rand::random_range(0..MIN_TIMEOUT)),
    }
}

/// What a change means to one selector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Added,
    Modified,
    Deleted,
}

/// `matched`: the object before the change was there and selected; `matches`: it is now.
fn classify(matched: bool, matches: bool) -> Option<Kind> {
    match (matched, matches) {
        (false, true) => Some(Kind::Added),
        (true, true) => Some(Kind::Modified),
        (true, false) => Some(Kind::Deleted),
        (false, false) => None,
    }
}

/// Events as the client wants them.
struct Renderer {
    api: Arc<ApiContext>,
    info: ResourceInfo,
    selection: Selection,
    shape: Shape,
    include: IncludeObject,
    columns_sent: bool,
}

impl Renderer {
    fn resource(&self) -> Result<&dyn Resource, ApiError> {
        self.api
            .store
            .resources()
            .get(self.info.group, self.info.version, self.info.plural)
            .ok_or_else(|| ApiError::internal("a watched resource is registered"))
    }

    fn matches(&self, key: &str, value: &[u8]) -> Result<bool, ApiError> {
        self.selection.matches(self.resource()?, key, value)
    }

    /// One change as an event, if the selectors see it.
    fn event(&mut self, event: &WatchEvent, out: &mut BytesMut) -> Result<(), ApiError> {
        match event {
            WatchEvent::Progress(_) => Ok(()),
            WatchEvent::Put { stored, previous } => {
                let matched = match previous {
                    Some(previous) => self.matches(&stored.key, previous)?,
                    None => false,
                };
                match (classify(matched, self.matches(&stored.key, &stored.value)?), previous) {
                    (Some(Kind::Added), _) => self.write("ADDED", stored, out),
                    (Some(Kind::Modified), _) => self.write("MODIFIED", stored, out),
                    // What the client held, at the revision at which it went out of sight.
                    (Some(Kind::Deleted), Some(previous)) => {
                        let last = Stored { value: previous.clone(), ..stored.clone() };
                        self.write("DELETED", &last, out)
                    }
                    (Some(Kind::Deleted), None) | (None, _) => Ok(()),
                }
            }
            WatchEvent::Deleted { stored } => {
                if self.matches(&stored.key, &stored.value)? {
                    self.write("DELETED", stored, out)
                } else {
                    Ok(())
                }
            }
        }
    }

    fn write(&mut self, kind: &str, stored: &Stored, out: &mut BytesMut) -> Result<(), ApiError> {
        out.put_slice(b"{\"type\":\"");
        out.put_slice(kind.as_bytes());
        out.put_slice(b"\",\"object\":");
        match self.shape {
            Shape::Object if self.info.converted => {
                out.put_slice(&respond::converted(self.resource()?, stored)?);
            }
            Shape::Object => match Layout::of(&stored.value) {
                Some(layout) => layout.write_object(&stored.value, stored.revision, out),
                None => out.put_slice(&stored.value),
            },
            Shape::Metadata => out.put_slice(&respond::partial_metadata(&stored.value, stored.revision)?),
            Shape::Table => {
                let resource = self.resource()?;
                let object = crate::store::decode(resource, &stored.value, stored.revision)?;
                let table = table::of_event(resource, &*object, self.include, !self.columns_sent)?;
                out.put_slice(table.trim_ascii_end());
                self.columns_sent = true;
            }
        }
        out.put_slice(b"}\n");
        Ok(())
    }

    fn bookmark(&self, revision: i64, initial_end: bool, out: &mut BytesMut) {
        let (kind, api_version) = match self.shape {
            Shape::Object => (self.info.kind, self.info.api_version()),
            Shape::Metadata => ("PartialObjectMetadata", "meta.k8s.io/v1".to_owned()),
            Shape::Table => ("Table", "meta.k8s.io/v1".to_owned()),
        };
        let annotations =
            if initial_end { ",\"annotations\":{\"k8s.io/initial-events-end\":\"true\"}" } else { "" };
        let rest = match self.shape {
            Shape::Table => ",\"columnDefinitions\":[],\"rows\":[]",
            Shape::Object | Shape::Metadata => "",
        };
        out.put_slice(
            format!(
                "{{\"type\":\"BOOKMARK\",\"object\":{{\"kind\":\"{kind}\",\"apiVersion\":\"{api_version}\",\
                 \"metadata\":{{\"resourceVersion\":\"{revision}\",\"creationTimestamp\":null{annotations}}}{rest}}}}}\n"
            )
            .as_bytes(),
        );
    }
}

/// An open watch response.
struct Stream {
    storage: Storage,
    prefix: String,
    /// Opened when the initial state is out.
    watch: Option<Watch>,
    after: i64,
    renderer: Renderer,
    initial: VecDeque<Stored>,
    /// Whether the end of the initial events is still to be marked.
    initial_end: bool,
    bookmarks: bool,
    next_bookmark: Instant,
    last_marked: i64,
    deadline: Instant,
    done: bool,
}

impl Stream {
    /// The next bytes to send; `None` ends the response.
    async fn frame(&mut self) -> Option<Bytes> {
        if self.done {
            return None;
        }
        match self.fill().await {
            Ok(frame) => frame,
            Err(error) => {
                self.done = true;
                Some(error_event(&error))
            }
        }
    }

    async fn fill(&mut self) -> Result<Option<Bytes>, ApiError> {
        let mut out = BytesMut::new();
        while let Some(stored) = self.initial.pop_front() {
            self.renderer.write("ADDED", &stored, &mut out)?;
            if out.len() >= FRAME {
                return Ok(Some(out.freeze()));
            }
        }
        if std::mem::take(&mut self.initial_end) {
            self.renderer.bookmark(self.after, true, &mut out);
        }
        if !out.is_empty() {
            return Ok(Some(out.freeze()));
        }
        if self.watch.is_none() {
            self.watch = Some(self.storage.watch(&self.prefix, self.after).await.map_err(watch_error)?);
        }
        loop {
            let Some(watch) = self.watch.as_mut() else { return Ok(None) };
            tokio::select! {
                biased;
                event = watch.next() => self.renderer.event(&event.map_err(watch_error)?, &mut out)?,
                () = tokio::time::sleep_until(self.next_bookmark), if self.bookmarks => {
                    self.next_bookmark = Instant::now() + BOOKMARK_EVERY;
                    if watch.revision() > self.last_marked {
                        self.last_marked = watch.revision();
                        self.renderer.bookmark(self.last_marked, false, &mut out);
                    }
                }
                () = tokio::time::sleep_until(self.deadline) => return Ok(None),
                () = self.renderer.api.shutdown.cancelled() => return Ok(None),
            }
            while out.len() < FRAME
                && let Some(event) = watch.pending()
            {
                self.renderer.event(&event, &mut out)?;
            }
            if !out.is_empty() {
                return Ok(Some(out.freeze()));
            }
        }
    }
}

fn watch_error(error: StorageError) -> ApiError {
    match error {
        StorageError::Compacted => {
            ApiError::expired("The resourceVersion for the provided watch is too old.")
        }
        other => api_error(other),
    }
}

/// The last event of a watch that failed.
fn error_event(error: &ApiError) -> Bytes {
    // Encoding a Status cannot fail; an empty frame would only end the stream without a reason.
    let status = serde_json::to_string(error.status()).unwrap_or_default();
    Bytes::from(format!("{{\"type\":\"ERROR\",\"object\":{status}}}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_turn_changes_into_what_they_see() {
        assert_eq!(classify(false, true), Some(Kind::Added));
        assert_eq!(classify(true, true), Some(Kind::Modified));
        assert_eq!(classify(true, false), Some(Kind::Deleted));
        assert_eq!(classify(false, false), None);
    }

    #[test]
    fn timeouts_are_the_clients_or_spread() {
        assert_eq!(timeout(Some(5)), Duration::from_secs(5));
        for asked in [None, Some(0)] {
            let chosen = timeout(asked).as_secs();
            assert!((MIN_TIMEOUT..2 * MIN_TIMEOUT).contains(&chosen), "{chosen}");
        }
    }
}
