//! The one task that owns the queue and the cache: changes in, decisions out.
//!
//! Everything that can wake it is in one `select!`: changes of pods and nodes, outcomes of bindings, the end of
//! a delay, and pods that are ready to be tried. Bindings run beside it, many at a time.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use apimachinery::pod;
use component_base::Shutdown;
use component_base::error_chain::Chain;
use component_base::events::{EventRecorder, EventType, ObjectRef as _};
use component_base::informer::{Change, Connection, InformerBuilder};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::json;
use tokio::sync::mpsc;

use crate::algorithm::{self, FitError, Rotation};
use crate::cache::Cache;
use crate::config::Profile;
use crate::framework::{ClusterEvent, Framework};
use crate::metrics::Metrics;
use crate::plugins::{self, default_binder::DefaultBinder};
use crate::pod_info::PodInfo;
use crate::queue::{QueuedPod, SchedulingQueue};

/// Bindings under way at a time.
const MAX_BINDINGS: usize = 256;
/// How often the numbers of waiting pods are shown.
const METRICS_PERIOD: Duration = Duration::from_secs(5);

struct ProfileState {
    framework: Framework,
    percentage: u32,
}

/// The outcome of one binding.
struct Bound {
    pod: QueuedPod,
    node: String,
    profile: String,
    took: Duration,
    result: Result<(), kube::Error>,
}

/// The scheduler, before it runs.
pub struct Scheduler {
    client: Client,
    recorder: EventRecorder,
    profiles: HashMap<String, ProfileState>,
    queue: SchedulingQueue,
    cache: Cache,
    rotation: Rotation,
    rng: StdRng,
    metrics: Metrics,
    bindings: usize,
    outcomes: mpsc::UnboundedSender<Bound>,
    outcomes_receiver: mpsc::UnboundedReceiver<Bound>,
}

impl std::fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scheduler").field("profiles", &self.profiles.keys()).finish_non_exhaustive()
    }
}

impl Scheduler {
    /// A scheduler that knows nothing yet.
    pub fn new(
        client: Client,
        recorder: EventRecorder,
        profiles: &[Profile],
        initial_backoff: Duration,
        max_backoff: Duration,
        metrics: Metrics,
    ) -> Self {
        let state = |profile: &Profile| {
            let mut framework = plugins::default_profile(&profile.disabled);
            if !profile.disabled.contains(plugins::default_binder::NAME) {
                framework.bind.push(Arc::new(DefaultBinder::new(client.clone())));
            }
            let percentage = profile.percentage_of_nodes_to_score;
            (profile.scheduler_name.clone(), ProfileState { framework, percentage })
        };
        let profiles = profiles.iter().map(state).collect();
        // Every binding has room for its outcome: the sender never waits.
        let (outcomes, outcomes_receiver) = mpsc::unbounded_channel();
        Self {
            client,
            recorder,
            profiles,
            queue: SchedulingQueue::new(initial_backoff, max_backoff),
            cache: Cache::default(),
            rotation: Rotation::default(),
            rng: StdRng::from_os_rng(),
            metrics,
            bindings: 0,
            outcomes,
            outcomes_receiver,
        }
    }

    /// Schedules until `shutdown`.
    pub async fn run(mut self, shutdown: &Shutdown) {
        let connection = Connection::new(self.client.clone());
        let pods = InformerBuilder::<Pod>::new(connection.clone())
            .field_selector("status.phase!=Succeeded,status.phase!=Failed")
            .transform(strip)
            .start(shutdown);
        let nodes = InformerBuilder::<Node>::new(connection).start(shutdown);
        let synced = async { tokio::join!(pods.wait_synced(), nodes.wait_synced()) };
        if shutdown.run_until_cancelled(synced).await.is_none() {
            return;
        }
        let (mut pods, mut nodes) = (pods.subscribe(), nodes.subscribe());
        let mut show = tokio::time::interval(METRICS_PERIOD);
        loop {
            let wake = self.queue.flush(Instant::now());
            // What is known already is taken in first: a decision on old knowledge is a decision to make twice.
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                Some(change) = nodes.recv() => self.node_changed(&change),
                Some(change) = pods.recv() => self.pod_changed(&change),
                Some(bound) = self.outcomes_receiver.recv() => self.binding_finished(bound),
                _ = show.tick() => self.metrics.pending(self.queue.lengths()),
                () = std::future::ready(()), if self.bindings < MAX_BINDINGS && self.schedule_one() => {
                    // Lets bindings and watches move between two decisions.
                    tokio::task::yield_now().await;
                }
                () = sleep_until(wake) => {}
            }
        }
    }

    fn node_changed(&mut self, change: &Change<Node>) {
        let now = Instant::now();
        let event = match change {
            Change::Added(node) => {
                self.cache.set_node(Arc::clone(node));
                ClusterEvent::NodeAdded(node)
            }
            Change::Updated { old, new } => {
                // A heartbeat changes nothing that scheduling reads.
                if same_for_scheduling(old, new) {
                    return;
                }
                self.cache.set_node(Arc::clone(new));
                ClusterEvent::NodeUpdated { old, new }
            }
            Change::Deleted(node) => {
                self.cache.remove_node(node.metadata.name.as_deref().unwrap_or_default());
                return;
            }
        };
        self.wake(&event, now);
    }

    fn wake(&mut self, event: &ClusterEvent<'_>, now: Instant) {
        // One queue serves all profiles; the hints are those of the first, since all profiles share the plugins.
        if let Some(profile) = self.profiles.values().next() {
            self.queue.on_event(&profile.framework, event, now);
        }
    }

    fn pod_changed(&mut self, change: &Change<Pod>) {
        let now = Instant::now();
        match change {
            Change::Added(pod) => self.pod_seen(pod, now),
            Change::Updated { old, new } => {
                self.pod_seen(new, now);
                if !pod::node_name(new).is_empty() && old.spec != new.spec {
                    self.wake(&ClusterEvent::AssignedPodUpdated { old, new }, now);
                }
            }
            Change::Deleted(pod) => {
                let uid = apimachinery::meta::uid_of(&**pod);
                self.queue.remove(uid);
                if self.cache.is_placed(uid) {
                    self.cache.remove_pod(uid);
                    self.wake(&ClusterEvent::AssignedPodDeleted(pod), now);
                }
            }
        }
    }

    fn pod_seen(&mut self, object: &Arc<Pod>, now: Instant) {
        let uid = apimachinery::meta::uid_of(&**object);
        if !pod::node_name(object).is_empty() {
            self.queue.remove(uid);
            self.cache.set_pod(object);
            return;
        }
        let spec_name = object.spec.as_ref().and_then(|s| s.scheduler_name.as_deref());
        let Some(profile) = self.profiles.get(spec_name.unwrap_or("default-scheduler")) else { return };
        if pod::is_deleting(object) {
            self.queue.remove(uid);
        } else if !self.cache.is_placed(uid) {
            self.queue.update(Arc::new(PodInfo::new(Arc::clone(object))), &profile.framework, now);
        }
    }

    /// Tries the next pod; false when none is ready.
    fn schedule_one(&mut self) -> bool {
        let Some(queued) = self.queue.pop() else { return false };
        let started = Instant::now();
        let name = queued.pod.pod.spec.as_ref().and_then(|s| s.scheduler_name.clone());
        let name = name.unwrap_or_else(|| "default-scheduler".to_owned());
        let Some(profile) = self.profiles.get(&name) else { return true };
        let snapshot = self.cache.snapshot();
        let decision = algorithm::schedule(
            &profile.framework,
            snapshot,
            &queued.pod,
            profile.percentage,
            &mut self.rotation,
            &mut self.rng,
        );
        match decision {
            Ok(node) => self.bind(queued, node, name, started),
            Err(error) => {
                self.metrics.attempt("unschedulable", &name, started.elapsed().as_secs_f64());
                self.unschedulable(&queued, &error);
            }
        }
        true
    }

    fn bind(&mut self, pod: QueuedPod, node: String, profile: String, started: Instant) {
        let Some(binder) = self.profiles.get(&profile).and_then(|p| p.framework.bind.first()) else {
            tracing::error!(profile, "the profile has no plugin that binds");
            self.queue.failed(&pod.pod.uid, BTreeSet::new(), Instant::now());
            return;
        };
        self.cache.assume(Arc::clone(&pod.pod), &node);
        let binding = binder.bind(Arc::clone(&pod.pod), node.clone());
        let outcomes = self.outcomes.clone();
        self.bindings += 1;
        tokio::spawn(async move {
            let result = binding.await;
            // The receiver goes only when the scheduler stops; nobody waits for the outcome then.
            let _ = outcomes.send(Bound { pod, node, profile, took: started.elapsed(), result });
        });
    }

    fn binding_finished(&mut self, bound: Bound) {
        self.bindings -= 1;
        let Bound { pod, node, profile, took, result } = bound;
        let key = &pod.pod.key;
        match result {
            Ok(()) => {
                self.metrics.attempt("scheduled", &profile, took.as_secs_f64());
                self.metrics.scheduled_after(pod.added.elapsed().as_secs_f64());
                self.queue.done(&pod.pod.uid);
                tracing::debug!(
                    namespace = key.namespace,
                    name = key.name,
                    node,
                    attempts = pod.attempts,
                    "bound pod"
                );
                self.recorder.event_with_action(
                    &*pod.pod.pod,
                    None,
                    EventType::Normal,
                    "Scheduled",
                    "Binding",
                    format!("Successfully assigned {key} to {node}"),
                );
            }
            Err(error) => {
                self.metrics.attempt("error", &profile, took.as_secs_f64());
                self.cache.forget(&pod.pod.uid);
                let gone = matches!(&error, kube::Error::Api(status) if status.code == 404);
                if gone {
                    self.queue.remove(&pod.pod.uid);
                    return;
                }
                tracing::error!(namespace = key.namespace, name = key.name, node, error = %Chain(&error), "binding failed");
                // What was assumed is free again: that may help others.
                self.wake(&ClusterEvent::AssignedPodDeleted(&pod.pod.pod), Instant::now());
                self.queue.failed(&pod.pod.uid, BTreeSet::new(), Instant::now());
                self.report(&pod.pod, "SchedulerError", format!("binding rejected: {error}"));
            }
        }
    }

    fn unschedulable(&mut self, queued: &QueuedPod, error: &FitError) {
        let mut rejected_by = error.rejected_by.clone();
        if error.all_nodes == 0 {
            // Any node would be new.
            rejected_by.insert(plugins::node_resources_fit::NAME);
        }
        self.queue.failed(&queued.pod.uid, rejected_by, Instant::now());
        self.report(&queued.pod, "Unschedulable", error.to_string());
    }

    /// Tells people why a pod waits: an event each time, the condition when it changes.
    fn report(&self, info: &Arc<PodInfo>, reason: &'static str, message: String) {
        let reference = info.pod.object_ref();
        tracing::debug!(
            namespace = reference.namespace,
            name = reference.name,
            reason,
            message,
            "pod not scheduled"
        );
        self.recorder.event_with_action(
            &*info.pod,
            None,
            EventType::Warning,
            "FailedScheduling",
            "Scheduling",
            message.clone(),
        );
        let old = pod::condition(&info.pod, "PodScheduled");
        let same = |o: &k8s_openapi::api::core::v1::PodCondition| {
            o.status == "False"
                && o.reason.as_deref() == Some(reason)
                && o.message.as_deref() == Some(&message)
        };
        if old.is_some_and(same) {
            return;
        }
        let since = old.filter(|o| o.status == "False").and_then(|o| o.last_transition_time.clone());
        let since = since.map_or_else(Timestamp::now, |t| t.0);
        let condition = json!({
            "type": "PodScheduled",
            "status": "False",
            "reason": reason,
            "message": message,
            "observedGeneration": info.pod.metadata.generation,
            "lastProbeTime": null,
            "lastTransitionTime": k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(since),
        });
        let patch = json!({"metadata": {"uid": info.uid}, "status": {"conditions": [condition]}});
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &info.key.namespace);
        let key = info.key.clone();
        tokio::spawn(async move {
            let result = api.patch_status(&key.name, &PatchParams::default(), &Patch::Strategic(patch)).await;
            match result {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {}
                Err(error) => {
                    tracing::warn!(namespace = key.namespace, name = key.name, error = %Chain(&error), "pod condition could not be written");
                }
            }
        });
    }
}

async fn sleep_until(when: Option<Instant>) {
    match when {
        Some(when) => tokio::time::sleep_until(when.into()).await,
        None => std::future::pending().await,
    }
}

/// Whether an update of a node leaves everything as it was that a plugin reads.
fn same_for_scheduling(old: &Node, new: &Node) -> bool {
    let status = |n: &Node| n.status.as_ref().map(|s| (s.allocatable.clone(), s.images.clone()));
    old.spec == new.spec
        && old.metadata.labels == new.metadata.labels
        && old.metadata.annotations == new.metadata.annotations
        && status(old) == status(new)
}

/// Drops what scheduling never reads of a pod.
fn strip(pod: &mut Pod) {
    pod.metadata.annotations = None;
    if let Some(status) = &mut pod.status {
        status.container_statuses = None;
        status.init_container_statuses = None;
        status.ephemeral_container_statuses = None;
        status.pod_ips = None;
        status.host_ips = None;
    }
    for container in pod
        .spec
        .iter_mut()
        .flat_map(|s| s.containers.iter_mut().chain(s.init_containers.iter_mut().flatten()))
    {
        container.env = None;
        container.env_from = None;
        container.command = None;
        container.args = None;
        container.volume_mounts = None;
        container.liveness_probe = None;
        container.readiness_probe = None;
        container.startup_probe = None;
        container.lifecycle = None;
    }
}
