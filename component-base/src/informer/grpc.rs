//! Watches over our gRPC watch service (`proto/watch/v1/watch.proto`).

mod connect;
mod session;

use std::{
    sync::{Arc, atomic::AtomicU64},
    vec,
};

use futures::{StreamExt as _, stream};
use proto::watch_v1::{self, EventType, Open, Representation, watch_response::Response};

use super::{
    Object, decode,
    source::{Event, EventStream, Query, SourceError, WatchFrom},
};
pub(super) use connect::{ConnectError, connect};
pub(super) use session::Session;
use session::{Message, Watch};

/// Opens a watch; `None` when the stream has ended. Whatever the server has against it comes as an event.
pub(super) fn watch<K: Object>(
    session: &Arc<Session>,
    query: &Query,
    from: &WatchFrom,
    malformed: Arc<AtomicU64>,
) -> Result<Option<EventStream<K>>, SourceError> {
    let resource_version = match from {
        WatchFrom::InitialEvents => 0,
        WatchFrom::Version(version) => match version.parse() {
            Ok(version @ 1..) => version,
            _ => return Err(SourceError::Expired(format!("{version:?} is no version to watch from"))),
        },
    };
    let open = Open {
        group: query.group.to_owned(),
        version: query.version.to_owned(),
        resource: query.resource.to_owned(),
        namespace: query.namespace.clone().unwrap_or_default(),
        label_selector: query.label_selector.clone().unwrap_or_default(),
        field_selector: query.field_selector.clone().unwrap_or_default(),
        resource_version,
        representation: Representation::Json.into(),
        bookmarks: true,
        ..Open::default()
    };
    let Some(watch) = session.open(open) else { return Ok(None) };
    let reading = Reading { watch, batch: Vec::new().into_iter(), malformed };
    let events = stream::unfold(reading, |mut reading| async move { Some((reading.next().await?, reading)) });
    Ok(Some(events.boxed()))
}

struct Reading {
    watch: Watch,
    batch: vec::IntoIter<watch_v1::Event>,
    malformed: Arc<AtomicU64>,
}

impl Reading {
    async fn next<K: Object>(&mut self) -> Option<Result<Event<K>, SourceError>> {
        loop {
            if let Some(event) = self.batch.next() {
                self.watch.took(event.object.len());
                return Some(decode_event(&event, &self.malformed));
            }
            match self.watch.next().await? {
                Message::Response(Response::Events(events)) => self.batch = events.events.into_iter(),
                Message::Response(Response::Synced(synced)) => {
                    return Some(Ok(bookmark(synced.resource_version, true)));
                }
                Message::Response(Response::Bookmark(marked)) => {
                    return Some(Ok(bookmark(marked.resource_version, false)));
                }
                Message::Response(Response::Closed(closed)) => {
                    let code = u16::try_from(closed.code).unwrap_or_default();
                    let error = SourceError::from_status(code, closed.message, closed.retry_after_seconds);
                    return Some(Ok(Event::Error(error)));
                }
                Message::Lost(status) => return Some(Err(SourceError::Disconnected(status))),
            }
        }
    }
}

fn bookmark<K>(resource_version: i64, initial_events_end: bool) -> Event<K> {
    Event::Bookmark { resource_version: resource_version.to_string(), initial_events_end }
}

fn decode_event<K: Object>(event: &watch_v1::Event, malformed: &AtomicU64) -> Result<Event<K>, SourceError> {
    let made: fn(K) -> Event<K> = match event.r#type() {
        EventType::Added => Event::Added,
        EventType::Modified => Event::Modified,
        EventType::Deleted => Event::Deleted,
        EventType::Unspecified => {
            return Err(SourceError::Malformed(format!("unknown watch event type {}", event.r#type)));
        }
    };
    Ok(match decode::object(&event.object, malformed) {
        Ok(object) => made(object),
        Err(mut remains) => {
            remains.resource_version = Some(event.resource_version.to_string());
            remains.into_event(event.r#type() == EventType::Deleted)
        }
    })
}

#[cfg(test)]
mod tests;
