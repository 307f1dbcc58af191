//! The strategic merge patch between two pod statuses, over the fields that the kubelet owns.
//!
//! Upstream's concept: `statusutil.PatchPodStatus`. The fields' patch strategies are the API's: conditions merge by type,
//! podIPs and hostIPs by ip, container statuses are replaced whole.

use k8s_openapi::api::core::v1::PodStatus;
use serde_json::{Map, Value, json};

use crate::pod_status::owns_condition;

const OWNED: &[&str] = &[
    "phase",
    "reason",
    "message",
    "hostIP",
    "hostIPs",
    "podIP",
    "podIPs",
    "startTime",
    "initContainerStatuses",
    "containerStatuses",
    "ephemeralContainerStatuses",
    "qosClass",
    "observedGeneration",
];

/// Lists that merge by a key unless told to replace.
const MERGED: &[&str] = &["hostIPs", "podIPs"];

fn object(status: &PodStatus) -> Map<String, Value> {
    match serde_json::to_value(status) {
        Ok(Value::Object(map)) => map,
        // A PodStatus is made of strings, numbers, lists and maps with string keys: it always serialises to an object.
        _ => Map::new(),
    }
}

/// The patch, or `None` when there is nothing to write.
pub(super) fn status_patch(base: &PodStatus, new: &PodStatus) -> Option<Value> {
    let (base_map, new_map) = (object(base), object(new));
    let mut patch = Map::new();
    for field in OWNED {
        let (before, after) = (base_map.get(*field), new_map.get(*field));
        if before == after {
            continue;
        }
        let value = match after {
            Some(Value::Array(items)) if MERGED.contains(field) && before.is_some() => {
                let mut items = items.clone();
                items.push(json!({ "$patch": "replace" }));
                Value::Array(items)
            }
            Some(value) => value.clone(),
            None => Value::Null,
        };
        patch.insert((*field).to_owned(), value);
    }
    let conditions = conditions_patch(base, new);
    if !conditions.is_empty() {
        patch.insert("conditions".to_owned(), Value::Array(conditions));
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

/// The owned conditions that changed, with nulls for what they lost (a merge would keep an old reason otherwise).
fn conditions_patch(base: &PodStatus, new: &PodStatus) -> Vec<Value> {
    let mut changed = Vec::new();
    for condition in new.conditions.iter().flatten().filter(|c| owns_condition(&c.type_)) {
        let before = base.conditions.iter().flatten().find(|c| c.type_ == condition.type_);
        if before == Some(condition) {
            continue;
        }
        let Ok(Value::Object(mut value)) = serde_json::to_value(condition) else { continue };
        if let Some(Ok(Value::Object(before))) = before.map(serde_json::to_value) {
            for key in before.keys() {
                value.entry(key.clone()).or_insert(Value::Null);
            }
        }
        changed.push(Value::Object(value));
    }
    changed
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{PodCondition, PodIP};

    use super::*;

    fn condition(type_: &str, status: &str, reason: Option<&str>) -> PodCondition {
        PodCondition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: reason.map(str::to_owned),
            ..Default::default()
        }
    }

    #[test]
    fn equal_statuses_need_no_patch() {
        let status = PodStatus { phase: Some("Running".to_owned()), ..Default::default() };
        assert_eq!(status_patch(&status, &status), None);
    }

    #[test]
    fn a_condition_that_becomes_true_loses_its_reason_and_others_are_not_sent() {
        let base = PodStatus {
            conditions: Some(vec![
                condition("Ready", "False", Some("ContainersNotReady")),
                condition("DisruptionTarget", "True", None),
            ]),
            ..Default::default()
        };
        let new =
            PodStatus { conditions: Some(vec![condition("Ready", "True", None)]), ..Default::default() };
        assert_eq!(
            status_patch(&base, &new),
            Some(json!({ "conditions": [{ "type": "Ready", "status": "True", "reason": null }] }))
        );
    }

    #[test]
    fn addresses_are_replaced_and_lost_fields_are_nulled() {
        let ips = |ip: &str| Some(vec![PodIP { ip: ip.to_owned() }]);
        let base =
            PodStatus { reason: Some("Evicted".to_owned()), pod_ips: ips("10.0.0.1"), ..Default::default() };
        let new = PodStatus { pod_ips: ips("10.0.0.2"), ..Default::default() };
        assert_eq!(
            status_patch(&base, &new),
            Some(json!({ "reason": null, "podIPs": [{ "ip": "10.0.0.2" }, { "$patch": "replace" }] }))
        );
    }
}
