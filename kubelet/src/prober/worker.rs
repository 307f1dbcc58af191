//! The state of one probe: thresholds, initial delay, waiting for a container, holding after a failure. No IO, no clock.
//!
//! Upstream's concept: `doProbe` in `pkg/kubelet/prober/worker.go`.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus, Probe};

use super::{ProbeResult, ProbeType};
use crate::pod;

/// What the worker sees of its container.
#[derive(Debug, Clone)]
pub(super) struct Observation {
    pod_ended: bool,
    deleting: bool,
    container: Option<ContainerStatus>,
    now: Timestamp,
}

impl Observation {
    pub(super) fn new(status: &PodStatus, container: &str, deleting: bool, now: Timestamp) -> Self {
        let all = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
        Self {
            pod_ended: pod::is_terminal_phase(status.phase.as_deref()),
            deleting,
            container: all.into_iter().find(|c| c.name == container).cloned(),
            now,
        }
    }
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Run the probe.
    Probe,
    /// Not now.
    Continue,
    /// Never again.
    Stop,
}

/// One probe's state.
#[derive(Debug)]
pub(super) struct ProbeState {
    type_: ProbeType,
    probe: Probe,
    restarts: bool,
    container_id: String,
    running: bool,
    on_hold: bool,
    last: Option<ProbeResult>,
    run: i32,
}

impl ProbeState {
    pub(super) fn new(type_: ProbeType, probe: &Probe, pod: &Pod) -> Self {
        let restarts = pod.spec.as_ref().is_none_or(|spec| pod::restart_policy(spec) != "Never");
        Self {
            type_,
            probe: probe.clone(),
            restarts,
            container_id: String::new(),
            running: false,
            on_hold: false,
            last: None,
            run: 0,
        }
    }

    pub(super) fn probe(&self) -> &Probe {
        &self.probe
    }

    pub(super) fn container_id(&self) -> &str {
        &self.container_id
    }

    pub(super) fn period(&self) -> Duration {
        const DEFAULT_PERIOD: i32 = 10;
        let seconds = self.probe.period_seconds.filter(|s| *s > 0).unwrap_or(DEFAULT_PERIOD);
        Duration::from_secs(u64::try_from(seconds).unwrap_or(1))
    }

    /// Whether there is no running container that this probe could ask.
    pub(super) fn is_waiting(&self) -> bool {
        !self.running || self.on_hold
    }

    fn initial(&self) -> ProbeResult {
        match self.type_ {
            ProbeType::Readiness => ProbeResult::Failure,
            ProbeType::Liveness => ProbeResult::Success,
            ProbeType::Startup => ProbeResult::Unknown,
        }
    }

    fn delay(&self) -> i64 {
        i64::from(self.probe.initial_delay_seconds.unwrap_or(0))
    }

    /// Looks at the container: what to do, and a result to publish.
    pub(super) fn observe(&mut self, seen: &Observation) -> (Step, Option<ProbeResult>) {
        if seen.pod_ended {
            return (Step::Stop, None);
        }
        let Some(container) = seen.container.as_ref() else { return (Step::Continue, None) };
        let id = container.container_id.as_deref().unwrap_or_default();
        let id = id.split_once("://").map_or(id, |(_, id)| id);
        if id.is_empty() {
            return (Step::Continue, None);
        }
        let mut change = None;
        if self.container_id != id {
            id.clone_into(&mut self.container_id);
            self.on_hold = false;
            self.last = None;
            self.run = 0;
            change = Some(self.initial());
        }
        if self.on_hold {
            return (Step::Continue, change);
        }
        let state = container.state.as_ref();
        let Some(running) = state.and_then(|s| s.running.as_ref()) else {
            self.running = false;
            let terminated = state.is_some_and(|s| s.terminated.is_some());
            let step = if terminated && !self.restarts { Step::Stop } else { Step::Continue };
            return (step, Some(ProbeResult::Failure));
        };
        if seen.deleting && self.type_ != ProbeType::Readiness {
            return (Step::Stop, Some(ProbeResult::Success));
        }
        let age =
            running.started_at.as_ref().map_or(0, |started| seen.now.as_second() - started.0.as_second());
        if age < self.delay() {
            return (Step::Continue, change);
        }
        let started = container.started.unwrap_or(false);
        match (started, self.type_) {
            // It has done its work for this container; the next one gets a new id.
            (true, ProbeType::Startup) => {
                self.running = false;
                (Step::Continue, change)
            }
            (false, ProbeType::Liveness | ProbeType::Readiness) => (Step::Continue, change),
            (true, _) | (false, ProbeType::Startup) => {
                self.running = true;
                (Step::Probe, change)
            }
        }
    }

    /// Counts a result; something when the thresholds make it the probe's word.
    pub(super) fn record(&mut self, result: ProbeResult) -> Option<ProbeResult> {
        if self.last == Some(result) {
            self.run = self.run.saturating_add(1);
        } else {
            self.last = Some(result);
            self.run = 1;
        }
        const DEFAULT_FAILURES: i32 = 3;
        let threshold = match result {
            ProbeResult::Failure => {
                self.probe.failure_threshold.filter(|n| *n > 0).unwrap_or(DEFAULT_FAILURES)
            }
            _ => self.probe.success_threshold.filter(|n| *n > 0).unwrap_or(1),
        };
        if self.run < threshold {
            return None;
        }
        if result == ProbeResult::Failure && self.type_ != ProbeType::Readiness {
            // The container will be restarted: say nothing about it until there is a new one.
            self.on_hold = true;
            self.run = 0;
        }
        Some(result)
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{ContainerState, ContainerStateRunning};

    use super::*;

    fn probe() -> Probe {
        Probe { failure_threshold: Some(3), success_threshold: Some(1), ..Default::default() }
    }

    fn running(id: &str, age: i64, started: bool) -> Observation {
        let now = Timestamp::from_second(1000).unwrap();
        let state = ContainerStateRunning {
            started_at: Some(pod::time(Timestamp::from_second(1000 - age).unwrap())),
        };
        Observation {
            pod_ended: false,
            deleting: false,
            container: Some(ContainerStatus {
                container_id: Some(format!("containerd://{id}")),
                state: Some(ContainerState { running: Some(state), ..Default::default() }),
                started: Some(started),
                ..Default::default()
            }),
            now,
        }
    }

    fn state(type_: ProbeType, probe: &Probe) -> ProbeState {
        ProbeState::new(type_, probe, &Pod::default())
    }

    #[test]
    fn readiness_starts_as_failure_and_liveness_as_success() {
        for (type_, initial) in
            [(ProbeType::Readiness, ProbeResult::Failure), (ProbeType::Liveness, ProbeResult::Success)]
        {
            let mut state = state(type_, &probe());
            assert_eq!(state.observe(&running("a", 0, true)), (Step::Probe, Some(initial)));
            assert_eq!(state.observe(&running("a", 1, true)), (Step::Probe, None));
        }
    }

    #[test]
    fn initial_delay_holds_the_probe_back() {
        let mut state = state(ProbeType::Readiness, &Probe { initial_delay_seconds: Some(5), ..probe() });
        assert_eq!(state.observe(&running("a", 4, true)).0, Step::Continue);
        assert_eq!(state.observe(&running("a", 5, true)).0, Step::Probe);
    }

    #[test]
    fn thresholds_count_consecutive_results() {
        let mut state = state(ProbeType::Readiness, &Probe { success_threshold: Some(2), ..probe() });
        let (ok, bad) = (ProbeResult::Success, ProbeResult::Failure);
        let said: Vec<_> =
            [bad, bad, ok, bad, bad, bad, ok, ok].into_iter().map(|r| state.record(r)).collect();
        assert_eq!(said, [None, None, None, None, None, Some(bad), None, Some(ok)]);
    }

    #[test]
    fn a_failed_liveness_probe_holds_until_a_new_container() {
        let mut state = state(ProbeType::Liveness, &Probe { failure_threshold: Some(1), ..probe() });
        state.observe(&running("a", 1, true));
        assert_eq!(state.record(ProbeResult::Failure), Some(ProbeResult::Failure));
        assert_eq!(state.observe(&running("a", 2, true)), (Step::Continue, None));
        assert_eq!(state.observe(&running("b", 0, true)), (Step::Probe, Some(ProbeResult::Success)));
    }

    #[test]
    fn other_probes_wait_for_the_startup_probe() {
        let mut liveness = state(ProbeType::Liveness, &probe());
        let mut startup = state(ProbeType::Startup, &probe());
        assert_eq!(liveness.observe(&running("a", 1, false)).0, Step::Continue);
        assert_eq!(startup.observe(&running("a", 1, false)).0, Step::Probe);
        assert_eq!(liveness.observe(&running("a", 2, true)).0, Step::Probe);
        assert_eq!(startup.observe(&running("a", 2, true)).0, Step::Continue);
    }

    #[test]
    fn an_ended_pod_or_container_ends_the_probe() {
        let mut worker = state(ProbeType::Liveness, &probe());
        let ended = Observation { pod_ended: true, ..running("a", 1, true) };
        assert_eq!(worker.observe(&ended).0, Step::Stop);
        let deleting = Observation { deleting: true, ..running("a", 1, true) };
        assert_eq!(worker.observe(&deleting), (Step::Stop, Some(ProbeResult::Success)));
    }
}
