//! Which node ports a Service needs, keeps and gives back.
//!
//! Upstream: `initNodePorts`, `updateNodePorts` and `initHealthCheckNodePort` in `registry/core/service/storage/alloc.go`.

use std::collections::{BTreeMap, BTreeSet};

use apimachinery::status::ApiError;
use apimachinery::validation::{Error, Path};
use k8s_openapi::api::core::v1::{Service, ServiceSpec};

use super::port_bitmap::{KEY, PortBitmap, Refused};
use super::service_type;
use crate::storage::Freshness;
use crate::store::{Store, api_error};

/// Why ports can't be assigned.
#[derive(Debug)]
pub(super) enum Failure {
    Invalid(Error),
    Full,
}

/// Reads the ports in use.
pub(super) async fn load(store: &Store, ports: (u16, u16)) -> Result<PortBitmap, ApiError> {
    let key = store.storage().key(KEY);
    let (stored, _) = store.storage().get(&key, Freshness::Consistent).await.map_err(api_error)?;
    PortBitmap::decode(ports, stored.as_ref().map(|stored| (stored.value.as_ref(), stored.revision)))
}

/// The node ports that a Service names, with its health check's.
pub(super) fn of(spec: Option<&ServiceSpec>) -> BTreeSet<i32> {
    let ports = spec.iter().flat_map(|spec| spec.ports.iter().flatten()).filter_map(|port| port.node_port);
    ports.chain(spec.and_then(|spec| spec.health_check_node_port)).filter(|port| *port != 0).collect()
}

fn allocates(spec: &ServiceSpec) -> bool {
    match service_type(Some(spec)) {
        "NodePort" => true,
        "LoadBalancer" => spec.allocate_load_balancer_node_ports != Some(false),
        _ => false,
    }
}

fn needs_health_check(spec: &ServiceSpec) -> bool {
    service_type(Some(spec)) == "LoadBalancer" && spec.external_traffic_policy.as_deref() == Some("Local")
}

/// Whether the Service needs a port that it does not name.
pub(super) fn wanting(spec: Option<&ServiceSpec>) -> bool {
    spec.is_some_and(|spec| {
        let unset = |port: Option<i32>| port.is_none_or(|port| port == 0);
        (allocates(spec) && spec.ports.iter().flatten().any(|port| unset(port.node_port)))
            || (needs_health_check(spec) && unset(spec.health_check_node_port))
    })
}

/// Takes what `service` needs beyond what it `held`, and gives back what it no longer names.
pub(super) fn assign(
    service: &mut Service,
    held: &BTreeSet<i32>,
    bitmap: &mut PortBitmap,
) -> Result<(), Failure> {
    let spec = service.spec.get_or_insert_default();
    let allocate = allocates(spec);
    let mut own: BTreeSet<i32> = BTreeSet::new();
    let mut take = |port: i32, bitmap: &mut PortBitmap| -> Result<(), Refused> {
        // Ports of the same number with other protocols share one node port.
        if own.insert(port) && !held.contains(&port) { bitmap.take(port) } else { Ok(()) }
    };
    let path = Path::new("spec").child("ports");
    let ports = spec.ports.get_or_insert_default();
    for (index, port) in ports.iter().enumerate() {
        if let Some(asked) = port.node_port.filter(|asked| *asked != 0) {
            take(asked, bitmap).map_err(|refused| {
                let path = path.index(index).child("nodePort");
                Failure::Invalid(Error::invalid(&path, asked, refused.to_string()))
            })?;
        }
    }
    if allocate {
        let asked = |number: i32, ports: &[k8s_openapi::api::core::v1::ServicePort]| {
            ports
                .iter()
                .find(|port| port.port == number)
                .and_then(|port| port.node_port)
                .filter(|port| *port != 0)
        };
        let mut by_port: BTreeMap<i32, i32> = BTreeMap::new();
        for port in ports.iter() {
            if let Some(node_port) = asked(port.port, ports).or(port.node_port).filter(|port| *port != 0) {
                by_port.entry(port.port).or_insert(node_port);
            }
        }
        for port in ports.iter_mut().filter(|port| port.node_port.is_none_or(|number| number == 0)) {
            let node_port = match by_port.get(&port.port) {
                Some(shared) => *shared,
                None => bitmap.take_any().ok_or(Failure::Full)?,
            };
            by_port.insert(port.port, node_port);
            own.insert(node_port);
            port.node_port = Some(node_port);
        }
    }
    if needs_health_check(spec) {
        match spec.health_check_node_port.filter(|port| *port != 0) {
            Some(asked) if held.contains(&asked) => {}
            Some(asked) => bitmap.take(asked).map_err(|refused| {
                let path = Path::new("spec").child("healthCheckNodePort");
                Failure::Invalid(Error::invalid(&path, asked, refused.to_string()))
            })?,
            None => spec.health_check_node_port = Some(bitmap.take_any().ok_or(Failure::Full)?),
        }
    }
    let now = of(service.spec.as_ref());
    held.difference(&now).for_each(|port| bitmap.release(*port));
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(spec: &Value) -> Service {
        serde_json::from_value(json!({"apiVersion": "v1", "kind": "Service", "metadata": {}, "spec": spec}))
            .unwrap()
    }

    fn bitmap(taken: &[i32]) -> PortBitmap {
        let mut bitmap = PortBitmap::decode((30000, 32767), None).unwrap();
        taken.iter().for_each(|port| bitmap.take(*port).unwrap());
        bitmap
    }

    fn ports(service: &Service) -> Vec<i32> {
        service
            .spec
            .iter()
            .flat_map(|s| s.ports.iter().flatten())
            .map(|p| p.node_port.unwrap_or_default())
            .collect()
    }

    #[test]
    fn only_the_types_that_need_ports_get_them() {
        let port = json!([{"port": 80, "protocol": "TCP"}]);
        for (spec, some) in [
            (json!({"type": "ClusterIP", "ports": port}), false),
            (json!({"type": "NodePort", "ports": port}), true),
            (json!({"type": "LoadBalancer", "ports": port}), true),
            (json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": port}), false),
        ] {
            let mut service = service(&spec);
            assign(&mut service, &BTreeSet::new(), &mut bitmap(&[])).unwrap();
            assert_eq!(ports(&service)[0] != 0, some, "{spec}");
            assert!(!wanting(service.spec.as_ref()));
        }
    }

    #[test]
    fn protocols_of_one_port_share_a_node_port() {
        let mut dns = service(&json!({"type": "NodePort", "ports": [
            {"name": "udp", "port": 53, "protocol": "UDP"},
            {"name": "tcp", "port": 53, "protocol": "TCP", "nodePort": 30053},
            {"name": "metrics", "port": 9153, "protocol": "TCP"},
        ]}));
        assign(&mut dns, &BTreeSet::new(), &mut bitmap(&[])).unwrap();
        let ports = ports(&dns);
        assert_eq!((ports[0], ports[1]), (30053, 30053));
        assert!(ports[2] != 30053 && ports[2] != 0);
    }

    #[test]
    fn taken_ports_are_refused_and_own_ones_kept() {
        let spec = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]});
        let Err(Failure::Invalid(error)) =
            assign(&mut service(&spec), &BTreeSet::new(), &mut bitmap(&[30080]))
        else {
            panic!("port was given twice")
        };
        let text = error.to_string();
        assert_eq!(text, "spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated");
        let held = BTreeSet::from([30080]);
        let mut own = bitmap(&[30080]);
        assign(&mut service(&spec), &held, &mut own).unwrap();
        assert_eq!(own.take(30080), Err(Refused::Taken));
    }

    #[test]
    fn what_is_no_longer_named_is_given_back() {
        let mut bitmap = bitmap(&[30080, 30081]);
        let held = BTreeSet::from([30080, 30081]);
        let mut one = service(&json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]}));
        assign(&mut one, &held, &mut bitmap).unwrap();
        assert_eq!((bitmap.take(30080), bitmap.take(30081)), (Err(Refused::Taken), Ok(())));
    }

    #[test]
    fn a_local_load_balancer_gets_a_health_check_port() {
        let spec = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "ports": [{"port": 80}]});
        let mut service = service(&spec);
        assign(&mut service, &BTreeSet::new(), &mut bitmap(&[])).unwrap();
        assert_eq!(of(service.spec.as_ref()).len(), 2);
    }
}
