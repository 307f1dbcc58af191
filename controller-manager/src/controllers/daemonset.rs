//! daemonset-controller: a pod on every node where its template belongs, bound there by node affinity through the
//! scheduler; rolling updates by ControllerRevisions. Upstream: pkg/controller/daemon.

pub mod fit;
pub mod history;
pub mod plan;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use apimachinery::backoff::Backoff;
use apimachinery::labels::Selector;
use apimachinery::meta::{self, ObjectKey};
use apimachinery::owner;
use component_base::events::{EventRecorder, EventType};
use component_base::informer::{Change, Store};
use component_base::workqueue::{self, WorkQueue};
use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};
use parking_lot::Mutex;

use self::history::Current;
use self::plan::{Counts, Ended, Observed, Plan, REVISION_HASH};
use crate::api_error;
use crate::claim::{ClaimError, Claimer, Controller};
use crate::context::{Context, RunError};
use crate::expectations::{self, Expectations};
use crate::informers;
use crate::pod_control::{self, PodControl};

const API_VERSION: &str = "apps/v1";
const KIND: &str = "DaemonSet";
/// Most pods created and most deleted in one sync.
const BURST_REPLICAS: usize = 250;
const TEMPLATE_GENERATION_ANNOTATION: &str = "deprecated.daemonset.template.generation";
const TEMPLATE_GENERATION_LABEL: &str = "pod-template-generation";
const FAILED_POD_BACKOFF: Duration = Duration::from_secs(1);
const FAILED_POD_MAX_BACKOFF: Duration = Duration::from_secs(15 * 60);

/// Why a sync did not finish; it is retried.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    #[error("parse the selector")]
    Selector(#[source] apimachinery::labels::Error),
    #[error("claim pods or revisions")]
    Claim(#[from] ClaimError),
    #[error("{0}")]
    Pods(String),
    #[error("look for a pod that was created and is not seen")]
    Expectations(#[source] Box<kube::Error>),
    #[error("{action} controller revision {name}")]
    Revision { action: &'static str, name: String, source: Box<kube::Error> },
    #[error("controller revision name {0} is taken by another template")]
    Collision(String),
    #[error("update the status")]
    Status(#[source] Box<kube::Error>),
}

struct DaemonSetController {
    client: Client,
    recorder: EventRecorder,
    pod_control: PodControl,
    daemon_sets: Store<DaemonSet>,
    revisions: Store<ControllerRevision>,
    pods: Store<Pod>,
    nodes: Store<Node>,
    expectations: Expectations,
    failed: Mutex<FailedPods>,
    queue: WorkQueue<ObjectKey>,
}

/// Until when failed pods are left alone, by DaemonSet and node.
struct FailedPods {
    backoff: Backoff<(ObjectKey, String)>,
    until: HashMap<(ObjectKey, String), Instant>,
}

impl FailedPods {
    /// How long to wait before the failed pod is removed; when it need not wait, the next one will.
    fn wait(&mut self, daemon_set: &ObjectKey, node: &str, now: Instant) -> Option<Duration> {
        let key = (daemon_set.clone(), node.to_owned());
        if let Some(left) = self.until.get(&key).map(|until| until.saturating_duration_since(now))
            && !left.is_zero()
        {
            return Some(left);
        }
        let delay = self.backoff.next(key.clone(), now);
        self.until.insert(key, now + delay);
        None
    }

    fn forget_old(&mut self, now: Instant) {
        self.backoff.gc(now);
        self.until.retain(|_, until| *until > now);
    }
}

/// Runs until shutdown.
pub async fn run(context: Context) -> Result<(), RunError> {
    let client = context.client("daemon-set-controller");
    let daemon_sets = context.informers.daemon_sets();
    let revisions = context.informers.controller_revisions();
    let pods = context.informers.pods();
    let nodes = context.informers.nodes();
    let recorder = context.recorder(&client, "daemonset-controller");
    let controller = Arc::new(DaemonSetController {
        pod_control: PodControl::new(client.clone(), recorder.clone()),
        recorder,
        client,
        daemon_sets: daemon_sets.store(),
        revisions: revisions.store(),
        pods: pods.store(),
        nodes: nodes.store(),
        expectations: Expectations::default(),
        failed: Mutex::new(FailedPods {
            backoff: Backoff::new(FAILED_POD_BACKOFF, FAILED_POD_MAX_BACKOFF),
            until: HashMap::new(),
        }),
        queue: context.queue("daemonset"),
    });
    context.on_change(&daemon_sets, {
        let controller = Arc::clone(&controller);
        move |change| controller.queue.add(change.key())
    });
    context.on_change(&revisions, {
        let controller = Arc::clone(&controller);
        move |change| {
            controller.owned_changed(&change.object().metadata, change.old().map(|old| &old.metadata))
        }
    });
    context.on_change(&pods, {
        let controller = Arc::clone(&controller);
        move |change| {
            controller.owned_changed(&change.object().metadata, change.old().map(|old| &old.metadata))
        }
    });
    context.on_change(&nodes, {
        let controller = Arc::clone(&controller);
        move |change| {
            if may_change_fit(&change) {
                controller.enqueue_all();
            }
        }
    });
    if !(context.wait_synced(&daemon_sets).await
        && context.wait_synced(&revisions).await
        && context.wait_synced(&pods).await
        && context.wait_synced(&nodes).await)
    {
        return Ok(());
    }
    let workers = context.config.concurrent_daemonset_syncs;
    workqueue::run_workers(controller.queue.clone(), workers, context.shutdown.clone(), move |key| {
        let controller = Arc::clone(&controller);
        async move { api_error::retry_conflict(controller.sync(&key).await, &controller.queue, key) }
    })
    .await;
    Ok(())
}

/// Heartbeats cannot change where pods belong.
fn may_change_fit(change: &Change<Node>) -> bool {
    let Change::Updated { old, new } = change else { return true };
    let taints = |node: &Node| node.spec.as_ref().and_then(|spec| spec.taints.clone());
    old.metadata.labels != new.metadata.labels || taints(old) != taints(new)
}

impl DaemonSetController {
    fn enqueue_all(&self) {
        for daemon_set in self.daemon_sets.list() {
            self.queue.add(meta::key_of(daemon_set.as_ref()));
        }
    }

    fn owned_changed(&self, object: &ObjectMeta, old: Option<&ObjectMeta>) {
        if let Some(key) = old.and_then(|old| self.controller_key(old)) {
            self.queue.add(key);
        }
        if owner::controller_of(object).is_some() {
            if let Some(key) = self.controller_key(object) {
                self.queue.add(key);
            }
            return;
        }
        for daemon_set in self.daemon_sets.list_namespace(object.namespace.as_deref().unwrap_or("")) {
            if selector(&daemon_set)
                .is_ok_and(|selector| !selector.is_empty() && selector.matches_opt(object.labels.as_ref()))
            {
                self.queue.add(meta::key_of(daemon_set.as_ref()));
            }
        }
    }

    fn controller_key(&self, object: &ObjectMeta) -> Option<ObjectKey> {
        let reference = owner::controller_of(object)?;
        if reference.kind != KIND || reference.api_version != API_VERSION {
            return None;
        }
        let key = ObjectKey::new(object.namespace.as_deref().unwrap_or(""), &*reference.name);
        let daemon_set = self.daemon_sets.get(&key)?;
        (meta::uid_of(daemon_set.as_ref()) == reference.uid).then_some(key)
    }

    async fn sync(&self, key: &ObjectKey) -> Result<(), SyncError> {
        let Some(daemon_set) = self.daemon_sets.get(key) else {
            self.expectations.forget(key);
            self.failed.lock().forget_old(Instant::now());
            return Ok(());
        };
        let selector = selector(&daemon_set).map_err(SyncError::Selector)?;
        if selector.is_empty() {
            let message = "This daemon set is selecting all pods. A non-empty selector is required.";
            self.recorder.event(daemon_set.as_ref(), EventType::Warning, "SelectingAll", message);
            return Ok(());
        }
        if daemon_set.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        let caught_up = self.pod_control.is_caught_up(&self.expectations, key, &self.pods).await;
        let caught_up = caught_up.map_err(|error| SyncError::Expectations(Box::new(error)))?;

        let claimer = Claimer {
            client: &self.client,
            controller: Controller { api_version: API_VERSION, kind: KIND, metadata: &daemon_set.metadata },
            selector: &selector,
        };
        let candidates = informers::owned_and_orphans(&self.revisions, &daemon_set.metadata);
        let revisions = claimer.claim::<DaemonSet, ControllerRevision>(candidates).await?;
        let (current, old) = history::current(&daemon_set, revisions);
        let hash = self.record(&daemon_set, current).await?;
        let candidates = informers::owned_and_orphans(&self.pods, &daemon_set.metadata);
        let pods = claimer.claim::<DaemonSet, Pod>(candidates).await?;
        let observed = Observed { daemon_set, nodes: self.nodes.list(), pods, hash, now: Timestamp::now() };

        if !caught_up {
            self.queue.add_after(key.clone(), expectations::RECHECK);
            return self.update_status(&observed, false).await;
        }
        let result = self.move_on(key, &observed).await;
        if result.is_ok() {
            for revision in
                history::to_clean_up(&observed.daemon_set, &old, &plan::live_hashes(&observed.pods))
            {
                self.delete_revision(&revision).await?;
            }
        }
        self.update_status(&observed, true).await?;
        result
    }

    /// Pods first where they belong; only then, nothing being out of place, the next step of an update.
    async fn move_on(&self, key: &ObjectKey, observed: &Observed) -> Result<(), SyncError> {
        let now = Instant::now();
        let managed = plan::manage(observed, |node| self.failed.lock().wait(key, node, now));
        if let Some(after) = managed.requeue_after {
            self.queue.add_after(key.clone(), after);
        }
        let idle = managed.create_on.is_empty() && managed.delete.is_empty();
        self.act(key, observed, managed).await?;
        if idle && !plan::is_on_delete(&observed.daemon_set) {
            self.act(key, observed, plan::rolling_update(observed)).await?;
        }
        Ok(())
    }

    async fn act(&self, key: &ObjectKey, observed: &Observed, mut plan: Plan) -> Result<(), SyncError> {
        let daemon_set = observed.daemon_set.as_ref();
        for (pod, ended) in &plan.ended {
            let (name, node) = (meta::key_of(pod.as_ref()), apimachinery::pod::node_name(pod));
            let (kind, reason, message) = match ended {
                Ended::Failed => (
                    EventType::Warning,
                    "FailedDaemonPod",
                    format!("Found failed daemon pod {name} on node {node}, will try to kill it"),
                ),
                Ended::Succeeded => (
                    EventType::Normal,
                    "SucceededDaemonPod",
                    format!("Found succeeded daemon pod {name} on node {node}, will try to delete it"),
                ),
            };
            self.recorder.event(daemon_set, kind, reason, message);
        }
        plan.create_on.truncate(BURST_REPLICAS);
        plan.delete.truncate(BURST_REPLICAS);
        let created = self.create(key, observed, plan.create_on).await;
        let deleted = self.delete(key, daemon_set, plan.delete).await;
        created.or(deleted).map_or(Ok(()), |message| Err(SyncError::Pods(message)))
    }

    /// In batches of 1, 2, 4…, as for ReplicaSets. The first error, if any.
    async fn create(&self, key: &ObjectKey, observed: &Observed, mut nodes: Vec<String>) -> Option<String> {
        let daemon_set = observed.daemon_set.as_ref();
        let pod = pod(daemon_set, &observed.hash);
        let mut batch = 1;
        while !nodes.is_empty() {
            let now: Vec<Pod> = nodes
                .drain(..batch.min(nodes.len()))
                .map(|node| {
                    let mut pod = pod.clone();
                    fit::pin(pod.spec.get_or_insert_default(), &node);
                    pod
                })
                .collect();
            let mut failed = None;
            for result in join_all(now.iter().map(|pod| self.pod_control.create(pod, daemon_set))).await {
                match result {
                    Ok(created) => self.expectations.created(key, &created),
                    Err(error) if api_error::is_namespace_terminating(&error) => nodes.clear(),
                    Err(error) => {
                        failed.get_or_insert_with(|| api_error::message(&error));
                    }
                }
            }
            if failed.is_some() {
                return failed;
            }
            batch *= 2;
        }
        None
    }

    async fn delete(&self, key: &ObjectKey, daemon_set: &DaemonSet, pods: Vec<Arc<Pod>>) -> Option<String> {
        let results = join_all(pods.iter().map(|pod| self.pod_control.delete(pod, daemon_set))).await;
        let mut first = None;
        for (pod, result) in pods.iter().zip(results) {
            match result {
                Ok(_) => self.expectations.deleted(key, pod),
                Err(error) => {
                    first.get_or_insert_with(|| api_error::message(&error));
                }
            }
        }
        first
    }

    /// Makes sure that the present template is recorded; its hash.
    async fn record(&self, daemon_set: &DaemonSet, current: Current) -> Result<String, SyncError> {
        let api = Api::<ControllerRevision>::namespaced(self.client.clone(), meta::namespace_of(daemon_set));
        let failed = |action, name: &str| {
            let name = name.to_owned();
            move |source| SyncError::Revision { action, name, source: Box::new(source) }
        };
        let revision = match current {
            Current::Known(revision) => revision,
            Current::Renumber(revision) => {
                let name = meta::name_of(revision.as_ref()).to_owned();
                let updated = api.replace(&name, &PostParams::default(), &revision).await;
                Arc::new(updated.map_err(failed("renumber", &name))?)
            }
            Current::Create(revision) => {
                let name = meta::name_of(revision.as_ref()).to_owned();
                match api.create(&PostParams::default(), &revision).await {
                    Ok(created) => Arc::new(created),
                    Err(error) if api_error::is_already_exists(&error) => {
                        let existing = api.get(&name).await.map_err(failed("get", &name))?;
                        if !history::records(&existing, daemon_set) {
                            return Err(self.collide(daemon_set, name).await);
                        }
                        Arc::new(existing)
                    }
                    Err(error) => return Err(failed("create", &name)(error)),
                }
            }
        };
        Ok(meta::label(&revision.metadata, REVISION_HASH).unwrap_or("").to_owned())
    }

    async fn collide(&self, daemon_set: &DaemonSet, name: String) -> SyncError {
        let mut updated = daemon_set.clone();
        let status = updated.status.get_or_insert_default();
        status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
        match self.write_status(&updated).await {
            Ok(()) => SyncError::Collision(name),
            Err(error) => error,
        }
    }

    async fn delete_revision(&self, revision: &ControllerRevision) -> Result<(), SyncError> {
        let name = meta::name_of(revision);
        let api = Api::<ControllerRevision>::namespaced(self.client.clone(), meta::namespace_of(revision));
        match api.delete(name, &DeleteParams::default()).await {
            Ok(_) => Ok(()),
            Err(error) if api_error::is_not_found(&error) => Ok(()),
            Err(source) => {
                Err(SyncError::Revision { action: "delete", name: name.to_owned(), source: Box::new(source) })
            }
        }
    }

    async fn update_status(&self, observed: &Observed, observed_generation: bool) -> Result<(), SyncError> {
        let daemon_set = observed.daemon_set.as_ref();
        let counts = plan::count(observed);
        let status = status(daemon_set, counts, observed_generation);
        if daemon_set.status.as_ref() != Some(&status) {
            self.write_status(&DaemonSet { status: Some(status), ..daemon_set.clone() }).await?;
        }
        // Pods become available by the passing of time alone.
        let min_ready_seconds = plan::min_ready_seconds(daemon_set);
        if min_ready_seconds > 0 && counts.ready != counts.available {
            let after = Duration::from_secs(u64::try_from(min_ready_seconds).unwrap_or(0));
            self.queue.add_after(meta::key_of(daemon_set), after);
        }
        Ok(())
    }

    async fn write_status(&self, daemon_set: &DaemonSet) -> Result<(), SyncError> {
        let api = Api::<DaemonSet>::namespaced(self.client.clone(), meta::namespace_of(daemon_set));
        match api.replace_status(meta::name_of(daemon_set), &PostParams::default(), daemon_set).await {
            Ok(_) => Ok(()),
            Err(error) if api_error::is_not_found(&error) => Ok(()),
            Err(error) => Err(SyncError::Status(Box::new(error))),
        }
    }
}

/// The status that the counts amount to.
fn status(daemon_set: &DaemonSet, counts: Counts, observed_generation: bool) -> DaemonSetStatus {
    let current = daemon_set.status.clone().unwrap_or_default();
    let nonzero = |count: i32| (count != 0).then_some(count);
    DaemonSetStatus {
        current_number_scheduled: counts.current,
        desired_number_scheduled: counts.desired,
        number_misscheduled: counts.misscheduled,
        number_ready: counts.ready,
        number_available: nonzero(counts.available),
        number_unavailable: nonzero(counts.desired - counts.available),
        updated_number_scheduled: nonzero(counts.updated),
        observed_generation: if observed_generation {
            daemon_set.metadata.generation
        } else {
            current.observed_generation
        },
        ..current
    }
}

/// A pod of the DaemonSet's present template, not yet pinned to a node.
fn pod(daemon_set: &DaemonSet, hash: &str) -> Pod {
    let mut template = fit::tolerating_template(daemon_set);
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(REVISION_HASH.to_owned(), hash.to_owned());
    if let Some(generation) = meta::annotation(&daemon_set.metadata, TEMPLATE_GENERATION_ANNOTATION) {
        labels.insert(TEMPLATE_GENERATION_LABEL.to_owned(), generation.to_owned());
    }
    pod_control::pod_from_template(&template, &daemon_set.metadata, owner::new_controller_ref(daemon_set))
}

fn selector(daemon_set: &DaemonSet) -> Result<Selector, apimachinery::labels::Error> {
    match daemon_set.spec.as_ref() {
        Some(spec) => Selector::from_label_selector(&spec.selector),
        None => Ok(Selector::nothing()),
    }
}
