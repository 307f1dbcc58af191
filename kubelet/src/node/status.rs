//! The node's status as a value, and the patch between two of them. No IO.
//!
//! Upstream's concept: the setters of `pkg/kubelet/nodestatus/setters.go`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use apimachinery::quantity::Quantity;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeStatus,
    NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use serde_json::{Map, Value, json};

use super::capacity::Capacity;
use super::pressure::Pressure;
use crate::pod;
use crate::runtime::Image;

/// `maxNamesPerImageInNodeStatus`.
const MAX_NAMES_PER_IMAGE: usize = 5;

/// What the status is made from.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    pub(super) ips: Vec<IpAddr>,
    pub(super) hostname: String,
    pub(super) capacity: Capacity,
    pub(super) info: NodeSystemInfo,
    pub(super) port: u16,
    pub(super) images: Vec<Image>,
    pub(super) max_images: usize,
    pub(super) pressure: Pressure,
    /// Why the node is not ready; empty when it is.
    pub(super) errors: Vec<String>,
}

fn quantities(map: &BTreeMap<String, Quantity>) -> BTreeMap<String, ApiQuantity> {
    map.iter().map(|(name, quantity)| (name.clone(), ApiQuantity(quantity.to_string()))).collect()
}

fn addresses(facts: &Facts) -> Vec<NodeAddress> {
    let address = |type_: &str, address: String| NodeAddress { type_: type_.to_owned(), address };
    let mut addresses: Vec<_> = facts.ips.iter().map(|ip| address("InternalIP", ip.to_string())).collect();
    addresses.push(address("Hostname", facts.hostname.clone()));
    addresses
}

/// Largest first, as upstream sorts them: the scheduler's image locality wants the big ones.
fn images(facts: &Facts) -> Vec<ContainerImage> {
    let mut images = facts.images.clone();
    images.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.id.cmp(&b.id)));
    images
        .into_iter()
        .filter(|image| !image.names.is_empty())
        .take(facts.max_images)
        .map(|image| ContainerImage {
            names: Some(image.names.into_iter().take(MAX_NAMES_PER_IMAGE).collect()),
            size_bytes: i64::try_from(image.size).ok(),
        })
        .collect()
}

fn condition(type_: &str, status: bool, reason: &str, message: &str) -> NodeCondition {
    NodeCondition {
        type_: type_.to_owned(),
        status: if status { "True" } else { "False" }.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        ..NodeCondition::default()
    }
}

/// As Go prints an aggregate: one error bare, several in brackets.
fn aggregate(errors: &[String]) -> String {
    match errors {
        [one] => one.clone(),
        several => format!("[{}]", several.join(", ")),
    }
}

fn conditions(facts: &Facts) -> Vec<NodeCondition> {
    let pick = |type_: &str, bad: bool, bad_says: (&str, &str), good_says: (&str, &str)| {
        let (reason, message) = if bad { bad_says } else { good_says };
        condition(type_, bad, reason, message)
    };
    let mut conditions = vec![
        pick(
            "MemoryPressure",
            facts.pressure.memory,
            ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
            ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ),
        pick(
            "DiskPressure",
            facts.pressure.disk,
            ("KubeletHasDiskPressure", "kubelet has disk pressure"),
            ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ),
        pick(
            "PIDPressure",
            facts.pressure.pid,
            ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
            ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ),
    ];
    conditions.push(if facts.errors.is_empty() {
        condition("Ready", true, "KubeletReady", "kubelet is posting ready status")
    } else {
        condition("Ready", false, "KubeletNotReady", &aggregate(&facts.errors))
    });
    conditions
}

/// Makes the status, keeping transition times from `old` and what others wrote there.
pub(super) fn generate(facts: &Facts, old: &NodeStatus, now: Timestamp) -> NodeStatus {
    let mut status = old.clone();
    status.addresses = Some(addresses(facts));
    status.capacity = Some(quantities(&facts.capacity.capacity));
    status.allocatable = Some(quantities(&facts.capacity.allocatable));
    status.node_info = Some(facts.info.clone());
    status.images = Some(images(facts)).filter(|images| !images.is_empty());
    status.daemon_endpoints =
        Some(NodeDaemonEndpoints { kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(facts.port) }) });
    let held = old.conditions.clone().unwrap_or_default();
    let mut new = conditions(facts);
    for condition in &mut new {
        let before = held.iter().find(|c| c.type_ == condition.type_ && c.status == condition.status);
        condition.last_heartbeat_time = Some(pod::time(now));
        condition.last_transition_time =
            Some(before.and_then(|c| c.last_transition_time.clone()).unwrap_or_else(|| pod::time(now)));
    }
    let others: Vec<_> =
        held.into_iter().filter(|c| !new.iter().any(|owned| owned.type_ == c.type_)).collect();
    status.conditions = Some(others.into_iter().chain(new).collect());
    status
}

/// Whether the two say the same, heartbeats aside.
pub(super) fn same(a: &NodeStatus, b: &NodeStatus) -> bool {
    let still = |status: &NodeStatus| {
        let mut status = status.clone();
        for condition in status.conditions.iter_mut().flatten() {
            condition.last_heartbeat_time = None;
        }
        status
    };
    still(a) == still(b)
}

/// A strategic merge patch of `/status`: conditions merge by type, addresses are replaced, maps lose what is gone.
pub(super) fn patch(old: &NodeStatus, new: &NodeStatus) -> Option<Value> {
    let object = |status: &NodeStatus| match serde_json::to_value(status) {
        Ok(Value::Object(map)) => map,
        // A NodeStatus always serialises to an object.
        _ => Map::new(),
    };
    let (before, after) = (object(old), object(new));
    let mut patch = Map::new();
    for (field, value) in &after {
        let held = before.get(field);
        if held == Some(value) {
            continue;
        }
        let mut value = value.clone();
        match (field.as_str(), held) {
            ("addresses", Some(_)) => {
                if let Value::Array(items) = &mut value {
                    items.push(json!({ "$patch": "replace" }));
                }
            }
            ("capacity" | "allocatable", Some(Value::Object(held))) => {
                if let Value::Object(map) = &mut value {
                    for key in held.keys() {
                        map.entry(key.clone()).or_insert(Value::Null);
                    }
                }
            }
            _ => {}
        }
        patch.insert(field.clone(), value);
    }
    for field in before.keys().filter(|field| !after.contains_key(*field)) {
        patch.insert(field.clone(), Value::Null);
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            ips: vec!["10.0.0.1".parse().unwrap()],
            hostname: "box".to_owned(),
            capacity: Capacity { capacity: BTreeMap::new(), allocatable: BTreeMap::new() },
            info: NodeSystemInfo::default(),
            port: 10250,
            images: Vec::new(),
            max_images: 50,
            pressure: Pressure::default(),
            errors: Vec::new(),
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn ready(status: &NodeStatus) -> NodeCondition {
        status.conditions.iter().flatten().find(|c| c.type_ == "Ready").cloned().unwrap()
    }

    #[test]
    fn ready_follows_the_errors_and_keeps_transition_times() {
        let first = generate(&facts(), &NodeStatus::default(), at(1));
        assert_eq!(ready(&first).reason.as_deref(), Some("KubeletReady"));
        let second = generate(&facts(), &first, at(2));
        assert!(same(&first, &second), "a heartbeat is no news");
        assert_eq!(ready(&second).last_transition_time, Some(pod::time(at(1))));
        let broken = Facts { errors: vec!["a".to_owned(), "b".to_owned()], ..facts() };
        let third = generate(&broken, &second, at(3));
        assert!(!same(&second, &third));
        let condition = ready(&third);
        assert_eq!((condition.status.as_str(), condition.message.as_deref()), ("False", Some("[a, b]")));
        assert_eq!(condition.last_transition_time, Some(pod::time(at(3))));
    }

    #[test]
    fn others_conditions_stay_and_addresses_are_replaced() {
        let foreign = NodeCondition {
            type_: "NetworkUnavailable".to_owned(),
            status: "False".to_owned(),
            ..Default::default()
        };
        let old = NodeStatus { conditions: Some(vec![foreign]), ..Default::default() };
        let first = generate(&facts(), &old, at(1));
        assert!(first.conditions.iter().flatten().any(|c| c.type_ == "NetworkUnavailable"));
        let moved = generate(&Facts { ips: vec!["10.0.0.2".parse().unwrap()], ..facts() }, &first, at(1));
        let patch = patch(&first, &moved).unwrap();
        assert_eq!(patch["addresses"][2], json!({ "$patch": "replace" }));
        assert_eq!(patch.as_object().unwrap().len(), 1);
    }
}
