//! What `kubectl get pods` shows of a pod (upstream `printPod`): the status word, ready
//! containers, restarts. The columns themselves are with the strategy.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerState, ContainerStateTerminated, ContainerStatus, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::table::human_duration;

/// The computed cells of a pod's row.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PodCells {
    /// "1/2": ready containers of all, restartable init containers included.
    pub(crate) ready: String,
    /// The status word: `Running`, `Init:0/1`, `CrashLoopBackOff`, `Terminating`, …
    pub(crate) status: String,
    /// "3 (5m ago)".
    pub(crate) restarts: String,
    /// "0/1", or `<none>` without readiness gates.
    pub(crate) readiness_gates: String,
}

/// Restarts and when the last one was.
#[derive(Default)]
struct Restarts {
    count: i64,
    last: Option<Timestamp>,
}

impl Restarts {
    fn add(&mut self, status: &ContainerStatus) {
        self.count += i64::from(status.restart_count);
        let finished = status
            .last_state
            .as_ref()
            .and_then(|s| s.terminated.as_ref()?.finished_at.as_ref())
            .map(|Time(at)| *at);
        self.last = self.last.max(finished);
    }
}

/// Computes the cells of one pod as of `now`.
pub(crate) fn pod_cells(pod: &Pod, now: Timestamp) -> PodCells {
    let progress = Progress::of(pod);
    let mut restarts = progress.restarts.count.to_string();
    if progress.restarts.count != 0
        && let Some(last) = progress.restarts.last
    {
        let ago = human_duration(now.as_second() - last.as_second());
        restarts = format!("{restarts} ({ago} ago)");
    }
    PodCells {
        ready: format!("{}/{}", progress.ready, progress.total),
        status: progress.reason,
        restarts,
        readiness_gates: readiness_gates(pod),
    }
}

/// What the walk over a pod's container statuses finds.
struct Progress {
    reason: String,
    ready: usize,
    total: usize,
    restarts: Restarts,
}

impl Progress {
    fn of(pod: &Pod) -> Self {
        let spec = pod.spec.as_ref();
        let status = pod.status.as_ref();
        let init: &[Container] = spec.and_then(|s| s.init_containers.as_deref()).unwrap_or_default();
        let restartable = init.iter().filter(|c| is_restartable(c)).count();
        let mut this = Self {
            reason: initial_reason(pod),
            ready: 0,
            total: spec.map_or(0, |s| s.containers.len()) + restartable,
            restarts: Restarts::default(),
        };
        let init_statuses = status.and_then(|s| s.init_container_statuses.as_deref()).unwrap_or_default();
        let mut sidecar_restarts = Restarts::default();
        let initializing = this.walk_init(init, init_statuses, &mut sidecar_restarts);
        if !initializing || condition_is_true(pod, "Initialized") {
            this.restarts = sidecar_restarts;
            let statuses = status.and_then(|s| s.container_statuses.as_deref()).unwrap_or_default();
            this.walk_containers(pod, statuses);
        }
        this.apply_deletion(pod);
        this
    }

    /// Goes through the init containers up to the first that is not done; true when one is not.
    fn walk_init(
        &mut self,
        init: &[Container],
        statuses: &[ContainerStatus],
        sidecar_restarts: &mut Restarts,
    ) -> bool {
        for (index, status) in statuses.iter().enumerate() {
            self.restarts.add(status);
            let restartable = init.iter().any(|c| c.name == status.name && is_restartable(c));
            if restartable {
                sidecar_restarts.add(status);
            }
            let state = state_of(status);
            if state.terminated.as_ref().is_some_and(|t| t.exit_code == 0) {
                continue;
            }
            if restartable && status.started == Some(true) {
                self.ready += usize::from(status.ready);
                continue;
            }
            let waiting = waiting_reason(&state).filter(|r| *r != "PodInitializing");
            self.reason = if let Some(terminated) = &state.terminated {
                format!("Init:{}", terminated_reason(terminated))
            } else if let Some(waiting) = waiting {
                format!("Init:{waiting}")
            } else {
                format!("Init:{index}/{}", init.len())
            };
            return true;
        }
        false
    }

    /// Goes through the main containers, last one first, so that the first one's reason stays.
    fn walk_containers(&mut self, pod: &Pod, statuses: &[ContainerStatus]) {
        let mut has_running = false;
        for status in statuses.iter().rev() {
            self.restarts.add(status);
            let state = state_of(status);
            if let Some(waiting) = waiting_reason(&state) {
                waiting.clone_into(&mut self.reason);
            } else if let Some(terminated) = &state.terminated {
                self.reason = terminated_reason(terminated);
            } else if status.ready && state.running.is_some() {
                has_running = true;
                self.ready += 1;
            }
        }
        if self.reason == "Completed" && has_running {
            let ready = condition_is_true(pod, "Ready");
            self.reason = if ready { "Running" } else { "NotReady" }.to_owned();
        }
    }

    fn apply_deletion(&mut self, pod: &Pod) {
        if pod.metadata.deletion_timestamp.is_none() {
            return;
        }
        let status = pod.status.as_ref();
        let phase = status.and_then(|s| s.phase.as_deref()).unwrap_or_default();
        if status.and_then(|s| s.reason.as_deref()) == Some("NodeLost") {
            self.reason = "Unknown".to_owned();
        } else if !matches!(phase, "Succeeded" | "Failed") {
            self.reason = "Terminating".to_owned();
        }
    }
}

fn initial_reason(pod: &Pod) -> String {
    let Some(status) = &pod.status else {
        return String::new();
    };
    let gated = status
        .conditions
        .iter()
        .flatten()
        .any(|c| c.type_ == "PodScheduled" && c.reason.as_deref() == Some("SchedulingGated"));
    if gated {
        return "SchedulingGated".to_owned();
    }
    let reason = status.reason.as_deref().filter(|r| !r.is_empty());
    reason.or(status.phase.as_deref()).unwrap_or_default().to_owned()
}

fn is_restartable(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

fn state_of(status: &ContainerStatus) -> ContainerState {
    status.state.clone().unwrap_or_default()
}

fn waiting_reason(state: &ContainerState) -> Option<&str> {
    let reason = state.waiting.as_ref()?.reason.as_deref();
    reason.filter(|r| !r.is_empty())
}

fn terminated_reason(terminated: &ContainerStateTerminated) -> String {
    match (terminated.reason.as_deref(), terminated.signal) {
        (Some(reason), _) if !reason.is_empty() => reason.to_owned(),
        (_, Some(signal)) if signal != 0 => format!("Signal:{signal}"),
        _ => format!("ExitCode:{}", terminated.exit_code),
    }
}

fn condition_is_true(pod: &Pod, type_: &str) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    conditions.into_iter().flatten().any(|c| c.type_ == type_ && c.status == "True")
}

fn readiness_gates(pod: &Pod) -> String {
    let gates = pod.spec.as_ref().and_then(|s| s.readiness_gates.as_ref());
    match gates {
        Some(gates) if !gates.is_empty() => {
            let passed = gates.iter().filter(|g| condition_is_true(pod, &g.condition_type)).count();
            format!("{passed}/{}", gates.len())
        }
        _ => "<none>".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(name: &str, pod: Value, ready: &str, status: &str, restarts: &str) {
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let now: Timestamp = "2026-01-01T00:10:00Z".parse().unwrap();
        let cells = pod_cells(&pod, now);
        assert_eq!((&*cells.ready, &*cells.status, &*cells.restarts), (ready, status, restarts), "{name}");
    }

    fn pod(init: &Value, statuses: &Value) -> Value {
        let mut status = statuses.clone();
        status["phase"] = status.get("phase").cloned().unwrap_or(json!("Running"));
        json!({
            "metadata": {"name": "p"},
            "spec": {"initContainers": init, "containers": [{"name": "a"}, {"name": "b"}]},
            "status": status,
        })
    }

    fn running(name: &str, ready: bool) -> Value {
        json!({"name": name, "ready": ready, "restartCount": 0, "state": {"running": {}}})
    }

    #[test]
    fn main_containers() {
        let none = json!([]);
        let both = json!({"containerStatuses": [running("a", true), running("b", false)]});
        check("one ready", pod(&none, &both), "1/2", "Running", "0");
        let pending = json!({"phase": "Pending"});
        check("pending", pod(&none, &pending), "0/2", "Pending", "0");
        let crash = json!({"containerStatuses": [
            {"name": "a", "ready": false, "restartCount": 3,
             "state": {"waiting": {"reason": "CrashLoopBackOff"}},
             "lastState": {"terminated": {"exitCode": 1, "finishedAt": "2026-01-01T00:05:00Z"}}},
            running("b", true)]});
        check("crash loop", pod(&none, &crash), "1/2", "CrashLoopBackOff", "3 (5m ago)");
        let done = json!({"phase": "Succeeded", "containerStatuses": [
            {"name": "a", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}},
            {"name": "b", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}]});
        check("completed", pod(&none, &done), "0/2", "Completed", "0");
        let half = json!({"containerStatuses": [
            {"name": "a", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}},
            running("b", true)]});
        check("half done", pod(&none, &half), "1/2", "NotReady", "0");
        let failed = json!({"containerStatuses": [
            {"name": "a", "state": {"terminated": {"exitCode": 3}}}]});
        check("exit code", pod(&none, &failed), "0/2", "ExitCode:3", "0");
        let signal = json!({"containerStatuses": [
            {"name": "a", "state": {"terminated": {"exitCode": 137, "signal": 9}}}]});
        check("signal", pod(&none, &signal), "0/2", "Signal:9", "0");
        let evicted = json!({"phase": "Failed", "reason": "Evicted"});
        check("evicted", pod(&none, &evicted), "0/2", "Evicted", "0");
        let gated = json!({"phase": "Pending", "conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]});
        check("gated", pod(&none, &gated), "0/2", "SchedulingGated", "0");
    }

    #[test]
    fn init_containers() {
        let two = json!([{"name": "i"}, {"name": "j"}]);
        let first = json!({"phase": "Pending", "initContainerStatuses": [
            {"name": "i", "state": {"running": {}}},
            {"name": "j", "state": {"waiting": {"reason": "PodInitializing"}}}]});
        check("first runs", pod(&two, &first), "0/2", "Init:0/2", "0");
        let second = json!({"phase": "Pending", "initContainerStatuses": [
            {"name": "i", "state": {"terminated": {"exitCode": 0}}},
            {"name": "j", "state": {"waiting": {"reason": "PodInitializing"}}}]});
        check("second waits", pod(&two, &second), "0/2", "Init:1/2", "0");
        let failing = json!({"phase": "Pending", "initContainerStatuses": [
            {"name": "i", "restartCount": 2, "state": {"terminated": {"exitCode": 1, "reason": "Error"}}}]});
        check("fails", pod(&two, &failing), "0/2", "Init:Error", "2");
        let backoff = json!({"phase": "Pending", "initContainerStatuses": [
            {"name": "i", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]});
        check("back-off", pod(&two, &backoff), "0/2", "Init:CrashLoopBackOff", "0");
        let sidecar = json!([{"name": "i", "restartPolicy": "Always"}]);
        let beside = json!({"initContainerStatuses": [
            {"name": "i", "ready": true, "started": true, "restartCount": 1, "state": {"running": {}}}],
            "containerStatuses": [running("a", true), running("b", true)]});
        check("sidecar", pod(&sidecar, &beside), "3/3", "Running", "1");
    }

    #[test]
    fn deletion_shows_terminating_unless_finished() {
        let mut going = pod(&json!([]), &json!({}));
        going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        check("going", going.clone(), "0/2", "Terminating", "0");
        going["status"]["phase"] = json!("Failed");
        check("finished", going.clone(), "0/2", "Failed", "0");
        going["status"] = json!({"phase": "Running", "reason": "NodeLost"});
        check("lost", going, "0/2", "Unknown", "0");
    }
}
