//! The conditions that the kubelet owns. Upstream's concept: `pkg/kubelet/status/generate.go`.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition, PodSpec, PodStatus};

use super::Inputs;
use crate::pod::{self, is_sidecar};
use crate::runtime::SandboxState;

/// Types that only the kubelet writes; others (`DisruptionTarget`, readiness gates) are kept as they are.
const OWNED: &[&str] =
    &["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];

/// Whether the kubelet is the writer of this condition type.
#[must_use]
pub fn owns_condition(type_: &str) -> bool {
    OWNED.contains(&type_)
}

fn condition(type_: &str, status: bool, reason: Option<&str>, message: Option<String>) -> PodCondition {
    PodCondition {
        type_: type_.to_owned(),
        status: if status { "True" } else { "False" }.to_owned(),
        reason: reason.map(str::to_owned),
        message,
        ..PodCondition::default()
    }
}

fn find<'a>(statuses: Option<&'a Vec<ContainerStatus>>, name: &str) -> Option<&'a ContainerStatus> {
    statuses.into_iter().flatten().find(|status| status.name == name)
}

/// `[a b]`, as Go prints a slice of strings.
fn list(names: &[&str]) -> String {
    format!("[{}]", names.join(" "))
}

fn unready_message(what: &str, unknown: &[&str], unready: &[&str]) -> Option<String> {
    let mut parts = Vec::new();
    if !unknown.is_empty() {
        parts.push(format!("containers with unknown status: {}", list(unknown)));
    }
    if !unready.is_empty() {
        parts.push(format!("containers with {what} status: {}", list(unready)));
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn initialized(spec: &PodSpec, status: &PodStatus) -> PodCondition {
    let (mut unknown, mut incomplete) = (Vec::new(), Vec::new());
    for container in spec.init_containers.iter().flatten() {
        match find(status.init_container_statuses.as_ref(), &container.name) {
            None => unknown.push(container.name.as_str()),
            Some(found) => {
                let done = if is_sidecar(container) { found.started == Some(true) } else { found.ready };
                if !done {
                    incomplete.push(container.name.as_str());
                }
            }
        }
    }
    if status.phase.as_deref() == Some("Succeeded") {
        return condition("Initialized", true, Some("PodCompleted"), None);
    }
    // Once a regular container has run, initialization is history: a sidecar that restarts does not undo it.
    let any_started = status.container_statuses.iter().flatten().any(|container| {
        container.state.as_ref().is_some_and(|s| s.running.is_some() || s.terminated.is_some())
            || container.last_state.as_ref().is_some_and(|s| s.terminated.is_some())
    });
    match unready_message("incomplete", &unknown, &incomplete) {
        Some(message) if !any_started => {
            condition("Initialized", false, Some("ContainersNotInitialized"), Some(message))
        }
        _ => condition("Initialized", true, None, None),
    }
}

fn containers_ready(spec: &PodSpec, status: &PodStatus) -> PodCondition {
    match status.phase.as_deref() {
        Some("Succeeded") => return condition("ContainersReady", false, Some("PodCompleted"), None),
        Some("Failed") => return condition("ContainersReady", false, Some("PodFailed"), None),
        _ => {}
    }
    let sidecars = spec.init_containers.iter().flatten().filter(|c| is_sidecar(c));
    let sidecars = sidecars.map(|c| (c, status.init_container_statuses.as_ref()));
    let regular = spec.containers.iter().map(|c| (c, status.container_statuses.as_ref()));
    let (mut unknown, mut unready) = (Vec::new(), Vec::new());
    for (container, statuses) in sidecars.chain(regular) {
        match find(statuses, &container.name) {
            None => unknown.push(container.name.as_str()),
            Some(found) if !found.ready => unready.push(container.name.as_str()),
            Some(_) => {}
        }
    }
    match unready_message("unready", &unknown, &unready) {
        None => condition("ContainersReady", true, None, None),
        Some(message) => condition("ContainersReady", false, Some("ContainersNotReady"), Some(message)),
    }
}

fn ready(spec: &PodSpec, containers_ready: &PodCondition, all: &[PodCondition]) -> PodCondition {
    if containers_ready.status != "True" {
        return PodCondition { type_: "Ready".to_owned(), ..containers_ready.clone() };
    }
    let mut messages = Vec::new();
    for gate in spec.readiness_gates.iter().flatten() {
        let type_ = &gate.condition_type;
        match all.iter().find(|c| c.type_ == *type_) {
            None => messages
                .push(format!("corresponding condition of pod readiness gate \"{type_}\" does not exist.")),
            Some(found) if found.status != "True" => messages.push(format!(
                "the status of pod readiness gate \"{type_}\" is not \"True\", but {}",
                found.status
            )),
            Some(_) => {}
        }
    }
    if messages.is_empty() {
        condition("Ready", true, None, None)
    } else {
        condition("Ready", false, Some("ReadinessGatesNotReady"), Some(messages.join(", ")))
    }
}

/// `(ContainersReady, Ready)` for these container statuses: also used when only the prober's answer changed.
#[must_use]
pub fn ready_conditions(spec: &PodSpec, status: &PodStatus) -> (PodCondition, PodCondition) {
    let containers = containers_ready(spec, status);
    let ready = ready(spec, &containers, status.conditions.as_deref().unwrap_or_default());
    (containers, ready)
}

/// Sets all owned conditions, keeping the others, and transition times where the status did not change.
pub(super) fn set(inputs: &Inputs<'_>, spec: &PodSpec, status: &mut PodStatus) {
    let old = inputs.old.conditions.as_deref().unwrap_or_default();
    status.conditions = Some(old.iter().filter(|c| !owns_condition(&c.type_)).cloned().collect());
    let (containers_ready, ready) = ready_conditions(spec, status);
    let scheduled = old.iter().find(|c| c.type_ == "PodScheduled" && c.status == "True").cloned();
    let mut new = vec![
        condition("PodReadyToStartContainers", sandbox_up(inputs), None, None),
        initialized(spec, status),
        ready,
        containers_ready,
        scheduled.unwrap_or_else(|| condition("PodScheduled", true, None, None)),
    ];
    for condition in &mut new {
        let before = old.iter().find(|c| c.type_ == condition.type_ && c.status == condition.status);
        condition.last_transition_time = Some(
            before.and_then(|c| c.last_transition_time.clone()).unwrap_or_else(|| pod::time(inputs.now)),
        );
        condition.observed_generation = inputs.pod.metadata.generation;
    }
    new.extend(status.conditions.take().into_iter().flatten());
    status.conditions = Some(new);
}

fn sandbox_up(inputs: &Inputs<'_>) -> bool {
    let host_network = |pod: &Pod| pod::is_host_network(pod);
    inputs
        .runtime
        .sandboxes
        .first()
        .is_some_and(|s| s.state == SandboxState::Ready && (host_network(inputs.pod) || !s.ips.is_empty()))
}
