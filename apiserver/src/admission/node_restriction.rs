//! NodeRestriction: a kubelet changes only what is its own: its Node, the pods bound to it, its Lease, its tokens.
//!
//! One function per resource. Every rule holds for create as for update (CVE-2025-4563), and no write of a node's may touch
//! owner references of a Node (CVE-2025-5187). Rules on ResourceSlices and certificate requests are not here, since those
//! resources are not served. Upstream: `plugin/pkg/admission/noderestriction`.

use std::sync::Arc;

use apimachinery::status::ApiError;
use futures::future::BoxFuture;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim, PersistentVolumeClaimStatus, Pod};

use super::{Attributes, Operation, Plugin};
use crate::authn::UserInfo;
use crate::lookup::{self, Lookup};
use crate::registry::ResourceInfo;

mod labels;
mod mirror_pod;
mod token;

const NODES_GROUP: &str = "system:nodes";
const NODE_USER_PREFIX: &str = "system:node:";
const LEASE_NAMESPACE: &str = "kube-node-lease";

/// The plugin.
#[derive(Debug)]
pub struct NodeRestriction {
    lookup: Arc<dyn Lookup>,
}

/// The node that a user is: `Some("")` if it is in the group of nodes under another name.
pub fn node_of(user: &UserInfo) -> Option<&str> {
    let name = user.name.strip_prefix(NODE_USER_PREFIX)?;
    user.groups.iter().any(|group| group == NODES_GROUP).then_some(name)
}

/// A refusal's text, or an error from looking something up.
enum Refused {
    Because(String),
    Error(ApiError),
}

impl From<ApiError> for Refused {
    fn from(error: ApiError) -> Self {
        Self::Error(error)
    }
}

type Verdict = Result<(), Refused>;

fn refuse<T>(problem: impl Into<String>) -> Result<T, Refused> {
    Err(Refused::Because(problem.into()))
}

impl NodeRestriction {
    /// Reads pods and nodes from `lookup`.
    pub fn new(lookup: Arc<dyn Lookup>) -> Self {
        Self { lookup }
    }

    async fn check(&self, attributes: &Attributes<'_>) -> Result<(), ApiError> {
        let Some(node) = node_of(&attributes.ctx.user) else { return Ok(()) };
        if node.is_empty() {
            let user = &attributes.ctx.user.name;
            return Err(attributes.forbidden(&format!("could not determine node from user {user:?}")));
        }
        let verdict = match (attributes.resource.group, attributes.resource.plural, attributes.subresource) {
            ("", "pods", "") => self.pod(node, attributes).await,
            ("", "pods", "status") => pod_status(node, attributes),
            ("", "pods", "eviction") => self.eviction(node, attributes).await,
            ("", "pods", other) => refuse(format!(
                "unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed"
            )),
            ("", "nodes", _) => node_object(node, attributes),
            ("", "persistentvolumeclaims", "status") => claim_status(node, attributes),
            ("", "persistentvolumeclaims", _) => refuse("may only update PVC status"),
            ("", "serviceaccounts", "token") => self.token(node, attributes).await,
            ("coordination.k8s.io", "leases", _) => lease(node, attributes),
            ("storage.k8s.io", "csinodes", _) if attributes.object_name() != node => {
                refuse("can only access CSINode with the same name as the requesting node")
            }
            _ => Ok(()),
        };
        verdict.map_err(|refused| match refused {
            Refused::Because(problem) => attributes.forbidden(&problem),
            Refused::Error(error) => error,
        })
    }

    async fn pod(&self, node: &str, attributes: &Attributes<'_>) -> Verdict {
        match attributes.operation {
            Operation::Create => {
                let Some(pod) = attributes.new_ref::<Pod>() else { return refuse("unexpected type") };
                let stored = lookup::get::<Node>(&self.lookup, "", node).await?;
                mirror_pod::check(node, pod, stored.as_deref())
            }
            Operation::Delete => {
                let Some(pod) = self.stored_pod(attributes).await? else {
                    return Err(ApiError::not_found("", "pods", attributes.name).into());
                };
                if runs_on(&pod, node) {
                    return Ok(());
                }
                refuse(format!("node {node:?} can only delete pods with spec.nodeName set to itself"))
            }
            operation => {
                let operation = operation.name();
                refuse(format!(
                    "unexpected operation {operation:?}, node {node:?} can only create and delete mirror pods"
                ))
            }
        }
    }

    async fn stored_pod(&self, attributes: &Attributes<'_>) -> Result<Option<Arc<Pod>>, Refused> {
        match attributes.old::<Pod>() {
            Some(pod) => Ok(Some(Arc::new(pod.clone()))),
            None => {
                Ok(lookup::get::<Pod>(&self.lookup, attributes.namespace, attributes.object_name()).await?)
            }
        }
    }

    async fn eviction(&self, node: &str, attributes: &Attributes<'_>) -> Verdict {
        if attributes.operation != Operation::Create {
            return refuse(format!("unexpected operation {}", attributes.operation.name()));
        }
        let name = attributes.object_name();
        if name.is_empty() {
            return refuse("could not determine pod from request data");
        }
        match lookup::get::<Pod>(&self.lookup, attributes.namespace, name).await? {
            Some(pod) if runs_on(&pod, node) => Ok(()),
            Some(_) => refuse(format!("node {node} can only evict pods with spec.nodeName set to itself")),
            None => Err(ApiError::not_found("", "pods", name).into()),
        }
    }

    async fn token(&self, node: &str, attributes: &Attributes<'_>) -> Verdict {
        let Some(request) = attributes.new_ref::<TokenRequest>() else { return refuse("unexpected type") };
        let (name, _) = token::binding(request).map_err(|problem| Refused::Because(problem.to_owned()))?;
        let pod = lookup::get::<Pod>(&self.lookup, attributes.namespace, name).await?;
        let pod = pod.ok_or_else(|| ApiError::not_found("", "pods", name))?;
        let drivers = token::drivers(&pod);
        let mut driver_audiences = Vec::new();
        for driver in drivers {
            let driver =
                lookup::get::<k8s_openapi::api::storage::v1::CSIDriver>(&self.lookup, "", driver).await?;
            driver_audiences.extend(driver.as_deref().into_iter().flat_map(token::driver_audiences));
        }
        token::check(node, request, &pod, &driver_audiences).map_err(Refused::Because)
    }
}

fn runs_on(pod: &Pod, node: &str) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node)
}

fn pod_status(node: &str, attributes: &Attributes<'_>) -> Verdict {
    if attributes.operation != Operation::Update {
        return refuse(format!("unexpected operation {:?}", attributes.operation.name()));
    }
    let (Some(new), Some(old)) = (attributes.new_ref::<Pod>(), attributes.old::<Pod>()) else {
        return refuse("unexpected type");
    };
    if !runs_on(old, node) {
        return refuse(format!(
            "node {node:?} can only update pod status for pods with spec.nodeName set to itself"
        ));
    }
    let set =
        |labels: &Option<std::collections::BTreeMap<String, String>>| labels.clone().unwrap_or_default();
    if set(&new.metadata.labels) != set(&old.metadata.labels) {
        return refuse(format!("node {node:?} can not update labels through pod status"));
    }
    let claims = |pod: &Pod| {
        let statuses = pod.status.as_ref().and_then(|status| status.resource_claim_statuses.clone());
        statuses.unwrap_or_default()
    };
    if claims(new) != claims(old) {
        return refuse(format!("node {node:?} cannot update resource claim statuses"));
    }
    Ok(())
}

fn node_object(node: &str, attributes: &Attributes<'_>) -> Verdict {
    let requested = attributes.object_name();
    if attributes.operation == Operation::Create || attributes.operation == Operation::Update {
        let Some(new) = attributes.new_ref::<Node>() else { return refuse("unexpected type") };
        let old = attributes.old::<Node>();
        if attributes.operation == Operation::Update {
            let taints =
                |node: &Node| node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
            if taints(new) != old.map(taints).unwrap_or_default() {
                return refuse(format!("node {node:?} is not allowed to modify taints"));
            }
        }
        let owners = |node: &Node| node.metadata.owner_references.clone().unwrap_or_default();
        if owners(new) != old.map(owners).unwrap_or_default() {
            return refuse(format!("node {node:?} is not allowed to modify ownerReferences"));
        }
        let forbidden =
            labels::forbidden(new.metadata.labels.as_ref(), old.and_then(|old| old.metadata.labels.as_ref()));
        if !forbidden.is_empty() {
            let verb = if attributes.operation == Operation::Create { "set the following" } else { "modify" };
            return refuse(format!("is not allowed to {verb} labels: {}", forbidden.join(", ")));
        }
    }
    if requested != node {
        return refuse(format!("node {node:?} is not allowed to modify node {requested:?}"));
    }
    Ok(())
}

fn claim_status(node: &str, attributes: &Attributes<'_>) -> Verdict {
    if attributes.operation != Operation::Update {
        return refuse(format!("unexpected operation {:?}", attributes.operation.name()));
    }
    let claims = (attributes.new_ref::<PersistentVolumeClaim>(), attributes.old::<PersistentVolumeClaim>());
    let (Some(new), Some(old)) = claims else { return refuse("unexpected type") };
    // What a kubelet reports after it resized a volume; all else must be as it was.
    let without = |claim: &PersistentVolumeClaim| {
        let mut claim = claim.clone();
        let status = claim.status.get_or_insert_default();
        *status = PersistentVolumeClaimStatus {
            capacity: None,
            conditions: None,
            allocated_resources: None,
            allocated_resource_statuses: None,
            ..std::mem::take(status)
        };
        claim.metadata.managed_fields = None;
        claim.metadata.resource_version = None;
        claim
    };
    if without(new) == without(old) {
        return Ok(());
    }
    refuse(format!(
        "node {node:?} is not allowed to update fields other than status.quantity and status.conditions"
    ))
}

fn lease(node: &str, attributes: &Attributes<'_>) -> Verdict {
    if attributes.namespace != LEASE_NAMESPACE {
        return refuse(format!("can only access leases in the {LEASE_NAMESPACE:?} system namespace"));
    }
    if attributes.object_name() != node {
        return refuse("can only access node lease with the same name as the requesting node");
    }
    Ok(())
}

impl Plugin for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    fn handles(&self, operation: Operation, resource: &ResourceInfo, _: &str) -> bool {
        let kind = (resource.group, resource.plural);
        operation != Operation::Connect
            && [
                ("", "pods"),
                ("", "nodes"),
                ("", "persistentvolumeclaims"),
                ("", "serviceaccounts"),
                ("coordination.k8s.io", "leases"),
                ("storage.k8s.io", "csinodes"),
            ]
            .contains(&kind)
    }

    fn admit<'a>(&'a self, attributes: &'a mut Attributes<'_>) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(self.check(attributes))
    }

    // Once more on the final object: no plugin after this one may have been used to slip something in.
    fn validate<'a>(&'a self, attributes: &'a Attributes<'_>) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(self.check(attributes))
    }
}

#[cfg(test)]
#[path = "node_restriction/tests.rs"]
mod tests;
