//! A light HTTP/2 client over TLS, one connection each: it must cost little beside the server it measures.

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// The server to talk to, as the administrator.
pub(crate) struct Target {
    port: u16,
    connector: TlsConnector,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
}

impl Target {
    pub(crate) fn new(port: u16, ca: &str, cert: &str, key: &str) -> Result<Target> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).context("the authority's certificate")?)?;
        let chain =
            vec![CertificateDer::from_pem_slice(cert.as_bytes()).context("the client's certificate")?];
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).context("the client's key")?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Target { port, connector: TlsConnector::from(Arc::new(config)) })
    }

    pub(crate) async fn connect(&self) -> Result<Connection> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from("127.0.0.1")?;
        let stream = self.connector.connect(name, stream).await?;
        let (sender, connection) = Builder::new(TokioExecutor::new())
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(16 << 20)
            .handshake(TokioIo::new(stream))
            .await?;
        // Its error reaches whoever has a request on it.
        tokio::spawn(connection);
        Ok(Connection { sender })
    }

    pub(crate) async fn is_ready(&self) -> bool {
        let Ok(mut connection) = self.connect().await else { return false };
        connection
            .send(Method::GET, "/readyz", None, "")
            .await
            .is_ok_and(|answer| answer.status() == StatusCode::OK)
    }
}

impl Connection {
    /// Sends a request and returns the answer's head.
    pub(crate) async fn send(
        &mut self,
        method: Method,
        path: &str,
        content_type: Option<&str>,
        body: impl Into<Bytes>,
    ) -> Result<Response<Incoming>> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("https://127.0.0.1{path}"))
            .header("accept", "application/json");
        if let Some(kind) = content_type {
            request = request.header("content-type", kind);
        }
        self.sender.ready().await?;
        Ok(self.sender.send_request(request.body(Full::new(body.into()))?).await?)
    }

    /// Sends a request that must succeed and returns the answer's size, without looking into it.
    pub(crate) async fn size(
        &mut self,
        method: Method,
        path: &str,
        content_type: Option<&str>,
        body: impl Into<Bytes>,
    ) -> Result<usize> {
        let answer = self.send(method, path, content_type, body).await?;
        let status = answer.status();
        let mut body = answer.into_body();
        let mut size = 0;
        let mut start = Vec::new();
        while let Some(frame) = body.frame().await {
            if let Some(data) = frame?.data_ref() {
                size += data.len();
                if !status.is_success() && start.len() < 2000 {
                    start.extend_from_slice(data);
                }
            }
        }
        if !status.is_success() {
            bail!("{path}: {status}: {}", String::from_utf8_lossy(&start));
        }
        Ok(size)
    }
}
