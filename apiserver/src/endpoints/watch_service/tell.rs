//! One watch: its initial state, its changes and its bookmarks, as far as its window lets it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use apimachinery::status::ApiError;
use bytes::{Bytes, BytesMut};
use http::StatusCode;
use proto::watch_v1::watch_response::Response;
use proto::watch_v1::{Bookmark, Event, EventType, Events, Open, Synced, WatchResponse};
use tokio::time::{MissedTickBehavior, interval};

use super::open::{open, request_info};
use super::window::Window;
use super::{Caller, Responses};
use crate::endpoints::watch::{BOOKMARK_EVERY, Renderer, object_in, watch_error};
use crate::storage::{self, Delivered, Stored};

/// Objects are joined into responses up to this size.
pub(super) const BATCH: usize = 64 << 10;

/// Tells a watch until it fails; returns why.
pub(super) async fn tell(caller: Caller, asked: Open, window: Arc<Window>, responses: Responses) -> ApiError {
    let started = Instant::now();
    let info = request_info(&caller, &asked);
    let measured = caller.api.metrics.begin(&info);
    // Boxed: what opening needs must not be kept for as long as the watch is open.
    let opened = match Box::pin(open(&caller, &info, &asked)).await {
        Ok(opened) => opened,
        Err(error) => {
            let code = StatusCode::from_u16(error.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            measured.end(code, started.elapsed());
            return error;
        }
    };
    let in_flight = measured.answered(StatusCode::OK, started.elapsed());
    drop((caller, info));
    let teller = Teller { id: asked.watch_id, renderer: opened.renderer, window, responses };
    let error = teller.run(opened.watch, opened.initial, opened.after, asked.bookmarks).await;
    drop(in_flight);
    error
}

struct Teller {
    id: u64,
    renderer: Renderer,
    window: Arc<Window>,
    responses: Responses,
}

/// Events that go out together.
#[derive(Default)]
struct Batch {
    events: Vec<Event>,
    bytes: usize,
}

impl Batch {
    fn push(&mut self, kind: storage::EventType, resource_version: i64, object: Bytes) {
        let r#type = match kind {
            storage::EventType::Added => EventType::Added,
            storage::EventType::Modified => EventType::Modified,
            storage::EventType::Deleted => EventType::Deleted,
        };
        self.bytes += object.len();
        self.events.push(Event { r#type: r#type.into(), resource_version, object });
    }

    fn has_room(&self, window: &Window) -> bool {
        self.bytes < BATCH.min(window.left())
    }
}

impl Teller {
    /// Never ends well: a watch has no end of its own.
    async fn run(
        mut self,
        mut watch: storage::Watch,
        initial: Option<VecDeque<Arc<Stored>>>,
        after: i64,
        bookmarks: bool,
    ) -> ApiError {
        if let Some(initial) = initial
            && let Err(error) = self.state(initial, after).await
        {
            return error;
        }
        let mut marked = after;
        let mut tick = interval(BOOKMARK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tick.reset();
        loop {
            self.window.wait().await;
            tokio::select! {
                biased;
                delivered = watch.next() => {
                    let sent = match delivered {
                        Ok(first) => self.changes(first, &mut watch).await,
                        Err(error) => Err(watch_error(error)),
                    };
                    if let Err(error) = sent {
                        return error;
                    }
                }
                _ = tick.tick(), if bookmarks => {
                    let reached = watch.revision();
                    if reached > marked {
                        marked = reached;
                        self.send(Response::Bookmark(Bookmark { resource_version: reached })).await;
                    }
                }
            }
        }
    }

    /// The state, closed by the mark that it is complete.
    async fn state(&mut self, mut objects: VecDeque<Arc<Stored>>, revision: i64) -> Result<(), ApiError> {
        let kind = storage::EventType::Added;
        while !objects.is_empty() {
            self.window.wait().await;
            let mut batch = Batch::default();
            while batch.has_room(&self.window)
                && let Some(stored) = objects.pop_front()
            {
                let mut line = BytesMut::new();
                self.renderer.write(kind.as_str(), &stored, stored.revision, &mut line)?;
                batch.push(kind, stored.revision, object_in(&line.freeze(), kind.as_str()));
            }
            self.send_batch(batch).await;
        }
        self.send(Response::Synced(Synced { resource_version: revision })).await;
        Ok(())
    }

    /// A change, with those that are here already.
    async fn changes(&mut self, first: Delivered, watch: &mut storage::Watch) -> Result<(), ApiError> {
        let mut batch = Batch::default();
        let mut next = Some(first);
        while let Some(delivered) = next {
            let line = self.renderer.event(&delivered)?;
            let object = object_in(&line, delivered.kind.as_str());
            batch.push(delivered.kind, delivered.event.revision, object);
            next = if batch.has_room(&self.window) { watch.pending() } else { None };
        }
        self.send_batch(batch).await;
        Ok(())
    }

    async fn send_batch(&self, batch: Batch) {
        self.window.take(batch.bytes);
        self.send(Response::Events(Events { events: batch.events })).await;
    }

    async fn send(&self, response: Response) {
        // Fails when the client is gone, which ends the session and this task with it.
        let _ = self.responses.send(Ok(WatchResponse { watch_id: self.id, response: Some(response) })).await;
    }
}
