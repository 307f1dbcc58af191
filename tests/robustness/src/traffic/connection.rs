//! A light HTTP/2 client over TLS. It retries nothing: what is not answered is not known.

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How long to wait for a connection.
const CONNECT: Duration = Duration::from_secs(2);

/// The servers to talk to, as the administrator.
pub struct Target {
    ports: Vec<u16>,
    connector: TlsConnector,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target").field("ports", &self.ports).finish_non_exhaustive()
    }
}

/// A connection to one server.
#[derive(Debug)]
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub code: u16,
    /// Null when it is no JSON.
    pub body: Value,
    pub text: String,
}

impl Target {
    /// Servers by the ports on loopback where clients reach them.
    ///
    /// # Errors
    /// The certificates are unusable.
    pub fn new(ports: Vec<u16>, ca: &str, admin: &pki::Pair) -> Result<Target> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).context("the authority's certificate")?)?;
        let chain =
            vec![CertificateDer::from_pem_slice(admin.cert.as_bytes()).context("the client's certificate")?];
        let key = PrivateKeyDer::from_pem_slice(admin.key.as_bytes()).context("the client's key")?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Target { ports, connector: TlsConnector::from(Arc::new(config)) })
    }

    /// How many servers there are.
    pub fn servers(&self) -> usize {
        self.ports.len()
    }

    /// A new connection to a server.
    ///
    /// # Errors
    /// It is not to be had within two seconds.
    pub async fn connect(&self, server: usize) -> Result<Connection> {
        tokio::time::timeout(CONNECT, self.try_connect(server)).await.context("no connection in time")?
    }

    async fn try_connect(&self, server: usize) -> Result<Connection> {
        Ok(Connection { sender: self.handshake(server).await? })
    }

    /// A new HTTP/2 connection for requests with bodies of any kind.
    pub(super) async fn handshake<B>(&self, server: usize) -> Result<SendRequest<B>>
    where
        B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + Unpin + 'static,
    {
        let stream = TcpStream::connect(("127.0.0.1", self.ports[server])).await?;
        stream.set_nodelay(true)?;
        let stream = self.connector.connect(ServerName::try_from("127.0.0.1")?, stream).await?;
        let (sender, connection) = Builder::new(TokioExecutor::new()).handshake(TokioIo::new(stream)).await?;
        // Its error reaches whoever has a request on it.
        tokio::spawn(connection);
        Ok(sender)
    }
}

impl Connection {
    /// Sends a request and returns the answer's head.
    ///
    /// # Errors
    /// The connection is lost.
    pub async fn open(
        &mut self,
        method: Method,
        path: &str,
        media_type: Option<&str>,
        body: Bytes,
    ) -> Result<Response<Incoming>> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("https://127.0.0.1{path}"))
            .header("accept", "application/json");
        if let Some(media_type) = media_type {
            request = request.header("content-type", media_type);
        }
        self.sender.ready().await?;
        Ok(self.sender.send_request(request.body(Full::new(body))?).await?)
    }

    /// Sends a request and returns the whole answer.
    ///
    /// # Errors
    /// There is none within `patience`.
    pub async fn ask(
        &mut self,
        patience: Duration,
        method: Method,
        path: &str,
        media_type: Option<&str>,
        body: Option<&Value>,
    ) -> Result<Answer> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let asking = async {
            let (head, body) = self.open(method, path, media_type, body.into()).await?.into_parts();
            let bytes = body.collect().await?.to_bytes();
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
            Ok(Answer { code: head.status.as_u16(), body, text })
        };
        tokio::time::timeout(patience, asking).await.context("no answer in time")?
    }

    /// [`Self::ask`] for a GET.
    ///
    /// # Errors
    /// There is no answer within `patience`.
    pub async fn get(&mut self, patience: Duration, path: &str) -> Result<Answer> {
        self.ask(patience, Method::GET, path, None, None).await
    }
}
