//! Reads of a Node that several daemons make.

use k8s_openapi::api::core::v1::{Node, NodeCondition};

/// The condition of type `kind`.
pub fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    node.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == kind)
}

/// Whether the `Ready` condition is `True`.
pub fn is_ready(node: &Node) -> bool {
    condition(node, "Ready").is_some_and(|c| c.status == "True")
}

/// The first address of type `kind`, such as `InternalIP`.
pub fn address<'a>(node: &'a Node, kind: &str) -> Option<&'a str> {
    let addresses = node.status.as_ref()?.addresses.as_ref()?;
    addresses.iter().find(|a| a.type_ == kind).map(|a| a.address.as_str())
}

/// `spec.unschedulable`.
pub fn is_unschedulable(node: &Node) -> bool {
    node.spec.as_ref().and_then(|s| s.unschedulable).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::NodeStatus;

    #[test]
    fn ready_needs_a_true_condition() {
        let mut node = Node::default();
        assert!(!is_ready(&node));
        for (status, want) in [("True", true), ("False", false), ("Unknown", false)] {
            let condition =
                NodeCondition { type_: "Ready".into(), status: status.into(), ..NodeCondition::default() };
            node.status = Some(NodeStatus { conditions: Some(vec![condition]), ..NodeStatus::default() });
            assert_eq!(is_ready(&node), want, "{status}");
        }
    }
}
