//! Nodes (upstream `registry/core/node`).

use std::borrow::Cow;
use std::collections::BTreeSet;

use apimachinery::validation::names::{is_qualified_name, is_valid_label_value};
use apimachinery::validation::{Error, ErrorList, Path};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeSpec, Taint};

use super::pod::defaults::canonicalise;
use crate::registry::{ResourceInfo, Strategy, SubresourceInfo, cells};
use crate::request::RequestContext;
use crate::table::{self, AGE, Cell, Column, NAME};

const ROLE_PREFIX: &str = "node-role.kubernetes.io/";
const ROLE_LABEL: &str = "kubernetes.io/role";

/// The strategy of nodes.
#[derive(Debug)]
pub struct NodeStrategy;

impl Strategy for NodeStrategy {
    type Object = Node;

    fn info(&self) -> ResourceInfo {
        ResourceInfo {
            short_names: &["no"],
            storage_prefix: "minions",
            status: true,
            subresources: &[SubresourceInfo {
                name: "proxy",
                kind: "NodeProxyOptions",
                group: "",
                version: "v1",
                verbs: &["create", "delete", "get", "patch", "update"],
                updates_parent: false,
            }],
            ..ResourceInfo::new("", "v1", "Node", "nodes", "node", false)
        }
    }

    fn default(&self, obj: &mut Node) {
        let spec = obj.spec.get_or_insert_default();
        set_pod_cidrs(spec);
        if spec.unschedulable == Some(false) {
            spec.unschedulable = None;
        }
        let status = obj.status.get_or_insert_default();
        canonicalise(status.capacity.as_mut());
        canonicalise(status.allocatable.as_mut());
        if status.allocatable.as_ref().is_none_or(|a| a.is_empty()) {
            status.allocatable.clone_from(&status.capacity);
        }
    }

    fn validate(&self, obj: &Node) -> ErrorList {
        let mut errors = ErrorList::new();
        let Some(spec) = &obj.spec else { return errors };
        let path = Path::new("spec");
        validate_taints(spec.taints.as_deref().unwrap_or_default(), &path.child("taints"), &mut errors);
        let cidrs = path.child("podCIDRs");
        for (i, cidr) in spec.pod_cidrs.iter().flatten().enumerate() {
            if cidr.parse::<ipnet::IpNet>().is_err() {
                let detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
                errors.push(Error::invalid(&cidrs.index(i), cidr, detail));
            }
        }
        errors
    }

    fn prepare_for_update(&self, _ctx: &RequestContext, new: &mut Node, old: &Node) {
        new.status.clone_from(&old.status);
    }

    fn validate_update(&self, new: &Node, old: &Node) -> ErrorList {
        let mut errors = self.validate(new);
        let path = Path::new("spec");
        let none = NodeSpec::default();
        let (spec, was) = (new.spec.as_ref().unwrap_or(&none), old.spec.as_ref().unwrap_or(&none));
        if was.pod_cidrs.as_ref().is_some_and(|c| !c.is_empty()) && was.pod_cidrs != spec.pod_cidrs {
            let detail = "node updates may not change podCIDR except from \"\" to valid";
            errors.push(Error::forbidden(&path.child("podCIDRs"), detail));
        }
        if was.provider_id.as_ref().is_some_and(|p| !p.is_empty()) && was.provider_id != spec.provider_id {
            let detail = "node updates may not change providerID except from \"\" to valid";
            errors.push(Error::forbidden(&path.child("providerID"), detail));
        }
        errors
    }

    fn prepare_for_status_update(&self, _ctx: &RequestContext, new: &mut Node, old: &Node) {
        new.spec.clone_from(&old.spec);
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["spec.unschedulable"]
    }

    fn field<'a>(&self, obj: &'a Node, field: &str) -> Cow<'a, str> {
        match field {
            "spec.unschedulable" => Cow::Owned(is_unschedulable(obj).to_string()),
            _ => Cow::Borrowed(""),
        }
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            Column::string("Status", "Whether the node is ready, and whether it takes new pods."),
            Column::string("Roles", "Roles given to the node by label."),
            AGE,
            Column::string("Version", "Version that the kubelet reports."),
            Column::string("Internal-IP", "Address of the node inside the cluster.").wide(),
            Column::string("External-IP", "Address of the node outside the cluster.").wide(),
            Column::string("OS-Image", "Operating system that the node reports.").wide(),
            Column::string("Kernel-Version", "Kernel that the node reports.").wide(),
            Column::string("Container-Runtime", "Container runtime and its version.").wide(),
        ];
        COLUMNS
    }

    fn row(&self, obj: &Node, now: Timestamp) -> Vec<Cell> {
        let info = obj.status.as_ref().and_then(|s| s.node_info.as_ref());
        let reported = |value: Option<&String>| {
            Cell::from(value.filter(|v| !v.is_empty()).map_or(cells::UNKNOWN, String::as_str))
        };
        vec![
            cells::name(&obj.metadata),
            Cell::from(status(obj)),
            Cell::from(roles(obj)),
            table::age(obj.metadata.creation_timestamp.as_ref(), now),
            Cell::from(info.map(|i| i.kubelet_version.as_str()).unwrap_or_default()),
            address(obj, "InternalIP"),
            address(obj, "ExternalIP"),
            reported(info.map(|i| &i.os_image)),
            reported(info.map(|i| &i.kernel_version)),
            reported(info.map(|i| &i.container_runtime_version)),
        ]
    }
}

/// `podCIDR` is the first of `podCIDRs`; whichever the client gave wins as upstream has it.
fn set_pod_cidrs(spec: &mut NodeSpec) {
    let first = spec.pod_cidrs.as_ref().and_then(|c| c.first().cloned());
    let single = spec.pod_cidr.take().filter(|c| !c.is_empty());
    if let Some(single) = single
        && first.as_ref() != Some(&single)
    {
        spec.pod_cidrs = Some(vec![single]);
    }
    spec.pod_cidr = spec.pod_cidrs.as_ref().and_then(|c| c.first().cloned());
}

fn is_unschedulable(obj: &Node) -> bool {
    obj.spec.as_ref().and_then(|s| s.unschedulable) == Some(true)
}

fn status(obj: &Node) -> String {
    let conditions = obj.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    let ready = conditions.iter().rfind(|c| c.type_ == "Ready");
    let mut text = match ready {
        Some(c) if c.status == "True" => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if is_unschedulable(obj) {
        text.push_str(",SchedulingDisabled");
    }
    text
}

fn roles(obj: &Node) -> String {
    let mut roles = BTreeSet::new();
    for (key, value) in obj.metadata.labels.iter().flatten() {
        if let Some(role) = key.strip_prefix(ROLE_PREFIX).filter(|r| !r.is_empty()) {
            roles.insert(role);
        } else if key == ROLE_LABEL && !value.is_empty() {
            roles.insert(value.as_str());
        }
    }
    if roles.is_empty() {
        return cells::NONE.to_owned();
    }
    roles.into_iter().collect::<Vec<_>>().join(",")
}

fn address(obj: &Node, type_: &str) -> Cell {
    let mut addresses = obj.status.iter().flat_map(|s| s.addresses.iter().flatten());
    cells::text(addresses.find(|a| a.type_ == type_).map(|a| a.address.as_str()))
}

fn validate_taints(taints: &[Taint], path: &Path, errors: &mut ErrorList) {
    let mut seen = BTreeSet::new();
    for (i, taint) in taints.iter().enumerate() {
        let path = path.index(i);
        for problem in is_qualified_name(&taint.key) {
            errors.push(Error::invalid(&path.child("key"), &taint.key, problem));
        }
        let value = taint.value.as_deref().unwrap_or_default();
        let problems = is_valid_label_value(value);
        if !problems.is_empty() {
            errors.push(Error::invalid(&path.child("value"), value, problems.join(";")));
        }
        let effects = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
        if taint.effect.is_empty() {
            errors.push(Error::required(&path.child("effect"), ""));
        } else if !effects.contains(&taint.effect.as_str()) {
            errors.push(Error::not_supported(&path.child("effect"), &taint.effect, &effects));
        }
        if !seen.insert((&taint.key, &taint.effect)) {
            let mut error = Error::duplicate(&path, serde_json::to_value(taint).unwrap_or_default());
            error.detail = "taints must be unique by key and effect pair".to_owned();
            errors.push(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn node(value: Value) -> Node {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn status_and_roles() {
        let conditions = |status: &str| json!({"conditions": [{"type": "Ready", "status": status}]});
        for (value, want) in [
            (json!({"status": conditions("True")}), "Ready"),
            (json!({"status": conditions("Unknown")}), "NotReady"),
            (json!({}), "Unknown"),
            (
                json!({"status": conditions("True"), "spec": {"unschedulable": true}}),
                "Ready,SchedulingDisabled",
            ),
        ] {
            assert_eq!(status(&node(value)), want);
        }
        let labels = json!({"metadata": {"labels": {
            "node-role.kubernetes.io/worker": "", "node-role.kubernetes.io/control-plane": "", "x": ""}}});
        assert_eq!(roles(&node(labels)), "control-plane,worker");
        assert_eq!(roles(&node(json!({}))), "<none>");
    }

    #[test]
    fn cidrs_agree_and_stay() {
        let mut old = node(json!({"spec": {"podCIDR": "10.244.0.0/24"}}));
        NodeStrategy.default(&mut old);
        assert_eq!(old.spec.as_ref().unwrap().pod_cidrs, Some(vec!["10.244.0.0/24".to_owned()]));
        let mut new = node(json!({"spec": {"podCIDR": "10.244.1.0/24"}}));
        NodeStrategy.default(&mut new);
        let texts: Vec<String> =
            NodeStrategy.validate_update(&new, &old).iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            ["spec.podCIDRs: Forbidden: node updates may not change podCIDR except from \"\" to valid"]
        );
    }

    #[test]
    fn taints() {
        let bad = node(json!({"spec": {"taints": [
            {"key": "a", "effect": "NoSchedule"}, {"key": "a", "effect": "NoSchedule"}, {"key": "b", "effect": "X"}]}}));
        let texts: Vec<String> = NodeStrategy.validate(&bad).iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), 2, "{texts:?}");
        assert!(texts[0].ends_with("taints must be unique by key and effect pair"), "{texts:?}");
        assert_eq!(
            texts[1],
            "spec.taints[2].effect: Unsupported value: \"X\": supported values: \"NoSchedule\", \"PreferNoSchedule\", \"NoExecute\""
        );
    }
}
