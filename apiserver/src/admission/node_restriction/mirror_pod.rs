//! What a pod that a kubelet creates must look like: the mirror of a static pod, owned by its Node, referring to nothing.
//!
//! Upstream: `admitPodCreate`.

use k8s_openapi::api::core::v1::{Node, Pod, PodSpec};

use super::{Refused, Verdict, refuse};
use crate::admission::pod_references;
use apimachinery::status::ApiError;

const MIRROR_POD: &str = "kubernetes.io/config.mirror";

/// Checks a pod that `node` creates; `stored` is its Node object.
pub(super) fn check(node: &str, pod: &Pod, stored: Option<&Node>) -> Verdict {
    if !pod.metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(MIRROR_POD)) {
        return refuse(format!(
            "pod does not have {MIRROR_POD:?} annotation, node {node:?} can only create mirror pods"
        ));
    }
    let empty = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&empty);
    if spec.node_name.as_deref() != Some(node) {
        return refuse(format!("node {node:?} can only create pods with spec.nodeName set to itself"));
    }
    owner(node, pod, stored)?;
    references(node, pod, spec)
}

fn owner(node: &str, pod: &Pod, stored: Option<&Node>) -> Verdict {
    let owner = match pod.metadata.owner_references.as_deref().unwrap_or_default() {
        [owner] => owner,
        [] => {
            return refuse(format!(
                "node {node:?} can only create pods with an owner reference set to itself"
            ));
        }
        _ => {
            return refuse(format!(
                "node {node:?} can only create pods with a single owner reference set to itself"
            ));
        }
    };
    if (owner.api_version.as_str(), owner.kind.as_str(), owner.name.as_str()) != ("v1", "Node", node) {
        return refuse(format!("node {node:?} can only create pods with an owner reference set to itself"));
    }
    if owner.controller != Some(true) {
        return refuse(format!(
            "node {node:?} can only create pods with a controller owner reference set to itself"
        ));
    }
    if owner.block_owner_deletion == Some(true) {
        return refuse(format!("node {node:?} must not set blockOwnerDeletion on an owner reference"));
    }
    let Some(stored) = stored else { return Err(Refused::Error(ApiError::not_found("", "nodes", node))) };
    let uid = stored.metadata.uid.as_deref().unwrap_or_default();
    if owner.uid != uid {
        return refuse(format!("node {node} UID mismatch: expected {} got {uid}", owner.uid));
    }
    Ok(())
}

fn references(node: &str, pod: &Pod, spec: &PodSpec) -> Verdict {
    let account = |name: Option<&String>| name.is_some_and(|name| !name.is_empty());
    let projections = || {
        spec.volumes
            .iter()
            .flatten()
            .flat_map(|v| v.projected.iter())
            .flat_map(|p| p.sources.iter().flatten())
    };
    let found = [
        (
            account(spec.service_account_name.as_ref()) || account(spec.service_account.as_ref()),
            "a service account",
        ),
        (!pod_references::secrets(spec).is_empty(), "secrets"),
        (!pod_references::config_maps(spec).is_empty(), "configmaps"),
        (!pod_references::claims(pod).is_empty(), "persistentvolumeclaims"),
        (spec.resource_claims.as_ref().is_some_and(|claims| !claims.is_empty()), "resourceclaims"),
        (projections().any(|source| source.cluster_trust_bundle.is_some()), "clustertrustbundles"),
        (projections().any(|source| source.pod_certificate.is_some()), "podcertificates"),
    ];
    match found.into_iter().find(|(found, _)| *found) {
        Some((_, what)) => refuse(format!("node {node:?} can not create pods that reference {what}")),
        None => Ok(()),
    }
}
