//! HorizontalPodAutoscalers, v2 (upstream `registry/autoscaling/horizontalpodautoscaler`).

use apimachinery::validation::{Error, ErrorList, Path};
use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{
    HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscaler, HorizontalPodAutoscalerSpec, MetricSpec,
    MetricTarget, ResourceMetricSource,
};

use super::metrics;
use crate::registry::{ResourceInfo, Strategy, cells};
use crate::request::RequestContext;
use crate::table::{self, AGE, Cell, Column, NAME};

const MAX_WINDOW: i32 = 3600;
const MAX_PERIOD: i32 = 1800;

/// The strategy of horizontalpodautoscalers.
#[derive(Debug)]
pub struct HorizontalPodAutoscalerStrategy;

impl Strategy for HorizontalPodAutoscalerStrategy {
    type Object = HorizontalPodAutoscaler;

    fn info(&self) -> ResourceInfo {
        ResourceInfo {
            short_names: &["hpa"],
            categories: &["all"],
            status: true,
            ..ResourceInfo::new(
                "autoscaling",
                "v2",
                "HorizontalPodAutoscaler",
                "horizontalpodautoscalers",
                "horizontalpodautoscaler",
                true,
            )
        }
    }

    fn default(&self, obj: &mut HorizontalPodAutoscaler) {
        let spec = &mut obj.spec;
        spec.min_replicas.get_or_insert(1);
        if spec.metrics.as_ref().is_none_or(Vec::is_empty) {
            spec.metrics = Some(vec![cpu_at_80_percent()]);
        }
        if let Some(behavior) = &mut spec.behavior {
            let up = behavior.scale_up.get_or_insert_default();
            up.stabilization_window_seconds.get_or_insert(0);
            set_rule_defaults(up, vec![policy("Pods", 4), policy("Percent", 100)]);
            let down = behavior.scale_down.get_or_insert_default();
            set_rule_defaults(down, vec![policy("Percent", 100)]);
        }
    }

    fn prepare_for_create(&self, _ctx: &RequestContext, obj: &mut HorizontalPodAutoscaler) {
        obj.status = Some(Default::default());
    }

    fn validate(&self, obj: &HorizontalPodAutoscaler) -> ErrorList {
        let mut errors = ErrorList::new();
        validate_spec(&obj.spec, &Path::new("spec"), &mut errors);
        errors
    }

    fn prepare_for_update(
        &self,
        _ctx: &RequestContext,
        new: &mut HorizontalPodAutoscaler,
        old: &HorizontalPodAutoscaler,
    ) {
        new.status.clone_from(&old.status);
    }

    fn prepare_for_status_update(
        &self,
        _ctx: &RequestContext,
        new: &mut HorizontalPodAutoscaler,
        old: &HorizontalPodAutoscaler,
    ) {
        new.spec.clone_from(&old.spec);
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            Column::string("Reference", "Object that is scaled."),
            Column::string("Targets", "Each metric's value and target."),
            Column::string("MinPods", "Fewest pods."),
            Column::string("MaxPods", "Most pods."),
            Column::string("Replicas", "Pods now."),
            AGE,
        ];
        COLUMNS
    }

    fn row(&self, obj: &HorizontalPodAutoscaler, now: Timestamp) -> Vec<Cell> {
        let spec = &obj.spec;
        let status = obj.status.as_ref();
        let current = status.and_then(|s| s.current_metrics.as_deref()).unwrap_or_default();
        let min = spec.min_replicas.map_or_else(|| cells::UNSET.to_owned(), |min| min.to_string());
        vec![
            cells::name(&obj.metadata),
            Cell::from(format!("{}/{}", spec.scale_target_ref.kind, spec.scale_target_ref.name)),
            Cell::from(metrics::text(spec.metrics.as_deref().unwrap_or_default(), current)),
            Cell::from(min),
            Cell::from(spec.max_replicas),
            Cell::from(status.and_then(|s| s.current_replicas).unwrap_or(0)),
            table::age(obj.metadata.creation_timestamp.as_ref(), now),
        ]
    }
}

fn cpu_at_80_percent() -> MetricSpec {
    MetricSpec {
        type_: "Resource".to_owned(),
        resource: Some(ResourceMetricSource {
            name: "cpu".to_owned(),
            target: MetricTarget {
                type_: "Utilization".to_owned(),
                average_utilization: Some(80),
                ..MetricTarget::default()
            },
        }),
        ..MetricSpec::default()
    }
}

fn policy(type_: &str, value: i32) -> HPAScalingPolicy {
    HPAScalingPolicy { type_: type_.to_owned(), value, period_seconds: 15 }
}

fn set_rule_defaults(rules: &mut HPAScalingRules, policies: Vec<HPAScalingPolicy>) {
    rules.select_policy.get_or_insert_with(|| "Max".to_owned());
    if rules.policies.as_ref().is_none_or(Vec::is_empty) {
        rules.policies = Some(policies);
    }
}

fn validate_spec(spec: &HorizontalPodAutoscalerSpec, path: &Path, errors: &mut ErrorList) {
    let min = spec.min_replicas.unwrap_or(1);
    // Zero needs the HPAScaleToZero gate, which is off.
    if min < 1 {
        errors.push(Error::invalid(&path.child("minReplicas"), min, "must be greater than or equal to 1"));
    }
    if spec.max_replicas < 1 {
        let detail = "must be greater than 0";
        errors.push(Error::invalid(&path.child("maxReplicas"), spec.max_replicas, detail));
    }
    if spec.max_replicas < min {
        let detail = "must be greater than or equal to `minReplicas`";
        errors.push(Error::invalid(&path.child("maxReplicas"), spec.max_replicas, detail));
    }
    let target = path.child("scaleTargetRef");
    for (field, value) in [("kind", &spec.scale_target_ref.kind), ("name", &spec.scale_target_ref.name)] {
        if value.is_empty() {
            errors.push(Error::required(&target.child(field), ""));
        } else {
            for problem in apimachinery::validation::names::is_path_segment(value) {
                errors.push(Error::invalid(&target.child(field), value, problem));
            }
        }
    }
    for (i, metric) in spec.metrics.iter().flatten().enumerate() {
        metrics::validate(metric, &path.child("metrics").index(i), errors);
    }
    let behavior = spec.behavior.as_ref();
    for (field, rules) in [
        ("scaleUp", behavior.and_then(|b| b.scale_up.as_ref())),
        ("scaleDown", behavior.and_then(|b| b.scale_down.as_ref())),
    ] {
        if let Some(rules) = rules {
            validate_rules(rules, &path.child("behavior").child(field), errors);
        }
    }
}

fn validate_rules(rules: &HPAScalingRules, path: &Path, errors: &mut ErrorList) {
    if let Some(window) = rules.stabilization_window_seconds {
        let path = path.child("stabilizationWindowSeconds");
        if window < 0 {
            errors.push(Error::invalid(&path, window, "must be greater than or equal to zero"));
        }
        if window > MAX_WINDOW {
            errors.push(Error::invalid(&path, window, format!("must be less than or equal to {MAX_WINDOW}")));
        }
    }
    let all = ["Max", "Min", "Disabled"];
    if let Some(select) = rules.select_policy.as_deref()
        && !all.contains(&select)
    {
        errors.push(Error::not_supported(&path.child("selectPolicy"), select, &all));
    }
    let policies = path.child("policies");
    if rules.policies.as_ref().is_none_or(Vec::is_empty) {
        errors.push(Error::required(&policies, "must specify at least one Policy"));
    }
    for (i, policy) in rules.policies.iter().flatten().enumerate() {
        let path = policies.index(i);
        if !["Pods", "Percent"].contains(&policy.type_.as_str()) {
            errors.push(Error::not_supported(&path.child("type"), &policy.type_, &["Pods", "Percent"]));
        }
        if policy.value <= 0 {
            errors.push(Error::invalid(&path.child("value"), policy.value, "must be greater than zero"));
        }
        let period = path.child("periodSeconds");
        if policy.period_seconds <= 0 {
            errors.push(Error::invalid(&period, policy.period_seconds, "must be greater than zero"));
        }
        if policy.period_seconds > MAX_PERIOD {
            let detail = format!("must be less than or equal to {MAX_PERIOD}");
            errors.push(Error::invalid(&period, policy.period_seconds, detail));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn defaults_validation_and_row() {
        let mut obj: HorizontalPodAutoscaler = serde_json::from_value(json!({
            "metadata": {"name": "h"},
            "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "web"}, "maxReplicas": 3},
            "status": {"desiredReplicas": 2, "currentReplicas": 2, "currentMetrics": [
                {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 15, "averageValue": "15m"}}}]}}))
        .unwrap();
        HorizontalPodAutoscalerStrategy.default(&mut obj);
        assert_eq!(HorizontalPodAutoscalerStrategy.validate(&obj), vec![]);
        let row = HorizontalPodAutoscalerStrategy.row(&obj, Timestamp::UNIX_EPOCH);
        assert_eq!(json!(row), json!(["h", "Deployment/web", "cpu: 15%/80%", "1", 3, 2, "<unknown>"]));
        obj.status = None;
        let row = HorizontalPodAutoscalerStrategy.row(&obj, Timestamp::UNIX_EPOCH);
        assert_eq!(row[2], json!("cpu: <unknown>/80%"));
        obj.spec.max_replicas = 0;
        let texts: Vec<String> =
            HorizontalPodAutoscalerStrategy.validate(&obj).iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "spec.maxReplicas: Invalid value: 0: must be greater than 0",
                "spec.maxReplicas: Invalid value: 0: must be greater than or equal to `minReplicas`",
            ]
        );
    }
}
