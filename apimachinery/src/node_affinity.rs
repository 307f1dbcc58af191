//! Node selectors: does a pod's `nodeSelector` and required node affinity allow a node?
//!
//! Upstream: `k8s.io/component-helpers/scheduling/corev1/nodeaffinity`.

use k8s_openapi::api::core::v1::{
    Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PreferredSchedulingTerm,
};

use crate::labels::{Operator, Requirement, Selector, Set};

/// Whether the pod's `spec.nodeSelector` and `requiredDuringSchedulingIgnoredDuringExecution` allow the node.
pub fn required_matches(pod: &Pod, node: &Node) -> bool {
    let Some(spec) = &pod.spec else { return true };
    if let Some(selector) = &spec.node_selector
        && !Selector::from_set(selector).matches_opt(node.metadata.labels.as_ref())
    {
        return false;
    }
    let required = spec
        .affinity
        .as_ref()
        .and_then(|a| a.node_affinity.as_ref())
        .and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    required.is_none_or(|selector| matches_node_selector(selector, node))
}

/// Whether any term of the selector matches; a selector without terms matches nothing.
pub fn matches_node_selector(selector: &NodeSelector, node: &Node) -> bool {
    selector.node_selector_terms.iter().any(|term| matches_term(term, node))
}

/// Whether one term matches: all its expressions and fields; an empty term matches nothing.
pub fn matches_term(term: &NodeSelectorTerm, node: &Node) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let empty = Set::new();
    let labels = node.metadata.labels.as_ref().unwrap_or(&empty);
    expressions
        .iter()
        .all(|e| requirement(e).is_some_and(|r| Selector::from_requirements(vec![r]).matches(labels)))
        && fields.iter().all(|f| matches_field(f, node))
}

/// The sum of the weights of the preferred terms that match.
pub fn preferred_score(terms: &[PreferredSchedulingTerm], node: &Node) -> i64 {
    terms.iter().filter(|t| matches_term(&t.preference, node)).map(|t| i64::from(t.weight)).sum()
}

/// The one node name that required affinity pins a pod to by `metadata.name`, as DaemonSet pods are.
pub fn pinned_node_name(pod: &Pod) -> Option<&str> {
    let required = pod
        .spec
        .as_ref()?
        .affinity
        .as_ref()?
        .node_affinity
        .as_ref()?
        .required_during_scheduling_ignored_during_execution
        .as_ref()?;
    let [term] = required.node_selector_terms.as_slice() else { return None };
    let [field] = term.match_fields.as_deref()? else { return None };
    match (field.key.as_str(), field.operator.as_str(), field.values.as_deref()?) {
        ("metadata.name", "In", [name]) => Some(name),
        _ => None,
    }
}

fn requirement(expression: &NodeSelectorRequirement) -> Option<Requirement> {
    let operator = match expression.operator.as_str() {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        "Gt" => Operator::GreaterThan,
        "Lt" => Operator::LessThan,
        _ => return None,
    };
    Requirement::new(&expression.key, operator, expression.values.clone().unwrap_or_default()).ok()
}

fn matches_field(field: &NodeSelectorRequirement, node: &Node) -> bool {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    match (field.key.as_str(), field.operator.as_str(), field.values.as_deref().unwrap_or_default()) {
        ("metadata.name", "In", [value]) => value == name,
        ("metadata.name", "NotIn", [value]) => value != name,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{Affinity, NodeAffinity, PodSpec};

    fn expression(key: &str, operator: &str, values: &[&str]) -> NodeSelectorRequirement {
        NodeSelectorRequirement {
            key: key.into(),
            operator: operator.into(),
            values: (!values.is_empty()).then(|| values.iter().map(|v| (*v).to_owned()).collect()),
        }
    }

    fn pod(terms: Vec<NodeSelectorTerm>) -> Pod {
        let affinity = NodeAffinity {
            required_during_scheduling_ignored_during_execution: Some(NodeSelector {
                node_selector_terms: terms,
            }),
            ..NodeAffinity::default()
        };
        Pod {
            spec: Some(PodSpec {
                affinity: Some(Affinity { node_affinity: Some(affinity), ..Affinity::default() }),
                ..PodSpec::default()
            }),
            ..Pod::default()
        }
    }

    #[test]
    fn terms_are_or_and_expressions_are_and() {
        let mut node = Node::default();
        node.metadata.name = Some("n1".into());
        node.metadata.labels =
            Some([("zone".to_owned(), "a".to_owned()), ("cpus".to_owned(), "8".to_owned())].into());
        let term = |e: Vec<NodeSelectorRequirement>| NodeSelectorTerm {
            match_expressions: Some(e),
            match_fields: None,
        };
        let cases = [
            (vec![term(vec![expression("zone", "In", &["a", "b"])])], true),
            (
                vec![
                    term(vec![expression("zone", "In", &["b"])]),
                    term(vec![expression("cpus", "Gt", &["4"])]),
                ],
                true,
            ),
            (vec![term(vec![expression("zone", "In", &["a"]), expression("cpus", "Lt", &["4"])])], false),
            (vec![term(vec![])], false),
            (vec![], false),
            (vec![term(vec![expression("gone", "DoesNotExist", &[])])], true),
        ];
        for (terms, want) in cases {
            assert_eq!(required_matches(&pod(terms.clone()), &node), want, "{terms:?}");
        }
        let pinned = pod(vec![NodeSelectorTerm {
            match_expressions: None,
            match_fields: Some(vec![expression("metadata.name", "In", &["n1"])]),
        }]);
        assert!(required_matches(&pinned, &node));
        assert_eq!(pinned_node_name(&pinned), Some("n1"));
    }
}
