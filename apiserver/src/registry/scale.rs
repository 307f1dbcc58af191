//! The `scale` subresource of workloads: one autoscaling/v1 Scale built from any of them.

use k8s_openapi::api::autoscaling::v1::{Scale, ScaleSpec, ScaleStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

/// The Scale of an object with these counts.
pub(crate) fn scale(
    meta: &ObjectMeta,
    desired: Option<i32>,
    current: i32,
    selector: Option<&LabelSelector>,
) -> Scale {
    let selector = selector.and_then(|s| apimachinery::labels::Selector::from_label_selector(s).ok());
    Scale {
        metadata: ObjectMeta {
            name: meta.name.clone(),
            namespace: meta.namespace.clone(),
            uid: meta.uid.clone(),
            resource_version: meta.resource_version.clone(),
            creation_timestamp: meta.creation_timestamp.clone(),
            ..ObjectMeta::default()
        },
        spec: Some(ScaleSpec { replicas: Some(desired.unwrap_or(0)) }),
        status: Some(ScaleStatus {
            replicas: current,
            selector: selector.map(|s| s.to_string()).filter(|s| !s.is_empty()),
        }),
    }
}
