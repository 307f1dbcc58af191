//! replicaset-controller: keeps as many pods as a ReplicaSet asks for, adopting and releasing pods by label, creating
//! in slow-start batches and deleting in upstream's order. It does not look at what a pod runs: a finished or failed pod
//! is replaced, nothing more. Upstream: pkg/controller/replicaset.

pub mod ranking;
pub mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use apimachinery::labels::Selector;
use apimachinery::meta::{self, ObjectKey};
use apimachinery::owner;
use component_base::informer::{Change, Store};
use component_base::workqueue::{self, WorkQueue};
use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client};

use self::status::ReplicaFailure;
use crate::claim::{ClaimError, Claimer, Controller};
use crate::context::{Context, RunError};
use crate::expectations::{self, Expectations};
use crate::informers;
use crate::pod_control::{self, PodControl};
use crate::{api_error, claim};

/// Most pods created or deleted in one sync.
const BURST_REPLICAS: usize = 500;
const API_VERSION: &str = "apps/v1";
const KIND: &str = "ReplicaSet";

/// Why a sync did not finish; it is retried.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    #[error("parse the selector")]
    Selector(#[source] apimachinery::labels::Error),
    #[error("claim pods")]
    Claim(#[from] ClaimError),
    #[error("{0}")]
    Replicas(String),
    #[error("look for a pod that was created and is not seen")]
    Expectations(#[source] Box<kube::Error>),
    #[error("update the status")]
    Status(#[source] Box<kube::Error>),
}

/// What to do about the number of pods.
#[derive(Debug, PartialEq)]
pub enum Scale {
    /// As many as wanted.
    Nothing,
    /// Create so many.
    Create(usize),
    /// Delete exactly these.
    Delete(Vec<Arc<Pod>>),
}

/// Compares what is wanted with the `active` pods.
pub fn decide(replica_set: &ReplicaSet, active: &[Arc<Pod>], related: &[Arc<Pod>], now: Timestamp) -> Scale {
    let wanted = usize::try_from(replicas(replica_set)).unwrap_or(0);
    match active.len() {
        have if have < wanted => Scale::Create((wanted - have).min(BURST_REPLICAS)),
        have if have > wanted => {
            Scale::Delete(ranking::pods_to_delete(active, related, (have - wanted).min(BURST_REPLICAS), now))
        }
        _ => Scale::Nothing,
    }
}

/// `spec.replicas`, which defaults to 1.
pub fn replicas(replica_set: &ReplicaSet) -> i32 {
    replica_set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

struct ReplicaSetController {
    client: Client,
    pods: Store<Pod>,
    replica_sets: Store<ReplicaSet>,
    pod_control: PodControl,
    expectations: Expectations,
    queue: WorkQueue<ObjectKey>,
}

/// Runs until shutdown.
pub async fn run(context: Context) -> Result<(), RunError> {
    let client = context.client("replicaset-controller");
    let recorder = context.recorder(&client, "replicaset-controller");
    let pods = context.informers.pods();
    let replica_sets = context.informers.replica_sets();
    let controller = Arc::new(ReplicaSetController {
        pod_control: PodControl::new(client.clone(), recorder),
        client,
        pods: pods.store(),
        replica_sets: replica_sets.store(),
        expectations: Expectations::default(),
        queue: context.queue("replicaset"),
    });
    context.on_change(&pods, {
        let controller = Arc::clone(&controller);
        move |change| controller.pod_changed(change)
    });
    context.on_change(&replica_sets, {
        let controller = Arc::clone(&controller);
        move |change| controller.replica_set_changed(&change)
    });
    context.wait_synced(&pods).await;
    context.wait_synced(&replica_sets).await;
    let workers = context.config.concurrent_replicaset_syncs;
    workqueue::run_workers(controller.queue.clone(), workers, context.shutdown.clone(), move |key| {
        let controller = Arc::clone(&controller);
        async move { api_error::retry_conflict(controller.sync(&key).await, &controller.queue, key) }
    })
    .await;
    Ok(())
}

impl ReplicaSetController {
    fn replica_set_changed(&self, change: &Change<ReplicaSet>) {
        match change {
            Change::Added(replica_set) => self.queue.add(meta::key_of(replica_set.as_ref())),
            Change::Updated { new, .. } => self.queue.add(meta::key_of(new.as_ref())),
            Change::Deleted(replica_set) => {
                let key = meta::key_of(replica_set.as_ref());
                self.expectations.forget(&key);
                self.queue.add(key);
            }
        }
    }

    fn pod_changed(&self, change: Change<Pod>) {
        match change {
            Change::Added(pod) => self.pod_added(&pod),
            Change::Updated { old, new } => self.pod_updated(&old, &new),
            Change::Deleted(pod) => self.pod_deleted(&pod),
        }
    }

    fn pod_added(&self, pod: &Pod) {
        if pod.metadata.deletion_timestamp.is_some() {
            // A restart may show a pod that is already being deleted.
            self.pod_deleted(pod);
        } else if owner::controller_of(&pod.metadata).is_some() {
            self.enqueue(self.controller_key(&pod.metadata));
        } else {
            self.enqueue_matching(pod);
        }
    }

    fn pod_updated(&self, old: &Pod, new: &Pod) {
        if old.metadata.resource_version == new.metadata.resource_version {
            return;
        }
        let relabelled = old.metadata.labels != new.metadata.labels;
        if new.metadata.deletion_timestamp.is_some() {
            self.pod_deleted(new);
            if relabelled {
                self.pod_deleted(old);
            }
            return;
        }
        let old_owner = owner::controller_of(&old.metadata).map(|reference| &reference.uid);
        let new_owner = owner::controller_of(&new.metadata).map(|reference| &reference.uid);
        if old_owner != new_owner {
            self.enqueue(self.controller_key(&old.metadata));
        }
        if new_owner.is_some() {
            self.enqueue(self.controller_key(&new.metadata));
        } else if relabelled || old_owner != new_owner {
            self.enqueue_matching(new);
        }
    }

    fn pod_deleted(&self, pod: &Pod) {
        self.enqueue(self.controller_key(&pod.metadata));
    }

    fn enqueue(&self, key: Option<ObjectKey>) {
        if let Some(key) = key {
            self.queue.add(key);
        }
    }

    /// The ReplicaSet of the cache that controls the pod, checked by uid.
    fn controller_key(&self, pod: &ObjectMeta) -> Option<ObjectKey> {
        let reference = owner::controller_of(pod)?;
        if reference.kind != KIND || reference.api_version != API_VERSION {
            return None;
        }
        let key = ObjectKey::new(pod.namespace.as_deref().unwrap_or(""), &reference.name);
        let replica_set = self.replica_sets.get(&key)?;
        (replica_set.metadata.uid.as_deref() == Some(reference.uid.as_str())).then_some(key)
    }

    /// An orphan concerns every ReplicaSet that would adopt it.
    fn enqueue_matching(&self, pod: &Pod) {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or("");
        for replica_set in self.replica_sets.list_namespace(namespace) {
            if selector(&replica_set).is_ok_and(|selector| {
                !selector.is_empty() && selector.matches_opt(pod.metadata.labels.as_ref())
            }) {
                self.queue.add(meta::key_of(replica_set.as_ref()));
            }
        }
    }

    async fn sync(&self, key: &ObjectKey) -> Result<(), SyncError> {
        let Some(replica_set) = self.replica_sets.get(key) else {
            self.expectations.forget(key);
            return Ok(());
        };
        // Ask before listing: an event between the two can then only make the list newer than the answer.
        let caught_up = self
            .pod_control
            .is_caught_up(&self.expectations, key, &self.pods)
            .await
            .map_err(|error| SyncError::Expectations(Box::new(error)))?;
        if !caught_up {
            self.queue.add_after(key.clone(), expectations::RECHECK);
        }
        let may_scale = caught_up && replica_set.metadata.deletion_timestamp.is_none();
        let selector = selector(&replica_set).map_err(SyncError::Selector)?;
        let claimer = Claimer {
            client: &self.client,
            controller: Controller { api_version: API_VERSION, kind: KIND, metadata: &replica_set.metadata },
            selector: &selector,
        };
        let candidates = informers::owned_and_orphans(&self.pods, &replica_set.metadata);
        let (terminating, candidates): (Vec<_>, Vec<_>) =
            candidates.into_iter().partition(|pod| pod.metadata.deletion_timestamp.is_some());
        let alive = candidates.into_iter().filter(|pod| ranking::is_active(pod)).collect();
        let active = claimer.claim::<ReplicaSet, Pod>(alive).await?;
        let terminating = terminating
            .iter()
            .filter(|pod| claimer.controller.judge(&selector, &pod.metadata) == claim::Verdict::Owned)
            .filter(|pod| !apimachinery::pod::is_terminal(pod))
            .count();

        let now = Timestamp::now();
        let failure = if may_scale { self.scale(key, &replica_set, &active, now).await } else { None };
        let status = status::calculate(&replica_set, &active, terminating, failure.as_ref(), now);
        if status::differs(&replica_set, &status) {
            self.write_status(&replica_set, status).await?;
        }
        if let Some(after) = status::next_availability_check(&replica_set, &active, now) {
            self.queue.add_after(key.clone(), after);
        }
        match failure {
            Some(failure) => Err(SyncError::Replicas(failure.message)),
            None => Ok(()),
        }
    }

    async fn scale(
        &self,
        key: &ObjectKey,
        replica_set: &ReplicaSet,
        active: &[Arc<Pod>],
        now: Timestamp,
    ) -> Option<ReplicaFailure> {
        match decide(replica_set, active, &self.related(replica_set), now) {
            Scale::Nothing => None,
            Scale::Create(count) => self
                .create(key, replica_set, count)
                .await
                .map(|message| ReplicaFailure { reason: "FailedCreate", message }),
            Scale::Delete(pods) => self
                .delete(key, replica_set, pods)
                .await
                .map(|message| ReplicaFailure { reason: "FailedDelete", message }),
        }
    }

    /// Active and other pods of all ReplicaSets with the same controller: they decide which nodes are crowded.
    fn related(&self, replica_set: &ReplicaSet) -> Vec<Arc<Pod>> {
        let siblings = match owner::controller_of(&replica_set.metadata) {
            Some(reference) => self.replica_sets.by_index(informers::CONTROLLER_UID, &reference.uid),
            None => Vec::new(),
        };
        let mut uids: Vec<&str> =
            siblings.iter().filter_map(|sibling| sibling.metadata.uid.as_deref()).collect();
        if uids.is_empty() {
            uids.extend(replica_set.metadata.uid.as_deref());
        }
        uids.into_iter().flat_map(|uid| self.pods.by_index(informers::CONTROLLER_UID, uid)).collect()
    }

    /// Batches of 1, 2, 4…: when every creation fails (quota, admission) only a few requests are spent. The first
    /// error, if any.
    async fn create(&self, key: &ObjectKey, replica_set: &ReplicaSet, count: usize) -> Option<String> {
        let template = replica_set.spec.as_ref().and_then(|spec| spec.template.clone()).unwrap_or_default();
        let owner = owner::new_controller_ref(replica_set);
        let pod = pod_control::pod_from_template(&template, &replica_set.metadata, owner);
        let mut left = count;
        let mut batch = 1;
        while left > 0 {
            let size = batch.min(left);
            left -= size;
            let mut failed = None;
            for result in join_all((0..size).map(|_| self.pod_control.create(&pod, replica_set))).await {
                match result {
                    Ok(created) => self.expectations.created(key, &created),
                    Err(error) if api_error::is_namespace_terminating(&error) => left = 0,
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

    async fn delete(&self, key: &ObjectKey, replica_set: &ReplicaSet, pods: Vec<Arc<Pod>>) -> Option<String> {
        let results = join_all(pods.iter().map(|pod| self.pod_control.delete(pod, replica_set))).await;
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

    async fn write_status(
        &self,
        replica_set: &ReplicaSet,
        status: k8s_openapi::api::apps::v1::ReplicaSetStatus,
    ) -> Result<(), SyncError> {
        let namespace = replica_set.metadata.namespace.as_deref().unwrap_or("");
        let name = replica_set.metadata.name.as_deref().unwrap_or("");
        let api = Api::<ReplicaSet>::namespaced(self.client.clone(), namespace);
        let updated = ReplicaSet { status: Some(status), ..replica_set.clone() };
        match api.replace_status(name, &PostParams::default(), &updated).await {
            Ok(_) => Ok(()),
            Err(error) if api_error::is_not_found(&error) => Ok(()),
            Err(error) => Err(SyncError::Status(Box::new(error))),
        }
    }
}

fn selector(replica_set: &ReplicaSet) -> Result<Selector, apimachinery::labels::Error> {
    match replica_set.spec.as_ref() {
        Some(spec) => Selector::from_label_selector(&spec.selector),
        None => Ok(Selector::nothing()),
    }
}
