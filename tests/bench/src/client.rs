//! A light HTTP/2 client over TLS: it must cost little beside the server it measures.
//!
//! It speaks to h2, on which hyper's client stands, directly: hyper starts a task for every request and passes it
//! through two channels, and what that takes is taken from the server on the same cores.

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use rustls::CipherSuite;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Windows of Go's client, which is what most clients of an API server are.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 1 << 30;
const UNIMPLEMENTED: &[u8] = b"12";
/// Bytes of a refusal that go into the error.
const SAID: usize = 2000;

/// The server to talk to, as the administrator.
#[derive(Clone)]
pub(crate) struct Target {
    port: u16,
    connector: TlsConnector,
}

/// A connection; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    port: u16,
    sender: SendRequest<Bytes>,
}

impl Target {
    pub(crate) fn new(port: u16, ca: &str, cert: &str, key: &str) -> Result<Target> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).context("the authority's certificate")?)?;
        let chain =
            vec![CertificateDer::from_pem_slice(cert.as_bytes()).context("the client's certificate")?];
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).context("the client's key")?;
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        // As Go's clients do, and cheaper for both sides.
        provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
        let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Target { port, connector: TlsConnector::from(Arc::new(config)) })
    }

    /// Opens a connection; its IO is a task of the runtime that this runs in.
    pub(crate) async fn connect(&self) -> Result<Connection> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from("127.0.0.1")?;
        let stream = self.connector.connect(name, stream).await?;
        let (sender, connection) = Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .enable_push(false)
            .handshake(stream)
            .await?;
        // Its error reaches whoever has a request on it.
        tokio::spawn(connection);
        Ok(Connection { port: self.port, sender })
    }
}

impl Connection {
    /// Sends a request and returns the answer's head, with the body to come.
    async fn send(
        &self,
        method: Method,
        path: &str,
        content_type: Option<&str>,
        body: Bytes,
    ) -> Result<Response<RecvStream>> {
        let mut request = Request::builder()
            .method(method)
            .version(Version::HTTP_2)
            .uri(format!("https://127.0.0.1:{}{path}", self.port))
            .header("accept", "application/json");
        if let Some(kind) = content_type {
            request = request.header("content-type", kind);
        }
        let mut sender = self.sender.clone().ready().await?;
        let (answer, mut stream) = sender.send_request(request.body(())?, body.is_empty())?;
        if !body.is_empty() {
            stream.send_data(body, true)?;
        }
        Ok(answer.await?)
    }

    /// Sends a request that must succeed and returns the answer's body: what is in it, or a watch's events.
    pub(crate) async fn open(
        &self,
        method: Method,
        path: &str,
        content_type: Option<&str>,
        body: Bytes,
    ) -> Result<RecvStream> {
        let answer = self.send(method, path, content_type, body).await?;
        let status = answer.status();
        if !status.is_success() {
            bail!("{path}: {status}: {}", String::from_utf8_lossy(&start(answer.into_body()).await));
        }
        Ok(answer.into_body())
    }

    /// The answer's size, without looking into it.
    pub(crate) async fn size(
        &self,
        method: Method,
        path: &str,
        content_type: Option<&str>,
        body: Bytes,
    ) -> Result<u64> {
        let mut body = self.open(method, path, content_type, body).await?;
        let mut size = 0;
        while let Some(data) = next(&mut body).await? {
            size += data.len() as u64;
        }
        Ok(size)
    }

    /// Starts a gRPC call, whose messages go both ways; none when the server does not know the method.
    pub(crate) async fn call(&self, method: &str) -> Result<Option<(SendStream<Bytes>, RecvStream)>> {
        let request = Request::builder()
            .method(Method::POST)
            .version(Version::HTTP_2)
            .uri(format!("https://127.0.0.1:{}{method}", self.port))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())?;
        let (answer, requests) = self.sender.clone().ready().await?.send_request(request, false)?;
        let answer = answer.await?;
        let header = |name| answer.headers().get(name).map(HeaderValue::as_bytes);
        let is_grpc = header("content-type").is_some_and(|kind| kind.starts_with(b"application/grpc"));
        match header("grpc-status") {
            // Only what has ended already has a status in its head.
            None if is_grpc => Ok(Some((requests, answer.into_body()))),
            Some(UNIMPLEMENTED) => Ok(None),
            Some(_) => bail!("{method}: {:?}", answer.headers()),
            None => Ok(None),
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Result<RecvStream> {
        self.open(Method::GET, path, None, Bytes::new()).await
    }

    pub(crate) async fn is_ready(&self) -> Result<bool> {
        Ok(self.send(Method::GET, "/readyz", None, Bytes::new()).await?.status() == StatusCode::OK)
    }
}

/// The next piece of a body, for which the server may send as much again.
pub(crate) async fn next(body: &mut RecvStream) -> Result<Option<Bytes>> {
    let Some(data) = body.data().await.transpose()? else { return Ok(None) };
    body.flow_control().release_capacity(data.len())?;
    Ok(Some(data))
}

/// The beginning of what a refusal says.
async fn start(mut body: RecvStream) -> Vec<u8> {
    let mut said = Vec::new();
    while said.len() < SAID
        && let Ok(Some(data)) = next(&mut body).await
    {
        said.extend_from_slice(&data);
    }
    said
}
