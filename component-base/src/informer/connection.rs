//! Which way one apiserver is watched: over one stream of our watch service, shared by all informers, where the server
//! has it, and otherwise over HTTP.
//!
//! Nobody has to say which. The first watch asks for the service; a server that answers with anything but gRPC is
//! watched over HTTP from then on, until its connection is lost, since another server may be there afterwards. What
//! cannot be found out is left to HTTP, which also tells what is wrong.

use std::{fmt, sync::Arc, time::Duration};

use kube::Client;
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};

use super::{
    grpc::{self, ConnectError, Session},
    source::SourceError,
};
use crate::error_chain::Chain;

/// A server that has the service accepts a stream at once. What takes longer is a proxy that waits for the end of the
/// request before it passes it on.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the server is not asked again when it has said that it lacks the service: a load balancer may lead to
/// another without the connection ever being lost.
const LACKING: Duration = Duration::from_secs(3600);
/// The same when it did not answer in time.
const SILENT: Duration = Duration::from_secs(60);

/// The connection over which the informers of a process watch one apiserver. Made once from the daemon's client; clones
/// share it.
#[derive(Clone)]
pub struct Connection {
    client: Client,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    way: Mutex<Way>,
    /// Held by whoever finds out.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Default)]
enum Way {
    #[default]
    Unknown,
    Grpc(Arc<Session>),
    Http {
        until: Instant,
    },
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

impl From<Client> for Connection {
    fn from(client: Client) -> Self {
        Self::new(client)
    }
}

impl Connection {
    /// Nothing is sent before the first informer starts.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client, shared: Arc::default() }
    }

    /// The client, for everything but informers.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The stream to watch over; `None`: watch over HTTP.
    pub(super) async fn session(&self) -> Result<Option<Arc<Session>>, SourceError> {
        if let Some(known) = self.known() {
            return Ok(known);
        }
        let _turn = self.shared.turn.lock().await;
        if let Some(known) = self.known() {
            return Ok(known);
        }
        match timeout(PATIENCE, grpc::connect(&self.client)).await {
            Ok(Ok(session)) => {
                tracing::info!("watching over gRPC");
                *self.shared.way.lock() = Way::Grpc(Arc::clone(&session));
                return Ok(Some(session));
            }
            Ok(Err(ConnectError::Unreachable(error))) => return Err(SourceError::Disconnected(error)),
            Ok(Err(error @ ConnectError::NotOffered(_))) => {
                self.use_http(LACKING);
                tracing::info!(reason = %Chain(&error), "watching over HTTP");
            }
            Ok(Err(error @ ConnectError::Failed(_))) => {
                tracing::debug!(reason = %Chain(&error), "watching over HTTP this time");
            }
            Err(_) => {
                self.use_http(SILENT);
                tracing::info!(reason = "no answer in time", "watching over HTTP");
            }
        }
        Ok(None)
    }

    fn known(&self) -> Option<Option<Arc<Session>>> {
        match &*self.shared.way.lock() {
            Way::Grpc(session) if session.is_open() => Some(Some(Arc::clone(session))),
            Way::Http { until } if Instant::now() < *until => Some(None),
            _ => None,
        }
    }

    fn use_http(&self, time: Duration) {
        *self.shared.way.lock() = Way::Http { until: Instant::now() + time };
    }

    /// HTTP has lost the server: what is there next may be another.
    pub(super) fn note(&self, error: &SourceError) {
        let mut way = self.shared.way.lock();
        if matches!((error, &*way), (SourceError::Disconnected(_), Way::Http { .. })) {
            *way = Way::Unknown;
        }
    }
}
