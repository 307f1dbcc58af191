//! Deployments (upstream `registry/apps/deployment`).

use apimachinery::validation::{Error, ErrorList, Path};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, RollingUpdateDeployment};
use k8s_openapi::api::autoscaling::v1::Scale;
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

/// The strategy of deployments.
#[derive(Debug)]
pub struct DeploymentStrategy;

impl Strategy for DeploymentStrategy {
    type Object = Deployment;

    fn info(&self) -> ResourceInfo {
        ResourceInfo {
            short_names: &["deploy"],
            categories: &["all"],
            status: true,
            scale: true,
            ..ResourceInfo::new("apps", "v1", "Deployment", "deployments", "deployment", true)
        }
    }

    fn default(&self, obj: &mut Deployment) {
        let spec = obj.spec.get_or_insert_default();
        set_pod_template_defaults(&mut spec.template);
        spec.replicas.get_or_insert(1);
        let strategy = spec.strategy.get_or_insert_default();
        set_if_empty(&mut strategy.type_, "RollingUpdate");
        if strategy.type_.as_deref() == Some("RollingUpdate") {
            let quarter = || IntOrString::String("25%".to_owned());
            let rolling = strategy.rolling_update.get_or_insert_default();
            rolling.max_unavailable.get_or_insert_with(quarter);
            rolling.max_surge.get_or_insert_with(quarter);
        }
        spec.revision_history_limit.get_or_insert(10);
        spec.progress_deadline_seconds.get_or_insert(600);
    }

    fn prepare_for_create(&self, _ctx: &RequestContext, obj: &mut Deployment) {
        obj.status = Some(Default::default());
        obj.metadata.generation = Some(1);
    }

    fn validate(&self, obj: &Deployment) -> ErrorList {
        let mut errors = ErrorList::new();
        let none = DeploymentSpec::default();
        validate_spec(obj.spec.as_ref().unwrap_or(&none), &Path::new("spec"), &mut errors);
        errors
    }

    fn prepare_for_update(&self, _ctx: &RequestContext, new: &mut Deployment, old: &Deployment) {
        new.status.clone_from(&old.status);
        // The deployment controller reads revisions off annotations, so these count as a change too.
        let changed = new.spec != old.spec || new.metadata.annotations != old.metadata.annotations;
        set_generation(&mut new.metadata, &old.metadata, changed);
    }

    fn validate_update(&self, new: &Deployment, old: &Deployment) -> ErrorList {
        let mut errors = self.validate(new);
        if let (Some(spec), Some(was)) = (&new.spec, &old.spec) {
            let path = Path::new("spec").child("selector");
            validate_same_selector(&spec.selector, &was.selector, &path, &mut errors);
        }
        errors
    }

    fn prepare_for_status_update(&self, _ctx: &RequestContext, new: &mut Deployment, old: &Deployment) {
        new.spec.clone_from(&old.spec);
        new.metadata.labels.clone_from(&old.metadata.labels);
        new.metadata.generation = old.metadata.generation;
    }

    fn validate_status_update(&self, new: &Deployment, old: &Deployment) -> ErrorList {
        let mut errors = ErrorList::new();
        let Some(status) = &new.status else { return errors };
        let path = Path::new("status");
        for (field, value) in [
            ("replicas", status.replicas),
            ("updatedReplicas", status.updated_replicas),
            ("readyReplicas", status.ready_replicas),
            ("availableReplicas", status.available_replicas),
            ("unavailableReplicas", status.unavailable_replicas),
            ("collisionCount", status.collision_count),
        ] {
            validate_nonnegative(value.map(i64::from), &path.child(field), &mut errors);
        }
        let replicas = status.replicas.unwrap_or(0);
        for (field, value) in [
            ("updatedReplicas", status.updated_replicas),
            ("readyReplicas", status.ready_replicas),
            ("availableReplicas", status.available_replicas),
        ] {
            if value.unwrap_or(0) > replicas {
                let detail = "cannot be greater than status.replicas";
                errors.push(Error::invalid(&path.child(field), value.unwrap_or(0), detail));
            }
        }
        if status.available_replicas.unwrap_or(0) > status.ready_replicas.unwrap_or(0) {
            let detail = "cannot be greater than readyReplicas";
            let value = status.available_replicas.unwrap_or(0);
            errors.push(Error::invalid(&path.child("availableReplicas"), value, detail));
        }
        let was = old.status.as_ref().and_then(|s| s.collision_count);
        if let Some(was) = was
            && status.collision_count.is_none_or(|now| now < was)
        {
            let value = status.collision_count.unwrap_or(0);
            errors.push(Error::invalid(&path.child("collisionCount"), value, "cannot be decremented"));
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            Column::string("Ready", "Ready pods of desired pods."),
            Column::integer("Up-to-date", "Pods that run the current template."),
            Column::integer("Available", "Pods that have been ready for minReadySeconds."),
            AGE,
            cells::CONTAINERS,
            cells::IMAGES,
            cells::SELECTOR,
        ];
        COLUMNS
    }

    fn row(&self, obj: &Deployment, now: Timestamp) -> Vec<Cell> {
        let spec = obj.spec.as_ref();
        let status = obj.status.as_ref();
        let desired = spec.and_then(|s| s.replicas).unwrap_or(0);
        let ready = status.and_then(|s| s.ready_replicas).unwrap_or(0);
        let [containers, images] = cells::containers(spec.map(|s| &s.template));
        vec![
            cells::name(&obj.metadata),
            Cell::from(format!("{ready}/{desired}")),
            Cell::from(status.and_then(|s| s.updated_replicas).unwrap_or(0)),
            Cell::from(status.and_then(|s| s.available_replicas).unwrap_or(0)),
            table::age(obj.metadata.creation_timestamp.as_ref(), now),
            containers,
            images,
            cells::label_selector(spec.map(|s| &s.selector)),
        ]
    }

    fn scale(&self, obj: &Deployment) -> Option<Scale> {
        let spec = obj.spec.as_ref();
        let current = obj.status.as_ref().and_then(|s| s.replicas).unwrap_or(0);
        let desired = spec.and_then(|s| s.replicas);
        Some(crate::registry::scale::scale(&obj.metadata, desired, current, spec.map(|s| &s.selector)))
    }

    fn set_replicas(&self, obj: &mut Deployment, replicas: i32) {
        obj.spec.get_or_insert_default().replicas = Some(replicas);
    }
}

fn validate_spec(spec: &DeploymentSpec, path: &Path, errors: &mut ErrorList) {
    validate_nonnegative(spec.replicas.map(i64::from), &path.child("replicas"), errors);
    let selector = validate_required_selector(&spec.selector, "deployment", &path.child("selector"), errors);
    if let Some(selector) = selector {
        validate_selected_template(&selector, &spec.template, &path.child("template"), errors);
    }
    let strategy = path.child("strategy");
    let type_ = spec.strategy.as_ref().and_then(|s| s.type_.as_deref()).unwrap_or_default();
    let rolling = spec.strategy.as_ref().and_then(|s| s.rolling_update.as_ref());
    match (type_, rolling) {
        ("Recreate", Some(_)) => {
            let detail = "may not be specified when strategy `type` is 'Recreate'";
            errors.push(Error::forbidden(&strategy.child("rollingUpdate"), detail));
        }
        ("Recreate", None) => {}
        ("RollingUpdate", None) => {
            let detail = "this should be defaulted and never be nil";
            errors.push(Error::required(&strategy.child("rollingUpdate"), detail));
        }
        ("RollingUpdate", Some(rolling)) => {
            validate_rolling_update(rolling, &strategy.child("rollingUpdate"), errors);
        }
        _ => {
            let all = ["Recreate", "RollingUpdate"];
            errors.push(Error::not_supported(&strategy.child("type"), type_, &all));
        }
    }
    let min_ready = spec.min_ready_seconds.unwrap_or(0);
    validate_nonnegative(Some(i64::from(min_ready)), &path.child("minReadySeconds"), errors);
    let history = spec.revision_history_limit.map(i64::from);
    validate_nonnegative(history, &path.child("revisionHistoryLimit"), errors);
    if let Some(deadline) = spec.progress_deadline_seconds {
        let path = path.child("progressDeadlineSeconds");
        validate_nonnegative(Some(i64::from(deadline)), &path, errors);
        if deadline <= min_ready {
            errors.push(Error::invalid(&path, deadline, "must be greater than minReadySeconds"));
        }
    }
}

fn validate_rolling_update(rolling: &RollingUpdateDeployment, path: &Path, errors: &mut ErrorList) {
    let zero = IntOrString::Int(0);
    let unavailable = rolling.max_unavailable.as_ref().unwrap_or(&zero);
    let surge = rolling.max_surge.as_ref().unwrap_or(&zero);
    validate_int_or_percent(unavailable, true, &path.child("maxUnavailable"), errors);
    validate_int_or_percent(surge, false, &path.child("maxSurge"), errors);
    if is_zero(unavailable) && is_zero(surge) {
        let shown = serde_json::to_value(unavailable).unwrap_or_default();
        let detail = "may not be 0 when `maxSurge` is 0";
        errors.push(Error::invalid(&path.child("maxUnavailable"), shown, detail));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn deployment(extra: Value) -> Deployment {
        let mut value = json!({"metadata": {"name": "d"}, "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}},
                         "spec": {"containers": [{"name": "c", "image": "i:1"}]}}}});
        apimachinery_merge(&mut value["spec"], extra);
        let mut obj: Deployment = serde_json::from_value(value).unwrap();
        DeploymentStrategy.default(&mut obj);
        obj
    }

    fn apimachinery_merge(into: &mut Value, from: Value) {
        for (key, value) in from.as_object().unwrap() {
            into[key] = value.clone();
        }
    }

    #[test]
    fn defaults() {
        let spec = deployment(json!({})).spec.unwrap();
        assert_eq!(spec.replicas, Some(1));
        assert_eq!(
            json!(spec.strategy),
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}})
        );
        assert_eq!((spec.revision_history_limit, spec.progress_deadline_seconds), (Some(10), Some(600)));
        assert_eq!(
            json!(spec.template.spec),
            json!({"containers": [{"name": "c", "image": "i:1", "imagePullPolicy": "IfNotPresent", "resources": {},
                    "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"}],
                   "dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "schedulerName": "default-scheduler",
                   "securityContext": {}, "terminationGracePeriodSeconds": 30})
        );
    }

    #[test]
    fn validation() {
        let zero = json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}});
        for (extra, want) in [
            (json!({}), vec![]),
            (
                json!({"replicas": -1}),
                vec!["spec.replicas: Invalid value: -1: must be greater than or equal to 0"],
            ),
            (
                json!({"selector": {"matchLabels": {"app": "x"}}}),
                vec![
                    "spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`",
                ],
            ),
            (
                json!({"selector": {}}),
                vec!["spec.selector: Invalid value: {}: empty selector is invalid for deployment"],
            ),
            (
                json!({"strategy": zero}),
                vec![
                    "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"0%\": may not be 0 when `maxSurge` is 0",
                ],
            ),
            (
                json!({"strategy": {"type": "X"}}),
                vec![
                    "spec.strategy.type: Unsupported value: \"X\": supported values: \"Recreate\", \"RollingUpdate\"",
                ],
            ),
        ] {
            let texts: Vec<String> = DeploymentStrategy
                .validate(&deployment(extra.clone()))
                .iter()
                .map(ToString::to_string)
                .collect();
            assert_eq!(texts, want, "{extra}");
        }
    }

    #[test]
    fn updates() {
        let ctx = RequestContext::loopback();
        let mut old = deployment(json!({}));
        DeploymentStrategy.prepare_for_create(&ctx, &mut old);
        assert_eq!(old.metadata.generation, Some(1));
        let mut new = old.clone();
        new.metadata.labels = Some([("a".to_owned(), "b".to_owned())].into());
        DeploymentStrategy.prepare_for_update(&ctx, &mut new, &old);
        assert_eq!(new.metadata.generation, Some(1));
        new.spec.as_mut().unwrap().replicas = Some(3);
        DeploymentStrategy.prepare_for_update(&ctx, &mut new, &old);
        assert_eq!(new.metadata.generation, Some(2));
        new.spec.as_mut().unwrap().selector.match_labels = Some([("a".to_owned(), "b".to_owned())].into());
        let texts: Vec<String> =
            DeploymentStrategy.validate_update(&new, &old).iter().map(ToString::to_string).collect();
        assert_eq!(
            texts.last().unwrap(),
            "spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"b\"}}: field is immutable"
        );
    }

    #[test]
    fn row() {
        let mut obj = deployment(json!({"replicas": 3}));
        obj.status = Some(serde_json::from_value(json!({"readyReplicas": 2, "updatedReplicas": 3})).unwrap());
        let row = DeploymentStrategy.row(&obj, Timestamp::UNIX_EPOCH);
        assert_eq!(json!(row), json!(["d", "2/3", 3, 0, "<unknown>", "c", "i:1", "app=web"]));
    }
}
