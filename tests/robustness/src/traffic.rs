//! Clients and watchers that keep the servers busy and record what they are told.

mod client;
mod connection;
mod finish;
mod grpc;
mod mix;
mod objects;
mod pages;
mod watch_stream;
mod watcher;

pub use client::Client;
pub use connection::{Answer, Connection, Target};
pub use finish::finish;
pub use grpc::Sessions;
pub use objects::NAMESPACES;
pub use watch_stream::Transport;
pub use watcher::{Watcher, watchers};

use crate::history::{Outcome, Recorder};
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use tokio_util::sync::CancellationToken;

/// What clients and watchers share.
#[derive(Debug, Clone)]
pub struct Shared {
    pub target: Arc<Target>,
    pub recorder: Recorder,
    /// Clients end when this is cancelled.
    pub stop: CancellationToken,
    /// For chains of pages and watch streams.
    pub next_id: Arc<AtomicU64>,
    /// The highest revision that a client was shown.
    pub seen: Arc<AtomicI64>,
}

impl Shared {
    fn id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }
}

/// What an answer, or its absence, says of a request.
fn outcome<T>(answer: &anyhow::Result<Answer>, done: impl Fn(&Value) -> Option<T>) -> Outcome<T> {
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => return Outcome::Unknown { code: None, reason: format!("{error:#}") },
    };
    let text = |field: &str| answer.body[field].as_str().unwrap_or_default();
    let mut reason = format!("{}: {}", text("reason"), text("message"));
    reason.truncate(reason.char_indices().nth(200).map_or(reason.len(), |(index, _)| index));
    match answer.code {
        200..300 => match done(&answer.body) {
            Some(done) => Outcome::Done(done),
            None => {
                Outcome::Unknown { code: Some(answer.code), reason: "an answer that shows nothing".into() }
            }
        },
        code @ 400..500 => Outcome::Refused { code, reason },
        code => Outcome::Unknown { code: Some(code), reason },
    }
}
