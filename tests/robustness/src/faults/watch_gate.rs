//! A gRPC proxy in front of a member of etcd that can hold back what watches are told while all else passes: an API
//! server whose view of the world stands still, though it can read and write.

use anyhow::Result;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

/// The method whose answers are held back.
const WATCH: &str = "/etcdserverpb.Watch/Watch";

/// See the module. It ends with the runtime that it was started on.
#[derive(Debug, Clone)]
pub struct WatchGate {
    port: u16,
    open: Arc<watch::Sender<bool>>,
}

impl WatchGate {
    /// Listens on a free port and leads to `target`, another port on loopback.
    ///
    /// # Errors
    /// It cannot listen.
    pub async fn start(target: u16) -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let gate = Self { port: listener.local_addr()?.port(), open: Arc::new(watch::Sender::new(true)) };
        let open = Arc::clone(&gate.open);
        tokio::spawn(async move {
            while let Ok((inbound, _)) = listener.accept().await {
                let open = open.subscribe();
                tokio::spawn(async move {
                    // Whoever is connected learns of an error by the end of the connection.
                    drop(carry(inbound, target, open).await);
                });
            }
        });
        Ok(gate)
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Holds back what watches are told, until [`Self::thaw`].
    pub fn freeze(&self) {
        self.open.send_replace(false);
    }

    /// Lets everything pass, what was held back first.
    pub fn thaw(&self) {
        self.open.send_replace(true);
    }
}

/// Serves one connection with one of its own; the end of either ends both.
async fn carry(inbound: TcpStream, target: u16, open: watch::Receiver<bool>) -> Result<()> {
    inbound.set_nodelay(true)?;
    let outbound = TcpStream::connect(("127.0.0.1", target)).await?;
    outbound.set_nodelay(true)?;
    let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (sender, connection) = builder.handshake::<_, Incoming>(TokioIo::new(outbound)).await?;
    let service = service_fn(move |request| forward(sender.clone(), request, open.clone()));
    let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    tokio::select! {
        ended = connection => ended?,
        ended = server.serve_connection(TokioIo::new(inbound), service) => ended?,
    }
    Ok(())
}

async fn forward(
    mut sender: SendRequest<Incoming>,
    request: Request<Incoming>,
    open: watch::Receiver<bool>,
) -> Result<Response<BoxBody<Bytes, hyper::Error>>, hyper::Error> {
    let gated = request.uri().path() == WATCH;
    sender.ready().await?;
    let (head, body) = sender.send_request(request).await?.into_parts();
    let body = if gated { held(body, open) } else { body.boxed() };
    Ok(Response::from_parts(head, body))
}

/// A body whose frames pass only while the gate is open.
fn held(mut body: Incoming, mut open: watch::Receiver<bool>) -> BoxBody<Bytes, hyper::Error> {
    let (sender, receiver) = mpsc::channel::<Result<Frame<Bytes>, hyper::Error>>(16);
    tokio::spawn(async move {
        loop {
            let frame = tokio::select! {
                frame = body.frame() => frame,
                () = sender.closed() => return,
            };
            let Some(frame) = frame else { return };
            if open.wait_for(|open| *open).await.is_err() || sender.send(frame).await.is_err() {
                return;
            }
        }
    });
    BodyExt::boxed(StreamBody::new(ReceiverStream::new(receiver)))
}
