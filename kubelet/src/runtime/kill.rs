//! Stopping containers within their grace period, preStop included, and removing what they leave. Upstream's concept:
//! `killContainer`, `removeContainer`.

use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod};
use tokio::time::Instant;

use super::labels::{PRE_STOP_HANDLER, identity};
use super::sandbox::pod_log_dir;
use super::security::all_containers;
use super::types::RuntimeError;
use super::{Runtime, hooks, log_files};
use crate::events::EventType;

/// A container always gets this long, however long its preStop took.
const MIN_GRACE_SECONDS: i64 = 2;

/// What is left of the grace period after preStop.
fn remaining_grace(grace: i64, spent: Duration) -> i64 {
    let spent = i64::try_from(spent.as_secs()).unwrap_or(i64::MAX);
    grace.saturating_sub(spent).max(MIN_GRACE_SECONDS)
}

impl Runtime {
    /// The container's spec and preStop handler: from the pod, or from the container's annotations when the pod is no
    /// longer known in full.
    async fn pre_stop_of(&self, pod: &Pod, id: &str, name: &str) -> Option<(Container, LifecycleHandler)> {
        let spec = pod.spec.as_ref().and_then(|spec| all_containers(spec).find(|c| c.name == name));
        if let Some(container) = spec {
            let handler = container.lifecycle.as_ref()?.pre_stop.clone()?;
            return Some((container.clone(), handler));
        }
        let status = self.cri.container_status(id).await.ok()?;
        let handler = serde_json::from_str(status.annotations.get(PRE_STOP_HANDLER)?).ok()?;
        Some((Container { name: name.to_owned(), ..Default::default() }, handler))
    }

    async fn pre_stop(&self, pod: &Pod, id: &str, name: &str, grace: i64) {
        let Some((container, handler)) = self.pre_stop_of(pod, id, name).await else { return };
        let pod_ip = pod.status.as_ref().and_then(|s| s.pod_ip.as_deref()).and_then(|ip| ip.parse().ok());
        let limit = Duration::from_secs(grace.max(0).unsigned_abs());
        let hook = hooks::run(&self.cri, &handler, &container, id, pod_ip);
        match tokio::time::timeout(limit, hook).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                self.config.recorder.container(
                    pod,
                    name,
                    EventType::Warning,
                    "FailedPreStopHook",
                    "PreStopHook failed",
                );
                tracing::warn!(container = name, %error, "preStop hook failed");
            }
            Err(_) => tracing::warn!(container = name, grace, "preStop hook outlived the grace period"),
        }
    }

    /// Runs preStop inside the grace period, then stops. `message` is the Killing event's text. A container that is
    /// gone already is killed well enough.
    pub async fn kill_container(
        &self,
        pod: &Pod,
        container_id: &str,
        container_name: &str,
        grace_period_seconds: i64,
        message: &str,
    ) -> Result<(), RuntimeError> {
        let message = if message.is_empty() {
            format!("Stopping container {container_name}")
        } else {
            message.to_owned()
        };
        self.config.recorder.container(pod, container_name, EventType::Normal, "Killing", &message);
        let started = Instant::now();
        let mut grace = grace_period_seconds.max(0);
        if grace > 0 {
            self.pre_stop(pod, container_id, container_name, grace).await;
            grace = remaining_grace(grace, started.elapsed());
        }
        match self.cri.stop_container(container_id, grace).await {
            Err(error) if !error.is_not_found() => Err(self.error(error)),
            _ => Ok(()),
        }
    }

    /// CRI RemoveContainer and its log files (idempotent).
    pub async fn remove_container(&self, id: &str) -> Result<(), RuntimeError> {
        let log = match self.cri.container_status(id).await {
            Ok(status) => PathBuf::from(status.log_path),
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(self.error(error)),
        };
        if let Err(error) = log_files::remove_container_logs(&self.config.pod_logs_dir, id, &log) {
            tracing::warn!(id, %error, "container's logs not removed");
        }
        match self.cri.remove_container(id).await {
            Err(error) if !error.is_not_found() => Err(self.error(error)),
            _ => Ok(()),
        }
    }

    /// Removes what the node keeps for a pod that is gone: its cgroup and its log directory.
    pub async fn cleanup_pod(&self, uid: &str, name: &str, namespace: &str) -> Result<(), RuntimeError> {
        self.cgroups
            .remove_pod(uid)
            .await
            .map_err(|error| RuntimeError::Failed(component_base::error_chain::Chain(&error).to_string()))?;
        if [uid, name, namespace].iter().any(|part| part.is_empty() || part.contains('/')) {
            return Ok(());
        }
        let directory = pod_log_dir(&self.config.pod_logs_dir, namespace, name, uid);
        log_files::remove_pod_logs(&self.config.pod_logs_dir, &directory).map_err(|error| {
            RuntimeError::Failed(format!("failed to remove {}: {error}", directory.display()))
        })?;
        tracing::debug!(namespace, name, uid, "pod's cgroup and logs removed");
        Ok(())
    }

    /// Whether a pod object's identity is whole enough to name things by.
    #[must_use]
    pub fn has_identity(pod: &Pod) -> bool {
        let id = identity(pod);
        !id.uid.is_empty() && !id.name.is_empty() && !id.namespace.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grace_after_pre_stop() {
        for (grace, spent, left) in [(30, 0, 30), (30, 10, 20), (30, 29, 2), (30, 400, 2), (1, 0, 2)] {
            assert_eq!(remaining_grace(grace, Duration::from_secs(spent)), left, "{grace} {spent}");
        }
    }
}
