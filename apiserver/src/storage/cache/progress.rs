//! How far the caches have come, and waiting until they have come far enough.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

/// The revision up to which every cache holds every change. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    revision: Arc<watch::Sender<i64>>,
}

impl Default for Progress {
    fn default() -> Self {
        Self { revision: Arc::new(watch::channel(0).0) }
    }
}

impl Progress {
    pub(super) fn revision(&self) -> i64 {
        *self.revision.borrow()
    }

    /// Moves forward; a smaller revision than the present one changes nothing.
    pub(super) fn advance(&self, revision: i64) {
        self.revision.send_if_modified(|now| {
            let forward = revision > *now;
            *now = revision.max(*now);
            forward
        });
    }

    /// Starts again from `revision`, which may be smaller.
    pub(super) fn restart(&self, revision: i64) {
        self.revision.send_replace(revision);
    }

    /// Waits until `revision` is reached; false when it was not within `patience`.
    pub(super) async fn reach(&self, revision: i64, patience: Duration) -> bool {
        if self.revision() >= revision {
            return true;
        }
        let mut receiver = self.revision.subscribe();
        let reached = receiver.wait_for(|now| *now >= revision);
        matches!(tokio::time::timeout(patience, reached).await, Ok(Ok(_)))
    }
}
