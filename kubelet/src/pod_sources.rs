//! Where the pods of this node come from: manifests in a directory, and the apiserver.
//!
//! A source only says what is wanted. Upstream's concept: `pkg/kubelet/config`.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

pub mod apiserver;
mod defaults;
pub mod file;
mod manifest;

/// What a source says.
#[derive(Debug, Clone)]
pub enum SourceUpdate {
    /// All the manifests there are now.
    Manifests(Vec<Arc<Pod>>),
    /// A pod of the apiserver was added or changed.
    ApiUpsert(Arc<Pod>),
    /// A pod object is gone from the apiserver.
    ApiRemoved(Arc<Pod>),
    /// The apiserver's pods have all been told once.
    ApiSynced,
}
