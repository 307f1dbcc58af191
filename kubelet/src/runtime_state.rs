//! What the kubelet last heard of the runtime's health: its conditions and its name, refreshed every few seconds.
//!
//! Upstream's concept: `pkg/kubelet/runtime.go` (`runtimeState`).

use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::runtime::{Runtime, RuntimeConditions, RuntimeError, RuntimeVersion};

const FAST: Duration = Duration::from_secs(1);
const SLOW: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
struct Inner {
    conditions: Option<Result<RuntimeConditions, String>>,
    version: Option<RuntimeVersion>,
    pleg_error: Option<String>,
}

/// Written by one task, read by everybody. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct RuntimeState {
    inner: Arc<RwLock<Inner>>,
    changed: Arc<Notify>,
}

impl RuntimeState {
    /// `containerd`, once the runtime has said so.
    #[must_use]
    pub fn runtime_name(&self) -> String {
        self.inner.read().version.as_ref().map_or_else(|| "containerd".to_owned(), |v| v.name.clone())
    }

    /// `containerd://1.6.20`.
    #[must_use]
    pub fn runtime_version(&self) -> Option<String> {
        self.inner.read().version.as_ref().map(|v| format!("{}://{}", v.name, v.version))
    }

    /// Why pods can't get a network, if they can't.
    #[must_use]
    pub fn network_not_ready(&self) -> Option<String> {
        match &self.inner.read().conditions {
            None => Some("runtime network not ready: no status yet".to_owned()),
            Some(Err(error)) => {
                Some(format!("container runtime status check may not have completed yet: {error}"))
            }
            Some(Ok(conditions)) if !conditions.network.status => Some(format!(
                "container runtime network not ready: NetworkReady=false reason:{} message:{}",
                conditions.network.reason, conditions.network.message
            )),
            Some(Ok(_)) => None,
        }
    }

    /// Everything that makes the node not ready, in upstream's words.
    #[must_use]
    pub fn errors(&self) -> Vec<String> {
        let inner = self.inner.read();
        let mut errors = Vec::new();
        match &inner.conditions {
            None => errors.push("container runtime status check may not have completed yet".to_owned()),
            Some(Err(error)) => errors.push(format!("container runtime is down: {error}")),
            Some(Ok(conditions)) => {
                let (runtime, network) = (&conditions.runtime, &conditions.network);
                if !runtime.status {
                    errors.push(format!(
                        "container runtime not ready: RuntimeReady=false reason:{} message:{}",
                        runtime.reason, runtime.message
                    ));
                }
                if !network.status {
                    errors.push(format!(
                        "container runtime network not ready: NetworkReady=false reason:{} message:{}",
                        network.reason, network.message
                    ));
                }
            }
        }
        errors.extend(inner.pleg_error.clone());
        errors
    }

    /// Set by PLEG when it can't relist, cleared when it can.
    pub fn set_pleg_error(&self, error: Option<String>) {
        self.inner.write().pleg_error = error;
    }

    /// Whether the runtime has been asked at least once.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.inner.read().conditions.is_some()
    }

    /// Resolves when the conditions have changed.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    fn record(&self, result: Result<RuntimeConditions, RuntimeError>) -> bool {
        let result = result.map_err(|error| error.to_string());
        let healthy = result.as_ref().is_ok_and(|c| c.runtime.status && c.network.status);
        let mut inner = self.inner.write();
        if inner.conditions.as_ref() != Some(&result) {
            match &result {
                Ok(conditions) => tracing::info!(
                    runtime_ready = conditions.runtime.status,
                    network_ready = conditions.network.status,
                    message = %conditions.network.message,
                    "container runtime status"
                ),
                Err(error) => tracing::error!(%error, "container runtime status check failed"),
            }
            inner.conditions = Some(result);
            self.changed.notify_one();
        }
        healthy
    }

    /// Asks the runtime again and again until shutdown.
    pub async fn run(self, runtime: Runtime, shutdown: CancellationToken) {
        loop {
            if self.inner.read().version.is_none()
                && let Ok(version) = runtime.version().await
            {
                self.inner.write().version = Some(version);
            }
            let healthy = self.record(runtime.conditions().await);
            let wait = if healthy { SLOW } else { FAST };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }
}
