//! Where a pod may run: tolerations, affinity, topology spread, node selectors.

use std::collections::BTreeSet;

use apimachinery::validation::names::{is_qualified_name, is_valid_label_value};
use apimachinery::validation::{Error, ErrorList, Path};
use k8s_openapi::api::core::v1::{
    Affinity, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodAffinityTerm,
    PodSpec, Toleration, WeightedPodAffinityTerm,
};

use crate::registry::pod_template::validate_label_selector;

pub(super) fn validate_tolerations(tolerations: &[Toleration], path: &Path, errors: &mut ErrorList) {
    for (i, toleration) in tolerations.iter().enumerate() {
        let path = path.index(i);
        let key = toleration.key.as_deref().unwrap_or_default();
        let value = toleration.value.as_deref().unwrap_or_default();
        let operator = toleration.operator.as_deref().unwrap_or_default();
        if !key.is_empty() {
            for problem in is_qualified_name(key) {
                errors.push(Error::invalid(&path.child("key"), key, problem));
            }
        } else if operator != "Exists" {
            let detail =
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.push(Error::invalid(&path.child("operator"), operator, detail));
        }
        let effect = toleration.effect.as_deref().unwrap_or_default();
        if toleration.toleration_seconds.is_some() && effect != "NoExecute" {
            let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.push(Error::invalid(&path.child("effect"), effect, detail));
        }
        match operator {
            "Equal" | "" => {
                let problems = is_valid_label_value(value);
                if !problems.is_empty() {
                    errors.push(Error::invalid(&path.child("operator"), value, problems.join(";")));
                }
            }
            "Exists" => {
                if !value.is_empty() {
                    let shown = serde_json::to_value(toleration).unwrap_or_default();
                    let detail = "value must be empty when `operator` is 'Exists'";
                    errors.push(Error::invalid(&path.child("operator"), shown, detail));
                }
            }
            other => {
                errors.push(Error::not_supported(&path.child("operator"), other, &["Equal", "Exists"]));
            }
        }
        let effects = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
        if !effect.is_empty() && !effects.contains(&effect) {
            errors.push(Error::not_supported(&path.child("effect"), effect, &effects));
        }
    }
}

pub(super) fn validate_affinity(affinity: &Affinity, path: &Path, errors: &mut ErrorList) {
    if let Some(node) = &affinity.node_affinity {
        validate_node_affinity(node, &path.child("nodeAffinity"), errors);
    }
    let pod = affinity.pod_affinity.as_ref().map(|a| {
        (
            &a.required_during_scheduling_ignored_during_execution,
            &a.preferred_during_scheduling_ignored_during_execution,
        )
    });
    let anti = affinity.pod_anti_affinity.as_ref().map(|a| {
        (
            &a.required_during_scheduling_ignored_during_execution,
            &a.preferred_during_scheduling_ignored_during_execution,
        )
    });
    for (field, terms) in [("podAffinity", pod), ("podAntiAffinity", anti)] {
        let Some((required, preferred)) = terms else { continue };
        let path = path.child(field);
        for (i, term) in required.iter().flatten().enumerate() {
            let path = path.child("requiredDuringSchedulingIgnoredDuringExecution").index(i);
            validate_pod_affinity_term(term, &path, errors);
        }
        for (i, weighted) in preferred.iter().flatten().enumerate() {
            let path = path.child("preferredDuringSchedulingIgnoredDuringExecution").index(i);
            validate_weighted(weighted, &path, errors);
        }
    }
}

fn validate_weighted(weighted: &WeightedPodAffinityTerm, path: &Path, errors: &mut ErrorList) {
    validate_weight(weighted.weight, path, errors);
    validate_pod_affinity_term(&weighted.pod_affinity_term, &path.child("podAffinityTerm"), errors);
}

fn validate_weight(weight: i32, path: &Path, errors: &mut ErrorList) {
    if !(1..=100).contains(&weight) {
        errors.push(Error::invalid(&path.child("weight"), weight, "must be in the range 1-100"));
    }
}

fn validate_pod_affinity_term(term: &PodAffinityTerm, path: &Path, errors: &mut ErrorList) {
    if let Some(selector) = &term.label_selector {
        validate_label_selector(selector, &path.child("labelSelector"), errors);
    }
    if let Some(selector) = &term.namespace_selector {
        validate_label_selector(selector, &path.child("namespaceSelector"), errors);
    }
    for (i, namespace) in term.namespaces.iter().flatten().enumerate() {
        for problem in apimachinery::validation::names::is_dns1123_label(namespace) {
            errors.push(Error::invalid(&path.child("namespaces").index(i), namespace, problem));
        }
    }
    let path = path.child("topologyKey");
    if term.topology_key.is_empty() {
        errors.push(Error::required(&path, "can not be empty"));
    }
    for problem in is_qualified_name(&term.topology_key) {
        errors.push(Error::invalid(&path, &term.topology_key, problem));
    }
}

fn validate_node_affinity(affinity: &NodeAffinity, path: &Path, errors: &mut ErrorList) {
    if let Some(selector) = &affinity.required_during_scheduling_ignored_during_execution {
        let path = path.child("requiredDuringSchedulingIgnoredDuringExecution");
        validate_node_selector(selector, &path, errors);
    }
    let preferred = affinity.preferred_during_scheduling_ignored_during_execution.iter().flatten();
    for (i, term) in preferred.enumerate() {
        let path = path.child("preferredDuringSchedulingIgnoredDuringExecution").index(i);
        validate_weight(term.weight, &path, errors);
        validate_node_selector_term(&term.preference, &path.child("preference"), errors);
    }
}

/// Terms of a node selector, of which there must be some.
pub(crate) fn validate_node_selector(selector: &NodeSelector, path: &Path, errors: &mut ErrorList) {
    let path = path.child("nodeSelectorTerms");
    if selector.node_selector_terms.is_empty() {
        errors.push(Error::required(&path, "must have at least one node selector term"));
    }
    for (i, term) in selector.node_selector_terms.iter().enumerate() {
        validate_node_selector_term(term, &path.index(i), errors);
    }
}

fn validate_node_selector_term(term: &NodeSelectorTerm, path: &Path, errors: &mut ErrorList) {
    for (i, requirement) in term.match_expressions.iter().flatten().enumerate() {
        let path = path.child("matchExpressions").index(i);
        validate_requirement(requirement, &path, errors);
        for problem in is_qualified_name(&requirement.key) {
            errors.push(Error::invalid(&path.child("key"), &requirement.key, problem));
        }
    }
    for (i, requirement) in term.match_fields.iter().flatten().enumerate() {
        let path = path.child("matchFields").index(i);
        if !["In", "NotIn"].contains(&requirement.operator.as_str()) {
            let detail = "not a valid selector operator";
            errors.push(Error::invalid(&path.child("operator"), &requirement.operator, detail));
        } else if requirement.values.as_ref().map_or(0, Vec::len) != 1 {
            let detail = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
            errors.push(Error::required(&path.child("values"), detail));
        }
        if requirement.key != "metadata.name" {
            let detail = "not a valid field selector key";
            errors.push(Error::invalid(&path.child("key"), &requirement.key, detail));
        }
    }
}

fn validate_requirement(requirement: &NodeSelectorRequirement, path: &Path, errors: &mut ErrorList) {
    let values = requirement.values.as_deref().unwrap_or_default();
    let values_path = path.child("values");
    match requirement.operator.as_str() {
        "In" | "NotIn" => {
            if values.is_empty() {
                let detail = "must be specified when `operator` is 'In' or 'NotIn'";
                errors.push(Error::required(&values_path, detail));
            }
        }
        "Exists" | "DoesNotExist" => {
            if !values.is_empty() {
                let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.push(Error::forbidden(&values_path, detail));
            }
        }
        "Gt" | "Lt" => {
            if values.len() != 1 {
                let detail = "must be specified single value when `operator` is 'Lt' or 'Gt'";
                errors.push(Error::required(&values_path, detail));
            }
        }
        other => {
            let detail = "not a valid selector operator";
            errors.push(Error::invalid(&path.child("operator"), other, detail));
        }
    }
}

pub(super) fn validate_topology_spread(spec: &PodSpec, path: &Path, errors: &mut ErrorList) {
    let mut seen = BTreeSet::new();
    for (i, constraint) in spec.topology_spread_constraints.iter().flatten().enumerate() {
        let path = path.index(i);
        if constraint.max_skew <= 0 {
            let detail = "must be greater than zero";
            errors.push(Error::invalid(&path.child("maxSkew"), constraint.max_skew, detail));
        }
        if constraint.topology_key.is_empty() {
            errors.push(Error::required(&path.child("topologyKey"), "can not be empty"));
        }
        for problem in is_qualified_name(&constraint.topology_key) {
            errors.push(Error::invalid(&path.child("topologyKey"), &constraint.topology_key, problem));
        }
        let action = constraint.when_unsatisfiable.as_str();
        let actions = ["DoNotSchedule", "ScheduleAnyway"];
        if !actions.contains(&action) {
            errors.push(Error::not_supported(&path.child("whenUnsatisfiable"), action, &actions));
        }
        if !seen.insert((&constraint.topology_key, action)) {
            let shown = format!("{{{}, {action}}}", constraint.topology_key);
            let path = path.child("{topologyKey, whenUnsatisfiable}");
            errors.push(Error::duplicate(&path, shown));
        }
        if let Some(min) = constraint.min_domains {
            if min <= 0 {
                let detail = "must be greater than zero";
                errors.push(Error::invalid(&path.child("minDomains"), min, detail));
            }
            if action != "DoNotSchedule" {
                let detail = "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not ScheduleAnyway";
                errors.push(Error::invalid(&path.child("minDomains"), min, detail));
            }
        }
        for (field, value) in [
            ("nodeAffinityPolicy", &constraint.node_affinity_policy),
            ("nodeTaintsPolicy", &constraint.node_taints_policy),
        ] {
            let all = ["Honor", "Ignore"];
            if let Some(value) = value.as_deref()
                && !all.contains(&value)
            {
                errors.push(Error::not_supported(&path.child(field), value, &all));
            }
        }
        if let Some(selector) = &constraint.label_selector {
            validate_label_selector(selector, &path.child("labelSelector"), errors);
        }
    }
}
