//! Leases for objects that expire (events). Objects written in the same minute share a lease, since each lease costs
//! etcd a heartbeat queue entry and a raft entry.
//!
//! Upstream: `apiserver/pkg/storage/etcd3/lease_manager.go`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use etcd_client::LeaseClient;
use tokio::sync::Mutex;

/// For how long a lease is given to further objects.
const REUSE: Duration = Duration::from_secs(60);
/// Objects under one lease; etcd deletes them all in one step.
const MAX_OBJECTS: usize = 1_000;

#[derive(Clone)]
pub(super) struct Leases {
    client: LeaseClient,
    current: Arc<Mutex<Option<Current>>>,
}

struct Current {
    id: i64,
    ttl_seconds: i64,
    reuse_until: Instant,
    objects: usize,
}

impl Leases {
    pub(super) fn new(client: LeaseClient) -> Self {
        Self { client, current: Arc::default() }
    }

    /// A lease that lives for at least `ttl_seconds` from now.
    pub(super) async fn lease(&self, ttl_seconds: i64) -> Result<i64, etcd_client::Error> {
        let mut current = self.current.lock().await;
        if let Some(lease) = current.as_mut()
            && lease.ttl_seconds == ttl_seconds
            && lease.objects < MAX_OBJECTS
            && Instant::now() < lease.reuse_until
        {
            lease.objects += 1;
            return Ok(lease.id);
        }
        let granted =
            Box::pin(self.client.clone().grant(ttl_seconds + REUSE.as_secs().cast_signed(), None)).await?;
        *current =
            Some(Current { id: granted.id(), ttl_seconds, reuse_until: Instant::now() + REUSE, objects: 1 });
        Ok(granted.id())
    }
}
