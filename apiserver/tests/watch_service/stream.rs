//! A client of the watch service that shows what it is told, a line for each thing.

use std::collections::VecDeque;
use std::time::Duration;

use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use kube::client::ConfigExt as _;
use proto::watch_v1::watch_client::WatchClient;
use proto::watch_v1::watch_request::Request;
use proto::watch_v1::watch_response::Response;
use proto::watch_v1::{Cancel, Closed, Credit, Event, Open, WatchRequest, WatchResponse};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Status, Streaming};

pub(crate) type Channel = Client<HttpsConnector<HttpConnector>, tonic::body::Body>;

/// Speaks gRPC with the credentials of a client's configuration.
pub(crate) fn channel(config: &kube::Config) -> Channel {
    let tls = config.rustls_client_config().unwrap();
    let https = HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http2().build();
    Client::builder(TokioExecutor::new()).http2_only(true).build(https)
}

/// One stream.
pub(crate) struct Stream {
    requests: Option<mpsc::UnboundedSender<WatchRequest>>,
    responses: Streaming<WatchResponse>,
    /// Told, and not asked for yet.
    lines: VecDeque<String>,
    /// The last Closed.
    pub(crate) closed: Closed,
    /// The resource version told last.
    pub(crate) version: i64,
}

impl Stream {
    pub(crate) async fn start(config: &kube::Config) -> Result<Self, Status> {
        Self::start_with(config, None).await
    }

    pub(crate) async fn start_with(config: &kube::Config, token: Option<&str>) -> Result<Self, Status> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut request = tonic::Request::new(UnboundedReceiverStream::new(receiver));
        if let Some(token) = token {
            let value = format!("Bearer {token}").parse().unwrap();
            request.metadata_mut().insert("authorization", value);
        }
        let mut client = WatchClient::with_origin(channel(config), config.cluster_url.clone());
        let responses = client.watch(request).await?.into_inner();
        let (lines, closed) = (VecDeque::new(), Closed::default());
        Ok(Self { requests: Some(sender), responses, lines, closed, version: 0 })
    }

    pub(crate) fn send_any(&self, request: WatchRequest) {
        self.requests.as_ref().unwrap().send(request).unwrap();
    }

    fn send(&self, request: Request) {
        self.send_any(WatchRequest { request: Some(request) });
    }

    pub(crate) fn open(&self, open: Open) {
        self.send(Request::Open(open));
    }

    pub(crate) fn cancel(&self, watch_id: u64) {
        self.send(Request::Cancel(Cancel { watch_id }));
    }

    pub(crate) fn credit(&self, watch_id: u64, bytes: u32) {
        self.send(Request::Credit(Credit { watch_id, bytes }));
    }

    /// Says that nothing more will be asked.
    pub(crate) fn end_requests(&mut self) {
        self.requests = None;
    }

    /// The next thing told: `1 ADDED name`, `1 synced`, `1 bookmark` or `1 closed 410`; `end` at the end of the stream.
    pub(crate) async fn next(&mut self) -> Result<String, Status> {
        loop {
            if let Some(line) = self.lines.pop_front() {
                return Ok(line);
            }
            let next = tokio::time::timeout(Duration::from_secs(20), self.responses.message());
            match next.await.expect("a response or the end within 20 s")? {
                Some(response) => self.take(response),
                None => return Ok("end".to_owned()),
            }
        }
    }

    /// The next things told.
    pub(crate) async fn told<const N: usize>(&mut self) -> [String; N] {
        let mut told = [const { String::new() }; N];
        for line in &mut told {
            *line = self.next().await.unwrap();
        }
        told
    }

    /// Whether nothing is told for a while.
    pub(crate) async fn is_silent(&mut self) -> bool {
        tokio::time::timeout(Duration::from_millis(300), self.next()).await.is_err()
    }

    fn take(&mut self, response: WatchResponse) {
        let id = response.watch_id;
        match response.response.unwrap() {
            Response::Events(events) => {
                assert!(!events.events.is_empty(), "nobody sends nothing");
                for event in events.events {
                    self.version = event.resource_version;
                    self.lines.push_back(format!("{id} {}", line(&event)));
                }
            }
            Response::Synced(synced) => {
                self.version = synced.resource_version;
                self.lines.push_back(format!("{id} synced"));
            }
            Response::Bookmark(_) => self.lines.push_back(format!("{id} bookmark")),
            Response::Closed(closed) => {
                self.lines.push_back(format!("{id} closed {}", closed.code));
                self.closed = closed;
            }
        }
    }
}

/// An event in short; the object must be whole, and agree with it.
fn line(event: &Event) -> String {
    let object: Value = serde_json::from_slice(&event.object).expect("an object");
    let version = event.resource_version.to_string();
    assert_eq!(object["metadata"]["resourceVersion"].as_str(), Some(version.as_str()));
    assert!(object["kind"].is_string() && object["apiVersion"].is_string(), "{object}");
    let name = object["metadata"]["name"].as_str().unwrap();
    format!("{} {name}", event.r#type().as_str_name())
}

/// A watch of what the core group has.
pub(crate) fn core(watch_id: u64, resource: &str, namespace: &str) -> Open {
    Open {
        watch_id,
        version: "v1".to_owned(),
        resource: resource.to_owned(),
        namespace: namespace.to_owned(),
        bookmarks: true,
        ..Open::default()
    }
}
