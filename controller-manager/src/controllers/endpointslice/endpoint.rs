//! One pod as an endpoint of a Service. Pure. Upstream: `podToEndpoint` and trafficdist.

use apimachinery::{meta, pod};
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, ForNode, ForZone,
};

use super::ZONE;
use crate::services;

/// The pod as an endpoint; none when it has no address of the family.
pub(super) fn endpoint(
    service: &Service,
    pod: &Pod,
    node: Option<&Node>,
    address_type: &str,
) -> Option<Endpoint> {
    let ipv6 = address_type == "IPv6";
    let addresses: Vec<String> =
        services::pod_ips(pod).into_iter().filter(|ip| ip.contains(':') == ipv6).map(str::to_owned).collect();
    if addresses.is_empty() {
        return None;
    }
    let serving = pod::is_ready(pod);
    let terminating = pod.metadata.deletion_timestamp.is_some();
    let ready = services::publishes_not_ready(service) || (serving && !terminating);
    let zone = node.and_then(|node| meta::label(&node.metadata, ZONE)).map(str::to_owned);
    let node_name = Some(pod::node_name(pod).to_owned()).filter(|name| !name.is_empty());
    Some(Endpoint {
        addresses,
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hints: if ready { hints(service, zone.as_deref(), node_name.as_deref()) } else { None },
        hostname: services::hostname(pod, service),
        target_ref: Some(services::target_ref(pod)),
        node_name,
        zone,
        ..Endpoint::default()
    })
}

/// Where the endpoint is to be used from, by the Service's trafficDistribution.
fn hints(service: &Service, zone: Option<&str>, node: Option<&str>) -> Option<EndpointHints> {
    let distribution = service.spec.as_ref()?.traffic_distribution.as_deref()?;
    let for_zones = zone.map(|zone| vec![ForZone { name: zone.to_owned() }]);
    match distribution {
        "PreferClose" | "PreferSameZone" => {
            for_zones.map(|for_zones| EndpointHints { for_zones: Some(for_zones), for_nodes: None })
        }
        "PreferSameNode" => {
            let for_nodes = node.map(|node| vec![ForNode { name: node.to_owned() }]);
            for_nodes.map(|for_nodes| EndpointHints { for_zones, for_nodes: Some(for_nodes) })
        }
        _ => None,
    }
}

/// The ports on which the pod serves the Service, in the Service's order.
pub(super) fn ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    services::ports(service)
        .iter()
        .filter_map(|port| {
            Some(EndpointPort {
                name: Some(port.name.clone().unwrap_or_default()),
                port: Some(services::target_port(pod, port)?),
                protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
                app_protocol: port.app_protocol.clone(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

    use super::*;
    use crate::testing::{at, node, pod, service};

    fn web() -> Service {
        service("web", &[("http", 80, IntOrString::Int(8080))])
    }

    #[test]
    fn conditions() {
        let up = || pod("p").ip("10.0.0.1").on("n");
        for (pod, publish, expected) in [
            (up().ready(at(1)), false, (true, true, false)),
            (up().phase("Running"), false, (false, false, false)),
            (up().phase("Running"), true, (true, false, false)),
            (up().ready(at(1)).deleting(at(2)), false, (false, true, true)),
            (up().ready(at(1)).deleting(at(2)), true, (true, true, true)),
            (up().deleting(at(2)), false, (false, false, true)),
        ] {
            let mut svc = web();
            svc.spec.as_mut().unwrap().publish_not_ready_addresses = Some(publish);
            let conditions = endpoint(&svc, &pod.build(), None, "IPv4").unwrap().conditions.unwrap();
            let got =
                (conditions.ready.unwrap(), conditions.serving.unwrap(), conditions.terminating.unwrap());
            assert_eq!(got, expected);
        }
    }

    #[test]
    fn family_zone_and_hints() {
        let pod = pod("p").ip("fd00::1").on("n").ready(at(1)).build();
        assert!(endpoint(&web(), &pod, None, "IPv4").is_none());
        let mut zoned = node("n", "True");
        zoned.metadata.labels = Some([(ZONE.to_owned(), "a".to_owned())].into());
        let mut svc = web();
        let made = endpoint(&svc, &pod, Some(&zoned), "IPv6").unwrap();
        assert_eq!(
            (made.zone.as_deref(), made.node_name.as_deref(), &made.hints),
            (Some("a"), Some("n"), &None)
        );
        svc.spec.as_mut().unwrap().traffic_distribution = Some("PreferClose".into());
        let hints = endpoint(&svc, &pod, Some(&zoned), "IPv6").unwrap().hints.unwrap();
        assert_eq!(hints.for_zones.unwrap()[0].name, "a");
        svc.spec.as_mut().unwrap().traffic_distribution = Some("PreferSameNode".into());
        let hints = endpoint(&svc, &pod, Some(&zoned), "IPv6").unwrap().hints.unwrap();
        assert_eq!(hints.for_nodes.unwrap()[0].name, "n");
    }
}
