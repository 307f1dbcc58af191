//! What must happen to a pod's sandbox and containers so that they match its spec: a pure function.
//!
//! It neither waits nor calls: crash-loop back-off, image pulls and the order of kills are the caller's. Upstream's
//! concept: `computePodActions` in `pkg/kubelet/kuberuntime/kuberuntime_manager.go`.

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

use crate::pod::{is_host_network, is_sidecar, restart_policy};
use crate::runtime::{ContainerState, RuntimeContainerStatus, RuntimePodStatus, SandboxState, spec_hash};

mod init;
#[cfg(test)]
mod tests;

/// Answers of the liveness and startup probes, by container id.
pub trait ProbeVerdicts {
    /// `Some(false)` when the liveness probe has failed for good.
    fn liveness(&self, container_id: &str) -> Option<bool>;
    /// `Some(true)` once the startup probe succeeded, `Some(false)` when it has failed for good.
    fn startup(&self, container_id: &str) -> Option<bool>;
}

/// Why a container is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KillReason {
    /// Its spec changed.
    SpecChanged,
    /// Its liveness probe failed.
    LivenessProbe,
    /// Its startup probe failed.
    StartupProbe,
    /// The runtime does not know its state.
    Unknown,
}

/// A container to kill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerToKill {
    /// The runtime's id.
    pub id: String,
    /// The name in the spec.
    pub name: String,
    /// The text of the Killing event.
    pub message: String,
    /// Why.
    pub reason: KillReason,
}

/// The decision.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodActions {
    /// Kill every container and stop the sandbox first.
    pub kill_pod: bool,
    /// Create a sandbox, after the kill.
    pub create_sandbox: bool,
    /// The sandbox to use (the one to be replaced when `create_sandbox`).
    pub sandbox_id: Option<String>,
    /// The attempt number of the sandbox that is used or made.
    pub attempt: u32,
    /// Indices into `spec.initContainers`, in order.
    pub init_containers_to_start: Vec<usize>,
    /// Indices into `spec.containers`.
    pub containers_to_start: Vec<usize>,
    /// Running containers to kill.
    pub containers_to_kill: Vec<ContainerToKill>,
}

impl PodActions {
    /// Whether nothing is to be done.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.kill_pod
            && !self.create_sandbox
            && self.init_containers_to_start.is_empty()
            && self.containers_to_start.is_empty()
            && self.containers_to_kill.is_empty()
    }
}

/// Decides.
#[must_use]
pub fn compute_actions(pod: &Pod, status: &RuntimePodStatus, probes: &dyn ProbeVerdicts) -> PodActions {
    let Some(spec) = pod.spec.as_ref() else { return PodActions::default() };
    let (sandbox_changed, attempt, sandbox_id) = sandbox_changed(pod, status);
    let mut actions = PodActions {
        kill_pod: sandbox_changed,
        create_sandbox: sandbox_changed,
        sandbox_id,
        attempt,
        ..PodActions::default()
    };
    if sandbox_changed {
        restart_in_new_sandbox(pod, spec, status, &mut actions);
        return actions;
    }
    let initialized = init::compute(pod, spec, status, probes, &mut actions);
    if actions.kill_pod || !initialized {
        return actions;
    }
    let mut kept = 0;
    for (index, container) in spec.containers.iter().enumerate() {
        match status.container(&container.name) {
            Some(current) if current.state == ContainerState::Running => {
                if keep_or_kill(spec, container, current, probes, index, &mut actions) {
                    kept += 1;
                }
            }
            current => {
                if should_be_restarted(pod, spec, container, current) {
                    actions.containers_to_start.push(index);
                    if let Some(current) = current.filter(|c| c.state == ContainerState::Unknown) {
                        actions.containers_to_kill.push(kill_unknown("Container", container, current));
                    }
                }
            }
        }
    }
    if kept == 0 && actions.containers_to_start.is_empty() {
        actions.kill_pod = true;
        // Sidecars must not keep a pod alive whose regular containers are all done.
        actions.init_containers_to_start.clear();
    }
    actions
}

/// Whether the pod needs a new sandbox, with that one's attempt number, or the current sandbox.
fn sandbox_changed(pod: &Pod, status: &RuntimePodStatus) -> (bool, u32, Option<String>) {
    let Some(newest) = status.sandboxes.first() else { return (true, 0, None) };
    let next = newest.attempt.saturating_add(1);
    let ready = status.sandboxes.iter().filter(|s| s.state == SandboxState::Ready).count();
    let id = Some(newest.id.clone());
    let changed = ready > 1
        || newest.state != SandboxState::Ready
        || newest.host_network != is_host_network(pod)
        || (!newest.host_network && newest.ips.is_empty());
    if changed { (true, next, id) } else { (false, newest.attempt, id) }
}

fn restart_in_new_sandbox(pod: &Pod, spec: &PodSpec, status: &RuntimePodStatus, actions: &mut PodActions) {
    let may_restart = spec.containers.iter().any(|c| restarts_on_failure(spec, c));
    if !may_restart && actions.attempt != 0 && !status.containers.is_empty() {
        // The containers have run and must not run again.
        actions.create_sandbox = false;
        return;
    }
    let to_start: Vec<usize> = spec
        .containers
        .iter()
        .enumerate()
        .filter(|(_, container)| {
            let current = status.container(&container.name);
            // A container that was running died with its sandbox; one that ended decides by its own exit.
            current.is_none_or(|c| c.state != ContainerState::Exited)
                || should_be_restarted(pod, spec, container, current)
        })
        .map(|(index, _)| index)
        .collect();
    if to_start.is_empty() && init::any_regular_container_known(spec, status) {
        actions.create_sandbox = false;
        return;
    }
    if spec.init_containers.as_ref().is_some_and(|init| !init.is_empty()) {
        // A new sandbox restarts from the first init container.
        actions.init_containers_to_start = vec![0];
    } else {
        actions.containers_to_start = to_start;
    }
}

/// Keeps a running container (true) or notes its kill and, if it may, its restart.
fn keep_or_kill(
    spec: &PodSpec,
    container: &Container,
    current: &RuntimeContainerStatus,
    probes: &dyn ProbeVerdicts,
    index: usize,
    actions: &mut PodActions,
) -> bool {
    let name = &container.name;
    let mut restart = restarts_on_failure(spec, container);
    let (mut message, reason) = if definition_changed(container, current) {
        restart = true;
        (format!("Container {name} definition changed"), KillReason::SpecChanged)
    } else if probes.liveness(&current.id) == Some(false) {
        (format!("Container {name} failed liveness probe"), KillReason::LivenessProbe)
    } else if probes.startup(&current.id) == Some(false) {
        (format!("Container {name} failed startup probe"), KillReason::StartupProbe)
    } else {
        return true;
    };
    if restart {
        message.push_str(", will be restarted");
        actions.containers_to_start.push(index);
    }
    actions.containers_to_kill.push(ContainerToKill {
        id: current.id.clone(),
        name: name.clone(),
        message,
        reason,
    });
    false
}

fn kill_unknown(what: &str, container: &Container, current: &RuntimeContainerStatus) -> ContainerToKill {
    ContainerToKill {
        id: current.id.clone(),
        name: container.name.clone(),
        message: format!("{what} is in \"unknown\" state, try killing it before restart"),
        reason: KillReason::Unknown,
    }
}

/// Whether the running container was made from another spec. A container without the annotation is left alone.
fn definition_changed(container: &Container, current: &RuntimeContainerStatus) -> bool {
    current.spec_hash.as_ref().is_some_and(|hash| *hash != spec_hash(container))
}

/// The policy that counts for one container: its own (`containers[].restartPolicy`), else the pod's.
fn container_restart_policy<'a>(spec: &'a PodSpec, container: &'a Container) -> &'a str {
    container.restart_policy.as_deref().unwrap_or_else(|| restart_policy(spec))
}

fn restarts_on_failure(spec: &PodSpec, container: &Container) -> bool {
    container_restart_policy(spec, container) != "Never"
}

/// Whether a rule of `containers[].restartPolicyRules` asks for a restart after this exit code.
fn restart_rule_matches(container: &Container, exit_code: i32) -> bool {
    container.restart_policy_rules.iter().flatten().any(|rule| {
        let Some(codes) = rule.exit_codes.as_ref() else { return false };
        let listed = codes.values.iter().flatten().any(|code| *code == exit_code);
        rule.action == "Restart"
            && match codes.operator.as_str() {
                "In" => listed,
                "NotIn" => !listed,
                _ => false,
            }
    })
}

/// Whether a container that does not run should be started (again).
#[must_use]
pub fn should_be_restarted(
    pod: &Pod,
    spec: &PodSpec,
    container: &Container,
    current: Option<&RuntimeContainerStatus>,
) -> bool {
    if pod.metadata.deletion_timestamp.is_some() {
        return false;
    }
    let Some(current) = current else { return true };
    match current.state {
        ContainerState::Running => false,
        ContainerState::Unknown | ContainerState::Created => true,
        ContainerState::Exited => {
            if restart_rule_matches(container, current.exit_code) {
                return true;
            }
            match container_restart_policy(spec, container) {
                "Never" => false,
                "OnFailure" => current.exit_code != 0,
                _ => true,
            }
        }
    }
}

/// Whether an init container may be retried after a failure with this exit code.
#[must_use]
pub fn init_may_retry(spec: &PodSpec, init_container: &Container, exit_code: i32) -> bool {
    is_sidecar(init_container)
        || restart_rule_matches(init_container, exit_code)
        || container_restart_policy(spec, init_container) != "Never"
}
