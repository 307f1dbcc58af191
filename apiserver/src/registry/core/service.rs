//! Services (upstream `registry/core/service`). Cluster IPs, IP families and node ports are chosen by an
//! allocator after the hooks here; what a client leaves out on update is kept here.

use std::borrow::Cow;

use apimachinery::validation::ErrorList;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ClientIPConfig, LoadBalancerIngress, Service, ServicePort, ServiceSpec, SessionAffinityConfig,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::pod::defaults::{drop_empty, set_if_empty};
use crate::registry::{ResourceInfo, Strategy, SubresourceInfo, cells};
use crate::request::RequestContext;
use crate::table::{self, AGE, Cell, Column, NAME};

pub(crate) mod validation;

const CLIENT_IP_TIMEOUT: i32 = 10800;

/// The strategy of services.
#[derive(Debug)]
pub struct ServiceStrategy;

impl Strategy for ServiceStrategy {
    type Object = Service;

    fn info(&self) -> ResourceInfo {
        ResourceInfo {
            short_names: &["svc"],
            categories: &["all"],
            storage_prefix: "services/specs",
            status: true,
            subresources: &[SubresourceInfo {
                name: "proxy",
                kind: "ServiceProxyOptions",
                group: "",
                version: "v1",
                verbs: &["create", "delete", "get", "patch", "update"],
                updates_parent: false,
            }],
            ..ResourceInfo::new("", "v1", "Service", "services", "service", true)
        }
    }

    fn default(&self, obj: &mut Service) {
        set_spec_defaults(obj.spec.get_or_insert_default());
        let is_load_balancer = type_of(obj) == "LoadBalancer";
        let status = obj.status.get_or_insert_default();
        let balancer = status.load_balancer.get_or_insert_default();
        for ingress in balancer.ingress.iter_mut().flatten() {
            if is_load_balancer && ingress.ip.as_ref().is_some_and(|ip| !ip.is_empty()) {
                ingress.ip_mode.get_or_insert_with(|| "VIP".to_owned());
            }
        }
    }

    fn prepare_for_create(&self, _ctx: &RequestContext, obj: &mut Service) {
        let status = obj.status.insert(Default::default());
        status.load_balancer = Some(Default::default());
        normalise_cluster_ips(obj.spec.get_or_insert_default(), None);
    }

    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        let name = if prefix { name.trim_end_matches('-') } else { name };
        apimachinery::validation::names::is_dns1123_label(name)
    }

    fn validate(&self, obj: &Service) -> ErrorList {
        validation::validate(obj)
    }

    fn prepare_for_update(&self, _ctx: &RequestContext, new: &mut Service, old: &Service) {
        new.status.clone_from(&old.status);
        let none = ServiceSpec::default();
        let was = old.spec.as_ref().unwrap_or(&none);
        let spec = new.spec.get_or_insert_default();
        keep_allocated(spec, was);
        normalise_cluster_ips(spec, Some(was));
        drop_type_dependent(spec, was);
    }

    fn validate_update(&self, new: &Service, old: &Service) -> ErrorList {
        validation::validate_update(new, old)
    }

    fn prepare_for_status_update(&self, _ctx: &RequestContext, new: &mut Service, old: &Service) {
        new.spec.clone_from(&old.spec);
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["spec.clusterIP", "spec.type"]
    }

    fn field<'a>(&self, obj: &'a Service, field: &str) -> Cow<'a, str> {
        let spec = obj.spec.as_ref();
        let value = match field {
            "spec.clusterIP" => spec.and_then(|s| s.cluster_ip.as_deref()),
            "spec.type" => spec.and_then(|s| s.type_.as_deref()),
            _ => None,
        };
        Cow::Borrowed(value.unwrap_or_default())
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            Column::string("Type", "How the service is exposed."),
            Column::string("Cluster-IP", "Address of the service inside the cluster."),
            Column::string("External-IP", "Addresses of the service outside the cluster."),
            Column::string("Port(s)", "Ports of the service, with their node ports."),
            AGE,
            cells::SELECTOR,
        ];
        COLUMNS
    }

    fn row(&self, obj: &Service, now: Timestamp) -> Vec<Cell> {
        let none = ServiceSpec::default();
        let spec = obj.spec.as_ref().unwrap_or(&none);
        vec![
            cells::name(&obj.metadata),
            Cell::from(type_of(obj)),
            cells::text(spec.cluster_ips.iter().flatten().next().map(String::as_str)),
            Cell::from(external_ip(obj, spec)),
            Cell::from(ports_text(spec.ports.as_deref().unwrap_or_default())),
            table::age(obj.metadata.creation_timestamp.as_ref(), now),
            cells::labels(spec.selector.as_ref()),
        ]
    }
}

fn type_of(obj: &Service) -> &str {
    obj.spec.as_ref().and_then(|s| s.type_.as_deref()).unwrap_or_default()
}

fn spec_type(spec: &ServiceSpec) -> &str {
    spec.type_.as_deref().unwrap_or_default()
}

fn set_spec_defaults(spec: &mut ServiceSpec) {
    set_if_empty(&mut spec.session_affinity, "None");
    match spec.session_affinity.as_deref() {
        Some("None") => spec.session_affinity_config = None,
        Some("ClientIP") => {
            let usable = spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref());
            if usable.and_then(|c| c.timeout_seconds).is_none() {
                let timeout = ClientIPConfig { timeout_seconds: Some(CLIENT_IP_TIMEOUT) };
                spec.session_affinity_config = Some(SessionAffinityConfig { client_ip: Some(timeout) });
            }
        }
        _ => {}
    }
    set_if_empty(&mut spec.type_, "ClusterIP");
    for port in spec.ports.iter_mut().flatten() {
        set_if_empty(&mut port.protocol, "TCP");
        let unset = match &port.target_port {
            None => true,
            Some(IntOrString::Int(number)) => *number == 0,
            Some(IntOrString::String(name)) => name.is_empty(),
        };
        if unset {
            port.target_port = Some(IntOrString::Int(port.port));
        }
        if port.node_port == Some(0) {
            port.node_port = None;
        }
        drop_empty(&mut port.name);
    }
    if is_externally_accessible(spec) {
        set_if_empty(&mut spec.external_traffic_policy, "Cluster");
    }
    if matches!(spec_type(spec), "NodePort" | "LoadBalancer" | "ClusterIP") {
        spec.internal_traffic_policy.get_or_insert_with(|| "Cluster".to_owned());
    }
    if spec_type(spec) == "LoadBalancer" {
        spec.allocate_load_balancer_node_ports.get_or_insert(true);
    }
    if spec.publish_not_ready_addresses == Some(false) {
        spec.publish_not_ready_addresses = None;
    }
    if spec.health_check_node_port == Some(0) {
        spec.health_check_node_port = None;
    }
    drop_empty(&mut spec.cluster_ip);
    drop_empty(&mut spec.external_name);
    drop_empty(&mut spec.external_traffic_policy);
}

/// Whether traffic from outside the cluster can reach the service by itself.
fn is_externally_accessible(spec: &ServiceSpec) -> bool {
    match spec_type(spec) {
        "LoadBalancer" | "NodePort" => true,
        "ClusterIP" => spec.external_ips.as_ref().is_some_and(|ips| !ips.is_empty()),
        _ => false,
    }
}

fn needs_cluster_ip(spec: &ServiceSpec) -> bool {
    spec_type(spec) != "ExternalName"
}

fn needs_node_ports(spec: &ServiceSpec) -> bool {
    match spec_type(spec) {
        "NodePort" => true,
        "LoadBalancer" => spec.allocate_load_balancer_node_ports != Some(false),
        _ => false,
    }
}

fn needs_health_check_port(spec: &ServiceSpec) -> bool {
    spec_type(spec) == "LoadBalancer" && spec.external_traffic_policy.as_deref() == Some("Local")
}

/// What the server allocated stays when an update leaves it out (upstream `patchAllocatedValues`).
fn keep_allocated(spec: &mut ServiceSpec, was: &ServiceSpec) {
    if needs_cluster_ip(was) && needs_cluster_ip(spec) {
        if spec.cluster_ip.is_none() && spec.cluster_ips.as_ref().is_none_or(Vec::is_empty) {
            spec.cluster_ip.clone_from(&was.cluster_ip);
        }
        if spec.cluster_ips.as_ref().is_none_or(Vec::is_empty) && spec.cluster_ip == was.cluster_ip {
            spec.cluster_ips.clone_from(&was.cluster_ips);
        }
        if spec.ip_families.as_ref().is_none_or(Vec::is_empty) {
            spec.ip_families.clone_from(&was.ip_families);
        }
        if spec.ip_family_policy.is_none() {
            spec.ip_family_policy.clone_from(&was.ip_family_policy);
        }
    }
    if needs_node_ports(was) && needs_node_ports(spec) {
        keep_node_ports(spec, was);
    }
    if needs_health_check_port(was) && needs_health_check_port(spec) && spec.health_check_node_port.is_none()
    {
        spec.health_check_node_port = was.health_check_node_port;
    }
}

fn keep_node_ports(spec: &mut ServiceSpec, was: &ServiceSpec) {
    let ports = spec.ports.as_deref().unwrap_or_default();
    let mut used: Vec<i32> = ports.iter().filter_map(|p| p.node_port).collect();
    for port in spec.ports.iter_mut().flatten().filter(|p| p.node_port.is_none()) {
        let same = was.ports.iter().flatten().find(|p| p.port == port.port && p.protocol == port.protocol);
        if let Some(node_port) = same.and_then(|p| p.node_port).filter(|n| !used.contains(n)) {
            port.node_port = Some(node_port);
            used.push(node_port);
        }
    }
}

/// Keeps `clusterIP` and `clusterIPs[0]` the same, whichever of them the client changed.
fn normalise_cluster_ips(spec: &mut ServiceSpec, was: Option<&ServiceSpec>) {
    let first = |spec: &ServiceSpec| spec.cluster_ips.as_ref().and_then(|ips| ips.first().cloned());
    let Some(was) = was else {
        if spec.cluster_ips.as_ref().is_none_or(Vec::is_empty)
            && let Some(ip) = spec.cluster_ip.clone()
        {
            spec.cluster_ips = Some(vec![ip]);
        }
        return;
    };
    let single_changed = spec.cluster_ip != was.cluster_ip;
    let list_changed = spec.cluster_ips != was.cluster_ips;
    if single_changed && !list_changed {
        match spec.cluster_ip.clone() {
            None => spec.cluster_ips = None,
            Some(ip) => match spec.cluster_ips.as_mut().and_then(|ips| ips.first_mut()) {
                Some(first) if ip != "None" => *first = ip,
                _ => spec.cluster_ips = Some(vec![ip]),
            },
        }
    } else if list_changed && !single_changed {
        spec.cluster_ip = first(spec);
    }
}

/// A change of type gives up what only the old type needed, unless the client also set it anew.
fn drop_type_dependent(spec: &mut ServiceSpec, was: &ServiceSpec) {
    if needs_cluster_ip(was) && !needs_cluster_ip(spec) {
        if spec.cluster_ips == was.cluster_ips {
            spec.cluster_ip = None;
            spec.cluster_ips = None;
        }
        if spec.ip_families == was.ip_families {
            spec.ip_families = None;
        }
        if spec.ip_family_policy == was.ip_family_policy {
            spec.ip_family_policy = None;
        }
    }
    if needs_node_ports(was) && spec_type(spec) != "NodePort" && spec_type(spec) != "LoadBalancer" {
        let old: Vec<_> = was.ports.iter().flatten().filter_map(|p| p.node_port).collect();
        for port in spec.ports.iter_mut().flatten() {
            if port.node_port.is_some_and(|n| old.contains(&n)) {
                port.node_port = None;
            }
        }
    }
    if needs_health_check_port(was)
        && !needs_health_check_port(spec)
        && spec.health_check_node_port == was.health_check_node_port
    {
        spec.health_check_node_port = None;
    }
    if !is_externally_accessible(spec) && spec.external_traffic_policy == was.external_traffic_policy {
        spec.external_traffic_policy = None;
    }
    if spec_type(was) == "LoadBalancer" && spec_type(spec) != "LoadBalancer" {
        if spec.allocate_load_balancer_node_ports == was.allocate_load_balancer_node_ports {
            spec.allocate_load_balancer_node_ports = None;
        }
        if spec.load_balancer_class == was.load_balancer_class {
            spec.load_balancer_class = None;
        }
    }
}

fn external_ip(obj: &Service, spec: &ServiceSpec) -> String {
    let given = spec.external_ips.as_deref().unwrap_or_default();
    match spec_type(spec) {
        "ClusterIP" | "NodePort" if given.is_empty() => cells::NONE.to_owned(),
        "ClusterIP" | "NodePort" => given.join(","),
        "LoadBalancer" => {
            let balancer = obj.status.as_ref().and_then(|s| s.load_balancer.as_ref());
            let ingress = balancer.and_then(|b| b.ingress.as_deref()).unwrap_or_default();
            let mut all: Vec<&str> = ingress.iter().filter_map(ingress_address).collect();
            all.extend(given.iter().map(String::as_str));
            if all.is_empty() { "<pending>".to_owned() } else { all.join(",") }
        }
        "ExternalName" => spec.external_name.clone().unwrap_or_default(),
        _ => cells::UNKNOWN.to_owned(),
    }
}

/// The address that a load balancer reports, an IP before a host name.
pub(crate) fn ingress_address(ingress: &LoadBalancerIngress) -> Option<&str> {
    let given = |value: &'_ Option<String>| value.as_ref().is_some_and(|v| !v.is_empty());
    if given(&ingress.ip) { ingress.ip.as_deref() } else { ingress.hostname.as_deref() }
}

fn ports_text(ports: &[ServicePort]) -> String {
    if ports.is_empty() {
        return cells::NONE.to_owned();
    }
    let text = |port: &ServicePort| {
        let protocol = port.protocol.as_deref().unwrap_or_default();
        match port.node_port {
            Some(node_port) if node_port > 0 => format!("{}:{node_port}/{protocol}", port.port),
            _ => format!("{}/{protocol}", port.port),
        }
    };
    ports.iter().map(text).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests;
