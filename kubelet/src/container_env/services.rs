//! The variables that tell a container about services (`REDIS_SERVICE_HOST`, docker-link style `REDIS_PORT…`).
//! Upstream's concept: `pkg/kubelet/envvars`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, Service, ServicePort};

/// The apiserver's service lives here whatever the pod's namespace.
const MASTER_NAMESPACE: &str = "default";
const MASTER_SERVICE: &str = "kubernetes";

fn variable_name(name: &str) -> String {
    name.replace('-', "_").to_uppercase()
}

fn host_port(ip: &str, port: i32) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

fn cluster_ip(service: &Service) -> Option<&str> {
    let spec = service.spec.as_ref()?;
    // An ExternalName service has no address whatever the field says.
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "None")
}

fn add(variables: &mut BTreeMap<String, String>, service: &Service) {
    let Some(ip) = cluster_ip(service) else { return };
    let name = variable_name(service.metadata.name.as_deref().unwrap_or_default());
    let ports: &[ServicePort] = service.spec.as_ref().and_then(|s| s.ports.as_deref()).unwrap_or_default();
    let Some(first) = ports.first() else { return };
    variables.insert(format!("{name}_SERVICE_HOST"), ip.to_owned());
    variables.insert(format!("{name}_SERVICE_PORT"), first.port.to_string());
    for port in ports {
        if let Some(port_name) = port.name.as_deref().filter(|n| !n.is_empty()) {
            variables
                .insert(format!("{name}_SERVICE_PORT_{}", variable_name(port_name)), port.port.to_string());
        }
    }
    for (index, port) in ports.iter().enumerate() {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let url = format!("{}://{}", protocol.to_lowercase(), host_port(ip, port.port));
        if index == 0 {
            variables.insert(format!("{name}_PORT"), url.clone());
        }
        let prefix = format!("{name}_PORT_{}_{}", port.port, protocol.to_uppercase());
        variables.insert(format!("{prefix}_PROTO"), protocol.to_lowercase());
        variables.insert(format!("{prefix}_PORT"), port.port.to_string());
        variables.insert(format!("{prefix}_ADDR"), ip.to_owned());
        variables.insert(prefix, url);
    }
}

/// The service variables of a pod: those of its namespace unless it doesn't want them, and always the apiserver's.
pub fn variables<'a>(pod: &Pod, services: impl Iterator<Item = &'a Service>) -> BTreeMap<String, String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let links = pod.spec.as_ref().and_then(|s| s.enable_service_links).unwrap_or(true);
    let mut master = BTreeMap::new();
    let mut variables = BTreeMap::new();
    for service in services {
        let own = service.metadata.namespace.as_deref().unwrap_or_default();
        let name = service.metadata.name.as_deref().unwrap_or_default();
        if own == MASTER_NAMESPACE && name == MASTER_SERVICE {
            add(&mut master, service);
        } else if links && own == namespace {
            add(&mut variables, service);
        }
    }
    // A service called "kubernetes" in the pod's own namespace wins, as it does upstream.
    for (name, value) in master {
        variables.entry(name).or_insert(value);
    }
    variables
}
