//! Watches over the gRPC watch service (`proto/watch/v1/watch.proto`): one stream for each server, shared by all its
//! watches as daemons share it, with small windows so that flow control is at work too.

use super::client::item;
use super::connection::Target;
use super::objects::selectors;
use crate::history::{EventType, Scope, Sent, Start};
use anyhow::{Context as _, Result, bail};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use parking_lot::Mutex;
use proto::watch_v1::watch_client::WatchClient;
use proto::watch_v1::watch_request::Request;
use proto::watch_v1::watch_response::Response;
use proto::watch_v1::{self, Cancel, Credit, Open, WatchRequest, WatchResponse};
use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;

/// Bytes of objects under way in one watch: a few objects.
const WINDOW: u32 = 8 << 10;

/// The streams to all servers, opened when needed.
#[derive(Debug)]
pub struct Sessions(Vec<tokio::sync::Mutex<Option<Arc<Session>>>>);

#[derive(Debug)]
struct Session {
    requests: mpsc::UnboundedSender<WatchRequest>,
    routes: Mutex<Routes>,
}

#[derive(Debug, Default)]
struct Routes {
    last_id: u64,
    open: HashMap<u64, mpsc::UnboundedSender<Response>>,
    /// The stream has ended.
    ended: bool,
}

/// One watch of a stream.
#[derive(Debug)]
pub(super) struct GrpcStream {
    session: Arc<Session>,
    id: u64,
    responses: mpsc::UnboundedReceiver<Response>,
    events: VecDeque<watch_v1::Event>,
}

impl Sessions {
    /// None open yet.
    pub fn new(servers: usize) -> Sessions {
        Sessions((0..servers).map(|_| tokio::sync::Mutex::default()).collect())
    }

    /// Whether a server has the service.
    ///
    /// # Errors
    /// It cannot be reached.
    pub async fn offered(&self, target: &Target, server: usize) -> Result<bool> {
        match Session::start(target, server).await {
            Ok(_) => Ok(true),
            Err(error) if error.chain().any(|cause| cause.is::<NotGrpc>()) => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn open(
        &self,
        target: &Target,
        server: usize,
        scope: &Scope,
        start: Start,
    ) -> Result<GrpcStream> {
        let mut slot = self.0[server].lock().await;
        let usable = slot.as_ref().filter(|session| !session.routes.lock().ended);
        let session = match usable {
            Some(session) => Arc::clone(session),
            None => Arc::clone(slot.insert(Session::start(target, server).await?)),
        };
        drop(slot);
        session.watch(scope, start)
    }
}

impl Session {
    async fn start(target: &Target, server: usize) -> Result<Arc<Session>> {
        let sender = OverHttp2(target.handshake(server).await?);
        let mut client = WatchClient::with_origin(sender, http::Uri::from_static("https://127.0.0.1"));
        let (requests, receiver) = mpsc::unbounded_channel();
        let mut responses = client.watch(UnboundedReceiverStream::new(receiver)).await?.into_inner();
        let session = Arc::new(Session { requests, routes: Mutex::default() });
        let routing = Arc::clone(&session);
        tokio::spawn(async move {
            // Its error is the end of all its watches.
            while let Ok(Some(response)) = responses.message().await {
                routing.route(response);
            }
            let mut routes = routing.routes.lock();
            routes.ended = true;
            routes.open.clear();
        });
        Ok(session)
    }

    fn route(&self, response: WatchResponse) {
        let mut routes = self.routes.lock();
        let (id, Some(response)) = (response.watch_id, response.response) else { return };
        let closed = matches!(response, Response::Closed(_));
        if let Some(watch) = routes.open.get(&id) {
            // Whoever is gone has cancelled.
            let _ = watch.send(response);
        }
        if closed {
            routes.open.remove(&id);
        }
    }

    fn send(&self, request: Request) -> Result<()> {
        self.requests.send(WatchRequest { request: Some(request) }).context("the stream has ended")
    }

    fn watch(self: Arc<Self>, scope: &Scope, start: Start) -> Result<GrpcStream> {
        let (sender, responses) = mpsc::unbounded_channel();
        let mut routes = self.routes.lock();
        if routes.ended {
            bail!("the stream has ended");
        }
        routes.last_id += 1;
        let id = routes.last_id;
        routes.open.insert(id, sender);
        drop(routes);
        let (label_selector, field_selector) = selectors(scope);
        self.send(Request::Open(Open {
            watch_id: id,
            version: "v1".to_owned(),
            resource: scope.resource.plural().to_owned(),
            namespace: scope.namespace.clone().unwrap_or_default(),
            label_selector,
            field_selector,
            resource_version: match start {
                Start::After(revision) => revision,
                Start::InitialEvents(_) => 0,
            },
            bookmarks: true,
            window_bytes: WINDOW,
            ..Open::default()
        }))?;
        Ok(GrpcStream { session: self, id, responses, events: VecDeque::new() })
    }
}

impl GrpcStream {
    pub(super) async fn next(&mut self) -> Result<Option<Sent>> {
        loop {
            if let Some(event) = self.events.pop_front() {
                let bytes = u32::try_from(event.object.len())?;
                self.session.send(Request::Credit(Credit { watch_id: self.id, bytes }))?;
                return sent(&event).map(Some);
            }
            match self.responses.recv().await {
                None => return Ok(None),
                Some(Response::Events(events)) => self.events.extend(events.events),
                Some(Response::Synced(synced)) => {
                    let revision = synced.resource_version;
                    return Ok(Some(Sent::Bookmark { revision, initial_end: true }));
                }
                Some(Response::Bookmark(marked)) => {
                    let revision = marked.resource_version;
                    return Ok(Some(Sent::Bookmark { revision, initial_end: false }));
                }
                Some(Response::Closed(closed)) => {
                    let code = u16::try_from(closed.code)?;
                    let reason = format!("{}: {}", closed.reason, closed.message);
                    return Ok(Some(Sent::Error { code, reason }));
                }
            }
        }
    }
}

impl Drop for GrpcStream {
    fn drop(&mut self) {
        if self.session.routes.lock().open.remove(&self.id).is_some() {
            // A stream that has ended has no watches to cancel.
            let _ = self.session.send(Request::Cancel(Cancel { watch_id: self.id }));
        }
    }
}

fn sent(event: &watch_v1::Event) -> Result<Sent> {
    let kind = match event.r#type() {
        watch_v1::EventType::Added => EventType::Added,
        watch_v1::EventType::Modified => EventType::Modified,
        watch_v1::EventType::Deleted => EventType::Deleted,
        watch_v1::EventType::Unspecified => bail!("an event of type {}", event.r#type),
    };
    let item = item(&serde_json::from_slice(&event.object)?).context("an event without an object")?;
    let (shown, said) = (item.version.revision, event.resource_version);
    anyhow::ensure!(shown == said, "an event at {said} with an object at {shown}");
    Ok(Sent::Event { kind, item })
}

/// The answer of a server that does not have the service.
#[derive(Debug, thiserror::Error)]
#[error("the answer is not gRPC: {0}")]
struct NotGrpc(http::StatusCode);

/// Lets tonic speak over a connection of ours.
#[derive(Debug, Clone)]
struct OverHttp2(SendRequest<tonic::body::Body>);

impl tower::Service<http::Request<tonic::body::Body>> for OverHttp2 {
    type Response = http::Response<Incoming>;
    type Error = tower::BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, tower::BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), tower::BoxError>> {
        self.0.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let answering = self.0.send_request(request);
        Box::pin(async move {
            let answer = answering.await?;
            let media_type = answer.headers().get(http::header::CONTENT_TYPE);
            if media_type.is_some_and(|media_type| media_type.as_bytes().starts_with(b"application/grpc")) {
                Ok(answer)
            } else {
                Err(NotGrpc(answer.status()).into())
            }
        })
    }
}
