//! One stream of the watch service, and the watches that share it.
//!
//! A task hands each response to its watch and never waits for one: what a watch has not taken in yet is bounded by the
//! window that it gave the server, so a slow one delays no other.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use proto::watch_v1::{
    Cancel, Credit, Open, WatchRequest, WatchResponse, watch_request::Request, watch_response::Response,
};
use tokio::{sync::mpsc, task::AbortHandle};
use tonic::{Status, Streaming};

/// Bytes of objects that a watch lets the server send ahead: a round trip of 50 ms still carries 20 MB/s.
const WINDOW: u32 = 1 << 20;

/// What a watch receives.
#[derive(Debug)]
pub(super) enum Message {
    Response(Response),
    /// The stream broke.
    Lost(Arc<Status>),
}

/// See the module.
#[derive(Debug)]
pub(in crate::informer) struct Session {
    /// Without a limit, yet bounded: a watch sends an Open, a Cancel, and a Credit for each half window that it was sent.
    requests: mpsc::UnboundedSender<WatchRequest>,
    routes: Arc<Mutex<Routes>>,
    reader: AbortHandle,
}

#[derive(Debug, Default)]
struct Routes {
    last_id: u64,
    open: HashMap<u64, mpsc::UnboundedSender<Message>>,
    ended: bool,
}

impl Session {
    /// Takes over a stream that the server has accepted.
    pub(super) fn start(
        requests: mpsc::UnboundedSender<WatchRequest>,
        responses: Streaming<WatchResponse>,
    ) -> Arc<Self> {
        let routes = Arc::new(Mutex::new(Routes::default()));
        let reader = tokio::spawn(read(responses, Arc::clone(&routes))).abort_handle();
        Arc::new(Self { requests, routes, reader })
    }

    pub(in crate::informer) fn is_open(&self) -> bool {
        !self.routes.lock().ended
    }

    /// Opens a watch, whose id and window are filled in here; `None` when the stream has ended.
    pub(super) fn open(self: &Arc<Self>, open: Open) -> Option<Watch> {
        let (sender, messages) = mpsc::unbounded_channel();
        let id = {
            let mut routes = self.routes.lock();
            if routes.ended {
                return None;
            }
            routes.last_id += 1;
            let id = routes.last_id;
            routes.open.insert(id, sender);
            id
        };
        self.send(Request::Open(Open { watch_id: id, window_bytes: WINDOW, ..open }));
        Some(Watch { session: Arc::clone(self), id, messages, taken: 0 })
    }

    fn send(&self, request: Request) {
        // Fails when the stream has ended, which the reader tells every watch.
        let _ = self.requests.send(WatchRequest { request: Some(request) });
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

async fn read(mut responses: Streaming<WatchResponse>, routes: Arc<Mutex<Routes>>) {
    let lost = loop {
        match responses.message().await {
            Ok(Some(response)) => routes.lock().deliver(response),
            Ok(None) => break None,
            Err(status) => break Some(Arc::new(status)),
        }
    };
    let mut routes = routes.lock();
    routes.ended = true;
    for (_, watch) in routes.open.drain() {
        if let Some(status) = &lost {
            // Fails when the watch was dropped.
            let _ = watch.send(Message::Lost(Arc::clone(status)));
        }
    }
}

impl Routes {
    fn deliver(&mut self, response: WatchResponse) {
        // What is unknown here comes from a newer server; an id that is not open was cancelled a moment ago.
        let (id, Some(response)) = (response.watch_id, response.response) else { return };
        let watch = match response {
            Response::Closed(_) => self.open.remove(&id),
            _ => self.open.get(&id).cloned(),
        };
        if let Some(watch) = watch {
            // Fails when the watch was dropped.
            let _ = watch.send(Message::Response(response));
        }
    }
}

/// One watch; dropping it cancels it.
#[derive(Debug)]
pub(super) struct Watch {
    session: Arc<Session>,
    id: u64,
    messages: mpsc::UnboundedReceiver<Message>,
    /// Bytes of objects since the last Credit.
    taken: u32,
}

impl Watch {
    /// The next message; `None` at the orderly end of the stream, and after Closed.
    pub(super) async fn next(&mut self) -> Option<Message> {
        self.messages.recv().await
    }

    /// Gives back the room of an object that has been taken in.
    pub(super) fn took(&mut self, bytes: usize) {
        self.taken = self.taken.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        if self.taken >= WINDOW / 2 {
            let bytes = std::mem::take(&mut self.taken);
            self.session.send(Request::Credit(Credit { watch_id: self.id, bytes }));
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Not there any more when the server closed it.
        if self.session.routes.lock().open.remove(&self.id).is_some() {
            self.session.send(Request::Cancel(Cancel { watch_id: self.id }));
        }
    }
}
