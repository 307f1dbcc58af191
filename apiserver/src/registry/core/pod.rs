//! Pods (upstream `registry/core/pod`).

use std::borrow::Cow;

use apimachinery::validation::ErrorList;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;

use crate::registry::object_meta::set_generation;
use crate::registry::{ResourceInfo, Strategy, SubresourceInfo, cells};
use crate::request::RequestContext;
use crate::table::{self, AGE, Cell, Column, NAME};

pub(crate) mod defaults;
mod printer;
pub(crate) mod validation;

/// The strategy of pods.
#[derive(Debug)]
pub struct PodStrategy;

const fn subresource(
    name: &'static str,
    kind: &'static str,
    verbs: &'static [&'static str],
    updates_parent: bool,
) -> SubresourceInfo {
    SubresourceInfo { name, kind, group: "", version: "v1", verbs, updates_parent }
}

const SUBRESOURCES: &[SubresourceInfo] = &[
    subresource("attach", "PodAttachOptions", &["create", "get"], false),
    subresource("binding", "Binding", &["create"], false),
    subresource("ephemeralcontainers", "Pod", &["get", "patch", "update"], true),
    SubresourceInfo {
        name: "eviction",
        kind: "Eviction",
        group: "policy",
        version: "v1",
        verbs: &["create"],
        updates_parent: false,
    },
    subresource("exec", "PodExecOptions", &["create", "get"], false),
    subresource("log", "Pod", &["get"], false),
    subresource("portforward", "PodPortForwardOptions", &["create", "get"], false),
    subresource("proxy", "PodProxyOptions", &["create", "delete", "get", "patch", "update"], false),
    subresource("resize", "Pod", &["get", "patch", "update"], true),
];

impl Strategy for PodStrategy {
    type Object = Pod;

    fn info(&self) -> ResourceInfo {
        ResourceInfo {
            short_names: &["po"],
            categories: &["all"],
            status: true,
            subresources: SUBRESOURCES,
            ..ResourceInfo::new("", "v1", "Pod", "pods", "pod", true)
        }
    }

    fn default(&self, obj: &mut Pod) {
        defaults::set_pod_defaults(obj);
    }

    fn prepare_for_create(&self, _ctx: &RequestContext, obj: &mut Pod) {
        obj.metadata.generation = Some(1);
        let mut status = PodStatus {
            phase: Some("Pending".to_owned()),
            qos_class: Some(apimachinery::pod::qos_class(obj).to_owned()),
            ..PodStatus::default()
        };
        let gates = obj.spec.as_ref().and_then(|s| s.scheduling_gates.as_ref());
        if gates.is_some_and(|g| !g.is_empty()) {
            status.conditions = Some(vec![PodCondition {
                type_: "PodScheduled".to_owned(),
                status: "False".to_owned(),
                reason: Some("SchedulingGated".to_owned()),
                message: Some("Scheduling is blocked due to non-empty scheduling gates".to_owned()),
                ..PodCondition::default()
            }]);
        }
        obj.status = Some(status);
    }

    fn validate(&self, obj: &Pod) -> ErrorList {
        validation::validate_pod(obj)
    }

    fn prepare_for_update(&self, _ctx: &RequestContext, new: &mut Pod, old: &Pod) {
        new.status.clone_from(&old.status);
        set_generation(&mut new.metadata, &old.metadata, new.spec != old.spec);
    }

    fn validate_update(&self, new: &Pod, old: &Pod) -> ErrorList {
        validation::update::validate_pod_update(new, old)
    }

    fn prepare_for_status_update(&self, _ctx: &RequestContext, new: &mut Pod, old: &Pod) {
        new.spec.clone_from(&old.spec);
        new.metadata.owner_references.clone_from(&old.metadata.owner_references);
        new.metadata.generation = old.metadata.generation;
        let was = old.status.as_ref();
        if let Some(status) = &mut new.status {
            // The class is decided by the spec, which a status update doesn't touch.
            if status.qos_class.is_none() {
                status.qos_class = was.and_then(|s| s.qos_class.clone());
            }
            agree_pod_ips(status, was);
        }
    }

    fn validate_status_update(&self, new: &Pod, old: &Pod) -> ErrorList {
        validation::update::validate_pod_status_update(new, old)
    }

    fn prepare_for_subresource_update(
        &self,
        subresource: &str,
        _ctx: &RequestContext,
        new: &mut Pod,
        old: &Pod,
    ) {
        let proposed = new.spec.take();
        let metadata = old.metadata.clone();
        let version = new.metadata.resource_version.take();
        *new = Pod { metadata, ..old.clone() };
        new.metadata.resource_version = version;
        let (Some(spec), Some(proposed)) = (&mut new.spec, proposed) else { return };
        match subresource {
            "ephemeralcontainers" => spec.ephemeral_containers = proposed.ephemeral_containers,
            "resize" => validation::update::take_resources(spec, &proposed),
            _ => {}
        }
        set_generation(&mut new.metadata, &old.metadata, new.spec != old.spec);
    }

    fn validate_subresource_update(&self, subresource: &str, new: &Pod, old: &Pod) -> ErrorList {
        match subresource {
            "ephemeralcontainers" => validation::update::validate_ephemeral_containers_update(new, old),
            _ => validation::update::validate_resize(new, old),
        }
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ]
    }

    fn field<'a>(&self, obj: &'a Pod, field: &str) -> Cow<'a, str> {
        let spec = obj.spec.as_ref();
        let status = obj.status.as_ref();
        let value = match field {
            "spec.nodeName" => spec.and_then(|s| s.node_name.as_deref()),
            "spec.restartPolicy" => spec.and_then(|s| s.restart_policy.as_deref()),
            "spec.schedulerName" => spec.and_then(|s| s.scheduler_name.as_deref()),
            "spec.serviceAccountName" => spec.and_then(|s| s.service_account_name.as_deref()),
            "spec.hostNetwork" => {
                let on = spec.and_then(|s| s.host_network) == Some(true);
                Some(if on { "true" } else { "false" })
            }
            "status.phase" => status.and_then(|s| s.phase.as_deref()),
            "status.podIP" | "status.podIPs" => status.and_then(|s| s.pod_ip.as_deref()),
            "status.nominatedNodeName" => status.and_then(|s| s.nominated_node_name.as_deref()),
            _ => None,
        };
        Cow::Borrowed(value.unwrap_or_default())
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            Column::string("Ready", "Ready containers of all containers."),
            Column::string("Status", "What the pod is doing, in one word."),
            Column::string("Restarts", "Restarts of the pod's containers, and when the last one was."),
            AGE,
            Column::string("IP", "Address of the pod.").wide(),
            Column::string("Node", "Node that the pod is bound to.").wide(),
            Column::string("Nominated Node", "Node where room is being made for the pod.").wide(),
            Column::string("Readiness Gates", "Passed readiness gates of all readiness gates.").wide(),
        ];
        COLUMNS
    }

    fn row(&self, obj: &Pod, now: Timestamp) -> Vec<Cell> {
        let computed = printer::pod_cells(obj, now);
        let status = obj.status.as_ref();
        let ips = status.and_then(|s| s.pod_ips.as_ref());
        let ip = ips.and_then(|ips| ips.first()).map(|ip| ip.ip.as_str());
        vec![
            cells::name(&obj.metadata),
            Cell::from(computed.ready),
            Cell::from(computed.status),
            Cell::from(computed.restarts),
            table::age(obj.metadata.creation_timestamp.as_ref(), now),
            cells::text(ip.or(status.and_then(|s| s.pod_ip.as_deref()))),
            cells::text(obj.spec.as_ref().and_then(|s| s.node_name.as_deref())),
            cells::text(status.and_then(|s| s.nominated_node_name.as_deref())),
            Cell::from(computed.readiness_gates),
        ]
    }

    fn graceful_delete(&self, obj: &Pod, options: &DeleteOptions) -> Option<i64> {
        let spec = obj.spec.as_ref();
        let mut period = options
            .grace_period_seconds
            .or_else(|| spec.and_then(|s| s.termination_grace_period_seconds))
            .unwrap_or(0);
        let unbound = spec.and_then(|s| s.node_name.as_deref()).unwrap_or_default().is_empty();
        if unbound || apimachinery::pod::is_terminal(obj) {
            period = 0;
        }
        // A negative period, which the API allowed once, means the shortest one.
        Some(if period < 0 { 1 } else { period })
    }
}

/// `podIP` is the first of `podIPs`; a writer that knows only one of them is right.
fn agree_pod_ips(status: &mut PodStatus, was: Option<&PodStatus>) {
    use k8s_openapi::api::core::v1::PodIP;
    let first = status.pod_ips.as_ref().and_then(|ips| ips.first()).map(|ip| ip.ip.clone());
    let single = status.pod_ip.clone().filter(|ip| !ip.is_empty());
    match (single, first) {
        (Some(single), None) => status.pod_ips = Some(vec![PodIP { ip: single }]),
        (Some(single), Some(first)) if single != first => {
            let single_changed = was.and_then(|s| s.pod_ip.as_ref()) != Some(&single);
            if single_changed {
                status.pod_ips = Some(vec![PodIP { ip: single }]);
            } else {
                status.pod_ip = Some(first);
            }
        }
        (None, Some(first)) => status.pod_ip = Some(first),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
