//! Validation of pods and pod specs (upstream `ValidatePodSpec`); the parts are in the files beside.

use apimachinery::validation::names::{is_dns1123_label, is_dns1123_subdomain, is_qualified_name, parse_ip};
use apimachinery::validation::{Error, ErrorList, Path};
use k8s_openapi::api::core::v1::{Pod, PodDNSConfig, PodSpec};

use crate::registry::object_meta::validate_labels;

mod containers;
mod env;
mod probes;
pub(crate) mod resources;
pub(crate) mod scheduling;
mod security;
pub(crate) mod update;
mod volumes;

const MAX_DNS_NAMESERVERS: usize = 3;
const MAX_DNS_SEARCH_PATHS: usize = 32;
const MAX_DNS_SEARCH_CHARS: usize = 2048;

/// A new pod.
pub(crate) fn validate_pod(pod: &Pod) -> ErrorList {
    let mut errors = ErrorList::new();
    let path = Path::new("spec");
    let none = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&none);
    validate_pod_spec(spec, &path, &mut errors);
    if spec.ephemeral_containers.as_ref().is_some_and(|e| !e.is_empty()) {
        let detail = "cannot be set on create";
        errors.push(Error::forbidden(&path.child("ephemeralContainers"), detail));
    }
    let gated = spec.scheduling_gates.as_ref().is_some_and(|g| !g.is_empty());
    if gated && spec.node_name.as_ref().is_some_and(|n| !n.is_empty()) {
        let detail = "cannot be set until all schedulingGates have been cleared";
        errors.push(Error::forbidden(&path.child("nodeName"), detail));
    }
    errors
}

/// The spec of a pod or of a template.
pub(crate) fn validate_pod_spec(spec: &PodSpec, path: &Path, errors: &mut ErrorList) {
    let volumes = volumes::validate_volumes(
        spec.volumes.as_deref().unwrap_or_default(),
        &path.child("volumes"),
        errors,
    );
    containers::validate_all(spec, &volumes, path, errors);
    validate_policies(spec, path, errors);
    validate_labels(spec.node_selector.as_ref(), &path.child("nodeSelector"), errors);
    security::validate_pod_context(spec, path, errors);
    for (i, secret) in spec.image_pull_secrets.iter().flatten().enumerate() {
        if secret.name.is_empty() {
            errors.push(Error::required(&path.child("imagePullSecrets").index(i).child("name"), ""));
        }
    }
    if let Some(affinity) = &spec.affinity {
        scheduling::validate_affinity(affinity, &path.child("affinity"), errors);
    }
    validate_dns_config(spec, path, errors);
    validate_gates(spec, path, errors);
    scheduling::validate_topology_spread(spec, &path.child("topologySpreadConstraints"), errors);
    validate_names(spec, path, errors);
    if let Some(seconds) = spec.active_deadline_seconds
        && !(1..=i64::from(i32::MAX)).contains(&seconds)
    {
        let detail = "must be between 1 and 2147483647, inclusive";
        errors.push(Error::invalid(&path.child("activeDeadlineSeconds"), seconds, detail));
    }
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    scheduling::validate_tolerations(tolerations, &path.child("tolerations"), errors);
    validate_host_aliases(spec, path, errors);
    if let Some(overhead) = &spec.overhead {
        resources::validate_list(overhead, &path.child("overhead"), errors);
    }
    if let Some(pod_level) = &spec.resources {
        resources::validate_pod_level(pod_level, &path.child("resources"), errors);
    }
}

fn validate_policies(spec: &PodSpec, path: &Path, errors: &mut ErrorList) {
    let mut one_of = |field: &str, value: Option<&str>, all: &[&str]| match value.unwrap_or_default() {
        "" => errors.push(Error::required(&path.child(field), "")),
        value if !all.contains(&value) => errors.push(Error::not_supported(&path.child(field), value, all)),
        _ => {}
    };
    one_of("restartPolicy", spec.restart_policy.as_deref(), &["Always", "OnFailure", "Never"]);
    one_of(
        "dnsPolicy",
        spec.dns_policy.as_deref(),
        &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"],
    );
    if spec.preemption_policy.is_some() {
        let policies = ["Never", "PreemptLowerPriority"];
        one_of("preemptionPolicy", spec.preemption_policy.as_deref(), &policies);
    }
    if let Some(os) = &spec.os {
        let path = path.child("os").child("name");
        match os.name.as_str() {
            "" => errors.push(Error::required(&path, "cannot be empty")),
            "linux" | "windows" => {}
            other => errors.push(Error::not_supported(&path, other, &["linux", "windows"])),
        }
    }
}

fn validate_names(spec: &PodSpec, path: &Path, errors: &mut ErrorList) {
    type Check = fn(&str) -> Vec<String>;
    let subdomain: Check = is_dns1123_subdomain;
    let label: Check = is_dns1123_label;
    for (field, value, check) in [
        ("serviceAccountName", spec.service_account_name.as_deref(), subdomain),
        ("nodeName", spec.node_name.as_deref(), subdomain),
        ("hostname", spec.hostname.as_deref(), label),
        ("subdomain", spec.subdomain.as_deref(), label),
        ("priorityClassName", spec.priority_class_name.as_deref(), subdomain),
        ("runtimeClassName", spec.runtime_class_name.as_deref(), subdomain),
    ] {
        let Some(value) = value.filter(|v| !v.is_empty()) else { continue };
        for problem in check(value) {
            errors.push(Error::invalid(&path.child(field), value, problem));
        }
    }
    for problem in is_qualified_name(spec.scheduler_name.as_deref().unwrap_or("default-scheduler")) {
        let path = path.child("schedulerName");
        errors.push(Error::invalid(&path, spec.scheduler_name.as_deref().unwrap_or_default(), problem));
    }
}

fn validate_gates(spec: &PodSpec, path: &Path, errors: &mut ErrorList) {
    for (i, gate) in spec.readiness_gates.iter().flatten().enumerate() {
        for problem in is_qualified_name(&gate.condition_type) {
            let path = path.child("readinessGates").index(i).child("conditionType");
            errors.push(Error::invalid(&path, &gate.condition_type, problem));
        }
    }
    let path = path.child("schedulingGates");
    let mut seen = std::collections::BTreeSet::new();
    for (i, gate) in spec.scheduling_gates.iter().flatten().enumerate() {
        for problem in is_qualified_name(&gate.name) {
            errors.push(Error::invalid(&path.index(i), &gate.name, problem));
        }
        if !seen.insert(&gate.name) {
            errors.push(Error::duplicate(&path.index(i), &gate.name));
        }
    }
}

fn validate_dns_config(spec: &PodSpec, path: &Path, errors: &mut ErrorList) {
    let none = PodDNSConfig::default();
    let path = path.child("dnsConfig");
    if spec.dns_config.is_none() && spec.dns_policy.as_deref() == Some("None") {
        let detail = "must provide `dnsConfig` when `dnsPolicy` is None";
        errors.push(Error::required(&path, detail));
        return;
    }
    let config = spec.dns_config.as_ref().unwrap_or(&none);
    let servers = config.nameservers.as_deref().unwrap_or_default();
    let servers_path = path.child("nameservers");
    if spec.dns_policy.as_deref() == Some("None") && servers.is_empty() {
        let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
        errors.push(Error::required(&servers_path, detail));
    }
    if servers.len() > MAX_DNS_NAMESERVERS {
        let detail = format!("must not have more than {MAX_DNS_NAMESERVERS} nameservers");
        errors.push(Error::invalid(&servers_path, serde_json::json!(servers), detail));
    }
    for (i, server) in servers.iter().enumerate() {
        if parse_ip(server).is_none() {
            let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
            errors.push(Error::invalid(&servers_path.index(i), server, detail));
        }
    }
    let searches = config.searches.as_deref().unwrap_or_default();
    let searches_path = path.child("searches");
    if searches.len() > MAX_DNS_SEARCH_PATHS {
        let detail = format!("must not have more than {MAX_DNS_SEARCH_PATHS} search paths");
        errors.push(Error::invalid(&searches_path, serde_json::json!(searches), detail));
    }
    if searches.join(" ").len() > MAX_DNS_SEARCH_CHARS {
        let detail = format!(
            "must not have more than {MAX_DNS_SEARCH_CHARS} characters (including spaces) in the search list"
        );
        errors.push(Error::invalid(&searches_path, serde_json::json!(searches), detail));
    }
    for (i, option) in config.options.iter().flatten().enumerate() {
        if option.name.as_deref().unwrap_or_default().is_empty() {
            errors.push(Error::required(&path.child("options").index(i), "must not be empty"));
        }
    }
}

fn validate_host_aliases(spec: &PodSpec, path: &Path, errors: &mut ErrorList) {
    for (i, alias) in spec.host_aliases.iter().flatten().enumerate() {
        let path = path.child("hostAliases").index(i);
        if parse_ip(&alias.ip).is_none() {
            let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
            errors.push(Error::invalid(&path.child("ip"), &alias.ip, detail));
        }
        for (i, hostname) in alias.hostnames.iter().flatten().enumerate() {
            for problem in is_dns1123_subdomain(hostname) {
                errors.push(Error::invalid(&path.child("hostnames").index(i), hostname, problem));
            }
        }
    }
}

#[cfg(test)]
mod tests;
