//! PodDisruptionBudgets (upstream `registry/policy/poddisruptionbudget`).

use apimachinery::validation::{Error, ErrorList, Path};
use jiff::Timestamp;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::registry::object_meta::{reset_for_status, set_generation, validate_nonnegative};
use crate::registry::pod_template::{validate_int_or_percent, validate_label_selector};
use crate::registry::{ResourceInfo, Strategy, cells};
use crate::request::RequestContext;
use crate::table::{self, AGE, Cell, Column, NAME};

/// The strategy of poddisruptionbudgets.
#[derive(Debug)]
pub struct PodDisruptionBudgetStrategy;

impl Strategy for PodDisruptionBudgetStrategy {
    type Object = PodDisruptionBudget;

    fn info(&self) -> ResourceInfo {
        ResourceInfo {
            short_names: &["pdb"],
            status: true,
            ..ResourceInfo::new(
                "policy",
                "v1",
                "PodDisruptionBudget",
                "poddisruptionbudgets",
                "poddisruptionbudget",
                true,
            )
        }
    }

    fn prepare_for_create(&self, _ctx: &RequestContext, obj: &mut PodDisruptionBudget) {
        obj.status = Some(Default::default());
        obj.metadata.generation = Some(1);
    }

    fn validate(&self, obj: &PodDisruptionBudget) -> ErrorList {
        let mut errors = ErrorList::new();
        let Some(spec) = &obj.spec else { return errors };
        let path = Path::new("spec");
        if spec.min_available.is_some() && spec.max_unavailable.is_some() {
            let shown = serde_json::to_value(spec).unwrap_or_default();
            errors.push(Error::invalid(&path, shown, "minAvailable and maxUnavailable cannot be both set"));
        }
        for (field, value) in
            [("minAvailable", &spec.min_available), ("maxUnavailable", &spec.max_unavailable)]
        {
            if let Some(value) = value {
                validate_int_or_percent(value, true, &path.child(field), &mut errors);
            }
        }
        if let Some(selector) = &spec.selector {
            validate_label_selector(selector, &path.child("selector"), &mut errors);
        }
        let all = ["AlwaysAllow", "IfHealthyBudget"];
        if let Some(policy) = spec.unhealthy_pod_eviction_policy.as_deref()
            && !all.contains(&policy)
        {
            let path = path.child("unhealthyPodEvictionPolicy");
            errors.push(Error::not_supported(&path, policy, &all));
        }
        errors
    }

    fn prepare_for_update(
        &self,
        _ctx: &RequestContext,
        new: &mut PodDisruptionBudget,
        old: &PodDisruptionBudget,
    ) {
        new.status.clone_from(&old.status);
        set_generation(&mut new.metadata, &old.metadata, new.spec != old.spec);
    }

    fn prepare_for_status_update(
        &self,
        _ctx: &RequestContext,
        new: &mut PodDisruptionBudget,
        old: &PodDisruptionBudget,
    ) {
        new.spec.clone_from(&old.spec);
        reset_for_status(&mut new.metadata, &old.metadata);
    }

    fn validate_status_update(&self, new: &PodDisruptionBudget, _old: &PodDisruptionBudget) -> ErrorList {
        let mut errors = ErrorList::new();
        let Some(status) = &new.status else { return errors };
        for (field, value) in [
            ("disruptionsAllowed", status.disruptions_allowed),
            ("currentHealthy", status.current_healthy),
            ("desiredHealthy", status.desired_healthy),
            ("expectedPods", status.expected_pods),
        ] {
            let path = Path::new("status").child(field);
            validate_nonnegative(value.map(i64::from), &path, &mut errors);
        }
        errors
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            Column::string("Min Available", "Pods that must stay available."),
            Column::string("Max Unavailable", "Pods that may be unavailable."),
            Column::integer("Allowed Disruptions", "Evictions allowed now."),
            AGE,
        ];
        COLUMNS
    }

    fn row(&self, obj: &PodDisruptionBudget, now: Timestamp) -> Vec<Cell> {
        let spec = obj.spec.as_ref();
        let show = |value: Option<&IntOrString>| match value {
            None => Cell::from("N/A"),
            Some(IntOrString::Int(number)) => Cell::from(number.to_string()),
            Some(IntOrString::String(text)) => Cell::from(text.as_str()),
        };
        vec![
            cells::name(&obj.metadata),
            show(spec.and_then(|s| s.min_available.as_ref())),
            show(spec.and_then(|s| s.max_unavailable.as_ref())),
            Cell::from(obj.status.as_ref().and_then(|s| s.disruptions_allowed).unwrap_or(0)),
            table::age(obj.metadata.creation_timestamp.as_ref(), now),
        ]
    }
}
