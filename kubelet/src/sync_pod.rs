//! Does what a pod's worker has decided: brings the pod to its spec, stops it, or releases what it held.
//!
//! The thin acting shell around [`compute_actions`] and [`pod_status`]. Upstream's concept: `SyncPod`,
//! `SyncTerminatingPod` and `SyncTerminatedPod` of the kubelet, and `SyncPod` of kuberuntime.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodStatus};
use parking_lot::Mutex;

use crate::compute_actions::{KillReason, PodActions, compute_actions};
use crate::crash_loop_backoff::CrashLoopBackOff;
use crate::events::{EventType, Recorder};
use crate::pod;
use crate::pod_manager::PodManager;
use crate::pod_status::{self, Inputs};
use crate::pod_workers::{BACK_OFF_PERIOD, Eviction, Outcome, Work};
use crate::prober::ProbeManager;
use crate::runtime::{
    ContainerKind, ContainerState, PodContext, Runtime, RuntimeError, RuntimePodStatus, StartError,
};
use crate::runtime_state::RuntimeState;
use crate::status_manager::StatusManager;
use crate::volumes::VolumeManager;

mod kill;

/// A wait for something that should come soon (the pod network, the runtime).
const TRANSIENT_BACK_OFF: Duration = Duration::from_secs(1);

/// The acting side's needs, one per kubelet.
#[derive(Debug)]
pub struct PodSyncer {
    pub(crate) runtime: Runtime,
    pub(crate) runtime_state: RuntimeState,
    pub(crate) volumes: VolumeManager,
    pub(crate) pods: PodManager,
    pub(crate) statuses: StatusManager,
    pub(crate) prober: ProbeManager,
    pub(crate) recorder: Recorder,
    pub(crate) node_ips: Vec<IpAddr>,
    pub(crate) back_off: Mutex<CrashLoopBackOff>,
    /// Why containers that should run don't, by pod uid and container name.
    pub(crate) start_errors: Mutex<HashMap<String, HashMap<String, StartError>>>,
}

/// How an attempt to start things ended.
#[derive(Debug, Default)]
struct Progress {
    failed: bool,
    again_after: Option<Duration>,
}

impl Progress {
    fn again(&mut self, delay: Duration) {
        self.again_after = Some(self.again_after.map_or(delay, |held| held.min(delay)));
    }
}

impl PodSyncer {
    /// Does one work.
    pub async fn run(&self, work: Work) -> Outcome {
        match work {
            Work::Sync(pod) => self.sync(&pod).await,
            Work::Terminate(termination) => self.terminate(&termination).await,
            Work::Finish(target) => self.finish(&target).await,
        }
    }

    async fn runtime_status(&self, pod: &Pod) -> Result<RuntimePodStatus, RuntimeError> {
        self.runtime.pod_status(pod::uid(pod), pod::name(pod), pod::namespace(pod)).await
    }

    /// Makes the pod's status anew and hands it to the status manager.
    fn publish(
        &self,
        pod: &Pod,
        runtime: &RuntimePodStatus,
        is_terminal: bool,
        eviction: Option<&Eviction>,
    ) -> PodStatus {
        let uid = pod::uid(pod);
        let reported = || match self.pods.mirror_of(pod).filter(|_| pod::is_static(pod)) {
            Some(mirror) => mirror.status.clone(),
            None => pod.status.clone(),
        };
        let old = self.statuses.get(uid).map(|held| (*held).clone()).or_else(reported).unwrap_or_default();
        let start_errors = self.start_errors.lock().get(uid).cloned().unwrap_or_default();
        let runtime_name = self.runtime_state.runtime_name();
        let mut status = pod_status::generate(&Inputs {
            pod,
            runtime,
            old: &old,
            start_errors: &start_errors,
            readiness: self.prober.results(),
            host_ips: &self.node_ips,
            runtime_name: &runtime_name,
            is_terminal,
            now: Timestamp::now(),
        });
        if let Some(eviction) = eviction {
            status.phase = Some("Failed".to_owned());
            status.reason = Some(eviction.reason.clone());
            status.message = Some(eviction.message.clone());
        }
        self.statuses.set(uid, status.clone());
        status
    }

    async fn sync(&self, pod: &Arc<Pod>) -> Outcome {
        let current = match self.runtime_status(pod).await {
            Ok(current) => current,
            Err(error) => return self.transient(pod, "failed to read the pod from the runtime", &error),
        };
        let status = self.publish(pod, &current, false, None);
        if pod::is_terminal_phase(status.phase.as_deref()) {
            return Outcome::Ended;
        }
        if !pod::is_host_network(pod)
            && let Some(reason) = self.runtime_state.network_not_ready()
        {
            let message = format!("network is not ready: {reason}");
            self.recorder.pod(pod, EventType::Warning, "NetworkNotReady", &message);
            return Outcome::Failed { again_after: TRANSIENT_BACK_OFF };
        }
        let volumes = match self.volumes.ensure_mounted(pod).await {
            Ok(volumes) => volumes,
            Err(error) => {
                self.recorder.pod(pod, EventType::Warning, "FailedMount", &error.to_string());
                return Outcome::Failed { again_after: TRANSIENT_BACK_OFF * 2 };
            }
        };
        self.prober.add_pod(pod);
        let actions = compute_actions(pod, &current, self.prober.results());
        if actions.is_empty() {
            return Outcome::Synced { again_after: None };
        }
        let context = PodContext {
            pod: pod.clone(),
            sandbox_id: String::new(),
            pod_ips: self.pod_ips(pod, &current),
            volumes,
        };
        let progress = self.act(context, &current, &actions).await;
        match self.runtime_status(pod).await {
            Ok(after) => {
                let status = self.publish(pod, &after, false, None);
                if pod::is_terminal_phase(status.phase.as_deref()) {
                    return Outcome::Ended;
                }
            }
            Err(error) => return self.transient(pod, "failed to read the pod from the runtime", &error),
        }
        match progress {
            Progress { failed: true, again_after } => {
                Outcome::Failed { again_after: again_after.unwrap_or(BACK_OFF_PERIOD).min(BACK_OFF_PERIOD) }
            }
            Progress { failed: false, again_after } => Outcome::Synced { again_after },
        }
    }

    fn transient(&self, pod: &Pod, what: &'static str, error: &RuntimeError) -> Outcome {
        tracing::warn!(namespace = pod::namespace(pod), name = pod::name(pod), %error, "{what}");
        Outcome::Failed { again_after: TRANSIENT_BACK_OFF }
    }

    fn pod_ips(&self, pod: &Pod, status: &RuntimePodStatus) -> Vec<IpAddr> {
        if pod::is_host_network(pod) { self.node_ips.clone() } else { status.ips().to_vec() }
    }

    async fn act(
        &self,
        mut context: PodContext,
        current: &RuntimePodStatus,
        actions: &PodActions,
    ) -> Progress {
        let pod = context.pod.clone();
        let mut progress = Progress::default();
        if actions.kill_pod {
            if actions.create_sandbox && actions.sandbox_id.is_some() {
                let message = "Pod sandbox changed, it will be killed and re-created.";
                self.recorder.pod(&pod, EventType::Normal, "SandboxChanged", message);
            }
            let grace = kill::own_grace_period(&pod);
            if let Err(error) = self.kill_pod(&pod, current, grace).await {
                tracing::warn!(namespace = pod::namespace(&pod), name = pod::name(&pod), %error, "failed to kill pod");
                progress.failed = true;
                return progress;
            }
            if !actions.create_sandbox {
                return progress;
            }
        } else if !self.kill_some(&pod, actions).await {
            progress.failed = true;
            return progress;
        }
        context.sandbox_id = if actions.create_sandbox {
            match self.runtime.create_sandbox(&pod, actions.attempt).await {
                Ok(id) => id,
                Err(error) => {
                    let message = format!("Failed to create pod sandbox: {error}");
                    self.recorder.pod(&pod, EventType::Warning, "FailedCreatePodSandBox", &message);
                    progress.failed = true;
                    return progress;
                }
            }
        } else {
            actions.sandbox_id.clone().unwrap_or_default()
        };
        if actions.create_sandbox {
            match self.runtime_status(&pod).await {
                Ok(fresh) => context.pod_ips = self.pod_ips(&pod, &fresh),
                Err(error) => {
                    tracing::warn!(name = pod::name(&pod), %error, "failed to read the new sandbox");
                    progress.failed = true;
                    return progress;
                }
            }
        }
        self.start_all(&context, current, actions, &mut progress).await;
        progress
    }

    /// Kills the containers that must go while the pod stays; true when all are gone.
    async fn kill_some(&self, pod: &Pod, actions: &PodActions) -> bool {
        let kills = actions.containers_to_kill.iter().map(|kill| async move {
            let grace = match kill.reason {
                KillReason::LivenessProbe => kill::probe_grace_period(pod, &kill.name, |c| c.liveness_probe.as_ref()),
                KillReason::StartupProbe => kill::probe_grace_period(pod, &kill.name, |c| c.startup_probe.as_ref()),
                KillReason::SpecChanged | KillReason::Unknown => kill::own_grace_period(pod),
            };
            match self.runtime.kill_container(pod, &kill.id, &kill.name, grace, &kill.message).await {
                Ok(()) => true,
                Err(error) => {
                    tracing::warn!(name = pod::name(pod), container = %kill.name, %error, "failed to kill container");
                    false
                }
            }
        });
        futures::future::join_all(kills).await.into_iter().all(|done| done)
    }

    async fn start_all(
        &self,
        context: &PodContext,
        current: &RuntimePodStatus,
        actions: &PodActions,
        progress: &mut Progress,
    ) {
        let Some(spec) = context.pod.spec.as_ref() else { return };
        let init = spec.init_containers.as_deref().unwrap_or_default();
        for container in actions.init_containers_to_start.iter().filter_map(|index| init.get(*index)) {
            let sidecar = pod::is_sidecar(container);
            let kind = if sidecar { ContainerKind::Sidecar } else { ContainerKind::Init };
            if !self.start(context, current, container, kind, progress).await && !sidecar {
                return;
            }
        }
        for container in actions.containers_to_start.iter().filter_map(|index| spec.containers.get(*index)) {
            self.start(context, current, container, ContainerKind::Regular, progress).await;
        }
    }

    /// Starts one container unless it is backing off; true when it runs.
    async fn start(
        &self,
        context: &PodContext,
        current: &RuntimePodStatus,
        container: &Container,
        kind: ContainerKind,
        progress: &mut Progress,
    ) -> bool {
        let pod = &context.pod;
        let uid = pod::uid(pod);
        if let Some((delay, remaining)) = self.backing_off(pod, current, container) {
            let formatted = pod::format(pod);
            let name = &container.name;
            self.recorder.container(
                pod,
                name,
                EventType::Warning,
                "BackOff",
                &format!("Back-off restarting failed container {name} in pod {formatted}"),
            );
            let delay = component_base::duration::format(delay);
            self.note(
                uid,
                name,
                Some(StartError {
                    reason: "CrashLoopBackOff".to_owned(),
                    message: format!("back-off {delay} restarting failed container={name} pod={formatted}"),
                }),
            );
            progress.again(remaining);
            return false;
        }
        let attempt = next_attempt(pod, current, self.statuses.get(uid).as_deref(), container);
        match self.runtime.start_container(context, container, kind, attempt).await {
            Ok(_) => {
                self.note(uid, &container.name, None);
                true
            }
            Err(error) => {
                tracing::warn!(
                    namespace = pod::namespace(pod),
                    name = pod::name(pod),
                    container = %container.name,
                    %error,
                    "failed to start container"
                );
                self.note(uid, &container.name, Some(error));
                progress.failed = true;
                false
            }
        }
    }

    fn note(&self, uid: &str, container: &str, error: Option<StartError>) {
        let mut all = self.start_errors.lock();
        let errors = all.entry(uid.to_owned()).or_default();
        match error {
            Some(error) => errors.insert(container.to_owned(), error),
            None => errors.remove(container),
        };
    }

    /// `(whole delay, what is left)` when the container ended too recently.
    fn backing_off(
        &self,
        pod: &Pod,
        current: &RuntimePodStatus,
        container: &Container,
    ) -> Option<(Duration, Duration)> {
        let last = current.containers.iter().find(|c| c.name == container.name)?;
        if last.state != ContainerState::Exited {
            return None;
        }
        let now = Timestamp::now();
        let key = format!("{}_{}_{}", pod::uid(pod), container.name, crate::runtime::spec_hash(container));
        let refused = self.back_off.lock().try_restart(&key, last.finished_at.unwrap_or(now), now)?;
        Some((refused.delay, refused.remaining))
    }

    /// The pod's containers, logs and cgroup stay until its source forgets it (a finished Job's logs can be read).
    async fn finish(&self, target: &crate::pod_workers::Target) -> Outcome {
        let uid = target.uid();
        if let Err(error) = self.volumes.unmount_pod(uid).await {
            tracing::warn!(uid, %error, "failed to unmount the volumes of a pod");
            return Outcome::Failed { again_after: TRANSIENT_BACK_OFF };
        }
        self.start_errors.lock().remove(uid);
        self.statuses.finish(uid);
        Outcome::Finished
    }
}

/// The attempt number of the next container: what the runtime or, if it forgot, the last status counted, plus one.
fn next_attempt(
    pod: &Pod,
    current: &RuntimePodStatus,
    status: Option<&PodStatus>,
    container: &Container,
) -> u32 {
    if let Some(last) = current.container(&container.name) {
        return last.restart_count.saturating_add(1);
    }
    let reported = status.or(pod.status.as_ref()).into_iter().flat_map(|status| {
        status.container_statuses.iter().chain(&status.init_container_statuses).flatten().collect::<Vec<_>>()
    });
    let known = reported.into_iter().find(|c| c.name == container.name && c.container_id.is_some());
    known.map_or(0, |c| u32::try_from(c.restart_count).unwrap_or(0).saturating_add(1))
}
