//! deployment-controller: moves pods from template to template through ReplicaSets. What to do in one pass is decided in
//! [`rollout`] without IO; this file feeds it from the caches and carries out its actions. Rollback is the client's
//! business (kubectl copies an old template). Upstream: pkg/controller/deployment.

pub mod bounds;
mod recreate;
pub mod revision;
mod rolling;
pub mod rollout;
mod scale;
pub mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use apimachinery::labels::Selector;
use apimachinery::meta::{self, ObjectKey};
use apimachinery::{owner, pod};
use component_base::events::{EventRecorder, EventType};
use component_base::informer::{Change, Store};
use component_base::workqueue::{self, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, Client};

use self::rollout::{Action, Observed};
use self::status::reason;
use crate::api_error;
use crate::claim::{ClaimError, Claimer, Controller};
use crate::context::{Context, RunError};
use crate::informers;

const API_VERSION: &str = "apps/v1";
const KIND: &str = "Deployment";

/// Why a pass did not finish; it is retried.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    #[error("parse the selector")]
    Selector(#[source] apimachinery::labels::Error),
    #[error("claim replica sets")]
    Claim(#[from] ClaimError),
    #[error("create replica set {name}")]
    Create { name: String, source: Box<kube::Error> },
    #[error("update replica set {name}")]
    Update { name: String, source: Box<kube::Error> },
    #[error("delete replica set {name}")]
    Delete { name: String, source: Box<kube::Error> },
    #[error("update the status")]
    Status(#[source] Box<kube::Error>),
    #[error("replica set name {0} is taken by another template")]
    Collision(String),
}

struct DeploymentController {
    client: Client,
    recorder: EventRecorder,
    deployments: Store<Deployment>,
    replica_sets: Store<ReplicaSet>,
    pods: Store<Pod>,
    queue: WorkQueue<ObjectKey>,
}

/// Runs until shutdown.
pub async fn run(context: Context) -> Result<(), RunError> {
    let client = context.client("deployment-controller");
    let deployments = context.informers.deployments();
    let replica_sets = context.informers.replica_sets();
    let pods = context.informers.pods();
    let controller = Arc::new(DeploymentController {
        recorder: context.recorder(&client, "deployment-controller"),
        client,
        deployments: deployments.store(),
        replica_sets: replica_sets.store(),
        pods: pods.store(),
        queue: context.queue("deployment"),
    });
    context.on_change(&deployments, {
        let controller = Arc::clone(&controller);
        move |change| controller.queue.add(change.key())
    });
    context.on_change(&replica_sets, {
        let controller = Arc::clone(&controller);
        move |change| controller.replica_set_changed(&change)
    });
    context.on_change(&pods, {
        let controller = Arc::clone(&controller);
        move |change| controller.pod_changed(&change)
    });
    context.wait_synced(&deployments).await;
    context.wait_synced(&replica_sets).await;
    context.wait_synced(&pods).await;
    let workers = context.config.concurrent_deployment_syncs;
    workqueue::run_workers(controller.queue.clone(), workers, context.shutdown.clone(), move |key| {
        let controller = Arc::clone(&controller);
        async move { api_error::retry_conflict(controller.sync(&key).await, &controller.queue, key) }
    })
    .await;
    Ok(())
}

impl DeploymentController {
    fn replica_set_changed(&self, change: &Change<ReplicaSet>) {
        let set = change.object();
        if let Change::Updated { old, new } = change
            && old.metadata.owner_references != new.metadata.owner_references
        {
            self.enqueue(self.controller_key(&old.metadata));
        }
        if owner::controller_of(&set.metadata).is_some() {
            self.enqueue(self.controller_key(&set.metadata));
        } else if change.new().is_some() {
            self.enqueue_matching(&set.metadata);
        }
    }

    /// Only the last pod's going matters: Recreate waits for it.
    fn pod_changed(&self, change: &Change<Pod>) {
        let pod = match change {
            Change::Deleted(pod) => pod,
            Change::Updated { old, new } if !pod::is_terminal(old) && pod::is_terminal(new) => new,
            _ => return,
        };
        let Some(reference) = owner::controller_of(&pod.metadata) else { return };
        let key = ObjectKey::new(meta::namespace_of(pod.as_ref()), &reference.name);
        let Some(set) = self.replica_sets.get(&key) else { return };
        let Some(key) = self.controller_key(&set.metadata) else { return };
        if self.deployments.get(&key).is_some_and(|deployment| bounds::is_recreate(&deployment)) {
            self.queue.add(key);
        }
    }

    fn enqueue(&self, key: Option<ObjectKey>) {
        if let Some(key) = key {
            self.queue.add(key);
        }
    }

    fn controller_key(&self, set: &ObjectMeta) -> Option<ObjectKey> {
        let reference = owner::controller_of(set)?;
        if reference.kind != KIND || reference.api_version != API_VERSION {
            return None;
        }
        let key = ObjectKey::new(set.namespace.as_deref().unwrap_or(""), &reference.name);
        let deployment = self.deployments.get(&key)?;
        (deployment.metadata.uid.as_deref() == Some(reference.uid.as_str())).then_some(key)
    }

    fn enqueue_matching(&self, set: &ObjectMeta) {
        for deployment in self.deployments.list_namespace(set.namespace.as_deref().unwrap_or("")) {
            if selector(&deployment)
                .is_ok_and(|selector| !selector.is_empty() && selector.matches_opt(set.labels.as_ref()))
            {
                self.queue.add(meta::key_of(deployment.as_ref()));
            }
        }
    }

    async fn sync(&self, key: &ObjectKey) -> Result<(), SyncError> {
        let Some(deployment) = self.deployments.get(key) else { return Ok(()) };
        let selector = selector(&deployment).map_err(SyncError::Selector)?;
        let sets = if selector.is_empty() {
            Vec::new()
        } else {
            let claimer = Claimer {
                client: &self.client,
                controller: Controller {
                    api_version: API_VERSION,
                    kind: KIND,
                    metadata: &deployment.metadata,
                },
                selector: &selector,
            };
            let candidates = informers::owned_and_orphans(&self.replica_sets, &deployment.metadata);
            claimer.claim::<Deployment, ReplicaSet>(candidates).await?
        };
        let pods = if bounds::is_recreate(&deployment) { self.pods_of(&sets) } else { Vec::new() };
        let observed = Observed { deployment, sets, pods };
        for action in rollout::decide(&observed, Timestamp::now()) {
            self.act(key, &observed.deployment, action).await?;
        }
        Ok(())
    }

    fn pods_of(&self, sets: &[Arc<ReplicaSet>]) -> Vec<Arc<Pod>> {
        sets.iter()
            .flat_map(|set| self.pods.by_index(informers::CONTROLLER_UID, meta::uid_of(set.as_ref())))
            .collect()
    }

    async fn act(&self, key: &ObjectKey, deployment: &Deployment, action: Action) -> Result<(), SyncError> {
        match action {
            Action::CreateReplicaSet(set) => self.create(deployment, &set).await,
            Action::UpdateReplicaSet(set) => {
                let name = meta::name_of(set.as_ref()).to_owned();
                match self.replica_set_api(key).replace(&name, &PostParams::default(), &set).await {
                    Ok(_) => Ok(()),
                    Err(source) => Err(SyncError::Update { name, source: Box::new(source) }),
                }
            }
            Action::DeleteReplicaSet(set) => {
                let name = meta::name_of(set.as_ref()).to_owned();
                let parameters = DeleteParams::background()
                    .preconditions(Preconditions { uid: set.metadata.uid.clone(), resource_version: None });
                match self.replica_set_api(key).delete(&name, &parameters).await {
                    Ok(_) => Ok(()),
                    Err(error) if api_error::is_not_found(&error) || api_error::is_conflict(&error) => Ok(()),
                    Err(source) => Err(SyncError::Delete { name, source: Box::new(source) }),
                }
            }
            Action::UpdateStatus(deployment) => self.update_status(&deployment).await,
            Action::Scaled(message) => {
                self.recorder.event(deployment, EventType::Normal, "ScalingReplicaSet", &message);
                Ok(())
            }
            Action::SelectingAll => {
                let message = "This deployment is selecting all pods. A non-empty selector is required.";
                self.recorder.event(deployment, EventType::Warning, "SelectingAll", message);
                Ok(())
            }
            Action::RequeueAfter(after) => {
                self.queue.add_after(key.clone(), after);
                Ok(())
            }
        }
    }

    fn replica_set_api(&self, key: &ObjectKey) -> Api<ReplicaSet> {
        Api::namespaced(self.client.clone(), &key.namespace)
    }

    async fn create(&self, deployment: &Deployment, set: &ReplicaSet) -> Result<(), SyncError> {
        let key = meta::key_of(deployment);
        let name = meta::name_of(set).to_owned();
        let api = self.replica_set_api(&key);
        let error = match api.create(&PostParams::default(), set).await {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        if api_error::is_namespace_terminating(&error) {
            return Err(SyncError::Create { name, source: Box::new(error) });
        }
        if api_error::is_already_exists(&error) {
            let existing = api
                .get(&name)
                .await
                .map_err(|source| SyncError::Create { name: name.clone(), source: Box::new(source) })?;
            if owner::is_controlled_by(&existing.metadata, &deployment.metadata)
                && revision::runs_template(deployment, &existing)
            {
                // The cache was behind: this is our own earlier creation.
                return Ok(());
            }
            let mut updated = deployment.clone();
            let status = updated.status.get_or_insert_default();
            status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
            self.update_status(&updated).await?;
            return Err(SyncError::Collision(name));
        }
        let message = format!("Failed to create new replica set \"{name}\": {}", api_error::message(&error));
        self.recorder.event(deployment, EventType::Warning, reason::REPLICA_SET_CREATE_ERROR, &message);
        if status::has_progress_deadline(deployment) {
            let mut updated = deployment.clone();
            let condition = status::new_condition(
                status::PROGRESSING,
                "False",
                reason::REPLICA_SET_CREATE_ERROR,
                message,
                Timestamp::now(),
            );
            status::set_condition(updated.status.get_or_insert_default(), condition);
            self.update_status(&updated).await?;
        }
        Err(SyncError::Create { name, source: Box::new(error) })
    }

    async fn update_status(&self, deployment: &Deployment) -> Result<(), SyncError> {
        let api = Api::<Deployment>::namespaced(self.client.clone(), meta::namespace_of(deployment));
        match api.replace_status(meta::name_of(deployment), &PostParams::default(), deployment).await {
            Ok(_) => Ok(()),
            Err(error) if api_error::is_not_found(&error) => Ok(()),
            Err(error) => Err(SyncError::Status(Box::new(error))),
        }
    }
}

fn selector(deployment: &Deployment) -> Result<Selector, apimachinery::labels::Error> {
    match deployment.spec.as_ref() {
        Some(spec) => Selector::from_label_selector(&spec.selector),
        None => Ok(Selector::nothing()),
    }
}
