//! A pod's phase, from its container statuses. Upstream's concept: `getPhase` in `pkg/kubelet/kubelet_pods.go`.

use k8s_openapi::api::core::v1::{Container, ContainerStatus, PodSpec, PodStatus};

use crate::compute_actions::init_may_retry;
use crate::pod::{is_sidecar, restart_policy};

#[derive(Default)]
struct Counts {
    unknown: usize,
    running: usize,
    waiting: usize,
    stopped: usize,
    succeeded: usize,
}

enum Init {
    Done,
    Pending,
    Failed,
    FailedForGood,
}

fn find<'a>(statuses: Option<&'a Vec<ContainerStatus>>, name: &str) -> Option<&'a ContainerStatus> {
    statuses.into_iter().flatten().find(|status| status.name == name)
}

fn failed(spec: &PodSpec, container: &Container, exit_code: i32) -> Init {
    if init_may_retry(spec, container, exit_code) { Init::Failed } else { Init::FailedForGood }
}

fn init_progress(spec: &PodSpec, container: &Container, status: Option<&ContainerStatus>) -> Init {
    let Some(status) = status else { return Init::Pending };
    let state = status.state.as_ref();
    if is_sidecar(container) {
        // A sidecar that was up once has done its part for the phase, even while it restarts.
        let up = status.started == Some(true) || state.is_some_and(|s| s.terminated.is_some());
        return if up || status.restart_count > 0 { Init::Done } else { Init::Pending };
    }
    if let Some(terminated) = state.and_then(|s| s.terminated.as_ref()) {
        return if terminated.exit_code == 0 {
            Init::Done
        } else {
            failed(spec, container, terminated.exit_code)
        };
    }
    if state.is_some_and(|s| s.waiting.is_some())
        && let Some(last) = status.last_state.as_ref().and_then(|s| s.terminated.as_ref())
        && last.exit_code != 0
    {
        return failed(spec, container, last.exit_code);
    }
    Init::Pending
}

fn count(spec: &PodSpec, status: &PodStatus) -> Counts {
    let mut counts = Counts::default();
    for container in &spec.containers {
        let Some(found) = find(status.container_statuses.as_ref(), &container.name) else {
            counts.unknown += 1;
            continue;
        };
        let state = found.state.clone().unwrap_or_default();
        if state.running.is_some() {
            counts.running += 1;
        } else if let Some(terminated) = state.terminated {
            counts.stopped += 1;
            if terminated.exit_code == 0 {
                counts.succeeded += 1;
            }
        } else if state.waiting.is_some() {
            if found.last_state.as_ref().is_some_and(|last| last.terminated.is_some()) {
                counts.stopped += 1;
            } else {
                counts.waiting += 1;
            }
        } else {
            counts.unknown += 1;
        }
    }
    counts
}

/// The phase. `is_terminal`: nothing of the pod will run again.
#[must_use]
pub fn phase(spec: &PodSpec, status: &PodStatus, is_terminal: bool) -> &'static str {
    let mut initializing = false;
    for container in spec.init_containers.iter().flatten() {
        match init_progress(spec, container, find(status.init_container_statuses.as_ref(), &container.name)) {
            Init::Done => {}
            Init::Pending | Init::Failed => initializing = true,
            Init::FailedForGood => return "Failed",
        }
    }
    let counts = count(spec, status);
    let any_started = counts.running + counts.stopped > 0;
    if is_terminal {
        let all_succeeded = counts.stopped > 0 && counts.stopped == counts.succeeded;
        return if all_succeeded && counts.running + counts.waiting + counts.unknown == 0 {
            "Succeeded"
        } else {
            "Failed"
        };
    }
    if (initializing && !any_started) || counts.waiting > 0 || counts.unknown > 0 {
        return "Pending";
    }
    if counts.running > 0 {
        return "Running";
    }
    if counts.stopped == 0 {
        return "Pending";
    }
    match restart_policy(spec) {
        "Always" => "Running",
        _ if counts.stopped == counts.succeeded => "Succeeded",
        "Never" => "Failed",
        _ => "Running",
    }
}
