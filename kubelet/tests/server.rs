//! The kubelet's port over a real containerd: who gets in, logs, exec with exit codes, statistics.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use component_base::Shutdown;
use component_base::metrics::Registry;
use futures::StreamExt;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kubelet::config::{ServerAuth, ServerConfig};
use kubelet::events::Recorder;
use kubelet::pod_manager::PodManager;
use kubelet::runtime::{ContainerKind, PodContext, Runtime};
use kubelet::server::{self, ServerContext};
use kubelet::status_manager::StatusManager;
use kubelet::volumes::MountedVolumes;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::json;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_util::task::TaskTracker;

use crate::containerd::{BUSYBOX, Containerd, can_run};

/// A CA and a client's certificate by it.
struct Pki {
    ca: PathBuf,
    client: (Vec<CertificateDer<'static>>, String),
}

fn pki(dir: &Path) -> Pki {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_cert = ca.self_signed(&ca_key).unwrap();
    let path = dir.join("client-ca.crt");
    std::fs::write(&path, ca_cert.pem()).unwrap();
    let issuer = Issuer::new(ca, ca_key);
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, "kube-apiserver-kubelet-client");
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let cert = params.signed_by(&key, &issuer).unwrap();
    Pki { ca: path, client: (vec![cert.der().clone()], key.serialize_pem()) }
}

struct Client {
    address: SocketAddr,
    server_cert: PathBuf,
    pki: Pki,
}

impl Client {
    async fn connect(&self, with_certificate: bool) -> TlsStream<TcpStream> {
        component_base::tls::install_crypto_provider();
        let mut roots = rustls::RootCertStore::empty();
        for cert in CertificateDer::pem_file_iter(&self.server_cert).unwrap() {
            roots.add(cert.unwrap()).unwrap();
        }
        let builder = rustls::ClientConfig::builder().with_root_certificates(roots);
        let config = if with_certificate {
            let key = PrivateKeyDer::from_pem_slice(self.pki.client.1.as_bytes()).unwrap();
            builder.with_client_auth_cert(self.pki.client.0.clone(), key).unwrap()
        } else {
            builder.with_no_client_auth()
        };
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
    }

    async fn send(&self, request: Request<Empty<Bytes>>, with_certificate: bool) -> Response<Incoming> {
        let stream = self.connect(with_certificate).await;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        sender.send_request(request).await.unwrap()
    }

    async fn get(&self, path: &str) -> (StatusCode, String) {
        let response = self.send(Request::get(path).body(Empty::new()).unwrap(), true).await;
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    /// Runs a command over the v4 channel protocol: its stdout, and the status that ends the stream.
    async fn exec(
        &self,
        path: &str,
        protocol: &str,
    ) -> Result<(String, serde_json::Value), tungstenite::Error> {
        use tungstenite::client::IntoClientRequest;
        let mut request = format!("wss://127.0.0.1{path}").into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", protocol.parse().unwrap());
        let stream = self.connect(true).await;
        let (mut socket, _) = tokio_tungstenite::client_async(request, stream).await?;
        let (mut stdout, mut status) = (Vec::new(), serde_json::Value::Null);
        while let Some(Ok(message)) = socket.next().await {
            let Message::Binary(bytes) = message else { continue };
            match bytes.split_first() {
                Some((1, text)) => stdout.extend_from_slice(text),
                Some((3, text)) if !text.is_empty() => status = serde_json::from_slice(text).unwrap(),
                _ => {}
            }
        }
        Ok((String::from_utf8(stdout).unwrap(), status))
    }
}

async fn start_pod(runtime: &Runtime) -> Arc<Pod> {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "uid-server"},
        "spec": {"containers": [{"name": "c", "image": BUSYBOX,
            "command": ["sh", "-c", "echo one; echo two; echo three; trap 'exit 0' TERM; while true; do sleep 0.1; done"]}]}
    }))
    .unwrap();
    let pod = Arc::new(pod);
    let sandbox_id = runtime.create_sandbox(&pod, 0).await.unwrap();
    let context =
        PodContext { pod: pod.clone(), sandbox_id, pod_ips: Vec::new(), volumes: MountedVolumes::default() };
    let container = &pod.spec.as_ref().unwrap().containers[0];
    runtime.start_container(&context, container, ContainerKind::Regular, 0).await.unwrap();
    pod
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_port() {
    if !can_run() {
        return;
    }
    let containerd = Containerd::start();
    let runtime = containerd.runtime(Recorder::fake());
    let pods = PodManager::default();
    pods.set(start_pod(&runtime).await);
    let pki = pki(containerd.dir());
    let cert_dir = containerd.dir().join("pki");
    let auth = ServerAuth {
        anonymous: false,
        webhook: false,
        client_ca_file: Some(pki.ca.clone()),
        authorize: false,
    };
    let config = ServerConfig {
        address: "127.0.0.1:0".parse().unwrap(),
        auth,
        tls: None,
        cert_dir: cert_dir.clone(),
        debugging_handlers: true,
        streaming_idle_timeout: Duration::from_secs(60),
    };
    let context = ServerContext {
        config,
        node_name: "test-node".to_owned(),
        runtime: runtime.clone(),
        statuses: StatusManager::new(pods.clone()),
        pods,
        client: None,
        metrics: Registry::new(),
    };
    let (tracker, shutdown) = (TaskTracker::new(), Shutdown::new());
    let address = server::start(context, &tracker, &shutdown).await.unwrap();
    let client = Client { address, server_cert: cert_dir.join("kubelet.crt"), pki };

    doors(&client).await;
    logs(&client).await;
    streams(&client).await;

    shutdown.cancel();
    tracker.close();
    tokio::time::timeout(Duration::from_secs(5), tracker.wait()).await.expect("the server drains");
}

async fn doors(client: &Client) {
    for path in ["/pods", "/healthz", "/metrics", "/containerLogs/default/web/c", "/nothing", "/debug/pprof"]
    {
        let response = client.send(Request::get(path).body(Empty::new()).unwrap(), false).await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{path}");
    }
    for (path, code, text) in [
        ("/healthz", 200, "ok"),
        ("/metrics", 200, "process_"),
        ("/pods", 200, "\"name\":\"web\""),
        ("/runningpods/", 200, "\"uid\":\"uid-server\""),
        ("/stats/summary", 200, "\"workingSetBytes\""),
        ("/nothing", 404, "404"),
        ("/run/default/web/c", 501, "not supported"),
        ("/logs/../../etc/passwd", 501, "not supported"),
        ("/exec/default/web/c?command=true&output=1", 400, "Upgrade request required"),
        ("/containerLogs/default/none/c", 404, "pod \"none\" does not exist"),
        ("/containerLogs/default/web/none", 404, "container \"none\" not found in pod \"web\""),
        (
            "/containerLogs/default/web/c?previous=true",
            400,
            "previous terminated container \"c\" in pod \"web\" not found",
        ),
        ("/containerLogs/default/web/c?tailLines=-1", 422, "tailLines"),
    ] {
        let (status, body) = client.get(path).await;
        assert_eq!(status.as_u16(), code, "{path}: {body}");
        assert!(body.contains(text), "{path}: {body}");
    }
}

async fn logs(client: &Client) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let (_, body) = client.get("/containerLogs/default/web/c").await;
        if body == "one\ntwo\nthree\n" {
            break;
        }
        assert!(Instant::now() < deadline, "{body}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(client.get("/containerLogs/default/web/c?tailLines=1").await.1, "three\n");
    assert_eq!(client.get("/containerLogs/default/web/c?limitBytes=5").await.1, "one\nt");
    let request =
        Request::get("/containerLogs/default/web/c?follow=true&tailLines=1").body(Empty::new()).unwrap();
    let mut following = client.send(request, true).await.into_body();
    let frame = following.frame().await.unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), "three\n");
}

async fn streams(client: &Client) {
    let path = "/exec/default/web/c?command=sh&command=-c&command=echo+hi;+exit+3&output=1&error=1";
    let (stdout, status) = client.exec(path, "v4.channel.k8s.io").await.unwrap();
    assert_eq!(stdout, "hi\n");
    assert_eq!(status["reason"], "NonZeroExitCode", "{status}");
    assert_eq!(status["details"]["causes"][0]["message"], "3");
    let good = "/exec/default/web/c?command=true&output=1";
    assert_eq!(client.exec(good, "v4.channel.k8s.io").await.unwrap().1["status"], "Success");
    // kubectl asks for v5 first and falls back to SPDY when it is refused.
    assert!(client.exec(good, "v5.channel.k8s.io").await.is_err());
    let spdy = Request::post(path)
        .header("connection", "Upgrade")
        .header("upgrade", "SPDY/3.1")
        .header("x-stream-protocol-version", "v4.channel.k8s.io")
        .body(Empty::new())
        .unwrap();
    let response = client.send(spdy, true).await;
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(response.headers()["x-stream-protocol-version"], "v4.channel.k8s.io");
    assert!(client.exec("/exec/default/web/none?command=true&output=1", "v4.channel.k8s.io").await.is_err());
}
