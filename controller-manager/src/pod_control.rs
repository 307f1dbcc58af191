//! Creates and deletes pods for a controlling object and tells its events. Upstream: `RealPodControl`.

use apimachinery::meta::{self, ObjectKey};
use component_base::events::{EventRecorder, EventType, ObjectRef};
use component_base::informer::Store;
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, Client};

use crate::api_error;
use crate::expectations::{Expectations, Outcome, Unseen};

/// Writes pods in the name of a controller.
#[derive(Clone)]
pub struct PodControl {
    client: Client,
    recorder: EventRecorder,
}

/// The pod that `template` describes, named after `controller` and owned by it.
pub fn pod_from_template(template: &PodTemplateSpec, controller: &ObjectMeta, owner: OwnerReference) -> Pod {
    let metadata = template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", controller.name.as_deref().unwrap_or(""))),
            namespace: controller.namespace.clone(),
            labels: metadata.labels,
            annotations: metadata.annotations,
            finalizers: metadata.finalizers,
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

impl std::fmt::Debug for PodControl {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("PodControl").finish_non_exhaustive()
    }
}

impl PodControl {
    /// Writes with `client`, tells events through `recorder`.
    pub fn new(client: Client, recorder: EventRecorder) -> Self {
        Self { client, recorder }
    }

    /// True when nothing of that uid exists any more.
    pub async fn is_gone(&self, unseen: &Unseen) -> Result<bool, kube::Error> {
        let api = Api::<Pod>::namespaced(self.client.clone(), &unseen.pod.namespace);
        let live = api.get_opt(&unseen.pod.name).await?;
        Ok(live.is_none_or(|pod| meta::uid_of(&pod) != unseen.uid))
    }

    /// Whether the cache shows all that was written for `controller`; doubts are settled with the server.
    pub async fn is_caught_up(
        &self,
        expectations: &Expectations,
        controller: &ObjectKey,
        pods: &Store<Pod>,
    ) -> Result<bool, kube::Error> {
        let doubtful = match expectations.check(controller, pods) {
            Outcome::Satisfied => return Ok(true),
            Outcome::Outstanding => return Ok(false),
            Outcome::Doubtful(doubtful) => doubtful,
        };
        for unseen in &doubtful {
            if self.is_gone(unseen).await? {
                expectations.gone(controller, unseen);
            }
        }
        Ok(expectations.check(controller, pods) == Outcome::Satisfied)
    }

    /// Creates `pod` for `controller`.
    pub async fn create(&self, pod: &Pod, controller: &impl ObjectRef) -> Result<Pod, kube::Error> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or("");
        let created =
            Api::<Pod>::namespaced(self.client.clone(), namespace).create(&PostParams::default(), pod).await;
        match &created {
            Ok(pod) => {
                let name = pod.metadata.name.as_deref().unwrap_or("");
                self.recorder.event(
                    controller,
                    EventType::Normal,
                    "SuccessfulCreate",
                    format!("Created pod: {name}"),
                );
            }
            // In a namespace that is going away this is expected.
            Err(error) if api_error::is_namespace_terminating(error) => {}
            Err(error) => {
                self.recorder.event(
                    controller,
                    EventType::Warning,
                    "FailedCreate",
                    format!("Error creating: {}", api_error::message(error)),
                );
            }
        }
        created
    }

    /// Deletes exactly this pod (by uid) for `controller`; `Ok(false)` when it was gone already.
    pub async fn delete(&self, pod: &Pod, controller: &impl ObjectRef) -> Result<bool, kube::Error> {
        let key = meta::key_of(pod);
        let parameters = DeleteParams::default()
            .preconditions(Preconditions { uid: pod.metadata.uid.clone(), resource_version: None });
        let api =
            Api::<Pod>::namespaced(self.client.clone(), pod.metadata.namespace.as_deref().unwrap_or(""));
        match api.delete(&key.name, &parameters).await {
            Ok(_) => {
                let message = format!("Deleted pod: {}", key.name);
                self.recorder.event(controller, EventType::Normal, "SuccessfulDelete", &message);
                Ok(true)
            }
            Err(error) if api_error::is_not_found(&error) || api_error::is_conflict(&error) => Ok(false),
            Err(error) => {
                let message = format!("Error deleting: {}", api_error::message(&error));
                self.recorder.event(controller, EventType::Warning, "FailedDelete", &message);
                Err(error)
            }
        }
    }
}
