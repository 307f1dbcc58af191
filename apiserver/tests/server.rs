//! An API server on a free loopback port, and a client that shows answers as they are.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use base64::Engine as _;
use bytes::Bytes;
use clap::{Args as _, Command, FromArgMatches};
use component_base::Shutdown;
use futures::StreamExt;
use harness::etcd::Etcd;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use kube::config::AuthInfo;
use kube_apiserver::config::{Args, Config};
use pki::{Leaf, Pair};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// The server; everything ends when it is dropped.
pub(crate) struct Server {
    pub(crate) client: Client,
    /// What `client` was made of.
    pub(crate) config: kube::Config,
    pub(crate) etcd: Arc<Etcd>,
    shutdown: Shutdown,
    task: JoinHandle<()>,
    _directory: TempDir,
}

/// An answer.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) text: String,
}

impl Answer {
    /// The body as JSON; null if it is none.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or(Value::Null)
    }

    /// The body, which must have come with this status.
    #[track_caller]
    pub(crate) fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        self.json()
    }
}

impl Server {
    /// A server over an etcd of its own.
    pub(crate) async fn start() -> Self {
        Self::start_on(Arc::new(Etcd::start().unwrap()), true).await
    }

    /// One server that reads from its watch cache and one that reads from etcd: what they answer must be the same.
    pub(crate) async fn cached_and_direct() -> [Self; 2] {
        let etcd = || Arc::new(Etcd::start().unwrap());
        [Self::start_on(etcd(), true).await, Self::start_on(etcd(), false).await]
    }

    /// A server over an etcd that may have others.
    pub(crate) async fn start_on(etcd: Arc<Etcd>, watch_cache: bool) -> Self {
        Self::start_with(etcd, watch_cache, Vec::new(), AuthInfo::default()).await
    }

    /// A server that authorizes by Node and RBAC, and the authority of its clients; this one's is an administrator.
    pub(crate) async fn start_authorizing() -> (Self, Pair) {
        let ca = pki::new_ca("clients", SystemTime::now()).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &ca.cert).unwrap();
        let flags = vec![
            format!("--client-ca-file={}", file.path().display()),
            "--authorization-mode=Node,RBAC".to_owned(),
        ];
        let admin = identity(&ca, "admin", &["system:masters"]);
        (Self::start_with(Arc::new(Etcd::start().unwrap()), true, flags, admin).await, ca)
    }

    async fn start_with(
        etcd: Arc<Etcd>,
        watch_cache: bool,
        more_flags: Vec<String>,
        identity: AuthInfo,
    ) -> Self {
        component_base::tls::install_crypto_provider();
        let directory = tempfile::tempdir().unwrap();
        let mut flags = vec![
            format!("--etcd-servers={}", etcd.endpoint()),
            format!("--cert-dir={}", directory.path().display()),
            // Pods here need no account.
            "--disable-admission-plugins=ServiceAccount".to_owned(),
        ];
        flags.extend(more_flags);
        let command = Args::augment_args(Command::new("kube-apiserver").no_binary_name(true));
        let matches = command.try_get_matches_from(flags).unwrap();
        let args = Args { watch_cache, ..Args::from_arg_matches(&matches).unwrap() };
        let config = Config::new(args).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = Shutdown::new();
        let stop = shutdown.clone();
        let task = tokio::spawn(async move {
            Box::pin(kube_apiserver::run::serve(config, listener, stop)).await.unwrap();
        });
        let mut config = kube::Config::new(format!("https://{address}").parse().unwrap());
        config.accept_invalid_certs = true;
        // Answers are shown as they are.
        config.default_retry = false;
        config.auth_info = identity;
        let client = Client::try_from(config.clone()).unwrap();
        let server = Self { client, config, etcd, shutdown, task, _directory: directory };
        server.wait_ready().await;
        let made = server.post("/api/v1/namespaces", &json!({"metadata": {"name": "test"}})).await;
        assert!(matches!(made.status.as_u16(), 201 | 409), "{}", made.text);
        server
    }

    /// Asks the server to stop.
    pub(crate) fn stop(&self) {
        self.shutdown.cancel();
    }

    /// Compacts etcd as API servers do.
    pub(crate) async fn compact(&self, revision: i64) {
        let mut etcd = etcd_client::Client::connect([self.etcd.endpoint()], None).await.unwrap();
        let noted = etcd.put("compact_rev_key", revision.to_string(), None).await.unwrap();
        etcd.compact(revision, None).await.unwrap();
        // The caches hear of it before a fresh read is answered.
        let after = noted.header().unwrap().revision();
        self.get(&format!("{CONFIG_MAPS}?limit=1&resourceVersionMatch=NotOlderThan&resourceVersion={after}"))
            .await;
    }

    async fn wait_ready(&self) {
        let deadline = Instant::now() + Duration::from_secs(90);
        loop {
            let answer = self.get("/readyz?verbose").await;
            if answer.status == StatusCode::OK {
                return;
            }
            assert!(Instant::now() < deadline, "not ready: {}", answer.text);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Any request. `headers`: name, value.
    pub(crate) async fn call(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.client.send(request.body(Body::from(body)).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8_lossy(&body).into_owned();
        Answer { status: parts.status, headers: parts.headers, body, text }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, &[], Vec::new()).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, "application/json", body).await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Answer {
        self.send("PUT", path, "application/json", body).await
    }

    pub(crate) async fn patch(&self, path: &str, kind: &str, body: &Value) -> Answer {
        self.send("PATCH", path, &format!("application/{kind}+json"), body).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.call("DELETE", path, &[], Vec::new()).await
    }

    async fn send(&self, method: &str, path: &str, content_type: &str, body: &Value) -> Answer {
        self.call(method, path, &[("content-type", content_type)], body.to_string().into_bytes()).await
    }

    /// Creates a ConfigMap with labels; gives it as stored.
    pub(crate) async fn config_map(&self, name: &str, labels: &Value) -> Value {
        let body = json!({"metadata": {"name": name, "labels": labels}, "data": {"key": "value"}});
        self.post(CONFIG_MAPS, &body).await.expect(201)
    }

    /// Opens a watch.
    pub(crate) async fn watch(&self, path: &str, headers: &[(&str, &str)]) -> Watch {
        let mut request = Request::builder().uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.client.send(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let frames = response.into_body().into_data_stream();
        Watch { frames: frames.map(|frame| frame.unwrap().to_vec()).boxed(), buffer: Vec::new() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shutdown.cancel();
        self.task.abort();
    }
}

/// A client certificate of a user in these groups.
pub(crate) fn identity(ca: &Pair, user: &str, groups: &[&str]) -> AuthInfo {
    let pair = pki::new_leaf(ca, &Leaf::client(user, groups), SystemTime::now()).unwrap();
    let base64 = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    AuthInfo {
        client_certificate_data: Some(base64(&pair.cert)),
        client_key_data: Some(base64(&pair.key).into()),
        ..AuthInfo::default()
    }
}

pub(crate) const CONFIG_MAPS: &str = "/api/v1/namespaces/test/configmaps";
pub(crate) const PODS: &str = "/api/v1/namespaces/test/pods";

/// A pod with one container.
pub(crate) fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": "busybox"}]}})
}

/// An open watch, event by event.
pub(crate) struct Watch {
    frames: futures::stream::BoxStream<'static, Vec<u8>>,
    buffer: Vec<u8>,
}

impl Watch {
    /// The next event; `None` at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let next = tokio::time::timeout(Duration::from_secs(20), self.frames.next());
            self.buffer.extend(next.await.expect("an event or the end within 20 s")?);
        }
    }

    /// The next event as `TYPE name`.
    pub(crate) async fn summary(&mut self) -> String {
        let event = self.next().await.expect("an event");
        let name = event["object"]["metadata"]["name"].as_str().unwrap_or_default();
        format!("{} {name}", event["type"].as_str().unwrap_or_default())
    }
}
