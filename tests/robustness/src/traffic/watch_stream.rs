//! How watchers reach a server: the one place that knows the transport of a watch. HTTP's is a line of JSON an event.

use super::client::item;
use super::connection::{Connection, Target};
use super::grpc::{GrpcStream, Sessions};
use super::objects;
use crate::history::{EventType, Freshness, Scope, Sent, Start};
use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::Value;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// How long a server may take to accept a watch.
const PATIENCE: Duration = Duration::from_secs(10);

/// A transport of watches.
#[derive(Debug, Clone)]
pub enum Transport {
    Http,
    Grpc(Arc<Sessions>),
}

/// An open watch.
#[derive(Debug)]
pub(super) enum EventStream {
    Http(HttpStream),
    Grpc(GrpcStream),
}

impl Transport {
    /// Opens a watch. A refusal is a stream with nothing but its error.
    pub(super) async fn open(
        &self,
        target: &Target,
        server: usize,
        scope: &Scope,
        start: Start,
        seconds: u32,
    ) -> Result<EventStream> {
        match self {
            Transport::Http => {
                let opening = HttpStream::open(target, server, scope, start, seconds);
                let stream = tokio::time::timeout(PATIENCE, opening).await.context("no answer in time")??;
                Ok(EventStream::Http(stream))
            }
            Transport::Grpc(sessions) => {
                let opening = sessions.open(target, server, scope, start);
                let stream = tokio::time::timeout(PATIENCE, opening).await.context("no answer in time")??;
                Ok(EventStream::Grpc(stream))
            }
        }
    }
}

impl EventStream {
    /// What comes next; after an end nothing does. Cancel safe.
    pub(super) async fn next(&mut self) -> Sent {
        let next = match self {
            EventStream::Http(stream) => stream.next().await,
            EventStream::Grpc(stream) => stream.next().await,
        };
        match next {
            Ok(Some(sent)) => sent,
            Ok(None) => Sent::End { why: "end of stream".to_owned() },
            Err(error) => Sent::End { why: format!("{error:#}") },
        }
    }
}

/// Kubernetes' watch.
#[derive(Debug)]
pub(super) struct HttpStream {
    body: Incoming,
    buffer: Vec<u8>,
    lines: VecDeque<Vec<u8>>,
    refusal: Option<Sent>,
    /// Requests end with their connection.
    _connection: Connection,
}

impl HttpStream {
    async fn open(
        target: &Target,
        server: usize,
        scope: &Scope,
        start: Start,
        seconds: u32,
    ) -> Result<HttpStream> {
        let mut connection = target.connect(server).await?;
        let from = match start {
            Start::After(revision) => format!("resourceVersion={revision}"),
            Start::InitialEvents(freshness) => {
                let revision = match freshness {
                    Freshness::Consistent => String::new(),
                    Freshness::Any => "0".to_owned(),
                    Freshness::NotOlderThan(revision) | Freshness::Exact(revision) => revision.to_string(),
                };
                format!("sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion={revision}")
            }
        };
        let path = objects::path(scope);
        let path = format!("{path}watch=true&allowWatchBookmarks=true&timeoutSeconds={seconds}&{from}");
        let answer = connection.open(Method::GET, &path, None, Bytes::new()).await?;
        let refused = answer.status();
        let mut body = answer.into_body();
        let mut refusal = None;
        if refused != StatusCode::OK {
            let text = (&mut body).collect().await?.to_bytes();
            let reason = String::from_utf8_lossy(&text).chars().take(200).collect();
            refusal = Some(Sent::Error { code: refused.as_u16(), reason });
        }
        Ok(HttpStream { body, buffer: Vec::new(), lines: VecDeque::new(), refusal, _connection: connection })
    }

    async fn next(&mut self) -> Result<Option<Sent>> {
        if let Some(refusal) = self.refusal.take() {
            return Ok(Some(refusal));
        }
        loop {
            if let Some(line) = self.lines.pop_front() {
                return sent(&serde_json::from_slice(&line)?).map(Some);
            }
            let Some(frame) = self.body.frame().await else { return Ok(None) };
            let Ok(data) = frame?.into_data() else { continue };
            for piece in data.split_inclusive(|byte| *byte == b'\n') {
                self.buffer.extend_from_slice(piece);
                if piece.ends_with(b"\n") {
                    self.lines.push_back(std::mem::take(&mut self.buffer));
                }
            }
        }
    }
}

/// Reads an event of Kubernetes' watch.
fn sent(event: &Value) -> Result<Sent> {
    let object = &event["object"];
    let kind = match event["type"].as_str().unwrap_or_default() {
        "ADDED" => EventType::Added,
        "MODIFIED" => EventType::Modified,
        "DELETED" => EventType::Deleted,
        "BOOKMARK" => {
            let metadata = &object["metadata"];
            let revision = metadata["resourceVersion"].as_str().and_then(|text| text.parse().ok());
            let initial_end = metadata["annotations"]["k8s.io/initial-events-end"] == "true";
            let revision = revision.context("a bookmark without resourceVersion")?;
            return Ok(Sent::Bookmark { revision, initial_end });
        }
        "ERROR" => {
            let code = object["code"].as_u64().and_then(|code| u16::try_from(code).ok()).unwrap_or(0);
            let reason = object["message"].as_str().unwrap_or_default().to_owned();
            return Ok(Sent::Error { code, reason });
        }
        other => anyhow::bail!("an event of type {other:?}"),
    };
    let item = item(object).with_context(|| format!("an event without an object: {event}"))?;
    Ok(Sent::Event { kind, item })
}
