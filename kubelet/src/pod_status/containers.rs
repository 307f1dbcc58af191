//! Container statuses: the state now, the one before, readiness and restart counts.
//!
//! Upstream's concept: `convertToAPIContainerStatuses` in `pkg/kubelet/kubelet_pods.go`.

use k8s_openapi::api::core::v1::{
    Container, ContainerState as ApiState, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, PodSpec, ResourceRequirements, VolumeMountStatus,
};

use super::Inputs;
use crate::compute_actions::{init_may_retry, should_be_restarted};
use crate::pod::{self, is_sidecar};
use crate::runtime::{ContainerState, RuntimeContainerStatus};

/// Statuses of `spec.containers`, sorted by name as upstream's.
pub(super) fn regular_statuses(inputs: &Inputs<'_>, spec: &PodSpec) -> Option<Vec<ContainerStatus>> {
    let default_reason = if spec.init_containers.as_ref().is_some_and(|init| !init.is_empty()) {
        "PodInitializing"
    } else {
        "ContainerCreating"
    };
    let mut statuses: Vec<_> =
        spec.containers.iter().map(|container| one(inputs, spec, container, false, default_reason)).collect();
    statuses.sort_by(|a, b| a.name.cmp(&b.name));
    Some(statuses)
}

/// Statuses of `spec.initContainers`, in order.
pub(super) fn init_statuses(inputs: &Inputs<'_>, spec: &PodSpec) -> Option<Vec<ContainerStatus>> {
    let init = spec.init_containers.as_ref().filter(|init| !init.is_empty())?;
    Some(init.iter().map(|container| one(inputs, spec, container, true, "PodInitializing")).collect())
}

fn waiting(reason: &str, message: Option<String>) -> ApiState {
    let waiting = ContainerStateWaiting { reason: Some(reason.to_owned()), message };
    ApiState { waiting: Some(waiting), ..ApiState::default() }
}

fn terminated(inputs: &Inputs<'_>, status: &RuntimeContainerStatus) -> ApiState {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let terminated = ContainerStateTerminated {
        container_id: Some(container_id(inputs, &status.id)),
        exit_code: status.exit_code,
        reason: text(&status.reason),
        message: text(&status.message),
        started_at: status.started_at.map(pod::time),
        finished_at: status.finished_at.map(pod::time),
        signal: None,
    };
    ApiState { terminated: Some(terminated), ..ApiState::default() }
}

/// The runtime has lost a container that the API shows as running.
fn lost(old: &ApiState) -> Option<ApiState> {
    let running = old.running.as_ref()?;
    let terminated = ContainerStateTerminated {
        exit_code: 137,
        reason: Some("ContainerStatusUnknown".to_owned()),
        message: Some("The container could not be located when the pod was terminated".to_owned()),
        started_at: running.started_at.clone(),
        ..ContainerStateTerminated::default()
    };
    Some(ApiState { terminated: Some(terminated), ..ApiState::default() })
}

fn container_id(inputs: &Inputs<'_>, id: &str) -> String {
    format!("{}://{id}", inputs.runtime_name)
}

fn one(
    inputs: &Inputs<'_>,
    spec: &PodSpec,
    container: &Container,
    init: bool,
    default_reason: &str,
) -> ContainerStatus {
    let attempts: Vec<_> = inputs.runtime.containers.iter().filter(|c| c.name == container.name).collect();
    let old_list = if init {
        inputs.old.init_container_statuses.as_ref()
    } else {
        inputs.old.container_statuses.as_ref()
    };
    let old = old_list.into_iter().flatten().find(|status| status.name == container.name);
    let mut status = match attempts.first() {
        Some(newest) => from_runtime(inputs, newest, default_reason),
        None => never_seen(inputs, container, old, default_reason),
    };
    if let Some(previous) = attempts.get(1).filter(|previous| previous.state == ContainerState::Exited) {
        status.last_state = Some(terminated(inputs, previous));
    } else if status.last_state.is_none() {
        // The runtime may have collected the attempt before; what was reported of it stays.
        status.last_state = old
            .filter(|old| old.container_id == status.container_id || attempts.is_empty())
            .and_then(|old| old.last_state.clone());
    }
    explain_waiting(inputs, spec, container, attempts.first().copied(), init, &mut status);
    fill_readiness(inputs, container, attempts.first().copied(), init, &mut status);
    fill_resources(container, &mut status);
    status
}

fn from_runtime(
    inputs: &Inputs<'_>,
    newest: &RuntimeContainerStatus,
    default_reason: &str,
) -> ContainerStatus {
    let state = match newest.state {
        ContainerState::Running => {
            let running = ContainerStateRunning { started_at: newest.started_at.map(pod::time) };
            ApiState { running: Some(running), ..ApiState::default() }
        }
        ContainerState::Exited => terminated(inputs, newest),
        ContainerState::Created | ContainerState::Unknown => waiting(default_reason, None),
    };
    ContainerStatus {
        name: newest.name.clone(),
        restart_count: i32::try_from(newest.restart_count).unwrap_or(i32::MAX),
        image: newest.image.clone(),
        image_id: newest.image_id.clone(),
        container_id: Some(container_id(inputs, &newest.id)),
        state: Some(state),
        ..ContainerStatus::default()
    }
}

fn never_seen(
    inputs: &Inputs<'_>,
    container: &Container,
    old: Option<&ContainerStatus>,
    default_reason: &str,
) -> ContainerStatus {
    let mut status = ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        state: Some(waiting(default_reason, None)),
        ..ContainerStatus::default()
    };
    let Some(old) = old else { return status };
    status.restart_count = old.restart_count;
    if let Some(ended) = old.state.as_ref().filter(|state| state.terminated.is_some()) {
        // It ended and the runtime has forgotten it: what was reported still holds.
        status.state = Some(ended.clone());
        status.container_id.clone_from(&old.container_id);
        status.image_id.clone_from(&old.image_id);
        return status;
    }
    let Some(ended) = old.state.as_ref().and_then(lost) else { return status };
    status.container_id.clone_from(&old.container_id);
    status.image_id.clone_from(&old.image_id);
    if inputs.is_terminal {
        status.state = Some(ended);
    } else {
        status.last_state = Some(ended);
        status.restart_count = status.restart_count.saturating_add(1);
    }
    status
}

/// A container that should run again and can't yet is shown waiting, with the reason, and its end as the last state.
fn explain_waiting(
    inputs: &Inputs<'_>,
    spec: &PodSpec,
    container: &Container,
    newest: Option<&RuntimeContainerStatus>,
    init: bool,
    status: &mut ContainerStatus,
) {
    if inputs.is_terminal || newest.is_some_and(|c| c.state == ContainerState::Running) {
        return;
    }
    let restarts = match newest {
        Some(ended) if init && ended.state == ContainerState::Exited && !is_sidecar(container) => {
            ended.exit_code != 0 && init_may_retry(spec, container, ended.exit_code)
        }
        newest => should_be_restarted(inputs.pod, spec, container, newest),
    };
    let Some(error) = inputs.start_errors.get(&container.name).filter(|_| restarts) else { return };
    let state = status.state.take().unwrap_or_default();
    if state.terminated.is_some() {
        status.last_state = Some(state);
    }
    status.state = Some(waiting(&error.reason, (!error.message.is_empty()).then(|| error.message.clone())));
}

fn fill_readiness(
    inputs: &Inputs<'_>,
    container: &Container,
    newest: Option<&RuntimeContainerStatus>,
    init: bool,
    status: &mut ContainerStatus,
) {
    let running = newest.filter(|c| {
        c.state == ContainerState::Running && status.state.as_ref().is_some_and(|s| s.running.is_some())
    });
    let started = running.is_some_and(|c| inputs.readiness.started(inputs.pod, &container.name, &c.id));
    status.started = Some(started);
    if init && !is_sidecar(container) {
        let exit = status.state.as_ref().and_then(|s| s.terminated.as_ref()).map(|t| t.exit_code);
        status.ready = exit == Some(0);
        return;
    }
    status.ready =
        started && running.is_some_and(|c| inputs.readiness.ready(inputs.pod, &container.name, &c.id));
}

/// What the container was given: requests, limits and mounts (there is no in-place resize yet, so the spec's).
fn fill_resources(container: &Container, status: &mut ContainerStatus) {
    let asked = container.resources.clone().unwrap_or_default();
    status.allocated_resources = asked.requests.clone().filter(|requests| !requests.is_empty());
    status.resources =
        Some(ResourceRequirements { claims: None, limits: asked.limits, requests: asked.requests });
    let mounts: Vec<VolumeMountStatus> = container
        .volume_mounts
        .iter()
        .flatten()
        .map(|mount| VolumeMountStatus {
            name: mount.name.clone(),
            mount_path: mount.mount_path.clone(),
            read_only: mount.read_only,
            recursive_read_only: mount.read_only.unwrap_or(false).then(|| "Disabled".to_owned()),
            ..VolumeMountStatus::default()
        })
        .collect();
    status.volume_mounts = (!mounts.is_empty()).then_some(mounts);
}
