//! DaemonSets (upstream `registry/apps/daemonset`).

use apimachinery::validation::{Error, ErrorList, Path};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetSpec, RollingUpdateDaemonSet};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::registry::core::pod::defaults::{set_if_empty, set_pod_template_defaults};
use crate::registry::object_meta::{set_generation, validate_nonnegative};
use crate::registry::pod_template::{
    is_zero, validate_int_or_percent, validate_required_selector, validate_same_selector,
    validate_selected_template,
};
use crate::registry::{ResourceInfo, Strategy, cells};
use crate::request::RequestContext;
use crate::table::{self, AGE, Cell, Column, NAME};

/// The strategy of daemonsets.
#[derive(Debug)]
pub struct DaemonSetStrategy;

impl Strategy for DaemonSetStrategy {
    type Object = DaemonSet;

    fn info(&self) -> ResourceInfo {
        ResourceInfo {
            short_names: &["ds"],
            categories: &["all"],
            status: true,
            ..ResourceInfo::new("apps", "v1", "DaemonSet", "daemonsets", "daemonset", true)
        }
    }

    fn default(&self, obj: &mut DaemonSet) {
        let spec = obj.spec.get_or_insert_default();
        set_pod_template_defaults(&mut spec.template);
        let strategy = spec.update_strategy.get_or_insert_default();
        set_if_empty(&mut strategy.type_, "RollingUpdate");
        if strategy.type_.as_deref() == Some("RollingUpdate") {
            let rolling = strategy.rolling_update.get_or_insert_default();
            rolling.max_unavailable.get_or_insert(IntOrString::Int(1));
            rolling.max_surge.get_or_insert(IntOrString::Int(0));
        }
        spec.revision_history_limit.get_or_insert(10);
    }

    fn prepare_for_create(&self, _ctx: &RequestContext, obj: &mut DaemonSet) {
        obj.status = Some(Default::default());
        obj.metadata.generation = Some(1);
    }

    fn validate(&self, obj: &DaemonSet) -> ErrorList {
        let mut errors = ErrorList::new();
        let none = DaemonSetSpec::default();
        validate_spec(obj.spec.as_ref().unwrap_or(&none), &Path::new("spec"), &mut errors);
        errors
    }

    fn prepare_for_update(&self, _ctx: &RequestContext, new: &mut DaemonSet, old: &DaemonSet) {
        new.status.clone_from(&old.status);
        set_generation(&mut new.metadata, &old.metadata, new.spec != old.spec);
    }

    fn validate_update(&self, new: &DaemonSet, old: &DaemonSet) -> ErrorList {
        let mut errors = self.validate(new);
        if let (Some(spec), Some(was)) = (&new.spec, &old.spec) {
            let path = Path::new("spec").child("selector");
            validate_same_selector(&spec.selector, &was.selector, &path, &mut errors);
        }
        errors
    }

    fn prepare_for_status_update(&self, _ctx: &RequestContext, new: &mut DaemonSet, old: &DaemonSet) {
        new.spec.clone_from(&old.spec);
        new.metadata.generation = old.metadata.generation;
    }

    fn validate_status_update(&self, new: &DaemonSet, _old: &DaemonSet) -> ErrorList {
        let mut errors = ErrorList::new();
        let Some(status) = &new.status else { return errors };
        let path = Path::new("status");
        for (field, value) in [
            ("currentNumberScheduled", status.current_number_scheduled),
            ("numberMisscheduled", status.number_misscheduled),
            ("desiredNumberScheduled", status.desired_number_scheduled),
            ("numberReady", status.number_ready),
            ("updatedNumberScheduled", status.updated_number_scheduled.unwrap_or(0)),
            ("numberAvailable", status.number_available.unwrap_or(0)),
            ("numberUnavailable", status.number_unavailable.unwrap_or(0)),
        ] {
            validate_nonnegative(Some(i64::from(value)), &path.child(field), &mut errors);
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            Column::integer("Desired", "Nodes that should run the pod."),
            Column::integer("Current", "Nodes that run the pod and should."),
            Column::integer("Ready", "Nodes whose pod is ready."),
            Column::integer("Up-to-date", "Nodes whose pod runs the current template."),
            Column::integer("Available", "Nodes whose pod has been ready for minReadySeconds."),
            Column::string("Node Selector", "Labels that a node needs to run the pod."),
            AGE,
            cells::CONTAINERS,
            cells::IMAGES,
            cells::SELECTOR,
        ];
        COLUMNS
    }

    fn row(&self, obj: &DaemonSet, now: Timestamp) -> Vec<Cell> {
        let spec = obj.spec.as_ref();
        let status = obj.status.clone().unwrap_or_default();
        let template = spec.map(|s| &s.template);
        let [containers, images] = cells::containers(template);
        let node_selector = template.and_then(|t| t.spec.as_ref()).and_then(|s| s.node_selector.as_ref());
        vec![
            cells::name(&obj.metadata),
            Cell::from(status.desired_number_scheduled),
            Cell::from(status.current_number_scheduled),
            Cell::from(status.number_ready),
            Cell::from(status.updated_number_scheduled.unwrap_or(0)),
            Cell::from(status.number_available.unwrap_or(0)),
            cells::labels(node_selector),
            table::age(obj.metadata.creation_timestamp.as_ref(), now),
            containers,
            images,
            cells::label_selector(spec.map(|s| &s.selector)),
        ]
    }
}

fn validate_spec(spec: &DaemonSetSpec, path: &Path, errors: &mut ErrorList) {
    let selector = validate_required_selector(&spec.selector, "daemonset", &path.child("selector"), errors);
    if let Some(selector) = selector {
        validate_selected_template(&selector, &spec.template, &path.child("template"), errors);
    }
    let min_ready = spec.min_ready_seconds.map(i64::from);
    validate_nonnegative(min_ready, &path.child("minReadySeconds"), errors);
    let history = spec.revision_history_limit.map(i64::from);
    validate_nonnegative(history, &path.child("revisionHistoryLimit"), errors);
    let strategy = path.child("updateStrategy");
    let type_ = spec.update_strategy.as_ref().and_then(|s| s.type_.as_deref()).unwrap_or_default();
    let rolling = spec.update_strategy.as_ref().and_then(|s| s.rolling_update.as_ref());
    match (type_, rolling) {
        ("OnDelete", _) => {}
        ("RollingUpdate", None) => errors.push(Error::required(&strategy.child("rollingUpdate"), "")),
        ("RollingUpdate", Some(rolling)) => {
            validate_rolling_update(rolling, &strategy.child("rollingUpdate"), errors);
        }
        _ => {
            let all = ["OnDelete", "RollingUpdate"];
            errors.push(Error::not_supported(&strategy.child("type"), type_, &all));
        }
    }
}

fn validate_rolling_update(rolling: &RollingUpdateDaemonSet, path: &Path, errors: &mut ErrorList) {
    let zero = IntOrString::Int(0);
    let unavailable = rolling.max_unavailable.as_ref().unwrap_or(&zero);
    let surge = rolling.max_surge.as_ref().unwrap_or(&zero);
    validate_int_or_percent(unavailable, true, &path.child("maxUnavailable"), errors);
    validate_int_or_percent(surge, true, &path.child("maxSurge"), errors);
    match (is_zero(unavailable), is_zero(surge)) {
        (true, true) => {
            let detail = "cannot be 0 when maxSurge is 0";
            let shown = serde_json::to_value(unavailable).unwrap_or_default();
            errors.push(Error::invalid(&path.child("maxUnavailable"), shown, detail));
        }
        (false, false) => {
            let detail = "may not be set when maxUnavailable is non-zero";
            let shown = serde_json::to_value(surge).unwrap_or_default();
            errors.push(Error::invalid(&path.child("maxSurge"), shown, detail));
        }
        _ => {}
    }
}
