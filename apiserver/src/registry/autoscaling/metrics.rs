//! The metrics of an autoscaler: their validation, and how the Targets column shows them
//! (upstream `formatHPAMetrics`).

use apimachinery::validation::{Error, ErrorList, Path};
use k8s_openapi::api::autoscaling::v2::{MetricSpec, MetricStatus, MetricTarget, MetricValueStatus};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::registry::cells;

/// How many metrics the column shows.
const SHOWN: usize = 2;

/// A metric's name in the column, if it has one there, its target, and its current value.
fn parts<'a>(
    spec: &'a MetricSpec,
    status: Option<&'a MetricStatus>,
) -> Option<(Option<&'a str>, &'a MetricTarget, Option<&'a MetricValueStatus>)> {
    Some(match spec.type_.as_str() {
        "Resource" => {
            let source = spec.resource.as_ref()?;
            let current = status.and_then(|s| s.resource.as_ref()).map(|s| &s.current);
            (Some(source.name.as_str()), &source.target, current)
        }
        "ContainerResource" => {
            let source = spec.container_resource.as_ref()?;
            let current = status.and_then(|s| s.container_resource.as_ref()).map(|s| &s.current);
            (Some(source.name.as_str()), &source.target, current)
        }
        "External" => {
            let source = spec.external.as_ref()?;
            (None, &source.target, status.and_then(|s| s.external.as_ref()).map(|s| &s.current))
        }
        "Object" => {
            let source = spec.object.as_ref()?;
            (None, &source.target, status.and_then(|s| s.object.as_ref()).map(|s| &s.current))
        }
        "Pods" => {
            let source = spec.pods.as_ref()?;
            (None, &source.target, status.and_then(|s| s.pods.as_ref()).map(|s| &s.current))
        }
        _ => return None,
    })
}

/// The Targets column: `cpu: 15%/80%`.
pub(super) fn text(specs: &[MetricSpec], statuses: &[MetricStatus]) -> String {
    if specs.is_empty() {
        return cells::NONE.to_owned();
    }
    let mut shown: Vec<String> = specs
        .iter()
        .enumerate()
        .map(|(i, spec)| {
            let Some((name, target, current)) = parts(spec, statuses.get(i)) else {
                return "<unknown type>".to_owned();
            };
            let value = match name {
                Some(_) => utilization(target, current),
                None => plain(target, current),
            };
            name.map_or(value.clone(), |name| format!("{name}: {value}"))
        })
        .collect();
    let more = shown.len().saturating_sub(SHOWN);
    shown.truncate(SHOWN);
    let shown = shown.join(", ");
    if more > 0 { format!("{shown} + {more} more...") } else { shown }
}

fn quantity(value: Option<&Quantity>) -> String {
    value.map_or_else(|| cells::UNKNOWN.to_owned(), |q| q.0.clone())
}

fn utilization(target: &MetricTarget, current: Option<&MetricValueStatus>) -> String {
    if let Some(average) = &target.average_value {
        return format!("{}/{}", quantity(current.and_then(|c| c.average_value.as_ref())), average.0);
    }
    let percent =
        |value: Option<i32>, unknown: &str| value.map_or_else(|| unknown.to_owned(), |v| format!("{v}%"));
    let now = percent(current.and_then(|c| c.average_utilization), cells::UNKNOWN);
    format!("{now}/{}", percent(target.average_utilization, "<auto>"))
}

fn plain(target: &MetricTarget, current: Option<&MetricValueStatus>) -> String {
    match (&target.average_value, &target.value) {
        (Some(average), _) => {
            format!("{}/{} (avg)", quantity(current.and_then(|c| c.average_value.as_ref())), average.0)
        }
        (None, value) => {
            format!("{}/{}", quantity(current.and_then(|c| c.value.as_ref())), quantity(value.as_ref()))
        }
    }
}

/// Exactly the source that the type names, with a target.
pub(super) fn validate(metric: &MetricSpec, path: &Path, errors: &mut ErrorList) {
    let sources = [
        ("ContainerResource", "containerResource", metric.container_resource.is_some()),
        ("External", "external", metric.external.is_some()),
        ("Object", "object", metric.object.is_some()),
        ("Pods", "pods", metric.pods.is_some()),
        ("Resource", "resource", metric.resource.is_some()),
    ];
    if metric.type_.is_empty() {
        errors.push(Error::required(&path.child("type"), "must specify a metric source type"));
        return;
    }
    let Some((_, field, present)) = sources.iter().find(|(type_, _, _)| *type_ == metric.type_) else {
        let all = sources.map(|(type_, _, _)| type_);
        errors.push(Error::not_supported(&path.child("type"), &metric.type_, &all));
        return;
    };
    if !present {
        let detail = "must populate information for the given metric source";
        errors.push(Error::required(&path.child(field), detail));
    }
    for (type_, field, present) in &sources {
        if *present && *type_ != metric.type_ {
            let detail = "must populate the given metric source only";
            errors.push(Error::forbidden(&path.child(field), detail));
        }
    }
    if let Some((_, target, _)) = parts(metric, None) {
        let path = path.child(field).child("target");
        if target.type_.is_empty() {
            errors.push(Error::required(&path.child("type"), "must specify a metric target type"));
        } else if !["Utilization", "Value", "AverageValue"].contains(&target.type_.as_str()) {
            let detail = "must be either Utilization, Value, or AverageValue";
            errors.push(Error::invalid(&path.child("type"), &target.type_, detail));
        }
        if target.average_utilization.is_some_and(|value| value < 1) {
            let shown = target.average_utilization.unwrap_or(0);
            errors.push(Error::invalid(&path.child("averageUtilization"), shown, "must be greater than 0"));
        }
    }
}
