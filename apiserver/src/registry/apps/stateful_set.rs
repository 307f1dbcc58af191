//! StatefulSets (upstream `registry/apps/statefulset`).

use apimachinery::validation::{Error, ErrorList, Path};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};
use k8s_openapi::api::autoscaling::v1::Scale;

use crate::registry::core::persistent_volume_claim::set_claim_defaults;
use crate::registry::core::pod::defaults::{set_if_empty, set_pod_template_defaults};
use crate::registry::object_meta::{set_generation, validate_nonnegative};
use crate::registry::pod_template::{
    validate_int_or_percent, validate_required_selector, validate_selected_template,
};
use crate::registry::{ResourceInfo, Strategy, cells};
use crate::request::RequestContext;
use crate::table::{self, AGE, Cell, Column, NAME};

const IMMUTABLE: &str = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";

/// The strategy of statefulsets.
#[derive(Debug)]
pub struct StatefulSetStrategy;

impl Strategy for StatefulSetStrategy {
    type Object = StatefulSet;

    fn info(&self) -> ResourceInfo {
        ResourceInfo {
            short_names: &["sts"],
            categories: &["all"],
            status: true,
            scale: true,
            ..ResourceInfo::new("apps", "v1", "StatefulSet", "statefulsets", "statefulset", true)
        }
    }

    fn default(&self, obj: &mut StatefulSet) {
        let spec = obj.spec.get_or_insert_default();
        set_pod_template_defaults(&mut spec.template);
        set_if_empty(&mut spec.pod_management_policy, "OrderedReady");
        let strategy = spec.update_strategy.get_or_insert_default();
        if strategy.type_.as_deref().unwrap_or_default().is_empty() {
            strategy.type_ = Some("RollingUpdate".to_owned());
        }
        if strategy.type_.as_deref() == Some("RollingUpdate") {
            let rolling = strategy.rolling_update.get_or_insert_default();
            rolling.partition.get_or_insert(0);
        }
        let retention = spec.persistent_volume_claim_retention_policy.get_or_insert_default();
        set_if_empty(&mut retention.when_deleted, "Retain");
        set_if_empty(&mut retention.when_scaled, "Retain");
        spec.replicas.get_or_insert(1);
        spec.revision_history_limit.get_or_insert(10);
        for claim in spec.volume_claim_templates.iter_mut().flatten() {
            set_claim_defaults(claim);
        }
    }

    fn prepare_for_create(&self, _ctx: &RequestContext, obj: &mut StatefulSet) {
        obj.status = Some(Default::default());
        obj.metadata.generation = Some(1);
        // Behind the MaxUnavailableStatefulSet gate, which is off.
        let strategy = obj.spec.as_mut().and_then(|s| s.update_strategy.as_mut());
        if let Some(rolling) = strategy.and_then(|s| s.rolling_update.as_mut()) {
            rolling.max_unavailable = None;
        }
    }

    fn validate(&self, obj: &StatefulSet) -> ErrorList {
        let mut errors = ErrorList::new();
        let none = StatefulSetSpec::default();
        validate_spec(obj.spec.as_ref().unwrap_or(&none), &Path::new("spec"), &mut errors);
        errors
    }

    fn prepare_for_update(&self, _ctx: &RequestContext, new: &mut StatefulSet, old: &StatefulSet) {
        new.status.clone_from(&old.status);
        set_generation(&mut new.metadata, &old.metadata, new.spec != old.spec);
    }

    fn validate_update(&self, new: &StatefulSet, old: &StatefulSet) -> ErrorList {
        let mut errors = self.validate(new);
        if let (Some(spec), Some(was)) = (&new.spec, &old.spec) {
            let mut allowed = was.clone();
            allowed.replicas = spec.replicas;
            allowed.ordinals.clone_from(&spec.ordinals);
            allowed.template.clone_from(&spec.template);
            allowed.update_strategy.clone_from(&spec.update_strategy);
            allowed.revision_history_limit = spec.revision_history_limit;
            allowed.min_ready_seconds = spec.min_ready_seconds;
            let retention = &spec.persistent_volume_claim_retention_policy;
            allowed.persistent_volume_claim_retention_policy.clone_from(retention);
            if allowed != *spec {
                errors.push(Error::forbidden(&Path::new("spec"), IMMUTABLE));
            }
        }
        errors
    }

    fn prepare_for_status_update(&self, _ctx: &RequestContext, new: &mut StatefulSet, old: &StatefulSet) {
        new.spec.clone_from(&old.spec);
        new.metadata.generation = old.metadata.generation;
    }

    fn validate_status_update(&self, new: &StatefulSet, _old: &StatefulSet) -> ErrorList {
        let mut errors = ErrorList::new();
        let Some(status) = &new.status else { return errors };
        let path = Path::new("status");
        for (field, value) in [
            ("replicas", status.replicas),
            ("readyReplicas", status.ready_replicas.unwrap_or(0)),
            ("currentReplicas", status.current_replicas.unwrap_or(0)),
            ("updatedReplicas", status.updated_replicas.unwrap_or(0)),
            ("availableReplicas", status.available_replicas.unwrap_or(0)),
        ] {
            validate_nonnegative(Some(i64::from(value)), &path.child(field), &mut errors);
            if value > status.replicas {
                let detail = "cannot be greater than status.replicas";
                errors.push(Error::invalid(&path.child(field), value, detail));
            }
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            Column::string("Ready", "Ready pods of desired pods."),
            AGE,
            cells::CONTAINERS,
            cells::IMAGES,
        ];
        COLUMNS
    }

    fn row(&self, obj: &StatefulSet, now: Timestamp) -> Vec<Cell> {
        let spec = obj.spec.as_ref();
        let desired = spec.and_then(|s| s.replicas).unwrap_or(0);
        let ready = obj.status.as_ref().and_then(|s| s.ready_replicas).unwrap_or(0);
        let [containers, images] = cells::containers(spec.map(|s| &s.template));
        vec![
            cells::name(&obj.metadata),
            Cell::from(format!("{ready}/{desired}")),
            table::age(obj.metadata.creation_timestamp.as_ref(), now),
            containers,
            images,
        ]
    }

    fn scale(&self, obj: &StatefulSet) -> Option<Scale> {
        let spec = obj.spec.as_ref();
        let current = obj.status.as_ref().map_or(0, |s| s.replicas);
        let desired = spec.and_then(|s| s.replicas);
        Some(crate::registry::scale::scale(&obj.metadata, desired, current, spec.map(|s| &s.selector)))
    }

    fn set_replicas(&self, obj: &mut StatefulSet, replicas: i32) {
        obj.spec.get_or_insert_default().replicas = Some(replicas);
    }
}

fn validate_spec(spec: &StatefulSetSpec, path: &Path, errors: &mut ErrorList) {
    match spec.pod_management_policy.as_deref().unwrap_or_default() {
        "" => errors.push(Error::required(&path.child("podManagementPolicy"), "")),
        "OrderedReady" | "Parallel" => {}
        other => {
            let detail = "must be 'OrderedReady' or 'Parallel'";
            errors.push(Error::invalid(&path.child("podManagementPolicy"), other, detail));
        }
    }
    let strategy = path.child("updateStrategy");
    let rolling = spec.update_strategy.as_ref().and_then(|s| s.rolling_update.as_ref());
    match spec.update_strategy.as_ref().and_then(|s| s.type_.as_deref()).unwrap_or_default() {
        "" => errors.push(Error::required(&strategy, "")),
        "OnDelete" => {
            if let Some(rolling) = rolling {
                let detail = "only allowed for updateStrategy 'RollingUpdate'";
                let shown = serde_json::to_value(rolling).unwrap_or_default();
                errors.push(Error::invalid(&strategy.child("rollingUpdate"), shown, detail));
            }
        }
        "RollingUpdate" => {
            if let Some(rolling) = rolling {
                let path = strategy.child("rollingUpdate");
                let partition = rolling.partition.map(i64::from);
                validate_nonnegative(partition, &path.child("partition"), errors);
                if let Some(value) = &rolling.max_unavailable {
                    validate_int_or_percent(value, true, &path.child("maxUnavailable"), errors);
                    if crate::registry::pod_template::is_zero(value) {
                        let shown = serde_json::to_value(value).unwrap_or_default();
                        let detail = "cannot be 0";
                        errors.push(Error::invalid(&path.child("maxUnavailable"), shown, detail));
                    }
                }
            }
        }
        other => {
            let detail = "must be 'RollingUpdate' or 'OnDelete'";
            errors.push(Error::invalid(&strategy, other, detail));
        }
    }
    for (field, value) in [
        ("replicas", spec.replicas),
        ("minReadySeconds", spec.min_ready_seconds),
        ("revisionHistoryLimit", spec.revision_history_limit),
    ] {
        validate_nonnegative(value.map(i64::from), &path.child(field), errors);
    }
    if let Some(ordinals) = &spec.ordinals {
        let start = ordinals.start.map(i64::from);
        validate_nonnegative(start, &path.child("ordinals").child("start"), errors);
    }
    let selector = validate_required_selector(&spec.selector, "statefulset", &path.child("selector"), errors);
    if let Some(selector) = selector {
        validate_selected_template(&selector, &spec.template, &path.child("template"), errors);
    }
}
