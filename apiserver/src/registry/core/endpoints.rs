//! Endpoints (upstream `registry/core/endpoint`).

use std::net::IpAddr;

use apimachinery::validation::names::{is_dns1123_label, is_valid_port_num, parse_ip};
use apimachinery::validation::{Error, ErrorList, Path};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints};

use super::pod::defaults::set_if_empty;
use crate::registry::{ResourceInfo, Strategy, cells};
use crate::table::{self, AGE, Cell, Column, NAME};

/// How many addresses the column shows.
const SHOWN: usize = 3;

/// The strategy of endpoints.
#[derive(Debug)]
pub struct EndpointsStrategy;

impl Strategy for EndpointsStrategy {
    type Object = Endpoints;

    fn info(&self) -> ResourceInfo {
        ResourceInfo {
            short_names: &["ep"],
            storage_prefix: "services/endpoints",
            ..ResourceInfo::new("", "v1", "Endpoints", "endpoints", "endpoints", true)
        }
    }

    fn default(&self, obj: &mut Endpoints) {
        for subset in obj.subsets.iter_mut().flatten() {
            for port in subset.ports.iter_mut().flatten() {
                set_if_empty(&mut port.protocol, "TCP");
            }
        }
    }

    fn validate(&self, obj: &Endpoints) -> ErrorList {
        let mut errors = ErrorList::new();
        for (i, subset) in obj.subsets.iter().flatten().enumerate() {
            validate_subset(subset, &Path::new("subsets").index(i), &mut errors);
        }
        errors
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[NAME, Column::string("Endpoints", "The first ready addresses."), AGE];
        COLUMNS
    }

    fn row(&self, obj: &Endpoints, now: Timestamp) -> Vec<Cell> {
        vec![
            cells::name(&obj.metadata),
            Cell::from(endpoints_text(obj.subsets.as_deref().unwrap_or_default())),
            table::age(obj.metadata.creation_timestamp.as_ref(), now),
        ]
    }
}

fn endpoints_text(subsets: &[EndpointSubset]) -> String {
    if subsets.is_empty() {
        return cells::NONE.to_owned();
    }
    let mut all = Vec::new();
    for subset in subsets {
        let addresses = subset.addresses.as_deref().unwrap_or_default();
        let ports = subset.ports.as_deref().unwrap_or_default();
        if ports.is_empty() {
            all.extend(addresses.iter().map(|a| a.ip.clone()));
        }
        for port in ports {
            all.extend(addresses.iter().map(|a| join_host_port(&a.ip, port.port)));
        }
    }
    let more = all.len().saturating_sub(SHOWN);
    all.truncate(SHOWN);
    let shown = all.join(",");
    if more > 0 { format!("{shown} + {more} more...") } else { shown }
}

fn join_host_port(host: &str, port: i32) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn validate_subset(subset: &EndpointSubset, path: &Path, errors: &mut ErrorList) {
    let ready = subset.addresses.as_deref().unwrap_or_default();
    let not_ready = subset.not_ready_addresses.as_deref().unwrap_or_default();
    if ready.is_empty() && not_ready.is_empty() {
        errors.push(Error::required(path, "must specify `addresses` or `notReadyAddresses`"));
    }
    for (name, addresses) in [("addresses", ready), ("notReadyAddresses", not_ready)] {
        for (i, address) in addresses.iter().enumerate() {
            validate_address(address, &path.child(name).index(i), errors);
        }
    }
    let ports = subset.ports.as_deref().unwrap_or_default();
    for (i, port) in ports.iter().enumerate() {
        validate_port(port, ports.len() > 1, &path.child("ports").index(i), errors);
    }
}

fn validate_address(address: &EndpointAddress, path: &Path, errors: &mut ErrorList) {
    validate_endpoint_ip(&address.ip, &path.child("ip"), errors);
    if let Some(hostname) = address.hostname.as_deref().filter(|h| !h.is_empty()) {
        for problem in is_dns1123_label(hostname) {
            errors.push(Error::invalid(&path.child("hostname"), hostname, problem));
        }
    }
    if let Some(node) = &address.node_name {
        for problem in apimachinery::validation::names::is_dns1123_subdomain(node) {
            errors.push(Error::invalid(&path.child("nodeName"), node, problem));
        }
    }
}

/// An endpoint must be a unicast address that traffic of others can be sent to.
pub(crate) fn validate_endpoint_ip(ip: &str, path: &Path, errors: &mut ErrorList) {
    let Some(parsed) = parse_ip(ip) else {
        let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
        errors.push(Error::invalid(path, ip, detail));
        return;
    };
    let link_local = match parsed {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => (v6.segments()[0] & 0xffc0) == 0xfe80,
    };
    let link_local_multicast = match parsed {
        IpAddr::V4(v4) => v4.octets()[..3] == [224, 0, 0],
        IpAddr::V6(v6) => (v6.segments()[0] & 0xff0f) == 0xff02,
    };
    if parsed.is_unspecified() {
        errors.push(Error::invalid(path, ip, format!("may not be unspecified ({ip})")));
    }
    if parsed.is_loopback() {
        errors.push(Error::invalid(path, ip, "may not be in the loopback range (127.0.0.0/8, ::1/128)"));
    }
    if link_local {
        let detail = "may not be in the link-local range (169.254.0.0/16, fe80::/10)";
        errors.push(Error::invalid(path, ip, detail));
    }
    if link_local_multicast {
        let detail = "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)";
        errors.push(Error::invalid(path, ip, detail));
    }
}

fn validate_port(port: &EndpointPort, need_name: bool, path: &Path, errors: &mut ErrorList) {
    match port.name.as_deref().unwrap_or_default() {
        "" if need_name => errors.push(Error::required(&path.child("name"), "")),
        "" => {}
        name => {
            for problem in is_dns1123_label(name) {
                errors.push(Error::invalid(&path.child("name"), name, problem));
            }
        }
    }
    for problem in is_valid_port_num(port.port) {
        errors.push(Error::invalid(&path.child("port"), port.port, problem));
    }
    let protocol = port.protocol.as_deref().unwrap_or_default();
    if protocol.is_empty() {
        errors.push(Error::required(&path.child("protocol"), ""));
    } else if !["TCP", "UDP", "SCTP"].contains(&protocol) {
        errors.push(Error::not_supported(&path.child("protocol"), protocol, &["SCTP", "TCP", "UDP"]));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_column_shows_three() {
        let subsets = |count: usize, port: bool| -> Vec<EndpointSubset> {
            let addresses: Vec<_> = (1..=count).map(|i| json!({"ip": format!("10.0.0.{i}")})).collect();
            let ports = if port { json!([{"port": 80}]) } else { json!([]) };
            serde_json::from_value(json!([{"addresses": addresses, "ports": ports}])).unwrap()
        };
        assert_eq!(endpoints_text(&[]), "<none>");
        assert_eq!(endpoints_text(&subsets(1, false)), "10.0.0.1");
        assert_eq!(endpoints_text(&subsets(2, true)), "10.0.0.1:80,10.0.0.2:80");
        assert_eq!(endpoints_text(&subsets(5, true)), "10.0.0.1:80,10.0.0.2:80,10.0.0.3:80 + 2 more...");
    }

    #[test]
    fn addresses_are_unicast() {
        for (ip, problems) in [("10.0.0.1", 0), ("127.0.0.1", 1), ("169.254.1.1", 1), ("x", 1), ("::", 1)] {
            let mut errors = ErrorList::new();
            validate_endpoint_ip(ip, &Path::new("ip"), &mut errors);
            assert_eq!(errors.len(), problems, "{ip}: {errors:?}");
        }
    }
}
