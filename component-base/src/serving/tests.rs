//! The endpoints over real sockets on loopback.

use std::{path::Path, time::Duration};

use rcgen::{CertificateParams, DnType, Issuer, KeyPair};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use super::*;
use crate::metrics::Registry;

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, path: &str) -> (u16, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A peer that closes without close_notify has still answered.
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), body.to_owned())
}

async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    exchange(TcpStream::connect(address).await.unwrap(), path).await
}

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

#[tokio::test]
async fn health_says_what_upstream_says() {
    let health = HealthChecks::new();
    let shutdown = Shutdown::new();
    let endpoints = Endpoints::new(health.clone(), Registry::new());
    let serving = serve(ServingConfig::plain(loopback()), endpoints, &shutdown).await.unwrap();
    let address = serving.local_address;
    assert_eq!(get(address, "/healthz").await, (200, "ok".into()));
    health.add("broken", || async { Err("secret reason".into()) });
    for (path, code, body) in [
        ("/livez", 500, "[+]ping ok\n[-]broken failed: reason withheld\nlivez check failed\n"),
        ("/readyz?exclude=broken", 200, "ok"),
        ("/readyz?verbose&exclude=broken", 200, "[+]ping ok\n[+]broken excluded: ok\nreadyz check passed\n"),
        ("/healthz/ping", 200, "ok"),
        ("/healthz/nope", 404, "404 page not found\n"),
        ("/nope", 404, "404 page not found\n"),
    ] {
        assert_eq!(get(address, path).await, (code, body.to_owned()), "{path}");
    }
    let (code, metrics) = get(address, "/metrics").await;
    assert!(code == 200 && metrics.contains("kubernetes_build_info{"), "{metrics}");
    shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(5), serving.finished()).await.unwrap();
    assert!(TcpStream::connect(address).await.is_err(), "the port is closed");
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    fn client(&self, name: &str) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        (cert.der().clone(), PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    }
}

async fn get_tls(
    address: SocketAddr,
    server_cert: &Path,
    identity: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>,
    path: &str,
) -> Option<(u16, String)> {
    let mut roots = RootCertStore::empty();
    roots.add(tls::load_certs(server_cert).unwrap().remove(0)).unwrap();
    let config = ClientConfig::builder().with_root_certificates(roots);
    let config = match identity {
        Some((cert, key)) => config.with_client_auth_cert(vec![cert], key).unwrap(),
        None => config.with_no_client_auth(),
    };
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.ok()?;
    // In TLS 1.3 the server refuses a certificate after the client believes the handshake done.
    stream.flush().await.ok()?;
    let mut probe = Box::pin(exchange_or_refused(stream, path));
    probe.as_mut().await
}

async fn exchange_or_refused(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    path: &str,
) -> Option<(u16, String)> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer).await;
    if answer.is_empty() {
        assert!(read.is_err(), "closed without an answer or an alert");
        return None;
    }
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    Some((head[9..12].parse().unwrap(), body.to_owned()))
}

#[tokio::test]
async fn metrics_on_a_secure_port_are_for_verified_clients() {
    let dir = std::env::temp_dir().join(format!("serving-{}", uuid::Uuid::new_v4()));
    let (cert, key, ca) = (dir.join("tls.crt"), dir.join("tls.key"), dir.join("ca.crt"));
    tls::self_signed("localhost", &["localhost".into()]).unwrap().write(&cert, &key).unwrap();
    let (ours, others) = (Authority::new(), Authority::new());
    std::fs::write(&ca, &ours.pem).unwrap();
    let files = TlsFiles { key_pair: Some((cert.clone(), key)), client_ca: Some(ca) };
    let shutdown = Shutdown::new();
    let endpoints = Endpoints::new(HealthChecks::new(), Registry::new());
    let serving = serve(ServingConfig::secure(loopback(), files), endpoints, &shutdown).await.unwrap();
    let address = serving.local_address;

    assert_eq!(get_tls(address, &cert, None, "/healthz").await, Some((200, "ok".into())));
    let (code, body) = get_tls(address, &cert, None, "/metrics").await.unwrap();
    assert_eq!(code, 403);
    assert!(body.contains(r#"forbidden: User \"system:anonymous\" cannot get path \"/metrics\""#), "{body}");
    let (code, _) = get_tls(address, &cert, None, "/debug/anything").await.unwrap();
    assert_eq!(code, 403);
    let (code, body) = get_tls(address, &cert, Some(ours.client("prometheus")), "/metrics").await.unwrap();
    assert!(code == 200 && body.contains("process_open_fds"), "{code} {body}");
    assert_eq!(
        get_tls(address, &cert, Some(others.client("prometheus")), "/healthz").await,
        None,
        "not our CA"
    );
    shutdown.cancel();
    serving.finished().await;
    std::fs::remove_dir_all(dir).unwrap();
}

#[tokio::test]
async fn a_client_that_says_nothing_is_cut() {
    let shutdown = Shutdown::new();
    let mut config = ServingConfig::secure(loopback(), TlsFiles::default());
    config.limits.handshake = Duration::from_millis(50);
    let endpoints = Endpoints::new(HealthChecks::new(), Registry::new());
    let serving = serve(config, endpoints, &shutdown).await.unwrap();
    let mut silent = TcpStream::connect(serving.local_address).await.unwrap();
    let mut buffer = [0; 1];
    let read =
        tokio::time::timeout(Duration::from_secs(5), silent.read(&mut buffer)).await.expect("cut in time");
    assert!(matches!(read, Ok(0) | Err(_)));
    shutdown.cancel();
    serving.finished().await;
}
