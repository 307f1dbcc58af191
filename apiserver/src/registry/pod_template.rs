//! What every kind with a pod template demands of it: a selector that selects its pods, the restart policy it
//! can work with, a valid pod spec.

use std::collections::BTreeMap;

use apimachinery::labels::Selector;
use apimachinery::validation::names::{is_qualified_name, is_valid_label_value};
use apimachinery::validation::{Error, ErrorList, Path};
use k8s_openapi::api::core::v1::{PodTemplateSpec, ReplicationControllerSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::core::pod::validation::validate_pod_spec;
use super::object_meta::{validate_annotations, validate_labels, validate_nonnegative};

/// Metadata and spec of a template.
pub(crate) fn validate_template(template: &PodTemplateSpec, path: &Path, errors: &mut ErrorList) {
    let labels = template.metadata.as_ref().and_then(|m| m.labels.as_ref());
    let annotations = template.metadata.as_ref().and_then(|m| m.annotations.as_ref());
    validate_labels(labels, &path.child("labels"), errors);
    validate_annotations(annotations, &path.child("annotations"), errors);
    match &template.spec {
        Some(spec) => validate_pod_spec(spec, &path.child("spec"), errors),
        None => errors.push(Error::required(&path.child("spec").child("containers"), "")),
    }
    let ephemeral = template.spec.as_ref().and_then(|s| s.ephemeral_containers.as_ref());
    if ephemeral.is_some_and(|e| !e.is_empty()) {
        let detail = "ephemeral containers not allowed in pod template";
        errors.push(Error::forbidden(&path.child("spec").child("ephemeralContainers"), detail));
    }
}

/// A template of a kind that keeps its pods running: the selector must match it and pods always restart.
pub(crate) fn validate_selected_template(
    selector: &Selector,
    template: &PodTemplateSpec,
    path: &Path,
    errors: &mut ErrorList,
) {
    let labels = template.metadata.as_ref().and_then(|m| m.labels.as_ref());
    if !selector.is_empty() && !selector.matches_opt(labels) {
        let shown = serde_json::to_value(labels).unwrap_or_default();
        let path = path.child("metadata").child("labels");
        errors.push(Error::invalid(&path, shown, "`selector` does not match template `labels`"));
    }
    validate_template(template, path, errors);
    validate_always_restarts(template, path, errors);
}

/// `restartPolicy: Always` and no deadline.
pub(crate) fn validate_always_restarts(template: &PodTemplateSpec, path: &Path, errors: &mut ErrorList) {
    let spec = template.spec.as_ref();
    let policy = spec.and_then(|s| s.restart_policy.as_deref()).unwrap_or_default();
    if policy != "Always" {
        let path = path.child("spec").child("restartPolicy");
        errors.push(Error::not_supported(&path, policy, &["Always"]));
    }
    if spec.and_then(|s| s.active_deadline_seconds).is_some() {
        let path = path.child("spec").child("activeDeadlineSeconds");
        errors.push(Error::forbidden(&path, "activeDeadlineSeconds in pod template is not supported"));
    }
}

/// Validates a required selector and parses it; `None` when it is wrong.
pub(crate) fn validate_required_selector(
    selector: &LabelSelector,
    kind: &str,
    path: &Path,
    errors: &mut ErrorList,
) -> Option<Selector> {
    validate_label_selector(selector, path, errors);
    if is_empty_selector(selector) {
        let shown = serde_json::to_value(selector).unwrap_or_default();
        errors.push(Error::invalid(path, shown, format!("empty selector is invalid for {kind}")));
    }
    let parsed = Selector::from_label_selector(selector).ok();
    if parsed.is_none() {
        let shown = serde_json::to_value(selector).unwrap_or_default();
        errors.push(Error::invalid(path, shown, "invalid label selector"));
    }
    parsed
}

/// Whether a selector selects everything.
pub(crate) fn is_empty_selector(selector: &LabelSelector) -> bool {
    selector.match_labels.as_ref().is_none_or(BTreeMap::is_empty)
        && selector.match_expressions.as_ref().is_none_or(Vec::is_empty)
}

/// Keys, values and operators of a label selector.
pub(crate) fn validate_label_selector(selector: &LabelSelector, path: &Path, errors: &mut ErrorList) {
    validate_labels(selector.match_labels.as_ref(), &path.child("matchLabels"), errors);
    for (i, requirement) in selector.match_expressions.iter().flatten().enumerate() {
        let path = path.child("matchExpressions").index(i);
        let values = requirement.values.as_deref().unwrap_or_default();
        match requirement.operator.as_str() {
            "In" | "NotIn" if values.is_empty() => {
                let detail = "must be specified when `operator` is 'In' or 'NotIn'";
                errors.push(Error::required(&path.child("values"), detail));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.push(Error::forbidden(&path.child("values"), detail));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => {
                let path = path.child("operator");
                errors.push(Error::invalid(&path, other, "not a valid selector operator"));
            }
        }
        for problem in is_qualified_name(&requirement.key) {
            errors.push(Error::invalid(&path.child("key"), &requirement.key, problem));
        }
        for (i, value) in values.iter().enumerate() {
            for problem in is_valid_label_value(value) {
                errors.push(Error::invalid(&path.child("values").index(i), value, problem));
            }
        }
    }
}

/// The spec of a replication controller, whose selector is a plain map.
pub(crate) fn validate_controller_spec(
    spec: &ReplicationControllerSpec,
    path: &Path,
    errors: &mut ErrorList,
) {
    validate_nonnegative(spec.min_ready_seconds.map(i64::from), &path.child("minReadySeconds"), errors);
    let empty = BTreeMap::new();
    let selector = spec.selector.as_ref().unwrap_or(&empty);
    if selector.is_empty() {
        errors.push(Error::required(&path.child("selector"), ""));
    }
    validate_nonnegative(spec.replicas.map(i64::from), &path.child("replicas"), errors);
    match &spec.template {
        None => errors.push(Error::required(&path.child("template"), "")),
        Some(template) => {
            let selector = Selector::from_set(selector);
            validate_selected_template(&selector, template, &path.child("template"), errors);
        }
    }
}

/// A count, or a percentage of the replicas: not negative, and at most 100 % where it may not be more.
pub(crate) fn validate_int_or_percent(
    value: &IntOrString,
    at_most_100: bool,
    path: &Path,
    errors: &mut ErrorList,
) {
    match value {
        IntOrString::Int(number) => validate_nonnegative(Some(i64::from(*number)), path, errors),
        IntOrString::String(text) => match apimachinery::intstr::percentage(value) {
            None => {
                let detail = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";
                errors.push(Error::invalid(path, text, detail));
            }
            Some(percent) if at_most_100 && percent > 100 => {
                errors.push(Error::invalid(path, text, "must not be greater than 100%"));
            }
            Some(_) => {}
        },
    }
}

/// Whether the value is zero, as a count or as a percentage.
pub(crate) fn is_zero(value: &IntOrString) -> bool {
    match value {
        IntOrString::Int(number) => *number == 0,
        IntOrString::String(_) => apimachinery::intstr::percentage(value) == Some(0),
    }
}

/// The selector of a selector-bearing spec may not change.
pub(crate) fn validate_same_selector(
    new: &LabelSelector,
    old: &LabelSelector,
    path: &Path,
    errors: &mut ErrorList,
) {
    if new != old {
        errors.push(super::object_meta::immutable(new, path));
    }
}
