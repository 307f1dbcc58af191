//! The one task that hears everything (sources, PLEG, probes, timers) and tells the pod workers.
//!
//! It does no slow work itself. Upstream's concept: `syncLoop` and `HandlePods*` in `pkg/kubelet/kubelet.go`.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::admission::{self, NodeView};
use crate::garbage_collection::GarbageCollector;
use crate::mirror_pods::MirrorPods;
use crate::pleg::RuntimePods;
use crate::pod;
use crate::pod_manager::PodManager;
use crate::pod_sources::SourceUpdate;
use crate::pod_workers::Eviction;
use crate::status_manager::StatusManager;
use crate::worker_tasks::WorkerTasks;

/// `housekeepingPeriod`.
const HOUSEKEEPING_PERIOD: Duration = Duration::from_secs(2);

/// How often directories of pods that are gone are looked for.
const DIRECTORIES_PERIOD: Duration = Duration::from_secs(60);

/// Everything that wakes the loop.
#[derive(Debug)]
pub struct Inputs {
    /// From the pod sources.
    pub sources: mpsc::UnboundedReceiver<SourceUpdate>,
    /// Uids of pods that changed in the runtime.
    pub runtime_changes: mpsc::UnboundedReceiver<String>,
    /// Uids of pods whose probes changed their mind.
    pub probe_changes: mpsc::UnboundedReceiver<String>,
}

/// The loop's state and what it talks to.
#[derive(Debug)]
pub struct SyncLoop {
    /// What is desired.
    pub pods: PodManager,
    /// Who does it.
    pub workers: WorkerTasks,
    /// What was reported.
    pub statuses: StatusManager,
    /// Mirror pods.
    pub mirrors: MirrorPods,
    /// What runs.
    pub runtime_pods: RuntimePods,
    /// What removes the dead.
    pub garbage: GarbageCollector,
    /// What pods must fit into.
    pub node: NodeView,
    /// There is (not) such a source, or it has spoken.
    pub manifests_ready: bool,
    /// There is (not) such a source, or it has spoken.
    pub api_ready: bool,
}

impl SyncLoop {
    /// Runs until shutdown.
    pub async fn run(mut self, mut inputs: Inputs, shutdown: CancellationToken) {
        let every = |period| {
            let mut interval = tokio::time::interval(period);
            interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            interval
        };
        let (mut housekeeping, mut directories) = (every(HOUSEKEEPING_PERIOD), every(DIRECTORIES_PERIOD));
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                Some(update) = inputs.sources.recv() => self.source_update(update),
                Some(uid) = inputs.runtime_changes.recv() => self.poke(&uid),
                Some(uid) = inputs.probe_changes.recv() => self.poke(&uid),
                _ = housekeeping.tick() => self.housekeeping(),
                _ = directories.tick() => self.orphaned_directories(),
            }
        }
    }

    fn poke(&self, uid: &str) {
        if self.workers.knows(uid) {
            self.workers.poke(uid);
        }
    }

    fn source_update(&mut self, update: SourceUpdate) {
        match update {
            SourceUpdate::Manifests(pods) => self.manifests(pods),
            SourceUpdate::ApiUpsert(pod) if pod::is_mirror(&pod) => self.mirror_upsert(pod),
            SourceUpdate::ApiUpsert(pod) => self.api_upsert(pod),
            SourceUpdate::ApiRemoved(pod) if pod::is_mirror(&pod) => {
                self.pods.remove(&pod);
                self.mirrors.poke();
            }
            SourceUpdate::ApiRemoved(pod) => {
                self.pods.remove(&pod);
                self.workers.remove(pod::uid(&pod));
            }
            SourceUpdate::ApiSynced => {
                self.api_ready = true;
                self.housekeeping();
            }
        }
    }

    fn manifests(&mut self, wanted: Vec<Arc<Pod>>) {
        let uids: HashSet<&str> = wanted.iter().map(|pod| pod::uid(pod)).collect();
        let gone: Vec<Arc<Pod>> = self
            .pods
            .pods()
            .into_iter()
            .filter(|held| pod::is_static(held) && !uids.contains(pod::uid(held)))
            .collect();
        for pod in gone {
            self.pods.remove(&pod);
            self.workers.remove(pod::uid(&pod));
        }
        for pod in wanted {
            if self.pods.get(pod::uid(&pod)).is_none() {
                tracing::info!(namespace = pod::namespace(&pod), name = pod::name(&pod), "static pod added");
                self.pods.set(pod.clone());
                self.workers.update(pod);
            }
        }
        self.manifests_ready = true;
        self.mirrors.manifests_are_known();
    }

    fn mirror_upsert(&self, mirror: Arc<Pod>) {
        self.pods.set(mirror.clone());
        if let Some(static_pod) = self.pods.get_by_name(pod::namespace(&mirror), pod::name(&mirror)) {
            self.statuses.reconcile(pod::uid(&static_pod), &mirror);
        }
        self.mirrors.poke();
    }

    fn api_upsert(&self, pod: Arc<Pod>) {
        let uid = pod::uid(&pod).to_owned();
        let before = self.pods.get(&uid);
        // A pod of the same name and another uid: the old object was deleted and made anew while nobody looked.
        if let Some(namesake) = self.pods.get_by_name(pod::namespace(&pod), pod::name(&pod))
            && pod::uid(&namesake) != uid
            && !pod::is_static(&namesake)
        {
            self.pods.remove(&namesake);
            self.workers.remove(pod::uid(&namesake));
        }
        self.pods.set(pod.clone());
        self.statuses.reconcile(&uid, &pod);
        match before {
            Some(before) if only_status_differs(&before, &pod) => {}
            Some(_) => self.workers.update(pod),
            None => self.admit(pod, &uid),
        }
    }

    /// A pod seen for the first time must fit, unless it has run here already.
    fn admit(&self, pod: Arc<Pod>, uid: &str) {
        let starting = pod.metadata.deletion_timestamp.is_none() && !pod::is_terminal_phase(pod::phase(&pod));
        let seen = pod.status.as_ref().is_some_and(|status| status.start_time.is_some());
        let rejection = (starting && !seen).then(|| {
            let others: Vec<Arc<Pod>> = self
                .pods
                .pods()
                .into_iter()
                .filter(|other| pod::uid(other) != uid && !self.workers.containers_are_gone(pod::uid(other)))
                .collect();
            admission::check(&pod, &others, &self.node)
        });
        self.workers.update(pod);
        if let Some(Err(rejection)) = rejection {
            let eviction =
                Eviction { reason: rejection.reason, message: rejection.message, grace_period_seconds: None };
            self.workers.evict(uid, eviction);
        }
    }

    fn orphaned_directories(&self) {
        if !(self.manifests_ready && self.api_ready) {
            return;
        }
        let mut known: HashSet<String> = self.workers.uids().into_iter().collect();
        known.extend(self.pods.pods().iter().map(|pod| pod::uid(pod).to_owned()));
        self.garbage.remove_orphaned_directories(known);
    }

    /// Ends what nobody wants and forgets what has ended.
    fn housekeeping(&self) {
        if !(self.manifests_ready && self.api_ready) {
            return;
        }
        let desired: HashSet<String> = self.pods.pods().iter().map(|pod| pod::uid(pod).to_owned()).collect();
        for uid in self.workers.uids() {
            if !desired.contains(&uid) {
                // Already terminating ones are left alone by the worker.
                self.workers.remove(&uid);
            }
        }
        for uid in self.workers.collect(&desired) {
            self.statuses.remove(&uid);
            self.garbage.remove_pod(&uid);
        }
        let Some(running) = self.runtime_pods.get() else { return };
        for summary in running.iter() {
            let uid = &summary.uid;
            if !desired.contains(uid) && !self.workers.knows(uid) && !self.garbage.is_removing(uid) {
                tracing::info!(namespace = %summary.namespace, name = %summary.name, uid = %uid, "ending an orphaned pod");
                self.workers.terminate_orphan(summary.clone());
            }
        }
    }
}

/// Nothing that the node acts on changed: mostly the echo of the kubelet's own status patches.
fn only_status_differs(before: &Pod, after: &Pod) -> bool {
    before.spec == after.spec
        && before.metadata.deletion_timestamp == after.metadata.deletion_timestamp
        && before.metadata.deletion_grace_period_seconds == after.metadata.deletion_grace_period_seconds
        && before.metadata.labels == after.metadata.labels
        && before.metadata.annotations == after.metadata.annotations
        && gates(before) == gates(after)
        && pod::is_terminal_phase(pod::phase(before)) == pod::is_terminal_phase(pod::phase(after))
}

/// Conditions that others write and readiness gates may ask for.
fn gates(pod: &Pod) -> Vec<(&str, &str)> {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions
        .filter(|c| !crate::pod_status::owns_condition(&c.type_))
        .map(|c| (c.type_.as_str(), c.status.as_str()))
        .collect()
}
