//! Runs the pod workers' work: one task per pod, fed by the state machine in [`crate::pod_workers`].
//!
//! It decides nothing: it takes work, does it with [`crate::sync_pod::PodSyncer`], and reports how it ended.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::pod_workers::{Effects, Eviction, Outcome, PodWorkers, Work};
use crate::runtime::RuntimePodSummary;
use crate::sync_pod::PodSyncer;

#[derive(Debug)]
struct Task {
    wake: Arc<Notify>,
    /// Cuts the work under way short.
    cancel: CancellationToken,
}

#[derive(Debug, Default)]
struct State {
    workers: PodWorkers,
    tasks: HashMap<String, Task>,
}

/// The pod workers as the sync loop sees them; cheap to clone.
#[derive(Debug, Clone)]
pub struct WorkerTasks {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    syncer: Arc<PodSyncer>,
    /// `syncFrequency`: every pod is looked at that often at least.
    resync: Duration,
    shutdown: CancellationToken,
    tracker: TaskTracker,
}

impl WorkerTasks {
    /// No pods yet.
    #[must_use]
    pub fn new(
        syncer: Arc<PodSyncer>,
        resync: Duration,
        shutdown: CancellationToken,
        tracker: TaskTracker,
    ) -> Self {
        let inner = Inner { state: Mutex::default(), syncer, resync, shutdown, tracker };
        Self { inner: Arc::new(inner) }
    }

    /// See [`PodWorkers::update`].
    pub fn update(&self, pod: Arc<Pod>) {
        self.with(|workers| workers.update(pod));
    }

    /// See [`PodWorkers::remove`].
    pub fn remove(&self, uid: &str) {
        self.with(|workers| workers.remove(uid));
    }

    /// See [`PodWorkers::evict`].
    pub fn evict(&self, uid: &str, eviction: Eviction) {
        self.with(|workers| workers.evict(uid, eviction));
    }

    /// See [`PodWorkers::terminate_orphan`].
    pub fn terminate_orphan(&self, summary: RuntimePodSummary) {
        self.with(|workers| workers.terminate_orphan(summary));
    }

    /// Something about the pod may have changed: look at it.
    pub fn poke(&self, uid: &str) {
        self.with(|workers| workers.retry(uid));
    }

    /// See [`PodWorkers::collect`]; the tasks of forgotten pods end.
    pub fn collect(&self, desired: &HashSet<String>) -> Vec<String> {
        let mut state = self.inner.state.lock();
        let gone = state.workers.collect(desired);
        for uid in &gone {
            if let Some(task) = state.tasks.remove(uid) {
                task.wake.notify_one();
            }
        }
        gone
    }

    /// See [`PodWorkers::knows`].
    #[must_use]
    pub fn knows(&self, uid: &str) -> bool {
        self.inner.state.lock().workers.knows(uid)
    }

    /// See [`PodWorkers::is_terminating`].
    #[must_use]
    pub fn is_terminating(&self, uid: &str) -> bool {
        self.inner.state.lock().workers.is_terminating(uid)
    }

    /// See [`PodWorkers::containers_are_gone`].
    #[must_use]
    pub fn containers_are_gone(&self, uid: &str) -> bool {
        self.inner.state.lock().workers.containers_are_gone(uid)
    }

    /// Every uid with a worker.
    #[must_use]
    pub fn uids(&self) -> Vec<String> {
        self.inner.state.lock().workers.uids()
    }

    fn with(&self, change: impl FnOnce(&mut PodWorkers) -> Effects) {
        let mut state = self.inner.state.lock();
        let effects = change(&mut state.workers);
        self.apply(&mut state, &effects);
    }

    fn apply(&self, state: &mut State, effects: &Effects) {
        for uid in &effects.cancel {
            if let Some(task) = state.tasks.get(uid) {
                task.cancel.cancel();
            }
        }
        for uid in &effects.wake {
            if let Some(task) = state.tasks.get(uid) {
                task.wake.notify_one();
            } else if state.workers.knows(uid) {
                let wake = Arc::new(Notify::new());
                let task = Task { wake: wake.clone(), cancel: CancellationToken::new() };
                state.tasks.insert(uid.clone(), task);
                self.inner.tracker.spawn(self.clone().run(uid.clone(), wake));
            }
        }
    }

    /// Takes work together with a fresh token that can cut it short.
    fn start(&self, uid: &str) -> Option<(Work, CancellationToken)> {
        let mut state = self.inner.state.lock();
        let work = state.workers.start(uid)?;
        let cancel = CancellationToken::new();
        if let Some(task) = state.tasks.get_mut(uid) {
            task.cancel = cancel.clone();
        }
        Some((work, cancel))
    }

    async fn run(self, uid: String, wake: Arc<Notify>) {
        let mut due = Instant::now() + self.inner.resync;
        loop {
            let Some((work, cancel)) = self.start(&uid) else {
                tokio::select! {
                    () = self.inner.shutdown.cancelled() => return,
                    () = wake.notified() => {}
                    () = tokio::time::sleep_until(due) => {
                        due = Instant::now() + self.inner.resync;
                        self.poke(&uid);
                    }
                }
                let ours = self
                    .inner
                    .state
                    .lock()
                    .tasks
                    .get(&uid)
                    .is_some_and(|task| Arc::ptr_eq(&task.wake, &wake));
                if !ours {
                    return;
                }
                continue;
            };
            let outcome = tokio::select! {
                () = self.inner.shutdown.cancelled() => return,
                () = cancel.cancelled() => Outcome::Cancelled,
                outcome = self.inner.syncer.run(work) => outcome,
            };
            let mut state = self.inner.state.lock();
            let effects = state.workers.complete(&uid, &outcome);
            let delay = effects.wake_after.as_ref().map_or(self.inner.resync, |(_, delay)| *delay);
            due = Instant::now() + delay.min(self.inner.resync);
            self.apply(&mut state, &effects);
        }
    }
}
