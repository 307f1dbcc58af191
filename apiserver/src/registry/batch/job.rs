//! Jobs (upstream `registry/batch/job`).

use std::borrow::Cow;
use std::collections::BTreeMap;

use apimachinery::labels::Selector;
use apimachinery::validation::{Error, ErrorList, Path};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::registry::core::pod::defaults::set_pod_template_defaults;
use crate::registry::object_meta::{immutable, set_generation, validate_nonnegative};
use crate::registry::pod_template::{validate_label_selector, validate_template};
use crate::registry::{DefaultGarbageCollection, ResourceInfo, Strategy, cells};
use crate::request::RequestContext;
use crate::table::{self, AGE, Cell, Column, NAME};

const CONTROLLER_UID: &str = "batch.kubernetes.io/controller-uid";
const JOB_NAME: &str = "batch.kubernetes.io/job-name";
const LEGACY_CONTROLLER_UID: &str = "controller-uid";
const LEGACY_JOB_NAME: &str = "job-name";

/// The strategy of jobs.
#[derive(Debug)]
pub struct JobStrategy;

impl Strategy for JobStrategy {
    type Object = Job;

    fn info(&self) -> ResourceInfo {
        ResourceInfo {
            categories: &["all"],
            status: true,
            ..ResourceInfo::new("batch", "v1", "Job", "jobs", "job", true)
        }
    }

    fn default(&self, obj: &mut Job) {
        set_spec_defaults(obj.spec.get_or_insert_default());
        set_label_defaults(obj);
    }

    fn prepare_for_create(&self, _ctx: &RequestContext, obj: &mut Job) {
        obj.status = Some(Default::default());
        obj.metadata.generation = Some(1);
        generate_selector(obj);
        // The generated labels count too.
        set_label_defaults(obj);
    }

    fn validate(&self, obj: &Job) -> ErrorList {
        let mut errors = ErrorList::new();
        let none = JobSpec::default();
        let spec = obj.spec.as_ref().unwrap_or(&none);
        let path = Path::new("spec");
        validate_generated_selector(obj, spec, &mut errors);
        validate_spec(spec, &path, &mut errors);
        match &spec.selector {
            None => errors.push(Error::required(&path.child("selector"), "")),
            Some(selector) => {
                validate_label_selector(selector, &path.child("selector"), &mut errors);
                let labels = spec.template.metadata.as_ref().and_then(|m| m.labels.as_ref());
                let matches = Selector::from_label_selector(selector).is_ok_and(|s| s.matches_opt(labels));
                if !matches {
                    let shown = serde_json::to_value(labels).unwrap_or_default();
                    let path = path.child("template").child("metadata").child("labels");
                    errors.push(Error::invalid(&path, shown, "`selector` does not match template `labels`"));
                }
            }
        }
        errors
    }

    fn prepare_for_update(&self, _ctx: &RequestContext, new: &mut Job, old: &Job) {
        new.status.clone_from(&old.status);
        set_generation(&mut new.metadata, &old.metadata, new.spec != old.spec);
    }

    fn validate_update(&self, new: &Job, old: &Job) -> ErrorList {
        let mut errors = self.validate(new);
        if let (Some(spec), Some(was)) = (&new.spec, &old.spec) {
            validate_spec_update(spec, was, old, &Path::new("spec"), &mut errors);
        }
        errors
    }

    fn prepare_for_status_update(&self, _ctx: &RequestContext, new: &mut Job, old: &Job) {
        new.spec.clone_from(&old.spec);
        new.metadata.generation = old.metadata.generation;
    }

    fn validate_status_update(&self, new: &Job, _old: &Job) -> ErrorList {
        let mut errors = ErrorList::new();
        let Some(status) = &new.status else { return errors };
        for (field, value) in
            [("active", status.active), ("succeeded", status.succeeded), ("failed", status.failed)]
        {
            let path = Path::new("status").child(field);
            validate_nonnegative(value.map(i64::from), &path, &mut errors);
        }
        errors
    }

    fn default_garbage_collection(&self) -> DefaultGarbageCollection {
        DefaultGarbageCollection::Orphan
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["status.successful"]
    }

    fn field<'a>(&self, obj: &'a Job, field: &str) -> Cow<'a, str> {
        let succeeded = obj.status.as_ref().and_then(|s| s.succeeded).unwrap_or(0);
        match field {
            "status.successful" => Cow::Owned(succeeded.to_string()),
            _ => Cow::Borrowed(""),
        }
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            Column::string("Status", "Where the job stands, in one word."),
            Column::string("Completions", "Pods that have succeeded of those that must."),
            Column::string("Duration", "How long the job has run or ran."),
            AGE,
            cells::CONTAINERS,
            cells::IMAGES,
            cells::SELECTOR,
        ];
        COLUMNS
    }

    fn row(&self, obj: &Job, now: Timestamp) -> Vec<Cell> {
        let spec = obj.spec.as_ref();
        let status = obj.status.clone().unwrap_or_default();
        let succeeded = status.succeeded.unwrap_or(0);
        let parallelism = spec.and_then(|s| s.parallelism).unwrap_or(0);
        let completions = match spec.and_then(|s| s.completions) {
            Some(wanted) => format!("{succeeded}/{wanted}"),
            None if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
            None => format!("{succeeded}/1"),
        };
        let duration = status.start_time.map(|start| {
            let end = status.completion_time.map_or(now, |t| t.0);
            table::human_duration(end.as_second() - start.0.as_second())
        });
        let [containers, images] = cells::containers(spec.map(|s| &s.template));
        vec![
            cells::name(&obj.metadata),
            Cell::from(status_word(obj)),
            Cell::from(completions),
            Cell::from(duration.unwrap_or_default()),
            table::age(obj.metadata.creation_timestamp.as_ref(), now),
            containers,
            images,
            cells::label_selector(spec.and_then(|s| s.selector.as_ref())),
        ]
    }
}

/// Defaults of a job's spec, also of a cron job's template but for what depends on the object.
pub(super) fn set_spec_defaults(spec: &mut JobSpec) {
    set_pod_template_defaults(&mut spec.template);
    if spec.completions.is_none() && spec.parallelism.is_none() {
        spec.completions = Some(1);
    }
    spec.parallelism.get_or_insert(1);
    let per_index = spec.backoff_limit_per_index.is_some();
    spec.backoff_limit.get_or_insert(if per_index { i32::MAX } else { 6 });
    spec.completion_mode.get_or_insert_with(|| "NonIndexed".to_owned());
    spec.suspend.get_or_insert(false);
    spec.manual_selector.get_or_insert(false);
    let policy = if spec.pod_failure_policy.is_some() { "Failed" } else { "TerminatingOrFailed" };
    spec.pod_replacement_policy.get_or_insert_with(|| policy.to_owned());
    for rule in spec.pod_failure_policy.iter_mut().flat_map(|p| p.rules.iter_mut()) {
        for pattern in rule.on_pod_conditions.iter_mut().flatten() {
            pattern.status.get_or_insert_with(|| "True".to_owned());
        }
    }
}

/// A job without labels has those of its pods.
fn set_label_defaults(obj: &mut Job) {
    let template = obj.spec.as_ref().map(|s| &s.template);
    let labels = template.and_then(|t| t.metadata.as_ref()?.labels.clone());
    if obj.metadata.labels.as_ref().is_none_or(BTreeMap::is_empty) && labels.is_some() {
        obj.metadata.labels = labels;
    }
}

/// Unless the client cares for it, a job selects its pods by its own uid.
fn generate_selector(obj: &mut Job) {
    let uid = obj.metadata.uid.clone().unwrap_or_default();
    let name = obj.metadata.name.clone().unwrap_or_default();
    let Some(spec) = &mut obj.spec else { return };
    if spec.manual_selector == Some(true) {
        return;
    }
    let labels = spec.template.metadata.get_or_insert_default().labels.get_or_insert_default();
    for (key, value) in
        [(LEGACY_CONTROLLER_UID, &uid), (CONTROLLER_UID, &uid), (LEGACY_JOB_NAME, &name), (JOB_NAME, &name)]
    {
        labels.insert(key.to_owned(), value.clone());
    }
    let selector = spec.selector.get_or_insert_with(LabelSelector::default);
    let matched = selector.match_labels.get_or_insert_default();
    matched.entry(CONTROLLER_UID.to_owned()).or_insert(uid);
}

fn validate_generated_selector(obj: &Job, spec: &JobSpec, errors: &mut ErrorList) {
    if spec.manual_selector == Some(true) {
        return;
    }
    let uid = obj.metadata.uid.as_deref().unwrap_or_default();
    let matched = spec.selector.as_ref().and_then(|s| s.match_labels.as_ref());
    let generated = matched.is_some_and(|m| {
        m.len() == 1
            && [CONTROLLER_UID, LEGACY_CONTROLLER_UID].iter().any(|k| m.get(*k).is_some_and(|v| v == uid))
    });
    let expressions = spec.selector.as_ref().and_then(|s| s.match_expressions.as_ref());
    if !generated || expressions.is_some_and(|e| !e.is_empty()) {
        let shown = serde_json::to_value(&spec.selector).unwrap_or_default();
        let detail = "`selector` not auto-generated";
        errors.push(Error::invalid(&Path::new("spec").child("selector"), shown, detail));
    }
}

/// A job's spec but for its selector, which a template has none of.
pub(super) fn validate_spec(spec: &JobSpec, path: &Path, errors: &mut ErrorList) {
    for (field, value) in [
        ("parallelism", spec.parallelism.map(i64::from)),
        ("completions", spec.completions.map(i64::from)),
        ("activeDeadlineSeconds", spec.active_deadline_seconds),
        ("backoffLimit", spec.backoff_limit.map(i64::from)),
        ("ttlSecondsAfterFinished", spec.ttl_seconds_after_finished.map(i64::from)),
        ("backoffLimitPerIndex", spec.backoff_limit_per_index.map(i64::from)),
        ("maxFailedIndexes", spec.max_failed_indexes.map(i64::from)),
    ] {
        validate_nonnegative(value, &path.child(field), errors);
    }
    match spec.completion_mode.as_deref() {
        None | Some("NonIndexed") => {
            if spec.backoff_limit_per_index.is_some() {
                let detail = "requires indexed completion mode";
                let shown = spec.backoff_limit_per_index.unwrap_or(0);
                errors.push(Error::invalid(&path.child("backoffLimitPerIndex"), shown, detail));
            }
        }
        Some("Indexed") => {
            if spec.completions.is_none() {
                let detail = "when completion mode is Indexed";
                errors.push(Error::required(&path.child("completions"), detail));
            }
        }
        Some(other) => {
            let all = ["NonIndexed", "Indexed"];
            errors.push(Error::not_supported(&path.child("completionMode"), other, &all));
        }
    }
    let policies = ["Failed", "TerminatingOrFailed"];
    if let Some(policy) = spec.pod_replacement_policy.as_deref()
        && !policies.contains(&policy)
    {
        errors.push(Error::not_supported(&path.child("podReplacementPolicy"), policy, &policies));
    }
    let template = path.child("template");
    validate_template(&spec.template, &template, errors);
    let restart = spec.template.spec.as_ref().and_then(|s| s.restart_policy.as_deref());
    if !matches!(restart, Some("OnFailure" | "Never")) {
        let path = template.child("spec").child("restartPolicy");
        errors.push(Error::required(&path, "valid values: \"OnFailure\", \"Never\""));
    }
    if spec.pod_failure_policy.is_some() && restart != Some("Never") {
        let path = template.child("spec").child("restartPolicy");
        let detail = "only \"Never\" is supported when podFailurePolicy is specified";
        errors.push(Error::invalid(&path, restart.unwrap_or_default(), detail));
    }
}

fn validate_spec_update(spec: &JobSpec, was: &JobSpec, old: &Job, path: &Path, errors: &mut ErrorList) {
    let indexed = spec.completion_mode.as_deref() == Some("Indexed");
    // An indexed job can be scaled by both counts together.
    let elastic = indexed && spec.completions == spec.parallelism;
    if spec.completions != was.completions && !elastic {
        errors.push(immutable(&spec.completions, &path.child("completions")));
    }
    if spec.selector != was.selector {
        errors.push(immutable(&spec.selector, &path.child("selector")));
    }
    let mut allowed = was.template.clone();
    let never_started = old.status.as_ref().is_none_or(|s| s.start_time.is_none());
    if was.suspend == Some(true) && never_started {
        take_scheduling(&mut allowed, &spec.template);
    }
    if allowed != spec.template {
        errors.push(immutable(&spec.template, &path.child("template")));
    }
    if spec.completion_mode != was.completion_mode {
        errors.push(immutable(&spec.completion_mode, &path.child("completionMode")));
    }
    if spec.pod_failure_policy != was.pod_failure_policy {
        errors.push(immutable(&spec.pod_failure_policy, &path.child("podFailurePolicy")));
    }
    if spec.backoff_limit_per_index != was.backoff_limit_per_index {
        errors.push(immutable(&spec.backoff_limit_per_index, &path.child("backoffLimitPerIndex")));
    }
    if spec.managed_by != was.managed_by {
        errors.push(immutable(&spec.managed_by, &path.child("managedBy")));
    }
    if spec.success_policy != was.success_policy {
        errors.push(immutable(&spec.success_policy, &path.child("successPolicy")));
    }
}

/// What may change of a suspended job's template: where its pods go.
fn take_scheduling(
    to: &mut k8s_openapi::api::core::v1::PodTemplateSpec,
    from: &k8s_openapi::api::core::v1::PodTemplateSpec,
) {
    let (Some(spec), Some(other)) = (&mut to.spec, &from.spec) else { return };
    spec.node_selector.clone_from(&other.node_selector);
    spec.tolerations.clone_from(&other.tolerations);
    spec.scheduling_gates.clone_from(&other.scheduling_gates);
    let node_affinity = other.affinity.as_ref().and_then(|a| a.node_affinity.clone());
    if node_affinity.is_some() || spec.affinity.is_some() {
        spec.affinity.get_or_insert_default().node_affinity = node_affinity;
    }
    let meta = to.metadata.get_or_insert_default();
    let other = from.metadata.clone().unwrap_or_default();
    meta.annotations = other.annotations;
    meta.labels = other.labels;
}

fn status_word(obj: &Job) -> &'static str {
    let has = |kind: &str| {
        let conditions = obj.status.iter().flat_map(|s| s.conditions.iter().flatten());
        conditions.into_iter().any(|c| c.type_ == kind && c.status == "True")
    };
    match () {
        () if has("Complete") => "Complete",
        () if has("Failed") => "Failed",
        () if obj.metadata.deletion_timestamp.is_some() => "Terminating",
        () if has("Suspended") => "Suspended",
        () if has("FailureTarget") => "FailureTarget",
        () if has("SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn job(extra: Value) -> Job {
        let mut spec = json!({"template": {"spec": {
            "restartPolicy": "Never", "containers": [{"name": "c", "image": "i:1"}]}}});
        for (key, value) in extra.as_object().unwrap() {
            spec[key] = value.clone();
        }
        let mut obj: Job =
            serde_json::from_value(json!({"metadata": {"name": "j", "uid": "u1"}, "spec": spec})).unwrap();
        JobStrategy.default(&mut obj);
        JobStrategy.prepare_for_create(&RequestContext::loopback(), &mut obj);
        obj
    }

    #[test]
    fn defaults_and_generated_selector() {
        let mut spec = json!(job(json!({})).spec);
        assert_eq!(spec["selector"], json!({"matchLabels": {CONTROLLER_UID: "u1"}}));
        assert_eq!(
            spec["template"]["metadata"]["labels"],
            json!({CONTROLLER_UID: "u1", JOB_NAME: "j", "controller-uid": "u1", "job-name": "j"})
        );
        spec.as_object_mut().unwrap().retain(|k, _| k != "template" && k != "selector");
        assert_eq!(
            spec,
            json!({"backoffLimit": 6, "completionMode": "NonIndexed", "completions": 1, "manualSelector": false,
                   "parallelism": 1, "podReplacementPolicy": "TerminatingOrFailed", "suspend": false})
        );
    }

    #[test]
    fn validation() {
        for (extra, want) in [
            (json!({}), vec![]),
            (
                json!({"parallelism": -1}),
                vec!["spec.parallelism: Invalid value: -1: must be greater than or equal to 0"],
            ),
            (
                json!({"completionMode": "Indexed", "parallelism": 1}),
                vec!["spec.completions: Required value: when completion mode is Indexed"],
            ),
            (
                json!({"template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}}),
                vec![
                    "spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"",
                ],
            ),
        ] {
            let errors = JobStrategy.validate(&job(extra.clone()));
            let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
            assert_eq!(texts, want, "{extra}");
        }
    }

    #[test]
    fn the_template_is_immutable() {
        let old = job(json!({}));
        let mut new = old.clone();
        new.spec.as_mut().unwrap().parallelism = Some(3);
        assert_eq!(JobStrategy.validate_update(&new, &old), vec![]);
        new.spec.as_mut().unwrap().template.spec.as_mut().unwrap().containers[0].image =
            Some("i:2".to_owned());
        let errors = JobStrategy.validate_update(&new, &old);
        assert_eq!(errors.len(), 1);
        assert!(errors[0].to_string().starts_with("spec.template: Invalid value: "), "{errors:?}");
        assert!(errors[0].to_string().ends_with(": field is immutable"), "{errors:?}");
    }

    #[test]
    fn row() {
        let mut obj = job(json!({"completions": 3}));
        obj.status = Some(
            serde_json::from_value(json!({
            "succeeded": 3, "startTime": "2026-01-01T00:00:00Z", "completionTime": "2026-01-01T00:01:05Z",
            "conditions": [{"type": "Complete", "status": "True"}]}))
            .unwrap(),
        );
        let row = JobStrategy.row(&obj, Timestamp::UNIX_EPOCH);
        assert_eq!(json!(row[1..4]), json!(["Complete", "3/3", "65s"]));
    }
}
