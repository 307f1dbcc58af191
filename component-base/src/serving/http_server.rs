//! An accept loop for HTTP/1.1 and HTTP/2, over TLS or plain, that hostile clients cannot exhaust.
//!
//! Bounded: connections at a time, time for the TLS handshake, time and size of request headers, streams of an
//! HTTP/2 connection. A connection over the limit waits in the kernel's queue. Upgrades (WebSocket, SPDY) pass
//! through. On shutdown no connection is accepted any more, those in use finish what they do, for two seconds.

use std::{convert::Infallible, fmt, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Empty, Full, combinators::BoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use crate::{Shutdown, cli::BoxError, error_chain::Chain, tls::PeerIdentity};

/// How long connections may take to finish after shutdown.
const GRACE: Duration = Duration::from_secs(2);
/// Pause after a failed accept: it fails at once again when file descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The body of an answer.
pub type ResponseBody = BoxBody<Bytes, BoxError>;

/// Answers requests.
pub type Handler =
    Arc<dyn Fn(Request<Incoming>, Peer) -> BoxFuture<'static, Response<ResponseBody>> + Send + Sync>;

/// Who sent a request.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Where from.
    pub address: SocketAddr,
    /// The verified client certificate's identity, if one was given.
    pub identity: Option<Arc<PeerIdentity>>,
}

/// Bounds on clients.
#[derive(Clone, Copy)]
pub struct Limits {
    /// Connections at a time.
    pub connections: usize,
    /// Time for a TLS handshake.
    pub handshake: Duration,
    /// Time for the headers of an HTTP/1.1 request, and of an idle HTTP/1.1 connection.
    pub headers: Duration,
    /// Requests at a time on one HTTP/2 connection.
    pub streams: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            handshake: Duration::from_secs(10),
            headers: Duration::from_secs(30),
            streams: 100,
        }
    }
}

impl fmt::Debug for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limits").field("connections", &self.connections).finish_non_exhaustive()
    }
}

/// A body of bytes in hand.
#[must_use]
pub fn full(bytes: impl Into<Bytes>) -> ResponseBody {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

/// No body.
#[must_use]
pub fn empty() -> ResponseBody {
    Empty::new().map_err(|never| match never {}).boxed()
}

/// Accepts and serves until `shutdown`, then finishes.
pub async fn run(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    limits: Limits,
    handler: Handler,
    shutdown: Shutdown,
) {
    let acceptor = tls.map(TlsAcceptor::from);
    let permits = Arc::new(Semaphore::new(limits.connections));
    let server =
        Arc::new(Server { acceptor, limits, handler, builder: builder(&limits), shutdown: shutdown.clone() });
    let connections = TaskTracker::new();
    while let Some((stream, address, permit)) =
        shutdown.run_until_cancelled(accept(&listener, &permits)).await
    {
        let server = Arc::clone(&server);
        connections.spawn(async move {
            server.connection(stream, address).await;
            drop(permit);
        });
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
    let permit = Arc::clone(permits).acquire_owned().await.expect("the semaphore is never closed");
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                // Answers are written whole; a failure here only means delay.
                let _ = stream.set_nodelay(true);
                return (stream, address, permit);
            }
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

struct Server {
    acceptor: Option<TlsAcceptor>,
    limits: Limits,
    handler: Handler,
    builder: auto::Builder<TokioExecutor>,
    shutdown: Shutdown,
}

fn builder(limits: &Limits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits.headers).max_buf_size(64 << 10);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(64 << 10)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(15));
    builder
}

impl Server {
    async fn connection(&self, stream: TcpStream, address: SocketAddr) {
        let Some(acceptor) = &self.acceptor else {
            return self.requests(stream, Peer { address, identity: None }).await;
        };
        let handshake = tokio::time::timeout(self.limits.handshake, acceptor.accept(stream));
        // A client that has not finished its handshake has nothing to lose by shutdown.
        match self.shutdown.run_until_cancelled(handshake).await {
            None => {}
            Some(Ok(Ok(stream))) => {
                let identity = identity(stream.get_ref().1, address);
                self.requests(stream, Peer { address, identity }).await;
            }
            Some(Ok(Err(error))) => tracing::debug!(%address, %error, "TLS handshake failed"),
            Some(Err(_)) => tracing::debug!(%address, "TLS handshake took too long"),
        }
    }

    async fn requests(&self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, peer: Peer) {
        let address = peer.address;
        let service = service_fn(move |request| {
            let answer = (self.handler)(request, peer.clone());
            async move { Ok::<_, Infallible>(answer.await) }
        });
        let mut connection = pin!(self.builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
        let outcome = tokio::select! {
            outcome = connection.as_mut() => outcome,
            () = self.shutdown.cancelled() => {
                connection.as_mut().graceful_shutdown();
                match tokio::time::timeout(GRACE, connection).await {
                    Ok(outcome) => outcome,
                    Err(_) => return tracing::debug!(%address, "connection cut, it did not finish in time"),
                }
            }
        };
        if let Err(error) = outcome {
            tracing::debug!(%address, error = %Chain(&*error), "connection ended");
        }
    }
}

/// Who the verified certificate of a connection names.
fn identity(connection: &rustls::ServerConnection, address: SocketAddr) -> Option<Arc<PeerIdentity>> {
    let leaf = connection.peer_certificates()?.first()?;
    match PeerIdentity::from_der(leaf) {
        Ok(identity) => Some(Arc::new(identity)),
        Err(error) => {
            tracing::warn!(%address, error = %Chain(&error), "client certificate names nobody");
            None
        }
    }
}
