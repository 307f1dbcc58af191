//! LimitRanges (upstream `registry/core/limitrange`). Columns are the default ones.

use std::collections::{BTreeMap, BTreeSet};

use apimachinery::quantity::parse_k8s;
use apimachinery::validation::names::is_qualified_name;
use apimachinery::validation::{Error, ErrorList, Path};
use k8s_openapi::api::core::v1::{LimitRange, LimitRangeItem};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::pod::defaults::canonicalise;
use super::pod::validation::resources::validate_list;
use crate::registry::{ResourceInfo, Strategy};

type List = BTreeMap<String, Quantity>;

/// The strategy of limitranges.
#[derive(Debug)]
pub struct LimitRangeStrategy;

impl Strategy for LimitRangeStrategy {
    type Object = LimitRange;

    fn info(&self) -> ResourceInfo {
        ResourceInfo {
            short_names: &["limits"],
            ..ResourceInfo::new("", "v1", "LimitRange", "limitranges", "limitrange", true)
        }
    }

    fn default(&self, obj: &mut LimitRange) {
        for item in obj.spec.iter_mut().flat_map(|s| s.limits.iter_mut()) {
            set_item_defaults(item);
        }
    }

    fn validate(&self, obj: &LimitRange) -> ErrorList {
        let mut errors = ErrorList::new();
        let mut types = BTreeSet::new();
        for (i, item) in obj.spec.iter().flat_map(|s| s.limits.iter()).enumerate() {
            let path = Path::new("spec").child("limits").index(i);
            for problem in is_qualified_name(&item.type_) {
                errors.push(Error::invalid(&path.child("type"), &item.type_, problem));
            }
            if !types.insert(&item.type_) {
                errors.push(Error::duplicate(&path.child("type"), &item.type_));
            }
            validate_item(item, &path, &mut errors);
        }
        errors
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }
}

/// Of containers: what is not requested by default is what is limited by default, which is the maximum.
fn set_item_defaults(item: &mut LimitRangeItem) {
    for list in [
        &mut item.default,
        &mut item.default_request,
        &mut item.max,
        &mut item.min,
        &mut item.max_limit_request_ratio,
    ] {
        canonicalise(list.as_mut());
    }
    if item.type_ != "Container" {
        return;
    }
    fill(&mut item.default, item.max.as_ref());
    fill(&mut item.default_request, item.default.as_ref());
    fill(&mut item.default_request, item.min.as_ref());
}

fn fill(list: &mut Option<List>, from: Option<&List>) {
    let Some(from) = from else { return };
    let list = list.get_or_insert_default();
    for (name, quantity) in from {
        list.entry(name.clone()).or_insert_with(|| quantity.clone());
    }
}

fn validate_item(item: &LimitRangeItem, path: &Path, errors: &mut ErrorList) {
    for (field, list) in [
        ("max", &item.max),
        ("min", &item.min),
        ("default", &item.default),
        ("defaultRequest", &item.default_request),
        ("maxLimitRequestRatio", &item.max_limit_request_ratio),
    ] {
        if let Some(list) = list {
            validate_list(list, &path.child(field), errors);
        }
    }
    if item.type_ == "Pod" {
        for (field, list) in [("default", &item.default), ("defaultRequest", &item.default_request)] {
            if list.as_ref().is_some_and(|l| !l.is_empty()) {
                let detail = "may not be specified when `type` is 'Pod'";
                errors.push(Error::forbidden(&path.child(field), detail));
            }
        }
    }
    let ordered = [
        ("min", &item.min, "max", &item.max),
        ("min", &item.min, "defaultRequest", &item.default_request),
        ("defaultRequest", &item.default_request, "max", &item.max),
        ("defaultRequest", &item.default_request, "default", &item.default),
        ("default", &item.default, "max", &item.max),
    ];
    for (low_name, low, high_name, high) in ordered {
        let (Some(low), Some(high)) = (low, high) else { continue };
        for (name, low) in low {
            let Some(high) = high.get(name) else { continue };
            let (Ok(a), Ok(b)) = (parse_k8s(low), parse_k8s(high)) else { continue };
            if a > b {
                let words = |field: &'static str| match field {
                    "defaultRequest" => "default request",
                    other => other,
                };
                let detail = format!(
                    "{} value {} is greater than {} value {}",
                    words(low_name),
                    low.0,
                    words(high_name),
                    high.0
                );
                errors.push(Error::invalid(&path.child(low_name).key(name), &low.0, detail));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn range(item: Value) -> LimitRange {
        let mut obj: LimitRange = serde_json::from_value(json!({"spec": {"limits": [item]}})).unwrap();
        LimitRangeStrategy.default(&mut obj);
        obj
    }

    #[test]
    fn containers_get_defaults_from_the_maximum() {
        let obj = range(json!({"type": "Container", "max": {"cpu": "0.5"}, "min": {"memory": "1Mi"}}));
        let item = json!(obj.spec.unwrap().limits[0]);
        assert_eq!(item["default"], json!({"cpu": "500m"}));
        assert_eq!(item["defaultRequest"], json!({"cpu": "500m", "memory": "1Mi"}));
    }

    #[test]
    fn the_minimum_is_below_the_maximum() {
        let obj = range(json!({"type": "Pod", "max": {"cpu": "1"}, "min": {"cpu": "2"}}));
        let texts: Vec<String> = LimitRangeStrategy.validate(&obj).iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            ["spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1"]
        );
    }
}
