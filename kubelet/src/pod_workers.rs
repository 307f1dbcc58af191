//! The life of each pod on this node: sync, terminating, terminated; one worker each, never two things at once.
//!
//! [`PodWorkers`] is a state machine without IO: it is told of updates and of finished work, and says what to do next.
//! [`crate::worker_tasks`] runs that work, one task per pod. Upstream's concept: `pkg/kubelet/pod_workers.go`.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;

use crate::pod;
use crate::runtime::RuntimePodSummary;

#[cfg(test)]
mod tests;

/// How long a worker waits after a failed sync.
pub const BACK_OFF_PERIOD: Duration = Duration::from_secs(10);

/// What a worker does next.
#[derive(Debug, Clone)]
pub enum Work {
    /// Bring the pod to its spec.
    Sync(Arc<Pod>),
    /// Stop everything of it.
    Terminate(Termination),
    /// Release what the node holds for it: volumes, cgroups, and report the last status.
    Finish(Target),
}

/// The pod that a work is about.
#[derive(Debug, Clone)]
pub enum Target {
    /// A pod that a source gave.
    Pod(Arc<Pod>),
    /// A pod that only the runtime knows: its source forgot it while the kubelet was away.
    Orphan(Arc<RuntimePodSummary>),
}

impl Target {
    /// The uid.
    #[must_use]
    pub fn uid(&self) -> &str {
        match self {
            Self::Pod(pod) => pod::uid(pod),
            Self::Orphan(summary) => &summary.uid,
        }
    }
}

/// How to terminate.
#[derive(Debug, Clone)]
pub struct Termination {
    /// What.
    pub target: Target,
    /// Seconds that containers get after SIGTERM (preStop included).
    pub grace_period_seconds: i64,
    /// Set when the node decided (eviction, rejection): the status gets phase Failed with this.
    pub eviction: Option<Eviction>,
}

/// Why the node ends a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Eviction {
    /// `status.reason`.
    pub reason: String,
    /// `status.message`.
    pub message: String,
    /// Overrides the pod's own grace period.
    pub grace_period_seconds: Option<i64>,
}

/// How a work ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The sync is done; look again after that time at the latest.
    Synced {
        /// Sooner than the regular resync, when something waits for a time (crash-loop back-off).
        again_after: Option<Duration>,
    },
    /// The sync found that the pod has ended (its phase is final).
    Ended,
    /// Nothing of the pod runs any more.
    Terminated,
    /// Everything is released.
    Finished,
    /// Failed: try the same again.
    Failed {
        /// After that time.
        again_after: Duration,
    },
    /// Cut short by a newer update.
    Cancelled,
}

/// What the caller must do after telling the state machine something.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effects {
    /// Workers that have work now.
    pub wake: Vec<String>,
    /// Running works to cut short.
    pub cancel: Vec<String>,
    /// Workers to wake later.
    pub wake_after: Option<(String, Duration)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Sync,
    Terminating,
    Terminated,
    Finished,
}

#[derive(Debug)]
struct Worker {
    phase: Phase,
    target: Target,
    full_name: String,
    is_static: bool,
    /// There is something to do (or the same to do again).
    pending: bool,
    /// A work is being done.
    running: bool,
    grace_period_seconds: Option<i64>,
    eviction: Option<Eviction>,
    /// The pod came back under the same uid while it was being terminated (a manifest removed and put back).
    restart: Option<Arc<Pod>>,
    /// No source wants it any more.
    removed_from_source: bool,
}

/// All workers, by uid.
#[derive(Debug, Default)]
pub struct PodWorkers {
    workers: HashMap<String, Worker>,
    /// The static pod that may run under a full name; a changed manifest waits for its predecessor to end.
    started_static: HashMap<String, String>,
    waiting_static: HashMap<String, VecDeque<String>>,
}

impl PodWorkers {
    /// A pod was added or changed, or something about it (PLEG, a probe, a timer) asks for a look.
    pub fn update(&mut self, pod: Arc<Pod>) -> Effects {
        let uid = pod::uid(&pod).to_owned();
        let is_new = !self.workers.contains_key(&uid);
        let worker = self.workers.entry(uid.clone()).or_insert_with(|| Worker::new(Target::Pod(pod.clone())));
        if is_new && worker.is_static {
            self.waiting_static.entry(worker.full_name.clone()).or_default().push_back(uid.clone());
        }
        match worker.phase {
            Phase::Finished => {
                if worker.removed_from_source && worker.is_static {
                    worker.restart = Some(pod);
                    return self.finished(&uid);
                }
                worker.target = Target::Pod(pod);
                return Effects::default();
            }
            Phase::Terminating | Phase::Terminated if worker.is_static && worker.removed_from_source => {
                worker.restart = Some(pod);
                return Effects::default();
            }
            Phase::Sync | Phase::Terminating | Phase::Terminated => {}
        }
        worker.target = Target::Pod(pod.clone());
        worker.pending |= worker.phase != Phase::Terminated;
        let mut effects = Effects { wake: vec![uid.clone()], ..Effects::default() };
        let ended = pod::is_terminal_phase(pod::phase(&pod)) && !worker.is_static;
        if pod.metadata.deletion_timestamp.is_some() || ended {
            worker.terminate(pod.metadata.deletion_grace_period_seconds, &uid, &mut effects);
        }
        effects
    }

    /// A source no longer wants the pod.
    pub fn remove(&mut self, uid: &str) -> Effects {
        let mut effects = Effects::default();
        if let Some(worker) = self.workers.get_mut(uid) {
            worker.restart = None;
            worker.removed_from_source = true;
            effects.wake.push(uid.to_owned());
            worker.terminate(None, uid, &mut effects);
        }
        effects
    }

    /// The node ends the pod.
    pub fn evict(&mut self, uid: &str, eviction: Eviction) -> Effects {
        let mut effects = Effects::default();
        if let Some(worker) = self.workers.get_mut(uid) {
            effects.wake.push(uid.to_owned());
            let grace = eviction.grace_period_seconds;
            worker.eviction.get_or_insert(eviction);
            worker.terminate(grace, uid, &mut effects);
        }
        effects
    }

    /// The runtime runs a pod that no source has.
    pub fn terminate_orphan(&mut self, summary: RuntimePodSummary) -> Effects {
        let uid = summary.uid.clone();
        if self.workers.contains_key(&uid) {
            return Effects::default();
        }
        let mut worker = Worker::new(Target::Orphan(Arc::new(summary)));
        let mut effects = Effects { wake: vec![uid.clone()], ..Effects::default() };
        worker.removed_from_source = true;
        // The spec, and with it the grace period, is lost.
        worker.terminate(Some(1), &uid, &mut effects);
        self.workers.insert(uid, worker);
        effects
    }

    /// Takes the next work of a worker; `None` when it has nothing to do or is at work already.
    pub fn start(&mut self, uid: &str) -> Option<Work> {
        let worker = self.workers.get(uid)?;
        if worker.running || !worker.pending || worker.phase == Phase::Finished {
            return None;
        }
        if worker.phase == Phase::Sync && worker.is_static && !self.may_start_static(uid) {
            return None;
        }
        let worker = self.workers.get_mut(uid)?;
        worker.running = true;
        worker.pending = false;
        Some(match (worker.phase, &worker.target) {
            (Phase::Sync, Target::Pod(pod)) => Work::Sync(pod.clone()),
            (Phase::Terminating | Phase::Sync, target) => Work::Terminate(Termination {
                target: target.clone(),
                grace_period_seconds: worker.effective_grace_period(),
                eviction: worker.eviction.clone(),
            }),
            (Phase::Terminated | Phase::Finished, target) => Work::Finish(target.clone()),
        })
    }

    /// A work has ended.
    pub fn complete(&mut self, uid: &str, outcome: &Outcome) -> Effects {
        let mut effects = Effects::default();
        let Some(worker) = self.workers.get_mut(uid) else { return effects };
        worker.running = false;
        match (worker.phase, outcome) {
            (Phase::Sync, Outcome::Ended) => {
                worker.phase = Phase::Terminating;
                worker.pending = true;
            }
            (Phase::Terminating, Outcome::Terminated) => {
                worker.phase = Phase::Terminated;
                worker.pending = true;
            }
            (Phase::Terminated, Outcome::Finished) if !worker.pending => {
                worker.phase = Phase::Finished;
                return self.finished(uid);
            }
            (_, Outcome::Synced { again_after: Some(delay) } | Outcome::Failed { again_after: delay }) => {
                effects.wake_after = Some((uid.to_owned(), *delay));
            }
            (_, Outcome::Cancelled) => worker.pending = true,
            _ => {}
        }
        if worker.pending {
            effects.wake.push(uid.to_owned());
        }
        effects
    }

    /// The timer of [`Effects::wake_after`], or the regular resync, has fired.
    pub fn retry(&mut self, uid: &str) -> Effects {
        let Some(worker) = self.workers.get_mut(uid).filter(|w| w.phase != Phase::Finished) else {
            return Effects::default();
        };
        worker.pending = true;
        Effects { wake: vec![uid.to_owned()], ..Effects::default() }
    }

    fn finished(&mut self, uid: &str) -> Effects {
        let mut effects = Effects::default();
        let Some(worker) = self.workers.get_mut(uid) else { return effects };
        let full_name = worker.full_name.clone();
        let restart = worker.restart.take();
        if self.started_static.get(&full_name).is_some_and(|started| started == uid) {
            self.started_static.remove(&full_name);
        }
        if let Some(pod) = restart {
            self.workers.remove(uid);
            effects.wake.extend(self.update(pod).wake);
        }
        effects.wake.extend(self.waiting_static.get(&full_name).into_iter().flatten().cloned());
        effects
    }

    /// Forgets finished pods that no source wants; says which uids are still known and which may have containers.
    pub fn collect(&mut self, desired: &HashSet<String>) -> Vec<String> {
        let gone: Vec<String> = self
            .workers
            .iter()
            .filter(|(uid, worker)| {
                worker.phase == Phase::Finished && !desired.contains(*uid) && !worker.running
            })
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in &gone {
            self.workers.remove(uid);
        }
        gone
    }

    /// Whether the worker has stopped everything (or never knew the pod).
    #[must_use]
    pub fn containers_are_gone(&self, uid: &str) -> bool {
        self.workers.get(uid).is_none_or(|w| matches!(w.phase, Phase::Terminated | Phase::Finished))
    }

    /// Whether nothing new may start in this pod.
    #[must_use]
    pub fn is_terminating(&self, uid: &str) -> bool {
        self.workers.get(uid).is_some_and(|w| w.phase != Phase::Sync)
    }

    /// Whether a worker knows this pod.
    #[must_use]
    pub fn knows(&self, uid: &str) -> bool {
        self.workers.contains_key(uid)
    }

    /// Every uid with a worker.
    #[must_use]
    pub fn uids(&self) -> Vec<String> {
        self.workers.keys().cloned().collect()
    }

    /// Only one static pod of a full name runs; the next waits until its predecessor is finished.
    fn may_start_static(&mut self, uid: &str) -> bool {
        let Some(full_name) = self.workers.get(uid).map(|w| w.full_name.clone()) else { return false };
        if let Some(started) = self.started_static.get(&full_name) {
            return started == uid;
        }
        let queue = self.waiting_static.entry(full_name.clone()).or_default();
        while let Some(first) = queue.front() {
            if self.workers.get(first).is_some_and(|w| w.phase == Phase::Sync) {
                break;
            }
            queue.pop_front();
        }
        if queue.front().is_some_and(|first| first != uid) {
            return false;
        }
        queue.pop_front();
        if queue.is_empty() {
            self.waiting_static.remove(&full_name);
        }
        self.started_static.insert(full_name, uid.to_owned());
        true
    }
}

impl Worker {
    fn new(target: Target) -> Self {
        let (full_name, is_static) = match &target {
            Target::Pod(pod) => (pod::full_name(pod), pod::is_static(pod)),
            Target::Orphan(summary) => (format!("{}_{}", summary.name, summary.namespace), false),
        };
        Self {
            phase: Phase::Sync,
            target,
            full_name,
            is_static,
            pending: true,
            running: false,
            grace_period_seconds: None,
            eviction: None,
            restart: None,
            removed_from_source: false,
        }
    }

    /// Enters termination, or shortens its grace period.
    fn terminate(&mut self, grace: Option<i64>, uid: &str, effects: &mut Effects) {
        let before = (self.phase == Phase::Terminating).then(|| self.effective_grace_period());
        if let Some(grace) = grace {
            self.grace_period_seconds = Some(self.grace_period_seconds.map_or(grace, |held| held.min(grace)));
        }
        match self.phase {
            Phase::Sync => {
                self.phase = Phase::Terminating;
                self.pending = true;
                if self.running {
                    effects.cancel.push(uid.to_owned());
                }
            }
            Phase::Terminating if before.is_some_and(|before| self.effective_grace_period() < before) => {
                self.pending = true;
                if self.running {
                    effects.cancel.push(uid.to_owned());
                }
            }
            Phase::Terminating | Phase::Terminated | Phase::Finished => {}
        }
    }

    /// At least one second, as upstream.
    fn effective_grace_period(&self) -> i64 {
        const DEFAULT: i64 = 30;
        let own = match &self.target {
            Target::Pod(pod) => pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds),
            Target::Orphan(_) => None,
        };
        self.grace_period_seconds.or(own).unwrap_or(DEFAULT).max(1)
    }
}
