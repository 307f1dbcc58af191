//! A gate that is open while this replica leads, and shuts by itself when the renew deadline passes.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use http::Request;
use kube::{Client, client::Body};
use tower::BoxError;

/// See the module; clones share the gate.
#[derive(Clone)]
pub struct Fence {
    origin: Instant,
    /// Open until so many nanoseconds after the origin.
    until: Arc<AtomicU64>,
}

/// The answer to requests that would be sent after leadership ended.
#[derive(Debug, thiserror::Error)]
#[error("request not sent: this replica does not lead")]
pub struct NotLeading;

impl fmt::Debug for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fence").field("open", &self.is_open()).finish()
    }
}

impl Fence {
    /// A gate that nobody has opened yet.
    #[must_use]
    pub fn closed() -> Self {
        Self { origin: Instant::now(), until: Arc::new(AtomicU64::new(0)) }
    }

    /// Whether this replica leads now.
    #[must_use]
    pub fn is_open(&self) -> bool {
        let now = nanos(self.origin.elapsed());
        now < self.until.load(Ordering::Acquire)
    }

    /// A client that refuses to send anything while the gate is shut. Give it to whatever may act only as leader:
    /// a process that was stopped and goes on can then not write before it knows that it leads no more.
    #[must_use]
    pub fn guard(&self, client: Client) -> Client {
        let fence = self.clone();
        let namespace = client.default_namespace().to_owned();
        let service = tower::service_fn(move |request: Request<Body>| {
            let (client, fence) = (client.clone(), fence.clone());
            async move {
                if !fence.is_open() {
                    return Err(BoxError::from(NotLeading));
                }
                client.send(request).await.map_err(BoxError::from)
            }
        });
        Client::new(service, namespace)
    }

    pub(super) fn open_until(&self, deadline: Instant) {
        let until = nanos(deadline.saturating_duration_since(self.origin));
        self.until.store(until, Ordering::Release);
    }

    pub(super) fn close(&self) {
        self.until.store(0, Ordering::Release);
    }
}

/// Enough for 584 years.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
