//! The server: what every request shares ([`ApiContext`]), and the accept loop for HTTP/1.1 and HTTP/2 over TLS.
//!
//! Bounded against hostile clients: time for a handshake and for headers, streams of a connection. Upstream:
//! `apiserver/pkg/server/secure_serving.go`.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use apimachinery::status::ApiError;
use component_base::Shutdown;
use component_base::cli::BoxError;
use http::{HeaderMap, Response};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulConnection;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use crate::authn::{Authenticator, PeerIdentity};
use crate::authz::Authorizer;
use crate::body::Body;
use crate::discovery::Discovery;
use crate::endpoints::special::Handler;
use crate::health::Health;
use crate::metrics::Metrics;
use crate::pipeline;
use crate::request::Query;
use crate::store::Store;

mod gather;

use gather::gather;

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long requests in flight may take to finish after shutdown; the process has five seconds in all.
const DRAIN: Duration = Duration::from_secs(3);
/// Pause after a failed accept: it fails at once again when file descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What every endpoint can reach.
pub struct ApiContext {
    pub store: Arc<Store>,
    pub authenticator: Arc<dyn Authenticator>,
    pub authorizer: Arc<dyn Authorizer>,
    pub discovery: Discovery,
    pub health: Health,
    pub metrics: Metrics,
    /// Cancelled when the server is to stop: watches end then.
    pub shutdown: Shutdown,
    /// Pages outside the API, asked in order: OpenAPI, the token issuer's documents.
    pub pages: Vec<Page>,
    specials: Vec<Box<dyn Handler>>,
    /// (group, resource, subresource) → index in `specials`.
    special_paths: HashMap<(&'static str, &'static str, &'static str), usize>,
}

/// Answers a GET of a path outside the API, if it is its own.
pub type Page =
    Box<dyn Fn(&str, &Query, &HeaderMap) -> Option<Result<Response<Body>, ApiError>> + Send + Sync>;

impl std::fmt::Debug for ApiContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiContext").field("store", &self.store).finish_non_exhaustive()
    }
}

/// What [`ApiContext::new`] is made of.
pub struct Parts {
    pub store: Arc<Store>,
    pub authenticator: Arc<dyn Authenticator>,
    pub authorizer: Arc<dyn Authorizer>,
    pub health: Health,
    pub metrics: Metrics,
    pub specials: Vec<Box<dyn Handler>>,
    pub pages: Vec<Page>,
    pub shutdown: Shutdown,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").finish_non_exhaustive()
    }
}

impl ApiContext {
    pub fn new(parts: Parts) -> Arc<Self> {
        let Parts { store, authenticator, authorizer, health, metrics, specials, pages, shutdown } = parts;
        let special_paths: HashMap<_, _> =
            specials.iter().enumerate().map(|(index, handler)| (handler.serves(), index)).collect();
        let discovery = Discovery::new(store.resources(), special_paths.keys().copied());
        Arc::new(Self {
            store,
            authenticator,
            authorizer,
            discovery,
            health,
            metrics,
            shutdown,
            pages,
            specials,
            special_paths,
        })
    }

    /// The handler of an endpoint that is not generic storage.
    pub fn special(&self, group: &str, resource: &str, subresource: &str) -> Option<&dyn Handler> {
        let index = self.special_paths.get(&(group, resource, subresource))?;
        self.specials.get(*index).map(|handler| &**handler)
    }
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub struct Connection {
    pub address: SocketAddr,
    pub peer: Option<Arc<PeerIdentity>>,
}

/// Accepts connections until shutdown, then lets requests in flight finish.
pub async fn serve(api: Arc<ApiContext>, listener: TcpListener, tls: Arc<ServerConfig>) {
    let acceptor = TlsAcceptor::from(tls);
    let builder = Arc::new(http_builder());
    let connections = TaskTracker::new();
    while let Some(accepted) = api.shutdown.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, address)) => {
                let (api, acceptor, builder) = (Arc::clone(&api), acceptor.clone(), Arc::clone(&builder));
                connections.spawn(connection(api, acceptor, builder, stream, address));
            }
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

fn http_builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(64 << 10);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(1_000)
        .max_header_list_size(64 << 10)
        .initial_stream_window_size(256 << 10)
        .initial_connection_window_size(1 << 20)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(15));
    builder
}

async fn connection(
    api: Arc<ApiContext>,
    acceptor: TlsAcceptor,
    builder: Arc<auto::Builder<TokioExecutor>>,
    stream: TcpStream,
    address: SocketAddr,
) {
    // Frames are written whole; a failure here only means delay.
    let _ = stream.set_nodelay(true);
    let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream));
    let stream = match api.shutdown.run_until_cancelled(handshake).await {
        None => return,
        Some(Ok(Ok(stream))) => stream,
        Some(Ok(Err(error))) => return tracing::debug!(%address, %error, "TLS handshake failed"),
        Some(Err(_)) => return tracing::debug!(%address, "TLS handshake took too long"),
    };
    let connection = Connection { address, peer: peer(stream.get_ref().1) };
    let service = service_fn(|request| {
        let (api, connection) = (Arc::clone(&api), connection.clone());
        // Boxed: what a connection keeps for each open stream must not be as large as the handling of a request.
        async move { Ok::<_, Infallible>(Box::pin(pipeline::handle(api, connection, request)).await) }
    });
    let outcome = if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        let (stream, flusher) = gather(stream);
        let serving = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        drive(&api.shutdown, serving, |cx| flusher.poll_flush(cx)).await
    } else {
        let serving = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        drive(&api.shutdown, serving, |_| Poll::Ready(Ok(()))).await
    };
    if let Err(error) = outcome {
        tracing::debug!(%address, error, "connection ended");
    }
}

/// Serves a connection to its end; `flush` sends what it has written, after each poll.
async fn drive<C: GracefulConnection<Error = BoxError>>(
    shutdown: &Shutdown,
    serving: C,
    flush: impl Fn(&mut Context<'_>) -> Poll<std::io::Result<()>>,
) -> Result<(), BoxError> {
    let serving = &mut pin!(serving);
    let mut poll = |cx: &mut Context<'_>, stop: bool| {
        if stop {
            serving.as_mut().graceful_shutdown();
        }
        let outcome = serving.as_mut().poll(cx);
        match flush(cx) {
            Poll::Ready(Err(error)) if outcome.is_pending() => Poll::Ready(Err(error.into())),
            _ => outcome,
        }
    };
    tokio::select! {
        outcome = poll_fn(|cx| poll(cx, false)) => return outcome,
        () = shutdown.cancelled() => {}
    }
    let mut stop = true;
    let drained = poll_fn(|cx| poll(cx, std::mem::take(&mut stop)));
    tokio::time::timeout(DRAIN, drained).await.map_err(|_| "it did not finish in time")?
}

/// Who the verified client certificate names, if there is one.
fn peer(connection: &rustls::ServerConnection) -> Option<Arc<PeerIdentity>> {
    let leaf = connection.peer_certificates()?.first()?;
    match component_base::tls::PeerIdentity::from_der(leaf) {
        Ok(identity) => {
            let (name, groups) = (identity.common_name, identity.organizations);
            Some(Arc::new(PeerIdentity::new(name, groups, identity.not_after)))
        }
        Err(error) => {
            tracing::warn!(%error, "client certificate names nobody");
            None
        }
    }
}
