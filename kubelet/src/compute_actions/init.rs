//! Init containers in order, and sidecars (init containers with `restartPolicy: Always`).
//!
//! Upstream's concept: `computeInitContainerActions` in `pkg/kubelet/kuberuntime/kuberuntime_container.go`.

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

use super::{
    ContainerToKill, KillReason, PodActions, ProbeVerdicts, definition_changed, init_may_retry, kill_unknown,
};
use crate::pod::is_sidecar;
use crate::runtime::{ContainerState, RuntimeContainerStatus, RuntimePodStatus};

/// Whether any regular container was ever created: then every init container has done its work.
pub(super) fn any_regular_container_known(spec: &PodSpec, status: &RuntimePodStatus) -> bool {
    spec.containers.iter().any(|container| status.container(&container.name).is_some())
}

/// Like [`any_regular_container_known`], but only in the sandbox in use: a new sandbox initializes anew.
fn initialized_in_this_sandbox(spec: &PodSpec, status: &RuntimePodStatus) -> bool {
    let Some(sandbox) = status.sandboxes.first() else { return false };
    spec.containers
        .iter()
        .any(|container| status.container(&container.name).is_some_and(|c| c.sandbox_id == sandbox.id))
}

/// The newest status of an init container, of the sandbox in use.
fn current<'a>(status: &'a RuntimePodStatus, container: &Container) -> Option<&'a RuntimeContainerStatus> {
    let sandbox = status.sandboxes.first()?;
    status.container(&container.name).filter(|c| c.sandbox_id == sandbox.id)
}

/// What one init container asks for.
enum Step {
    /// Done (or a sidecar that is up): the next one may go.
    Initialized,
    /// Running, or waiting for its startup probe.
    Wait,
    /// Start it (again).
    Start,
    /// Kill, then start again.
    Restart(ContainerToKill),
    /// Restart, but it counts as up (a sidecar that failed its liveness probe).
    RestartInitialized(ContainerToKill),
    /// Failed, and never to be retried.
    Fatal,
}

fn step(
    spec: &PodSpec,
    container: &Container,
    current: &RuntimeContainerStatus,
    probes: &dyn ProbeVerdicts,
) -> Step {
    let sidecar = is_sidecar(container);
    let name = &container.name;
    let kill = |message: String, reason| ContainerToKill {
        id: current.id.clone(),
        name: name.clone(),
        message,
        reason,
    };
    match current.state {
        ContainerState::Running if !sidecar => Step::Wait,
        ContainerState::Running => {
            if container.startup_probe.is_some() {
                match probes.startup(&current.id) {
                    None => return Step::Wait,
                    Some(false) => {
                        let message = format!("Init container {name} failed startup probe");
                        return Step::Restart(kill(message, KillReason::StartupProbe));
                    }
                    Some(true) => {}
                }
            }
            if definition_changed(container, current) {
                let message = format!("Init container {name} definition changed");
                return Step::RestartInitialized(kill(message, KillReason::SpecChanged));
            }
            if probes.liveness(&current.id) == Some(false) {
                let message = format!("Init container {name} failed liveness probe");
                return Step::RestartInitialized(kill(message, KillReason::LivenessProbe));
            }
            Step::Initialized
        }
        ContainerState::Exited if sidecar => Step::Start,
        ContainerState::Exited if current.exit_code == 0 => Step::Initialized,
        ContainerState::Exited => {
            if init_may_retry(spec, container, current.exit_code) {
                Step::Start
            } else {
                Step::Fatal
            }
        }
        // Starting is synchronous in the pod's worker, so a container that is only created was left by a crash.
        ContainerState::Created => Step::Start,
        ContainerState::Unknown => {
            if sidecar || init_may_retry(spec, container, current.exit_code) {
                Step::Restart(kill_unknown("Init container", container, current))
            } else {
                Step::Fatal
            }
        }
    }
}

/// Notes what the init containers need; true when the regular containers may run.
pub(super) fn compute(
    pod: &Pod,
    spec: &PodSpec,
    status: &RuntimePodStatus,
    probes: &dyn ProbeVerdicts,
    actions: &mut PodActions,
) -> bool {
    let init_containers = spec.init_containers.as_deref().unwrap_or_default();
    if init_containers.is_empty() {
        return true;
    }
    let deleted = pod.metadata.deletion_timestamp.is_some();
    if initialized_in_this_sandbox(spec, status) {
        keep_sidecars_running(spec, init_containers, status, probes, actions, deleted);
        return true;
    }
    // The newest init container that exists decides; sidecars before it are kept running too.
    let Some(last) = init_containers.iter().rposition(|c| current(status, c).is_some()) else {
        actions.init_containers_to_start = vec![0];
        return false;
    };
    for (index, container) in init_containers.iter().enumerate().take(last) {
        if !is_sidecar(container) {
            continue;
        }
        match current(status, container).map(|c| step(spec, container, c, probes)) {
            None | Some(Step::Start) => actions.init_containers_to_start.push(index),
            Some(Step::Restart(kill) | Step::RestartInitialized(kill)) => {
                actions.containers_to_kill.push(kill);
                actions.init_containers_to_start.push(index);
            }
            Some(Step::Initialized | Step::Wait | Step::Fatal) => {}
        }
    }
    let Some(newest) = current(status, &init_containers[last]) else { return false };
    let mut initialized = false;
    match step(spec, &init_containers[last], newest, probes) {
        Step::Wait => {}
        Step::Start => actions.init_containers_to_start.push(last),
        Step::Restart(kill) => {
            actions.containers_to_kill.push(kill);
            actions.init_containers_to_start.push(last);
        }
        Step::RestartInitialized(kill) => {
            actions.containers_to_kill.push(kill);
            actions.init_containers_to_start.push(last);
            initialized = true;
        }
        Step::Initialized => initialized = true,
        Step::Fatal => {
            actions.kill_pod = true;
            actions.init_containers_to_start.clear();
            return false;
        }
    }
    if initialized && last + 1 < init_containers.len() {
        actions.init_containers_to_start.push(last + 1);
        return false;
    }
    initialized
}

fn keep_sidecars_running(
    spec: &PodSpec,
    init_containers: &[Container],
    status: &RuntimePodStatus,
    probes: &dyn ProbeVerdicts,
    actions: &mut PodActions,
    deleted: bool,
) {
    if deleted {
        return;
    }
    for (index, container) in init_containers.iter().enumerate().filter(|(_, c)| is_sidecar(c)) {
        match current(status, container).map(|c| step(spec, container, c, probes)) {
            None | Some(Step::Start) => actions.init_containers_to_start.push(index),
            Some(Step::Restart(kill) | Step::RestartInitialized(kill)) => {
                actions.containers_to_kill.push(kill);
                actions.init_containers_to_start.push(index);
            }
            Some(Step::Initialized | Step::Wait | Step::Fatal) => {}
        }
    }
}
