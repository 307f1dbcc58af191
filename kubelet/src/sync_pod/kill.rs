//! Stopping pods: containers by role, then sandboxes, and the status while it happens.

use std::time::Instant;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, Probe};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{BACK_OFF_PERIOD, PodSyncer, TRANSIENT_BACK_OFF};
use crate::pod;
use crate::pod_workers::{Outcome, Target, Termination};
use crate::runtime::{ContainerState, RuntimeContainerStatus, RuntimeError, RuntimePodStatus};

/// The pod's own grace period: 30 s unless it says otherwise, never below one second.
pub(super) fn own_grace_period(pod: &Pod) -> i64 {
    const DEFAULT: i64 = 30;
    pod.metadata
        .deletion_grace_period_seconds
        .or_else(|| pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds))
        .unwrap_or(DEFAULT)
        .max(1)
}

/// A failed probe may have its own `terminationGracePeriodSeconds`.
pub(super) fn probe_grace_period(pod: &Pod, name: &str, probe: fn(&Container) -> Option<&Probe>) -> i64 {
    pod.spec
        .as_ref()
        .and_then(|spec| pod::container(spec, name))
        .and_then(|(_, container)| probe(container))
        .and_then(|probe| probe.termination_grace_period_seconds)
        .unwrap_or_else(|| own_grace_period(pod))
}

/// Running containers in the order they are stopped: all at once first, then sidecars one by one, last started first.
fn kill_order<'a>(
    spec: Option<&PodSpec>,
    status: &'a RuntimePodStatus,
) -> (Vec<&'a RuntimeContainerStatus>, Vec<&'a RuntimeContainerStatus>) {
    let alive =
        |c: &&RuntimeContainerStatus| matches!(c.state, ContainerState::Running | ContainerState::Unknown);
    let sidecars: Vec<&str> = spec
        .and_then(|spec| spec.init_containers.as_ref())
        .into_iter()
        .flatten()
        .filter(|c| pod::is_sidecar(c))
        .map(|c| c.name.as_str())
        .collect();
    let (mut late, first): (Vec<_>, Vec<_>) =
        status.containers.iter().filter(alive).partition(|c| sidecars.contains(&c.name.as_str()));
    late.sort_by_key(|c| std::cmp::Reverse(sidecars.iter().position(|name| *name == c.name)));
    (first, late)
}

/// A pod that only the runtime knows, as far as it can be known.
fn orphan(target: &Target) -> Option<Pod> {
    let Target::Orphan(summary) = target else { return None };
    let metadata = ObjectMeta {
        uid: Some(summary.uid.clone()),
        name: Some(summary.name.clone()),
        namespace: Some(summary.namespace.clone()),
        ..ObjectMeta::default()
    };
    Some(Pod { metadata, ..Pod::default() })
}

impl PodSyncer {
    /// Stops everything of a pod that is to go.
    pub(super) async fn terminate(&self, termination: &Termination) -> Outcome {
        let orphaned = orphan(&termination.target);
        let pod: &Pod = match (&termination.target, &orphaned) {
            (Target::Pod(pod), _) => pod,
            (Target::Orphan(_), Some(pod)) => pod,
            (Target::Orphan(_), None) => return Outcome::Terminated,
        };
        let current = match self.runtime_status(pod).await {
            Ok(current) => current,
            Err(error) => return self.transient(pod, "failed to read the pod from the runtime", &error),
        };
        if orphaned.is_none() {
            self.publish(pod, &current, false, termination.eviction.as_ref());
        }
        self.prober.stop_liveness_and_startup(pod::uid(pod));
        if let Err(error) = self.kill_pod(pod, &current, termination.grace_period_seconds).await {
            tracing::warn!(namespace = pod::namespace(pod), name = pod::name(pod), %error, "failed to kill pod");
            return Outcome::Failed { again_after: BACK_OFF_PERIOD };
        }
        self.prober.remove_pod(pod::uid(pod));
        let after = match self.runtime_status(pod).await {
            Ok(after) => after,
            Err(error) => return self.transient(pod, "failed to read the pod from the runtime", &error),
        };
        if after.containers.iter().any(|c| c.state == ContainerState::Running) {
            tracing::warn!(
                namespace = pod::namespace(pod),
                name = pod::name(pod),
                "containers still run after the kill"
            );
            return Outcome::Failed { again_after: TRANSIENT_BACK_OFF };
        }
        if orphaned.is_none() {
            self.publish(pod, &after, true, termination.eviction.as_ref());
        }
        Outcome::Terminated
    }

    /// Kills all running containers within the grace period, then stops the sandboxes.
    pub(super) async fn kill_pod(
        &self,
        pod: &Pod,
        status: &RuntimePodStatus,
        grace_period_seconds: i64,
    ) -> Result<(), RuntimeError> {
        let (first, sidecars) = kill_order(pod.spec.as_ref(), status);
        let began = Instant::now();
        let kills = first.iter().map(|container| self.kill_one(pod, container, grace_period_seconds));
        let mut failed = None;
        for result in futures::future::join_all(kills).await {
            if let Err(error) = result {
                failed.get_or_insert(error);
            }
        }
        for container in sidecars {
            // Sidecars share what the others left of the grace period.
            let spent = i64::try_from(began.elapsed().as_secs()).unwrap_or(i64::MAX);
            let left = grace_period_seconds.saturating_sub(spent).max(2).min(grace_period_seconds.max(1));
            if let Err(error) = self.kill_one(pod, container, left).await {
                failed.get_or_insert(error);
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
        for sandbox in &status.sandboxes {
            self.runtime.stop_sandbox(&sandbox.id).await?;
        }
        Ok(())
    }

    async fn kill_one(
        &self,
        pod: &Pod,
        container: &RuntimeContainerStatus,
        grace: i64,
    ) -> Result<(), RuntimeError> {
        let message = format!("Stopping container {}", container.name);
        match self.runtime.kill_container(pod, &container.id, &container.name, grace, &message).await {
            Err(RuntimeError::NotFound(_)) => Ok(()),
            other => other,
        }
    }
}
