//! ReplicaSets (upstream `registry/apps/replicaset`).

use std::borrow::Cow;

use apimachinery::validation::{Error, ErrorList, Path};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::autoscaling::v1::Scale;

use crate::registry::core::pod::defaults::set_pod_template_defaults;
use crate::registry::object_meta::{set_generation, validate_nonnegative};
use crate::registry::pod_template::{
    validate_required_selector, validate_same_selector, validate_selected_template,
};
use crate::registry::{ResourceInfo, Strategy, cells};
use crate::request::RequestContext;
use crate::table::{self, AGE, Cell, Column, NAME};

/// The columns of replica sets and replication controllers.
pub(crate) const COLUMNS: &[Column] = &[
    NAME,
    Column::integer("Desired", "Pods that are wanted."),
    Column::integer("Current", "Pods that exist."),
    Column::integer("Ready", "Pods that are ready."),
    AGE,
    cells::CONTAINERS,
    cells::IMAGES,
    cells::SELECTOR,
];

/// The strategy of replicasets.
#[derive(Debug)]
pub struct ReplicaSetStrategy;

impl Strategy for ReplicaSetStrategy {
    type Object = ReplicaSet;

    fn info(&self) -> ResourceInfo {
        ResourceInfo {
            short_names: &["rs"],
            categories: &["all"],
            status: true,
            scale: true,
            ..ResourceInfo::new("apps", "v1", "ReplicaSet", "replicasets", "replicaset", true)
        }
    }

    fn default(&self, obj: &mut ReplicaSet) {
        let spec = obj.spec.get_or_insert_default();
        spec.replicas.get_or_insert(1);
        if let Some(template) = &mut spec.template {
            set_pod_template_defaults(template);
        }
    }

    fn prepare_for_create(&self, _ctx: &RequestContext, obj: &mut ReplicaSet) {
        obj.status = Some(Default::default());
        obj.metadata.generation = Some(1);
    }

    fn validate(&self, obj: &ReplicaSet) -> ErrorList {
        let mut errors = ErrorList::new();
        let none = ReplicaSetSpec::default();
        let spec = obj.spec.as_ref().unwrap_or(&none);
        let path = Path::new("spec");
        validate_nonnegative(spec.replicas.map(i64::from), &path.child("replicas"), &mut errors);
        let min_ready = spec.min_ready_seconds.map(i64::from);
        validate_nonnegative(min_ready, &path.child("minReadySeconds"), &mut errors);
        let selector =
            validate_required_selector(&spec.selector, "replicaset", &path.child("selector"), &mut errors);
        match (selector, &spec.template) {
            (_, None) => errors.push(Error::required(&path.child("template"), "")),
            (Some(selector), Some(template)) => {
                validate_selected_template(&selector, template, &path.child("template"), &mut errors);
            }
            (None, Some(_)) => {}
        }
        errors
    }

    fn prepare_for_update(&self, _ctx: &RequestContext, new: &mut ReplicaSet, old: &ReplicaSet) {
        new.status.clone_from(&old.status);
        set_generation(&mut new.metadata, &old.metadata, new.spec != old.spec);
    }

    fn validate_update(&self, new: &ReplicaSet, old: &ReplicaSet) -> ErrorList {
        let mut errors = self.validate(new);
        if let (Some(spec), Some(was)) = (&new.spec, &old.spec) {
            let path = Path::new("spec").child("selector");
            validate_same_selector(&spec.selector, &was.selector, &path, &mut errors);
        }
        errors
    }

    fn prepare_for_status_update(&self, _ctx: &RequestContext, new: &mut ReplicaSet, old: &ReplicaSet) {
        new.spec.clone_from(&old.spec);
        new.metadata.generation = old.metadata.generation;
    }

    fn validate_status_update(&self, new: &ReplicaSet, _old: &ReplicaSet) -> ErrorList {
        let mut errors = ErrorList::new();
        let Some(status) = &new.status else { return errors };
        let path = Path::new("status");
        for (field, value) in [
            ("replicas", Some(status.replicas)),
            ("fullyLabeledReplicas", status.fully_labeled_replicas),
            ("readyReplicas", status.ready_replicas),
            ("availableReplicas", status.available_replicas),
        ] {
            let value = value.unwrap_or(0);
            validate_nonnegative(Some(i64::from(value)), &path.child(field), &mut errors);
            if value > status.replicas {
                let detail = "cannot be greater than status.replicas";
                errors.push(Error::invalid(&path.child(field), value, detail));
            }
        }
        errors
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["status.replicas"]
    }

    fn field<'a>(&self, obj: &'a ReplicaSet, field: &str) -> Cow<'a, str> {
        match field {
            "status.replicas" => Cow::Owned(obj.status.as_ref().map_or(0, |s| s.replicas).to_string()),
            _ => Cow::Borrowed(""),
        }
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, obj: &ReplicaSet, now: Timestamp) -> Vec<Cell> {
        let spec = obj.spec.as_ref();
        let status = obj.status.as_ref();
        let [containers, images] = cells::containers(spec.and_then(|s| s.template.as_ref()));
        vec![
            cells::name(&obj.metadata),
            Cell::from(spec.and_then(|s| s.replicas).unwrap_or(0)),
            Cell::from(status.map_or(0, |s| s.replicas)),
            Cell::from(status.and_then(|s| s.ready_replicas).unwrap_or(0)),
            table::age(obj.metadata.creation_timestamp.as_ref(), now),
            containers,
            images,
            cells::label_selector(spec.map(|s| &s.selector)),
        ]
    }

    fn scale(&self, obj: &ReplicaSet) -> Option<Scale> {
        let spec = obj.spec.as_ref();
        let current = obj.status.as_ref().map_or(0, |s| s.replicas);
        let desired = spec.and_then(|s| s.replicas);
        Some(crate::registry::scale::scale(&obj.metadata, desired, current, spec.map(|s| &s.selector)))
    }

    fn set_replicas(&self, obj: &mut ReplicaSet, replicas: i32) {
        obj.spec.get_or_insert_default().replicas = Some(replicas);
    }
}
