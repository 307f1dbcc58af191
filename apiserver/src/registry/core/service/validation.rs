//! Validation of services (upstream `ValidateService` and `ValidateServiceUpdate`).

use std::collections::BTreeSet;

use apimachinery::validation::names::{
    is_dns1123_label, is_dns1123_subdomain, is_qualified_name, is_valid_ip, is_valid_port_name,
    is_valid_port_num,
};
use apimachinery::validation::{Error, ErrorList, Path};
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{is_externally_accessible, needs_health_check_port, spec_type};
use crate::registry::core::endpoints::validate_endpoint_ip;
use crate::registry::object_meta::validate_labels;

const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const KUBELET_PORT: i32 = 10250;
const MAX_CLIENT_IP_TIMEOUT: i32 = 86400;

pub(super) fn validate(obj: &Service) -> ErrorList {
    let mut errors = ErrorList::new();
    let none = ServiceSpec::default();
    let spec = obj.spec.as_ref().unwrap_or(&none);
    let path = Path::new("spec");
    let headless = spec.cluster_ips.iter().flatten().next().is_some_and(|ip| ip == "None");
    validate_type(spec, headless, &path, &mut errors);
    validate_ports(spec, &path.child("ports"), &mut errors);
    validate_labels(spec.selector.as_ref(), &path.child("selector"), &mut errors);
    validate_affinity(spec, &path, &mut errors);
    validate_addresses(spec, &path, &mut errors);
    validate_traffic(spec, &path, &mut errors);
    errors
}

fn validate_type(spec: &ServiceSpec, headless: bool, path: &Path, errors: &mut ErrorList) {
    let type_ = spec_type(spec);
    let ports = spec.ports.as_deref().unwrap_or_default();
    if ports.is_empty() && !headless && type_ != "ExternalName" {
        errors.push(Error::required(&path.child("ports"), ""));
    }
    let cluster_ips = path.child("clusterIPs");
    match type_ {
        "LoadBalancer" => {
            for (i, _) in ports.iter().enumerate().filter(|(_, p)| p.port == KUBELET_PORT) {
                let detail = "may not expose port 10250 externally since it is used by kubelet";
                errors.push(Error::invalid(&path.child("ports").index(i), KUBELET_PORT, detail));
            }
            if headless {
                let detail = "may not be set to 'None' for LoadBalancer services";
                errors.push(Error::invalid(&cluster_ips.index(0), "None", detail));
            }
        }
        "NodePort" if headless => {
            let detail = "may not be set to 'None' for NodePort services";
            errors.push(Error::invalid(&cluster_ips.index(0), "None", detail));
        }
        "ExternalName" => validate_external_name(spec, path, errors),
        "" => errors.push(Error::required(&path.child("type"), "")),
        _ if !TYPES.contains(&type_) => {
            errors.push(Error::not_supported(&path.child("type"), type_, TYPES));
        }
        _ => {}
    }
}

fn validate_external_name(spec: &ServiceSpec, path: &Path, errors: &mut ErrorList) {
    let detail = "may not be set for ExternalName services";
    if spec.cluster_ips.as_ref().is_some_and(|ips| !ips.is_empty()) {
        errors.push(Error::forbidden(&path.child("clusterIPs"), detail));
    }
    if spec.ip_families.as_ref().is_some_and(|f| !f.is_empty()) {
        errors.push(Error::forbidden(&path.child("ipFamilies"), detail));
    }
    if spec.ip_family_policy.is_some() {
        errors.push(Error::forbidden(&path.child("ipFamilyPolicy"), detail));
    }
    let name = spec.external_name.as_deref().unwrap_or_default();
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() {
        errors.push(Error::required(&path.child("externalName"), ""));
    } else {
        for problem in is_dns1123_subdomain(name) {
            errors.push(Error::invalid(&path.child("externalName"), name, problem));
        }
    }
}

fn validate_ports(spec: &ServiceSpec, path: &Path, errors: &mut ErrorList) {
    let ports = spec.ports.as_deref().unwrap_or_default();
    let mut names = BTreeSet::new();
    let mut numbers = BTreeSet::new();
    let mut node_ports = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let path = path.index(i);
        validate_port(port, ports.len() > 1, &mut names, &path, errors);
        let protocol = port.protocol.as_deref().unwrap_or_default();
        if !numbers.insert((protocol, port.port)) {
            errors.push(Error::duplicate(&path, serde_json::to_value(port).unwrap_or_default()));
        }
        let Some(node_port) = port.node_port.filter(|n| *n != 0) else { continue };
        if spec_type(spec) == "ClusterIP" {
            let detail = "may not be used when `type` is 'ClusterIP'";
            errors.push(Error::forbidden(&path.child("nodePort"), detail));
        }
        if !node_ports.insert((protocol, node_port)) {
            errors.push(Error::duplicate(&path.child("nodePort"), node_port));
        }
    }
}

fn validate_port<'a>(
    port: &'a ServicePort,
    need_name: bool,
    names: &mut BTreeSet<&'a str>,
    path: &Path,
    errors: &mut ErrorList,
) {
    match port.name.as_deref().unwrap_or_default() {
        "" if need_name => errors.push(Error::required(&path.child("name"), "")),
        "" => {}
        name => {
            for problem in is_dns1123_label(name) {
                errors.push(Error::invalid(&path.child("name"), name, problem));
            }
            if !names.insert(name) {
                errors.push(Error::duplicate(&path.child("name"), name));
            }
        }
    }
    for problem in is_valid_port_num(port.port) {
        errors.push(Error::invalid(&path.child("port"), port.port, problem));
    }
    validate_protocol(port.protocol.as_deref(), &path.child("protocol"), errors);
    if let Some(target) = &port.target_port {
        validate_port_num_or_name(target, &path.child("targetPort"), errors);
    }
    if let Some(protocol) = &port.app_protocol {
        for problem in is_qualified_name(protocol) {
            errors.push(Error::invalid(&path.child("appProtocol"), protocol, problem));
        }
    }
}

/// TCP, UDP or SCTP.
pub(crate) fn validate_protocol(protocol: Option<&str>, path: &Path, errors: &mut ErrorList) {
    match protocol.unwrap_or_default() {
        "" => errors.push(Error::required(path, "")),
        "TCP" | "UDP" | "SCTP" => {}
        other => errors.push(Error::not_supported(path, other, &["SCTP", "TCP", "UDP"])),
    }
}

/// A port number, or the name of a container's port.
pub(crate) fn validate_port_num_or_name(port: &IntOrString, path: &Path, errors: &mut ErrorList) {
    match port {
        IntOrString::Int(number) => {
            for problem in is_valid_port_num(*number) {
                errors.push(Error::invalid(path, *number, problem));
            }
        }
        IntOrString::String(name) => {
            for problem in is_valid_port_name(name) {
                errors.push(Error::invalid(path, name, problem));
            }
        }
    }
}

fn validate_affinity(spec: &ServiceSpec, path: &Path, errors: &mut ErrorList) {
    let path_affinity = path.child("sessionAffinity");
    let config_path = path.child("sessionAffinityConfig");
    match spec.session_affinity.as_deref().unwrap_or_default() {
        "" => errors.push(Error::required(&path_affinity, "")),
        "ClientIP" => {
            let config = spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref());
            let timeout = config.and_then(|c| c.timeout_seconds).unwrap_or(0);
            if !(1..=MAX_CLIENT_IP_TIMEOUT).contains(&timeout) {
                let detail = format!("must be greater than 0 and less than {MAX_CLIENT_IP_TIMEOUT}");
                let path = config_path.child("clientIP").child("timeoutSeconds");
                errors.push(Error::invalid(&path, timeout, detail));
            }
        }
        "None" => {
            if spec.session_affinity_config.is_some() {
                let detail = "must not be set when session affinity is None";
                errors.push(Error::forbidden(&config_path, detail));
            }
        }
        other => errors.push(Error::not_supported(&path_affinity, other, &["ClientIP", "None"])),
    }
}

fn validate_addresses(spec: &ServiceSpec, path: &Path, errors: &mut ErrorList) {
    let ips = spec.cluster_ips.as_deref().unwrap_or_default();
    let ips_path = path.child("clusterIPs");
    if let (Some(single), Some(first)) = (&spec.cluster_ip, ips.first())
        && single != first
    {
        errors.push(Error::invalid(&ips_path.index(0), first, "first value must match `clusterIP`"));
    }
    for (i, ip) in ips.iter().enumerate() {
        if ip == "None" {
            if ips.len() > 1 {
                errors.push(Error::invalid(&ips_path, ip, "'None' must be the first and only value"));
            }
            continue;
        }
        for problem in is_valid_ip(ip) {
            errors.push(Error::invalid(&ips_path.index(i), ip, problem));
        }
    }
    if ips.len() > 2 {
        let detail = "may only hold up to 2 values";
        errors.push(Error::invalid(&ips_path, serde_json::json!(ips), detail));
    }
    for (i, family) in spec.ip_families.iter().flatten().enumerate() {
        if !["IPv4", "IPv6"].contains(&family.as_str()) {
            let path = path.child("ipFamilies").index(i);
            errors.push(Error::not_supported(&path, family, &["IPv4", "IPv6"]));
        }
    }
    if let Some(policy) = &spec.ip_family_policy {
        let all = ["SingleStack", "PreferDualStack", "RequireDualStack"];
        if !all.contains(&policy.as_str()) {
            errors.push(Error::not_supported(&path.child("ipFamilyPolicy"), policy, &all));
        }
    }
    for (i, ip) in spec.external_ips.iter().flatten().enumerate() {
        validate_endpoint_ip(ip, &path.child("externalIPs").index(i), errors);
    }
}

fn validate_traffic(spec: &ServiceSpec, path: &Path, errors: &mut ErrorList) {
    let policies = ["Cluster", "Local"];
    let external_path = path.child("externalTrafficPolicy");
    match spec.external_traffic_policy.as_deref() {
        None if is_externally_accessible(spec) => errors.push(Error::required(&external_path, "")),
        None => {}
        Some(policy) if !is_externally_accessible(spec) => {
            let detail = "may only be set for externally-accessible services";
            errors.push(Error::invalid(&external_path, policy, detail));
        }
        Some(policy) if !policies.contains(&policy) => {
            errors.push(Error::not_supported(&external_path, policy, &policies));
        }
        Some(_) => {}
    }
    if let Some(policy) = spec.internal_traffic_policy.as_deref()
        && !policies.contains(&policy)
    {
        errors.push(Error::not_supported(&path.child("internalTrafficPolicy"), policy, &policies));
    }
    if let Some(port) = spec.health_check_node_port
        && port != 0
        && !needs_health_check_port(spec)
    {
        let detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        errors.push(Error::invalid(&path.child("healthCheckNodePort"), port, detail));
    }
    if spec_type(spec) != "LoadBalancer" {
        if spec.allocate_load_balancer_node_ports.is_some() {
            let path = path.child("allocateLoadBalancerNodePorts");
            errors.push(Error::forbidden(&path, "may only be used when `type` is 'LoadBalancer'"));
        }
        if spec.load_balancer_class.is_some() {
            let path = path.child("loadBalancerClass");
            errors.push(Error::forbidden(&path, "may only be used when `type` is 'LoadBalancer'"));
        }
    }
    if let Some(distribution) = spec.traffic_distribution.as_deref() {
        let all = ["PreferClose", "PreferSameNode", "PreferSameZone"];
        if !all.contains(&distribution) {
            errors.push(Error::not_supported(&path.child("trafficDistribution"), distribution, &all));
        }
    }
}

pub(super) fn validate_update(new: &Service, old: &Service) -> ErrorList {
    let mut errors = ErrorList::new();
    let none = ServiceSpec::default();
    let (spec, was) = (new.spec.as_ref().unwrap_or(&none), old.spec.as_ref().unwrap_or(&none));
    let path = Path::new("spec").child("clusterIPs").index(0);
    let first = |spec: &'_ ServiceSpec| spec.cluster_ips.iter().flatten().next().cloned();
    let stays = |spec: &ServiceSpec| spec_type(spec) != "ExternalName";
    if stays(spec)
        && stays(was)
        && let Some(before) = first(was)
    {
        match first(spec) {
            None => {
                let detail = "primary clusterIP can not be unset";
                errors.push(Error::invalid(&path, serde_json::json!(spec.cluster_ips), detail));
            }
            Some(now) if now != before => {
                let detail = "may not change once set";
                errors.push(Error::invalid(&path, serde_json::json!(spec.cluster_ips), detail));
            }
            Some(_) => {}
        }
    }
    errors.extend(validate(new));
    errors
}
