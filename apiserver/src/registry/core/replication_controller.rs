//! ReplicationControllers (upstream `registry/core/replicationcontroller`).

use std::borrow::Cow;

use apimachinery::validation::{ErrorList, Path};
use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::core::v1::{ReplicationController, ReplicationControllerSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::pod::defaults::set_pod_template_defaults;
use crate::registry::apps::replica_set::COLUMNS;
use crate::registry::object_meta::set_generation;
use crate::registry::pod_template::validate_controller_spec;
use crate::registry::{DefaultGarbageCollection, ResourceInfo, Strategy, cells};
use crate::request::RequestContext;
use crate::table::{self, Cell, Column};

/// The strategy of replicationcontrollers.
#[derive(Debug)]
pub struct ReplicationControllerStrategy;

impl Strategy for ReplicationControllerStrategy {
    type Object = ReplicationController;

    fn info(&self) -> ResourceInfo {
        ResourceInfo {
            short_names: &["rc"],
            categories: &["all"],
            storage_prefix: "controllers",
            status: true,
            scale: true,
            ..ResourceInfo::new(
                "",
                "v1",
                "ReplicationController",
                "replicationcontrollers",
                "replicationcontroller",
                true,
            )
        }
    }

    fn default(&self, obj: &mut ReplicationController) {
        let spec = obj.spec.get_or_insert_default();
        if let Some(template) = &mut spec.template {
            set_pod_template_defaults(template);
        }
        let labels = spec.template.as_ref().and_then(|t| t.metadata.as_ref()?.labels.clone());
        if let Some(labels) = labels {
            if spec.selector.as_ref().is_none_or(|s| s.is_empty()) {
                spec.selector = Some(labels.clone());
            }
            if obj.metadata.labels.as_ref().is_none_or(|l| l.is_empty()) {
                obj.metadata.labels = Some(labels);
            }
        }
        spec.replicas.get_or_insert(1);
    }

    fn prepare_for_create(&self, _ctx: &RequestContext, obj: &mut ReplicationController) {
        obj.status = Some(Default::default());
        obj.metadata.generation = Some(1);
    }

    fn validate(&self, obj: &ReplicationController) -> ErrorList {
        let mut errors = ErrorList::new();
        let none = ReplicationControllerSpec::default();
        validate_controller_spec(obj.spec.as_ref().unwrap_or(&none), &Path::new("spec"), &mut errors);
        errors
    }

    fn prepare_for_update(
        &self,
        _ctx: &RequestContext,
        new: &mut ReplicationController,
        old: &ReplicationController,
    ) {
        new.status.clone_from(&old.status);
        set_generation(&mut new.metadata, &old.metadata, new.spec != old.spec);
    }

    fn prepare_for_status_update(
        &self,
        _ctx: &RequestContext,
        new: &mut ReplicationController,
        old: &ReplicationController,
    ) {
        new.spec.clone_from(&old.spec);
        new.metadata.generation = old.metadata.generation;
    }

    fn default_garbage_collection(&self) -> DefaultGarbageCollection {
        DefaultGarbageCollection::Orphan
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["status.replicas"]
    }

    fn field<'a>(&self, obj: &'a ReplicationController, field: &str) -> Cow<'a, str> {
        match field {
            "status.replicas" => Cow::Owned(obj.status.as_ref().map_or(0, |s| s.replicas).to_string()),
            _ => Cow::Borrowed(""),
        }
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, obj: &ReplicationController, now: Timestamp) -> Vec<Cell> {
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
            cells::labels(spec.and_then(|s| s.selector.as_ref())),
        ]
    }

    fn scale(&self, obj: &ReplicationController) -> Option<Scale> {
        let spec = obj.spec.as_ref();
        let current = obj.status.as_ref().map_or(0, |s| s.replicas);
        let match_labels = spec.and_then(|s| s.selector.clone());
        let selector = LabelSelector { match_labels, match_expressions: None };
        let desired = spec.and_then(|s| s.replicas);
        Some(crate::registry::scale::scale(&obj.metadata, desired, current, Some(&selector)))
    }

    fn set_replicas(&self, obj: &mut ReplicationController, replicas: i32) {
        obj.spec.get_or_insert_default().replicas = Some(replicas);
    }
}
