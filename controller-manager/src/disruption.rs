//! Deleting a pod that did not ask for it: the DisruptionTarget condition that says why, and the deletion by uid.
//! Upstream: the condition of KEP-3329, written by the pod garbage collector and by taint eviction.

use apimachinery::meta;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client};
use serde_json::json;

use crate::api_error;

/// Why a pod could not be disrupted; it is tried again.
#[derive(Debug, thiserror::Error)]
pub enum DisruptionError {
    #[error("update the pod's status")]
    Status(#[source] Box<kube::Error>),
    #[error("delete the pod")]
    Delete(#[source] Box<kube::Error>),
}

/// A DisruptionTarget condition.
pub fn target(reason: &str, message: &str) -> PodCondition {
    PodCondition {
        type_: "DisruptionTarget".to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_transition_time: Some(Time(Timestamp::now())),
        ..PodCondition::default()
    }
}

/// Adds the condition (and the phase, when one is given) to the pod's status.
pub async fn mark(
    client: &Client,
    pod: &Pod,
    condition: &PodCondition,
    phase: Option<&str>,
) -> Result<(), DisruptionError> {
    let mut status = json!({"conditions": [condition]});
    if let Some(phase) = phase {
        status["phase"] = phase.into();
    }
    patch_status(client, pod, &status).await
}

/// Sets the pod's phase to Failed.
pub async fn fail(client: &Client, pod: &Pod) -> Result<(), DisruptionError> {
    patch_status(client, pod, &json!({"phase": "Failed"})).await
}

/// The uid in the patch makes it fail on another pod of the same name; a pod that is gone needs nothing more.
async fn patch_status(client: &Client, pod: &Pod, status: &serde_json::Value) -> Result<(), DisruptionError> {
    let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": status});
    let api = Api::<Pod>::namespaced(client.clone(), meta::namespace_of(pod));
    match api.patch_status(meta::name_of(pod), &PatchParams::default(), &Patch::Strategic(patch)).await {
        Ok(_) => Ok(()),
        Err(error) if api_error::is_not_found(&error) || api_error::is_conflict(&error) => Ok(()),
        Err(error) => Err(DisruptionError::Status(Box::new(error))),
    }
}

/// Deletes exactly this pod, with its own grace period or the one given.
pub async fn delete(client: &Client, pod: &Pod, grace_period: Option<u32>) -> Result<(), DisruptionError> {
    let preconditions = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
    let mut parameters = DeleteParams::default().preconditions(preconditions);
    if let Some(seconds) = grace_period {
        parameters = parameters.grace_period(seconds);
    }
    let api = Api::<Pod>::namespaced(client.clone(), meta::namespace_of(pod));
    match api.delete(meta::name_of(pod), &parameters).await {
        Ok(_) => Ok(()),
        Err(error) if api_error::is_not_found(&error) || api_error::is_conflict(&error) => Ok(()),
        Err(error) => Err(DisruptionError::Delete(Box::new(error))),
    }
}
