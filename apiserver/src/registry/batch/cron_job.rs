//! CronJobs (upstream `registry/batch/cronjob`).

use apimachinery::validation::{Error, ErrorList, Path};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec};

use super::cron_schedule;
use super::job;
use crate::registry::core::pod::defaults::set_if_empty;
use crate::registry::object_meta::{
    set_generation, validate_annotations, validate_labels, validate_nonnegative,
};
use crate::registry::{ResourceInfo, Strategy, cells};
use crate::request::RequestContext;
use crate::table::{self, AGE, Cell, Column, NAME};

/// The controller adds eleven characters to make the names of jobs.
const MAX_NAME_LENGTH: usize = 63 - 11;

/// The strategy of cronjobs.
#[derive(Debug)]
pub struct CronJobStrategy;

impl Strategy for CronJobStrategy {
    type Object = CronJob;

    fn info(&self) -> ResourceInfo {
        ResourceInfo {
            short_names: &["cj"],
            categories: &["all"],
            status: true,
            ..ResourceInfo::new("batch", "v1", "CronJob", "cronjobs", "cronjob", true)
        }
    }

    fn default(&self, obj: &mut CronJob) {
        let spec = &mut obj.spec;
        set_if_empty(&mut spec.concurrency_policy, "Allow");
        spec.suspend.get_or_insert(false);
        spec.successful_jobs_history_limit.get_or_insert(3);
        spec.failed_jobs_history_limit.get_or_insert(1);
        let template = spec.job_template.spec.get_or_insert_default();
        crate::registry::core::pod::defaults::set_pod_template_defaults(&mut template.template);
    }

    fn prepare_for_create(&self, _ctx: &RequestContext, obj: &mut CronJob) {
        obj.status = Some(Default::default());
        obj.metadata.generation = Some(1);
    }

    fn validate(&self, obj: &CronJob) -> ErrorList {
        let mut errors = ErrorList::new();
        validate_spec(&obj.spec, &Path::new("spec"), &mut errors);
        let name = obj.metadata.name.as_deref().unwrap_or_default();
        if name.len() > MAX_NAME_LENGTH {
            let detail = format!("must be no more than {MAX_NAME_LENGTH} characters");
            errors.push(Error::invalid(&Path::new("metadata").child("name"), name, detail));
        }
        errors
    }

    fn prepare_for_update(&self, _ctx: &RequestContext, new: &mut CronJob, old: &CronJob) {
        new.status.clone_from(&old.status);
        set_generation(&mut new.metadata, &old.metadata, new.spec != old.spec);
    }

    fn prepare_for_status_update(&self, _ctx: &RequestContext, new: &mut CronJob, old: &CronJob) {
        new.spec.clone_from(&old.spec);
        new.metadata.generation = old.metadata.generation;
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            Column::string("Schedule", "When the job runs, in cron form."),
            Column::string("Timezone", "Time zone of the schedule."),
            Column::string("Suspend", "Whether no more jobs are started."),
            Column::integer("Active", "Jobs that run now."),
            Column::string("Last Schedule", "When a job was last started."),
            AGE,
            cells::CONTAINERS,
            cells::IMAGES,
            cells::SELECTOR,
        ];
        COLUMNS
    }

    fn row(&self, obj: &CronJob, now: Timestamp) -> Vec<Cell> {
        let spec = &obj.spec;
        let status = obj.status.as_ref();
        let job = spec.job_template.spec.as_ref();
        let last = status.and_then(|s| s.last_schedule_time.as_ref());
        let suspend = match spec.suspend {
            None => cells::UNSET,
            Some(true) => "True",
            Some(false) => "False",
        };
        let [containers, images] = cells::containers(job.map(|j| &j.template));
        vec![
            cells::name(&obj.metadata),
            Cell::from(spec.schedule.as_str()),
            cells::text(spec.time_zone.as_deref()),
            Cell::from(suspend),
            Cell::from(status.and_then(|s| s.active.as_ref()).map_or(0, Vec::len)),
            last.map_or_else(|| Cell::from(cells::NONE), |last| table::age(Some(last), now)),
            table::age(obj.metadata.creation_timestamp.as_ref(), now),
            containers,
            images,
            cells::label_selector(job.and_then(|j| j.selector.as_ref())),
        ]
    }
}

fn validate_spec(spec: &CronJobSpec, path: &Path, errors: &mut ErrorList) {
    let schedule = spec.schedule.as_str();
    let schedule_path = path.child("schedule");
    if schedule.is_empty() {
        errors.push(Error::required(&schedule_path, ""));
    } else if schedule.contains("TZ") {
        let detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        errors.push(Error::invalid(&schedule_path, schedule, detail));
    } else if let Err(problem) = cron_schedule::check(schedule) {
        errors.push(Error::invalid(&schedule_path, schedule, problem));
    }
    match spec.time_zone.as_deref() {
        None => {}
        Some("") => {
            let detail = "timeZone must be nil or non-empty string";
            errors.push(Error::invalid(&path.child("timeZone"), "", detail));
        }
        Some(zone) if zone.eq_ignore_ascii_case("local") => {
            let detail =
                "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
            errors.push(Error::invalid(&path.child("timeZone"), zone, detail));
        }
        Some(_) => {}
    }
    for (field, value) in [
        ("startingDeadlineSeconds", spec.starting_deadline_seconds),
        ("successfulJobsHistoryLimit", spec.successful_jobs_history_limit.map(i64::from)),
        ("failedJobsHistoryLimit", spec.failed_jobs_history_limit.map(i64::from)),
    ] {
        validate_nonnegative(value, &path.child(field), errors);
    }
    let all = ["Allow", "Forbid", "Replace"];
    match spec.concurrency_policy.as_deref().unwrap_or_default() {
        "" => errors.push(Error::required(&path.child("concurrencyPolicy"), "")),
        policy if !all.contains(&policy) => {
            errors.push(Error::not_supported(&path.child("concurrencyPolicy"), policy, &all));
        }
        _ => {}
    }
    let template = path.child("jobTemplate");
    let meta = spec.job_template.metadata.as_ref();
    validate_labels(meta.and_then(|m| m.labels.as_ref()), &template.child("labels"), errors);
    validate_annotations(meta.and_then(|m| m.annotations.as_ref()), &template.child("annotations"), errors);
    if let Some(spec) = &spec.job_template.spec {
        let path = template.child("spec");
        job::validate_spec(spec, &path, errors);
        if spec.manual_selector == Some(true) {
            let all = ["nil", "false"];
            errors.push(Error::not_supported(&path.child("manualSelector"), true, &all));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn defaults_and_validation() {
        let mut obj: CronJob = serde_json::from_value(json!({
            "metadata": {"name": "c"},
            "spec": {"schedule": "bad", "jobTemplate": {"spec": {"template": {"spec": {
                "restartPolicy": "OnFailure", "containers": [{"name": "c", "image": "i:1"}]}}}}}}))
        .unwrap();
        CronJobStrategy.default(&mut obj);
        let texts: Vec<String> = CronJobStrategy.validate(&obj).iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            ["spec.schedule: Invalid value: \"bad\": expected exactly 5 fields, found 1: [bad]"]
        );
        let row = CronJobStrategy.row(&obj, Timestamp::UNIX_EPOCH);
        assert_eq!(
            json!(row),
            json!(["c", "bad", "<none>", "False", 0, "<none>", "<unknown>", "c", "i:1", "<none>"])
        );
    }
}
