//! Whether the node takes a pod that was bound to it: it must fit what is left and the node's labels must match.
//!
//! Static and critical pods are always taken. Upstream's concept: `pkg/kubelet/lifecycle/predicate.go`.

use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::quantity::Quantity;
use k8s_openapi::api::core::v1::{Node, Pod};
use parking_lot::RwLock;

use crate::pod;

/// The node's labels and allocatable resources, as the node owner last knew them.
#[derive(Debug, Clone, Default)]
pub struct NodeView {
    inner: Arc<RwLock<View>>,
}

#[derive(Debug, Clone, Default)]
struct View {
    node: Option<Arc<Node>>,
    allocatable: BTreeMap<String, Quantity>,
}

impl NodeView {
    /// Sets what pods are measured against.
    pub fn set_allocatable(&self, allocatable: BTreeMap<String, Quantity>) {
        self.inner.write().allocatable = allocatable;
    }

    /// Sets the node's object, once the apiserver has it.
    pub fn set_node(&self, node: Arc<Node>) {
        self.inner.write().node = Some(node);
    }

    /// The node's object.
    #[must_use]
    pub fn node(&self) -> Option<Arc<Node>> {
        self.inner.read().node.clone()
    }
}

/// Why a pod is not taken: becomes `status.reason` and `status.message` with phase Failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// `OutOfcpu`, `NodeAffinity`…
    pub reason: String,
    /// Upstream's text.
    pub message: String,
}

fn reject(reason: String, message: &str) -> Result<(), Rejection> {
    Err(Rejection { message: format!("Pod was rejected: {message}"), reason })
}

/// Checks one pod against the others that hold resources here.
pub fn check(new: &Pod, others: &[Arc<Pod>], node: &NodeView) -> Result<(), Rejection> {
    if pod::is_critical(new) {
        return Ok(());
    }
    let view = node.inner.read().clone();
    if let Some(node) = &view.node
        && !apimachinery::node_affinity::required_matches(new, node)
    {
        return reject(
            "NodeAffinity".to_owned(),
            "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector",
        );
    }
    if let Some(capacity) = view.allocatable.get("pods") {
        let used = i64::try_from(others.len()).unwrap_or(i64::MAX);
        if used >= capacity.value() {
            return out_of("pods", 1, used, capacity.value());
        }
    }
    for (name, asked) in apimachinery::pod::requests(new) {
        let Some(capacity) = view.allocatable.get(&name) else { continue };
        let milli = name == "cpu";
        let amount = |quantity: &Quantity| if milli { quantity.milli_value() } else { quantity.value() };
        let used: i64 = others
            .iter()
            .filter_map(|other| apimachinery::pod::requests(other).get(&name).map(amount))
            .fold(0, i64::saturating_add);
        if amount(&asked) > 0 && used.saturating_add(amount(&asked)) > amount(capacity) {
            return out_of(&name, amount(&asked), used, amount(capacity));
        }
    }
    Ok(())
}

fn out_of(resource: &str, requested: i64, used: i64, capacity: i64) -> Result<(), Rejection> {
    let message = format!(
        "Node didn't have enough resource: {resource}, requested: {requested}, used: {used}, capacity: {capacity}"
    );
    reject(format!("OutOf{resource}"), &message)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

    use super::*;

    fn asking(cpu: &str) -> Pod {
        let requests = [("cpu".to_owned(), ApiQuantity(cpu.to_owned()))].into();
        let resources = ResourceRequirements { requests: Some(requests), ..Default::default() };
        let container = Container { resources: Some(resources), ..Default::default() };
        Pod {
            spec: Some(PodSpec { containers: vec![container], ..Default::default() }),
            ..Default::default()
        }
    }

    #[test]
    fn a_pod_must_fit_beside_the_others() {
        let node = NodeView::default();
        let quantity = |text: &str| Quantity::parse(text).unwrap();
        node.set_allocatable([("cpu".to_owned(), quantity("2")), ("pods".to_owned(), quantity("2"))].into());
        let other = Arc::new(asking("1500m"));
        assert_eq!(check(&asking("500m"), std::slice::from_ref(&other), &node), Ok(()));
        let rejection = check(&asking("600m"), std::slice::from_ref(&other), &node).unwrap_err();
        assert_eq!(rejection.reason, "OutOfcpu");
        assert_eq!(
            rejection.message,
            "Pod was rejected: Node didn't have enough resource: cpu, requested: 600, used: 1500, capacity: 2000"
        );
        assert_eq!(check(&asking("0"), &[other.clone(), other], &node).unwrap_err().reason, "OutOfpods");
    }
}
