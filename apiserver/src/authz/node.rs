//! The Node authorizer: a kubelet reads what the pods on its node refer to, and otherwise what the role `system:node` says.
//!
//! Relations come from a [`Graph`] that watches feed. Upstream: `plugin/pkg/auth/authorizer/node`.

use apimachinery::fields;
use futures::future::BoxFuture;
use k8s_openapi::api::rbac::v1::PolicyRule;
use parking_lot::RwLock;

use super::rbac::{bootstrap_policy, rules};
use super::{Attributes, Authorizer, Decision};
use crate::admission::node_restriction::node_of;

pub mod feed;
pub mod graph;

pub use graph::Graph;
use graph::Kind;

const LEASE_NAMESPACE: &str = "kube-node-lease";

/// The authorizer.
#[derive(Debug)]
pub struct NodeAuthorizer {
    graph: RwLock<Graph>,
    rules: Vec<PolicyRule>,
}

impl Default for NodeAuthorizer {
    fn default() -> Self {
        Self { graph: RwLock::default(), rules: bootstrap_policy::node() }
    }
}

fn no(reason: impl Into<String>) -> Decision {
    Decision::NoOpinion(reason.into())
}

fn yes() -> Decision {
    Decision::Allow(String::new())
}

/// The value that a field selector demands of `field`.
fn selected(attributes: &Attributes<'_>, field: &str) -> Option<String> {
    let selector = fields::Selector::parse(attributes.field_selector?).ok()?;
    selector.exact(field).map(str::to_owned)
}

impl NodeAuthorizer {
    /// Changes the graph.
    pub fn update<R>(&self, change: impl FnOnce(&mut Graph) -> R) -> R {
        change(&mut self.graph.write())
    }

    /// The decision, made at once.
    pub fn decide(&self, attributes: &Attributes<'_>) -> Decision {
        let Some(node) = node_of(attributes.user) else { return no("") };
        if node.is_empty() {
            return no(format!("unknown node for user {:?}", attributes.user.name));
        }
        if attributes.is_resource {
            match (attributes.group, attributes.resource) {
                ("", "configmaps") => return self.read_namespaced(node, Kind::ConfigMap, attributes),
                ("", "secrets") => return self.read_namespaced(node, Kind::Secret, attributes),
                ("", "persistentvolumeclaims") if attributes.subresource == "status" => {
                    return self.update_status(node, Kind::Claim, attributes);
                }
                ("", "persistentvolumeclaims") => return self.get(node, Kind::Claim, attributes),
                ("", "persistentvolumes") => return self.get(node, Kind::Volume, attributes),
                ("storage.k8s.io", "volumeattachments") => {
                    return self.get(node, Kind::VolumeAttachment, attributes);
                }
                ("", "serviceaccounts") => return self.create_token(node, attributes),
                ("coordination.k8s.io", "leases") => return lease(node, attributes),
                ("storage.k8s.io", "csinodes") => return csi_node(node, attributes),
                ("", "nodes") => return self.node(node, attributes),
                ("", "pods") => return self.pod(node, attributes),
                _ => {}
            }
        }
        if self.rules.iter().any(|rule| rules::allows(rule, attributes)) { yes() } else { no("") }
    }

    fn related(&self, node: &str, kind: Kind, attributes: &Attributes<'_>) -> Decision {
        let name = if attributes.name.is_empty() {
            selected(attributes, "metadata.name").unwrap_or_default()
        } else {
            attributes.name.to_owned()
        };
        if name.is_empty() {
            return no("No Object name found");
        }
        if self.graph.read().related(node, kind, attributes.namespace, &name) {
            return yes();
        }
        no(format!("no relationship found between node '{node}' and this object"))
    }

    fn read_namespaced(&self, node: &str, kind: Kind, attributes: &Attributes<'_>) -> Decision {
        if !matches!(attributes.verb, "get" | "list" | "watch") {
            return no("can only read resources of this type");
        }
        if !attributes.subresource.is_empty() {
            return no("cannot read subresource");
        }
        if attributes.namespace.is_empty() {
            return no("can only read namespaced object of this type");
        }
        self.related(node, kind, attributes)
    }

    fn get(&self, node: &str, kind: Kind, attributes: &Attributes<'_>) -> Decision {
        if attributes.verb != "get" {
            return no("can only get individual resources of this type");
        }
        if !attributes.subresource.is_empty() {
            return no("cannot get subresource");
        }
        self.related(node, kind, attributes)
    }

    fn update_status(&self, node: &str, kind: Kind, attributes: &Attributes<'_>) -> Decision {
        if !matches!(attributes.verb, "get" | "update" | "patch") {
            return no("can only get/update/patch this type");
        }
        self.related(node, kind, attributes)
    }

    fn create_token(&self, node: &str, attributes: &Attributes<'_>) -> Decision {
        if attributes.verb != "create" || attributes.name.is_empty() {
            return no("can only create tokens for individual service accounts");
        }
        if attributes.subresource != "token" {
            return no("can only create token subresource of service account");
        }
        self.related(node, Kind::ServiceAccount, attributes)
    }

    /// NodeRestriction confines the writes to the node's own object.
    fn node(&self, node: &str, attributes: &Attributes<'_>) -> Decision {
        match (attributes.subresource, attributes.verb) {
            ("", "create" | "update" | "patch") | ("status", "update" | "patch") => yes(),
            ("", "get" | "list" | "watch") => {
                let by_name = (!attributes.name.is_empty()).then(|| attributes.name.to_owned());
                match by_name.or_else(|| selected(attributes, "metadata.name")) {
                    Some(name) if name == node => yes(),
                    Some(name) => no(format!("node '{node}' cannot read '{name}', only its own Node object")),
                    None => no(format!("node '{node}' cannot read all nodes, only its own Node object")),
                }
            }
            _ => no(""),
        }
    }

    /// NodeRestriction confines the writes to pods on the node.
    fn pod(&self, node: &str, attributes: &Attributes<'_>) -> Decision {
        match (attributes.subresource, attributes.verb) {
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => yes(),
            ("" | "status", "get") => self.related(node, Kind::Pod, attributes),
            ("", "list" | "watch") => {
                if selected(attributes, "spec.nodeName").as_deref() == Some(node) {
                    return yes();
                }
                // One pod by name, as a watch for its end.
                if attributes.name.is_empty() && selected(attributes, "metadata.name").is_none() {
                    return no("can only list/watch pods with spec.nodeName field selector");
                }
                self.related(node, Kind::Pod, attributes)
            }
            _ => no(""),
        }
    }
}

fn lease(node: &str, attributes: &Attributes<'_>) -> Decision {
    if !matches!(attributes.verb, "get" | "create" | "update" | "patch" | "delete") {
        return no("can only get, create, update, patch, or delete a node lease");
    }
    if attributes.namespace != LEASE_NAMESPACE {
        return no(format!("can only access leases in the {LEASE_NAMESPACE:?} system namespace"));
    }
    // A create names nothing in its path; NodeRestriction checks it.
    if attributes.verb != "create" && attributes.name != node {
        return no("can only access node lease with the same name as the requesting node");
    }
    yes()
}

fn csi_node(node: &str, attributes: &Attributes<'_>) -> Decision {
    if !matches!(attributes.verb, "get" | "create" | "update" | "patch" | "delete") {
        return no("can only get, create, update, patch, or delete a CSINode");
    }
    if !attributes.subresource.is_empty() {
        return no("cannot authorize CSINode subresources");
    }
    if attributes.verb != "create" && attributes.name != node {
        return no("can only access CSINode with the same name as the requesting node");
    }
    yes()
}

impl Authorizer for NodeAuthorizer {
    fn authorize<'a>(&'a self, attributes: Attributes<'a>) -> BoxFuture<'a, Decision> {
        Box::pin(std::future::ready(self.decide(&attributes)))
    }
}

#[cfg(test)]
#[path = "node/tests.rs"]
mod tests;
