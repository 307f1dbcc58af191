//! The floor of the benchmark: a server that answers what `bench` asks with bytes that it has at hand.
//!
//! It stands on what kube-apiserver stands on (tokio, hyper, rustls, etcd-client, mimalloc, the same settings) and does what
//! no API server can leave out: TLS, HTTP/2, and one etcd transaction for each write. It reads no JSON, knows no users, checks
//! nothing, and keeps no history. What a real server takes beyond this, on the same machine in the same minute, is its own.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use anyhow::{Context, Result, ensure};
use bytes::{Bytes, BytesMut};
use clap::Parser;
use component_base::tls;
use etcd_client::{Client, Compare, CompareOp, KvClient, Txn, TxnOp};
use futures::stream::{self, BoxStream, StreamExt};
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Either, Full, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use memchr::memmem;
use parking_lot::{Mutex, RwLock};
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio_rustls::TlsAcceptor;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Events that a watcher may be behind.
const BACKLOG: usize = 16_384;
/// Bytes of defaults and metadata that an API server adds to a pod.
const ADDED: usize = 700;
/// Lists are sent in pieces of about this.
const CHUNK: usize = 64 << 10;

/// A server of canned answers, to be measured by `bench --floor`. It takes kube-apiserver's flags and ignores those of them
/// that are not shown here.
#[derive(Debug, Parser)]
struct Args {
    #[arg(long)]
    etcd_servers: String,
    #[arg(long)]
    secure_port: u16,
    #[arg(long)]
    client_ca_file: PathBuf,
    #[arg(long)]
    tls_cert_file: PathBuf,
    #[arg(long)]
    tls_private_key_file: PathBuf,
    #[arg(long, hide = true)]
    bind_address: Option<String>,
    #[arg(long, hide = true)]
    advertise_address: Option<String>,
    #[arg(long, hide = true)]
    service_account_key_file: Option<PathBuf>,
    #[arg(long, hide = true)]
    service_account_signing_key_file: Option<PathBuf>,
    #[arg(long, hide = true)]
    service_account_issuer: Option<String>,
    #[arg(long, hide = true)]
    service_cluster_ip_range: Option<String>,
    #[arg(long, hide = true)]
    authorization_mode: Option<String>,
}

type Body = Either<Full<Bytes>, StreamBody<BoxStream<'static, Result<Frame<Bytes>, Infallible>>>>;

struct Canned {
    kv: KvClient,
    revision: AtomicI64,
    /// Objects by path.
    objects: RwLock<BTreeMap<String, Bytes>>,
    /// The pieces of a list of all, until an object comes or goes.
    list: Mutex<Option<Vec<Bytes>>>,
    events: broadcast::Sender<Bytes>,
    /// Every watch begins with it: the load generator asks for what came after the last revision but one.
    last: Mutex<Option<Bytes>>,
}

fn main() -> Result<()> {
    // As kube-apiserver.
    let workers = (std::thread::available_parallelism()?.get() / 2).clamp(1, 8);
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(workers).enable_all().build()?.block_on(run(Args::parse()))
}

async fn run(args: Args) -> Result<()> {
    let client = Client::connect(args.etcd_servers.split(',').collect::<Vec<_>>(), None).await?;
    let tls = tls::server_config_from_files(
        &args.tls_cert_file,
        &args.tls_private_key_file,
        Some(&args.client_ca_file),
    )?;
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let canned = Arc::new(Canned {
        kv: client.kv_client(),
        revision: AtomicI64::new(1),
        objects: RwLock::default(),
        list: Mutex::default(),
        events: broadcast::channel(BACKLOG).0,
        last: Mutex::default(),
    });
    let listener = TcpListener::bind(("127.0.0.1", args.secure_port)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (acceptor, canned) = (acceptor.clone(), Arc::clone(&canned));
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = service_fn(|request| {
                let canned = Arc::clone(&canned);
                async move { Ok::<_, Infallible>(canned.answer(request).await) }
            });
            let mut builder = auto::Builder::new(TokioExecutor::new());
            builder
                .http2()
                .max_concurrent_streams(1_000)
                .initial_stream_window_size(256 << 10)
                .initial_connection_window_size(1 << 20);
            // A connection that the load generator closes has nothing to tell.
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

impl Canned {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        match self.handle(request).await {
            Ok(response) => response,
            Err(error) => whole(StatusCode::INTERNAL_SERVER_ERROR, Bytes::from(format!("{error:#}"))),
        }
    }

    async fn handle(&self, request: Request<Incoming>) -> Result<Response<Body>> {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path();
        let query = parts.uri.query().unwrap_or_default();
        match parts.method {
            Method::POST => self.create(path, body.collect().await?.to_bytes()).await,
            Method::PATCH => {
                body.collect().await?;
                self.patch(path).await
            }
            Method::DELETE => self.delete(path).await,
            _ if path == "/readyz" => Ok(whole(StatusCode::OK, Bytes::from_static(b"ok"))),
            _ if query.contains("watch=true") => Ok(self.watch()),
            _ if path.ends_with("/pods") => Ok(self.list(query)),
            _ => match self.objects.read().get(path) {
                Some(object) => Ok(whole(StatusCode::OK, object.clone())),
                None => Ok(whole(StatusCode::NOT_FOUND, Bytes::new())),
            },
        }
    }

    async fn create(&self, path: &str, object: Bytes) -> Result<Response<Body>> {
        let path = format!("{path}/{}", name(&object).context("an object without a name")?);
        let object = padded(&object);
        let txn = Txn::new()
            .when([Compare::mod_revision(path.as_str(), CompareOp::Equal, 0)])
            .and_then([TxnOp::put(path.as_str(), object.as_ref(), None)])
            .or_else([TxnOp::get(path.as_str(), None)]);
        self.commit(txn).await?;
        self.objects.write().insert(path, object.clone());
        self.list.lock().take();
        Ok(whole(StatusCode::CREATED, object))
    }

    async fn patch(&self, path: &str) -> Result<Response<Body>> {
        let object = self.objects.read().get(path).cloned().context("no such object")?;
        self.commit(Txn::new().and_then([TxnOp::put(path, object.as_ref(), None)])).await?;
        let mut event = BytesMut::with_capacity(object.len() + 40);
        event.extend_from_slice(br#"{"type":"MODIFIED","object":"#);
        event.extend_from_slice(&object);
        event.extend_from_slice(b"}\n");
        let event = event.freeze();
        *self.last.lock() = Some(event.clone());
        // Nobody may be watching.
        let _ = self.events.send(event);
        Ok(whole(StatusCode::OK, object))
    }

    async fn delete(&self, path: &str) -> Result<Response<Body>> {
        self.commit(Txn::new().and_then([TxnOp::delete(path, None)])).await?;
        let object = self.objects.write().remove(path).context("no such object")?;
        self.list.lock().take();
        Ok(whole(StatusCode::OK, object))
    }

    async fn commit(&self, txn: Txn) -> Result<()> {
        let done = self.kv.clone().txn(txn).await?;
        ensure!(done.succeeded(), "the object was there already");
        self.revision.fetch_max(done.header().map_or(0, |header| header.revision()), Ordering::Relaxed);
        Ok(())
    }

    fn list(&self, query: &str) -> Response<Body> {
        let revision = self.revision.load(Ordering::Relaxed);
        let head = format!(
            r#"{{"kind":"PodList","apiVersion":"v1","metadata":{{"resourceVersion":"{revision}"}},"items":["#
        );
        if query.contains("labelSelector=") || query.contains("limit=") {
            return whole(StatusCode::OK, Bytes::from(head + "]}\n"));
        }
        let mut list = self.list.lock();
        let pieces = list.get_or_insert_with(|| self.pieces()).clone();
        streamed(stream::iter([Bytes::from(head)].into_iter().chain(pieces)).boxed())
    }

    fn pieces(&self) -> Vec<Bytes> {
        let mut pieces = Vec::new();
        let mut piece = BytesMut::new();
        let objects = self.objects.read();
        let pods = (Bound::Included("/api/v1/namespaces/bench/pods/"), Bound::Unbounded);
        for (index, (_, object)) in objects.range::<str, _>(pods).enumerate() {
            if index > 0 {
                piece.extend_from_slice(b",");
            }
            piece.extend_from_slice(object);
            if piece.len() >= CHUNK {
                pieces.push(piece.split().freeze());
            }
        }
        piece.extend_from_slice(b"]}\n");
        pieces.push(piece.freeze());
        pieces
    }

    fn watch(&self) -> Response<Body> {
        let events = stream::unfold(self.events.subscribe(), |mut events| async move {
            // One that falls behind ends, and the load generator complains.
            events.recv().await.ok().map(|event| (event, events))
        });
        let last = stream::iter(self.last.lock().clone());
        streamed(last.chain(events).boxed())
    }
}

/// An object as large as an API server would have made it.
fn padded(object: &[u8]) -> Bytes {
    let mut padded = BytesMut::with_capacity(object.len() + ADDED);
    padded.extend_from_slice(br#"{"added":""#);
    padded.resize(ADDED - 2, b'x');
    padded.extend_from_slice(br#"","#);
    padded.extend_from_slice(object.get(1..).unwrap_or_default());
    padded.freeze()
}

/// What stands after the first `"name":`, which in the bodies of the load generator is the object's own.
fn name(object: &[u8]) -> Option<&str> {
    const NAME: &[u8] = br#""name":""#;
    let rest = &object[memmem::find(object, NAME)? + NAME.len()..];
    std::str::from_utf8(&rest[..memchr::memchr(b'"', rest)?]).ok()
}

fn json(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn whole(status: StatusCode, body: Bytes) -> Response<Body> {
    json(status, Either::Left(Full::new(body)))
}

fn streamed(pieces: BoxStream<'static, Bytes>) -> Response<Body> {
    let frames = pieces.map(|piece| Ok(Frame::data(piece))).boxed();
    json(StatusCode::OK, Either::Right(StreamBody::new(frames)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_without_reading_json() {
        assert_eq!(
            name(br#"{"kind":"Pod","metadata":{"name":"pod-1","labels":{"name":"x"}}}"#),
            Some("pod-1")
        );
        assert_eq!(name(br#"{"kind":"Pod"}"#), None);
        assert_eq!(name(br#"{"name":"open"#), None);
    }
}
