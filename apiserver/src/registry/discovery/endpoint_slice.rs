//! EndpointSlices (upstream `registry/discovery/endpointslice`).

use std::collections::BTreeSet;
use std::net::IpAddr;

use apimachinery::validation::names::{is_dns1123_label, is_dns1123_subdomain, is_qualified_name, parse_ip};
use apimachinery::validation::{Error, ErrorList, Path};
use jiff::Timestamp;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};

use crate::registry::core::endpoints::validate_endpoint_ip;
use crate::registry::object_meta::{immutable, set_generation};
use crate::registry::{ResourceInfo, Strategy, cells};
use crate::request::RequestContext;
use crate::table::{self, AGE, Cell, Column, NAME};

const MAX_ENDPOINTS: usize = 1000;
const MAX_PORTS: usize = 20_000;
const MAX_ADDRESSES: usize = 100;
/// How many ports and addresses the columns show.
const SHOWN: usize = 3;

/// The strategy of endpointslices.
#[derive(Debug)]
pub struct EndpointSliceStrategy;

impl Strategy for EndpointSliceStrategy {
    type Object = EndpointSlice;

    fn info(&self) -> ResourceInfo {
        ResourceInfo::new("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", "endpointslice", true)
    }

    fn default(&self, obj: &mut EndpointSlice) {
        for port in obj.ports.iter_mut().flatten() {
            port.name.get_or_insert_default();
            port.protocol.get_or_insert_with(|| "TCP".to_owned());
        }
    }

    fn prepare_for_create(&self, _ctx: &RequestContext, obj: &mut EndpointSlice) {
        obj.metadata.generation = Some(1);
    }

    fn validate(&self, obj: &EndpointSlice) -> ErrorList {
        let mut errors = ErrorList::new();
        let path = Path::new("addressType");
        let all = ["IPv4", "IPv6", "FQDN"];
        if obj.address_type.is_empty() {
            errors.push(Error::required(&path, ""));
        } else if !all.contains(&obj.address_type.as_str()) {
            errors.push(Error::not_supported(&path, &obj.address_type, &all));
        }
        validate_endpoints(obj.endpoints.as_deref().unwrap_or_default(), &obj.address_type, &mut errors);
        validate_ports(obj.ports.as_deref().unwrap_or_default(), &mut errors);
        errors
    }

    fn prepare_for_update(&self, _ctx: &RequestContext, new: &mut EndpointSlice, old: &EndpointSlice) {
        let changed = new.address_type != old.address_type
            || new.endpoints != old.endpoints
            || new.ports != old.ports
            || new.metadata.labels != old.metadata.labels;
        set_generation(&mut new.metadata, &old.metadata, changed);
    }

    fn validate_update(&self, new: &EndpointSlice, old: &EndpointSlice) -> ErrorList {
        let mut errors = self.validate(new);
        if new.address_type != old.address_type {
            errors.push(immutable(&new.address_type, &Path::new("addressType")));
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            Column::string("AddressType", "Kind of the addresses of all endpoints in the slice."),
            Column::string("Ports", "The first ports."),
            Column::string("Endpoints", "The first addresses."),
            AGE,
        ];
        COLUMNS
    }

    fn row(&self, obj: &EndpointSlice, now: Timestamp) -> Vec<Cell> {
        let ports = obj.ports.iter().flatten().map(|port| match (port.port, &port.name) {
            (Some(number), _) => number.to_string(),
            (None, Some(name)) => name.clone(),
            (None, None) => "*".to_owned(),
        });
        let addresses = obj.endpoints.iter().flatten().flat_map(|e| e.addresses.iter().cloned());
        vec![
            cells::name(&obj.metadata),
            Cell::from(obj.address_type.as_str()),
            Cell::from(list_with_more(ports)),
            Cell::from(list_with_more(addresses)),
            table::age(obj.metadata.creation_timestamp.as_ref(), now),
        ]
    }
}

fn list_with_more(items: impl Iterator<Item = String>) -> String {
    let mut items: Vec<String> = items.collect();
    let more = items.len().saturating_sub(SHOWN);
    items.truncate(SHOWN);
    let shown = items.join(",");
    match (shown.is_empty(), more) {
        (true, _) => cells::UNSET.to_owned(),
        (false, 0) => shown,
        (false, more) => format!("{shown} + {more} more..."),
    }
}

fn validate_endpoints(endpoints: &[Endpoint], address_type: &str, errors: &mut ErrorList) {
    let path = Path::new("endpoints");
    if endpoints.len() > MAX_ENDPOINTS {
        errors.push(Error::too_many(&path, endpoints.len(), MAX_ENDPOINTS));
        return;
    }
    for (i, endpoint) in endpoints.iter().enumerate() {
        let path = path.index(i);
        let addresses = path.child("addresses");
        if endpoint.addresses.is_empty() {
            errors.push(Error::required(&addresses, "must contain at least 1 address"));
        } else if endpoint.addresses.len() > MAX_ADDRESSES {
            errors.push(Error::too_many(&addresses, endpoint.addresses.len(), MAX_ADDRESSES));
        }
        for (i, address) in endpoint.addresses.iter().enumerate() {
            validate_address(address, address_type, &addresses.index(i), errors);
        }
        if let Some(hostname) = &endpoint.hostname {
            for problem in is_dns1123_label(hostname) {
                errors.push(Error::invalid(&path.child("hostname"), hostname, problem));
            }
        }
        if let Some(node) = &endpoint.node_name {
            for problem in is_dns1123_subdomain(node) {
                errors.push(Error::invalid(&path.child("nodeName"), node, problem));
            }
        }
    }
}

fn validate_address(address: &str, address_type: &str, path: &Path, errors: &mut ErrorList) {
    match address_type {
        "IPv4" | "IPv6" => {
            let of_family = match parse_ip(address) {
                Some(IpAddr::V4(_)) => address_type == "IPv4",
                Some(IpAddr::V6(_)) => address_type == "IPv6",
                None => false,
            };
            if of_family {
                validate_endpoint_ip(address, path, errors);
            } else {
                let detail = format!("must be a valid {address_type} address");
                errors.push(Error::invalid(path, address, detail));
            }
        }
        "FQDN" => {
            for problem in is_dns1123_subdomain(address) {
                errors.push(Error::invalid(path, address, problem));
            }
        }
        _ => {}
    }
}

fn validate_ports(ports: &[EndpointPort], errors: &mut ErrorList) {
    let path = Path::new("ports");
    if ports.len() > MAX_PORTS {
        errors.push(Error::too_many(&path, ports.len(), MAX_PORTS));
        return;
    }
    let mut names = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let path = path.index(i);
        let name = port.name.as_deref().unwrap_or_default();
        if !name.is_empty() {
            for problem in is_dns1123_label(name) {
                errors.push(Error::invalid(&path.child("name"), name, problem));
            }
        }
        if !names.insert(name) {
            errors.push(Error::duplicate(&path.child("name"), name));
        }
        let protocol = port.protocol.as_deref().unwrap_or_default();
        if !["TCP", "UDP", "SCTP"].contains(&protocol) {
            errors.push(Error::not_supported(&path.child("protocol"), protocol, &["SCTP", "TCP", "UDP"]));
        }
        if let Some(protocol) = &port.app_protocol {
            for problem in is_qualified_name(protocol) {
                errors.push(Error::invalid(&path.child("appProtocol"), protocol, problem));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn validation_and_row() {
        let mut obj: EndpointSlice = serde_json::from_value(json!({
            "metadata": {"name": "s"}, "addressType": "IPv4", "ports": [{"port": 80}],
            "endpoints": [{"addresses": ["10.0.0.1"]}, {"addresses": ["fd00::1"]}, {"addresses": []}]}))
        .unwrap();
        EndpointSliceStrategy.default(&mut obj);
        let texts: Vec<String> =
            EndpointSliceStrategy.validate(&obj).iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "endpoints[1].addresses[0]: Invalid value: \"fd00::1\": must be a valid IPv4 address",
                "endpoints[2].addresses: Required value: must contain at least 1 address",
            ]
        );
        let row = EndpointSliceStrategy.row(&obj, Timestamp::UNIX_EPOCH);
        assert_eq!(json!(row), json!(["s", "IPv4", "80", "10.0.0.1,fd00::1", "<unknown>"]));
        obj.endpoints = None;
        assert_eq!(EndpointSliceStrategy.row(&obj, Timestamp::UNIX_EPOCH)[3], json!("<unset>"));
    }
}
