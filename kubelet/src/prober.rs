//! Liveness, readiness and startup probes: one small task per probe, results by container id.
//!
//! It restarts nothing and writes no status: pod workers read the results. Upstream's concept: `pkg/kubelet/prober`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod, Probe};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::events::{EventType, Recorder};
use crate::pod::{self, is_sidecar};
use crate::pod_manager::PodManager;
use crate::runtime::{ContainerKind, Runtime};
use crate::status_manager::StatusManager;

mod action;
mod grpc;
mod http;
mod results;
mod tcp;
mod worker;

pub use results::{ProbeResult, ProbeResults};

use action::Verdict;
use worker::{Observation, ProbeState, Step};

/// Which probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProbeType {
    /// Restarts a container that fails.
    Liveness,
    /// Takes a container out of Services while it fails.
    Readiness,
    /// Holds the others back until it succeeds.
    Startup,
}

impl ProbeType {
    const ALL: [Self; 3] = [Self::Startup, Self::Liveness, Self::Readiness];

    fn as_str(self) -> &'static str {
        match self {
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
            Self::Startup => "Startup",
        }
    }

    fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            Self::Liveness => container.liveness_probe.as_ref(),
            Self::Readiness => container.readiness_probe.as_ref(),
            Self::Startup => container.startup_probe.as_ref(),
        }
    }
}

/// What the probes need from the rest of the kubelet.
#[derive(Debug, Clone)]
pub struct ProbeContext {
    /// For exec probes.
    pub runtime: Runtime,
    /// Container ids, states and pod addresses come from the reported status, as upstream's.
    pub statuses: StatusManager,
    /// The pod as it is now (deletion).
    pub pods: PodManager,
    /// Unhealthy events.
    pub recorder: Recorder,
    /// Uids of pods whose results changed.
    pub changes: mpsc::UnboundedSender<String>,
    /// Stops everything.
    pub shutdown: CancellationToken,
    /// Waits for everything.
    pub tracker: TaskTracker,
}

type Key = (String, String, ProbeType);

/// Starts and stops probe tasks; cheap to clone.
#[derive(Debug, Clone)]
pub struct ProbeManager {
    context: Arc<ProbeContext>,
    workers: Arc<Mutex<HashMap<Key, CancellationToken>>>,
    results: ProbeResults,
}

impl ProbeManager {
    /// No probes yet.
    #[must_use]
    pub fn new(context: ProbeContext) -> Self {
        Self { context: Arc::new(context), workers: Arc::default(), results: ProbeResults::default() }
    }

    /// The results.
    #[must_use]
    pub fn results(&self) -> &ProbeResults {
        &self.results
    }

    /// Starts the probes of a pod that are not running yet.
    pub fn add_pod(&self, pod: &Arc<Pod>) {
        let Some(spec) = pod.spec.as_ref() else { return };
        for (kind, container) in pod::containers(spec) {
            if kind == ContainerKind::Init && !is_sidecar(container) {
                continue;
            }
            for type_ in ProbeType::ALL {
                if let Some(probe) = type_.of(container) {
                    self.start(pod, container, type_, probe);
                }
            }
        }
    }

    fn start(&self, pod: &Arc<Pod>, container: &Container, type_: ProbeType, probe: &Probe) {
        let key = (pod::uid(pod).to_owned(), container.name.clone(), type_);
        let stop = self.context.shutdown.child_token();
        {
            let mut workers = self.workers.lock();
            if workers.get(&key).is_some_and(|token| !token.is_cancelled()) {
                return;
            }
            workers.insert(key.clone(), stop.clone());
        }
        self.results.expect(&key.0, &key.1, type_);
        let state = ProbeState::new(type_, probe, pod);
        let task = self.clone().run(key, pod.clone(), container.clone(), state, stop);
        self.context.tracker.spawn(task);
    }

    /// Stops liveness and startup probes of a pod that is being terminated.
    pub fn stop_liveness_and_startup(&self, uid: &str) {
        self.stop(|key| key.0 == uid && key.2 != ProbeType::Readiness);
    }

    /// Stops all probes of a pod and forgets their results.
    pub fn remove_pod(&self, uid: &str) {
        self.stop(|key| key.0 == uid);
        self.results.remove_pod(uid);
    }

    fn stop(&self, which: impl Fn(&Key) -> bool) {
        self.workers.lock().retain(|key, token| {
            let stop = which(key);
            if stop {
                token.cancel();
            }
            !stop
        });
    }

    async fn run(
        self,
        key: Key,
        pod: Arc<Pod>,
        container: Container,
        mut state: ProbeState,
        stop: CancellationToken,
    ) {
        let period = state.period();
        // Spread the probes of a kubelet that restarts; a container that just started is probed at once.
        let mut ticker = tokio::time::interval(period);
        ticker.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut poll = tokio::time::interval(Duration::from_secs(1).min(period));
        poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            // Until the container runs there is nothing to probe, and the first probe should not wait a whole period.
            tokio::select! {
                () = stop.cancelled() => return,
                _ = poll.tick(), if state.is_waiting() => {}
                _ = ticker.tick(), if !state.is_waiting() => {}
            }
            let step = tokio::select! {
                () = stop.cancelled() => return,
                step = self.probe_once(&key, &pod, &container, &mut state) => step,
            };
            if step == Step::Stop {
                self.workers.lock().remove(&key);
                return;
            }
        }
    }

    /// One look at the container and, if it is due, one probe.
    async fn probe_once(
        &self,
        key: &Key,
        pod: &Arc<Pod>,
        container: &Container,
        state: &mut ProbeState,
    ) -> Step {
        let Some(status) = self.context.statuses.get(&key.0) else { return Step::Continue };
        let deleting = self
            .context
            .pods
            .get(&key.0)
            .is_some_and(|current| current.metadata.deletion_timestamp.is_some());
        let observation = Observation::new(&status, &key.1, deleting, jiff::Timestamp::now());
        let was_waiting = state.is_waiting();
        let (step, change) = state.observe(&observation);
        self.publish(key, state, change);
        if step != Step::Probe {
            return step;
        }
        if was_waiting {
            tracing::trace!(pod = pod::name(pod), container = %key.1, "container is up: probing");
        }
        let Some(verdict) = self.attempt(pod, container, key.2, state, &status).await else {
            return Step::Continue;
        };
        let change = state.record(verdict);
        self.publish(key, state, change);
        Step::Continue
    }

    /// Runs the probe, up to three times while it can't even be run; tells people about failures.
    async fn attempt(
        &self,
        pod: &Pod,
        container: &Container,
        type_: ProbeType,
        state: &ProbeState,
        status: &k8s_openapi::api::core::v1::PodStatus,
    ) -> Option<ProbeResult> {
        const MAX_PROBE_RETRIES: usize = 3;
        let mut outcome = Err(String::new());
        for _ in 0..MAX_PROBE_RETRIES {
            outcome =
                action::run(&self.context.runtime, state.probe(), container, state.container_id(), status)
                    .await;
            if outcome.is_ok() {
                break;
            }
        }
        let warn = |reason: &str, message: &str| {
            self.context.recorder.container(pod, &container.name, EventType::Warning, reason, message);
        };
        let name = type_.as_str();
        match outcome {
            Err(error) => {
                warn("Unhealthy", &format!("{name} probe errored and resulted in unknown state: {error}"));
                None
            }
            Ok(Verdict::Failure(output)) => {
                warn("Unhealthy", &format!("{name} probe failed: {output}"));
                Some(ProbeResult::Failure)
            }
            Ok(Verdict::Warning(output)) => {
                warn("ProbeWarning", &format!("{name} probe warning: {output}"));
                Some(ProbeResult::Success)
            }
            Ok(Verdict::Success) => Some(ProbeResult::Success),
        }
    }

    fn publish(&self, key: &Key, state: &ProbeState, change: Option<ProbeResult>) {
        let Some(result) = change else { return };
        if self.results.set(key.2, &key.0, &key.1, state.container_id(), result) {
            // The sync loop may be gone during shutdown; then nobody needs to know.
            let _ = self.context.changes.send(key.0.clone());
        }
    }
}
