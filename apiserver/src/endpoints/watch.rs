//! Watches: a stream of JSON events, from a revision on or from the present state.
//!
//! An event's bytes are rendered once for all watchers that want it in the same shape. Upstream:
//! `endpoints/handlers/watch.go`, KEP-3157 (initial events).

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::status::ApiError;
use bytes::{BufMut, Bytes, BytesMut};
use http::Response;
use http::header::{CONTENT_TYPE, HeaderValue};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::negotiation::{self, Format, Shape};
use super::options::{ListOptions, ResourceVersion};
use super::table::{self, IncludeObject};
use super::{Call, list, respond};
use crate::body::Body;
use crate::registry::Resource;
use crate::selection::Selection;
use crate::storage::encoded::Layout;
use crate::storage::{Delivered, StorageError, Stored, Watch};
use crate::store::api_error;

/// Time between bookmarks, when there is something new to mark; a watch that ends at its timeout ends with one too.
pub(super) const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
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
    let renderer = Renderer {
        resource: call.api.store.resources().shared_of(call.target.info())?,
        shape: accepted.shape,
        include,
        columns_sent: false,
    };
    let stream = Box::pin(open(call, &options, selection, renderer)).await?;
    let mut response =
        Response::new(Body::stream(futures::stream::unfold(stream, |mut stream| async move {
            stream.frame().await.map(|frame| (frame, stream))
        })));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

async fn open(
    call: Call<'_>,
    options: &ListOptions,
    selection: Selection,
    renderer: Renderer,
) -> Result<Box<Stream>, ApiError> {
    let store = &call.api.store;
    let initial_events = options.send_initial_events == Some(true);
    let from_state = match options.resource_version {
        ResourceVersion::Unset | ResourceVersion::Any => options.send_initial_events != Some(false),
        ResourceVersion::At(_) => initial_events,
    };
    let (after, initial) = if from_state {
        let list_options = ListOptions { limit: 0, continue_token: None, exact: false, ..options.clone() };
        let (metadata, items) = list::collect(call, &list_options, &selection).await?;
        (metadata.revision, items)
    } else if let ResourceVersion::At(revision) = options.resource_version {
        (revision, Vec::new())
    } else {
        (store.storage().revision().await.map_err(api_error)?, Vec::new())
    };
    let interest = store.interest(call.target.info(), call.target.namespace, selection)?;
    // Opened now, so that the initial state may be sent at leisure: the watch keeps its place meanwhile.
    let watch = store.storage().watch(&interest, after).await;
    let deadline = Instant::now() + timeout(options.timeout_seconds);
    let bookmarks = options.allow_watch_bookmarks;
    Ok(Box::new(Stream {
        watch: watch.map_err(watch_error),
        after,
        renderer,
        initial: initial.into(),
        initial_end: initial_events && bookmarks,
        bookmarks,
        last_marked: after,
        deadline,
        alarm: Box::pin(sleep_until(alarm(bookmarks, deadline))),
        stop: Box::pin(call.api.shutdown.clone().cancelled_owned()),
        done: false,
    }))
}

pub(super) fn timeout(asked: Option<u64>) -> Duration {
    match asked {
        Some(seconds) if seconds > 0 => Duration::from_secs(seconds),
        _ => Duration::from_secs(MIN_TIMEOUT + rand::random_range(0..MIN_TIMEOUT)),
    }
}

/// When something is due next: a bookmark or the end.
fn alarm(bookmarks: bool, deadline: Instant) -> Instant {
    if bookmarks { deadline.min(Instant::now() + BOOKMARK_EVERY) } else { deadline }
}

/// Events as the client wants them.
pub(super) struct Renderer {
    resource: Arc<dyn Resource>,
    shape: Shape,
    include: IncludeObject,
    columns_sent: bool,
}

/// Numbers of encodings that an event keeps for all its watchers, beside the plain one.
const METADATA: u32 = 1;
const CONVERTED: u32 = 2;

/// What surrounds the type of an event in its line.
const BEFORE_TYPE: &str = "{\"type\":\"";
const AFTER_TYPE: &str = "\",\"object\":";

/// The object in the line of an event, in the same memory.
pub(super) fn object_in(line: &Bytes, kind: &str) -> Bytes {
    let start = BEFORE_TYPE.len() + kind.len() + AFTER_TYPE.len();
    let end = line.trim_ascii_end().len().saturating_sub(1);
    if start <= end { line.slice(start..end) } else { Bytes::new() }
}

impl Renderer {
    /// Objects as they are.
    pub(super) fn of_objects(resource: Arc<dyn Resource>) -> Self {
        Self { resource, shape: Shape::Object, include: IncludeObject::Metadata, columns_sent: false }
    }

    /// One change as the client sees it.
    pub(super) fn event(&mut self, delivered: &Delivered) -> Result<Bytes, ApiError> {
        let Delivered { kind, event } = delivered;
        let Some(stored) = event.shown(*kind) else { return Ok(Bytes::new()) };
        let render = |renderer: &mut Self| {
            let mut out = BytesMut::new();
            renderer.write(kind.as_str(), stored, event.revision, &mut out)?;
            Ok::<_, ApiError>(out.freeze())
        };
        match self.shape {
            Shape::Object if self.resource.info().converted => {
                event.encoded(CONVERTED, *kind, || render(self))
            }
            Shape::Object => Ok(event.line(*kind, || plain(kind.as_str(), stored, event.revision))),
            Shape::Metadata => event.encoded(METADATA, *kind, || render(self)),
            Shape::Table => render(self),
        }
    }

    pub(super) fn write(
        &mut self,
        kind: &str,
        stored: &Stored,
        revision: i64,
        out: &mut BytesMut,
    ) -> Result<(), ApiError> {
        let resource = &*self.resource;
        let object = match self.shape {
            Shape::Object if resource.info().converted => respond::converted(resource, stored, revision)?,
            Shape::Object => {
                out.extend_from_slice(&plain(kind, stored, revision));
                return Ok(());
            }
            Shape::Metadata => respond::partial_metadata(&stored.value, revision)?,
            Shape::Table => {
                let object = crate::store::decode(resource, &stored.value, revision)?;
                let table = table::of_event(resource, &*object, self.include, !self.columns_sent)?;
                self.columns_sent = true;
                table
            }
        };
        begin_line(kind, out);
        out.put_slice(object.trim_ascii_end());
        out.put_slice(b"}\n");
        Ok(())
    }

    fn bookmark(&self, revision: i64, initial_end: bool, out: &mut BytesMut) {
        let (kind, api_version) = match self.shape {
            Shape::Object => (self.resource.info().kind, self.resource.info().api_version()),
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

fn begin_line(kind: &str, out: &mut BytesMut) {
    out.put_slice(BEFORE_TYPE.as_bytes());
    out.put_slice(kind.as_bytes());
    out.put_slice(AFTER_TYPE.as_bytes());
}

/// The line of an object as it is stored, with its revision.
fn plain(kind: &str, stored: &Stored, revision: i64) -> Bytes {
    let mut out = BytesMut::with_capacity(stored.value.len() + 96);
    begin_line(kind, &mut out);
    match Layout::of(&stored.value) {
        Some(layout) => layout.write_object(&stored.value, revision, &mut out),
        None => out.put_slice(&stored.value),
    }
    out.put_slice(b"}\n");
    out.freeze()
}

/// An open watch response.
struct Stream {
    /// An error is told when the initial state is out.
    watch: Result<Watch, ApiError>,
    after: i64,
    renderer: Renderer,
    initial: VecDeque<Arc<Stored>>,
    /// Whether the end of the initial events is still to be marked.
    initial_end: bool,
    bookmarks: bool,
    last_marked: i64,
    deadline: Instant,
    /// The next bookmark or the end; kept, since setting an alarm for each event costs more than the event.
    alarm: Pin<Box<Sleep>>,
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
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
        if let Some(frame) = self.initial_frame()? {
            return Ok(Some(frame));
        }
        loop {
            let watch = self.watch.as_mut().map_err(|error| error.clone())?;
            tokio::select! {
                biased;
                delivered = watch.next() => {
                    let first = self.renderer.event(&delivered.map_err(watch_error)?)?;
                    return batch(first, watch, &mut self.renderer).map(Some);
                }
                () = self.alarm.as_mut() => {
                    self.done = Instant::now() >= self.deadline;
                    self.alarm.as_mut().reset(alarm(self.bookmarks, self.deadline));
                    let frame = self.due_bookmark();
                    if self.done || frame.is_some() {
                        return Ok(frame);
                    }
                }
                () = self.stop.as_mut() => return Ok(None),
            }
        }
    }

    /// A bookmark, if the client wants them and there is something new to mark.
    fn due_bookmark(&mut self) -> Option<Bytes> {
        let reached = self.watch.as_ref().map_or(0, Watch::revision);
        if !self.bookmarks || reached <= self.last_marked {
            return None;
        }
        self.last_marked = reached;
        let mut out = BytesMut::new();
        self.renderer.bookmark(reached, false, &mut out);
        Some(out.freeze())
    }

    /// A piece of the initial state; `None` when all of it is out.
    fn initial_frame(&mut self) -> Result<Option<Bytes>, ApiError> {
        let mut out = BytesMut::new();
        while out.len() < FRAME
            && let Some(stored) = self.initial.pop_front()
        {
            self.renderer.write("ADDED", &stored, stored.revision, &mut out)?;
        }
        if self.initial.is_empty() && std::mem::take(&mut self.initial_end) {
            self.renderer.bookmark(self.after, true, &mut out);
        }
        if out.is_empty() {
            self.initial = VecDeque::new();
            return Ok(None);
        }
        Ok(Some(out.freeze()))
    }
}

/// An event with those that are here already: one alone goes out as the bytes that all its watchers share.
fn batch(first: Bytes, watch: &mut Watch, renderer: &mut Renderer) -> Result<Bytes, ApiError> {
    let Some(second) = watch.pending() else { return Ok(first) };
    let mut out = BytesMut::with_capacity(FRAME + first.len());
    out.extend_from_slice(&first);
    let mut next = Some(second);
    while let Some(delivered) = next {
        out.extend_from_slice(&renderer.event(&delivered)?);
        next = if out.len() < FRAME { watch.pending() } else { None };
    }
    Ok(out.freeze())
}

pub(super) fn watch_error(error: StorageError) -> ApiError {
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
    fn timeouts_are_the_clients_or_spread() {
        assert_eq!(timeout(Some(5)), Duration::from_secs(5));
        for asked in [None, Some(0)] {
            let chosen = timeout(asked).as_secs();
            assert!((MIN_TIMEOUT..2 * MIN_TIMEOUT).contains(&chosen), "{chosen}");
        }
    }
}
