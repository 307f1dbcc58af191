//! From Services and EndpointSlices to the ports that this node serves.
//!
//! A pure function of the objects: [`resolve`] takes one Service with its slices and gives each port's
//! addresses and the endpoints that connections may go to, for inside and outside traffic. Upstream:
//! `pkg/proxy/servicechangetracker.go`, `endpointslicecache.go`, `topology.go`.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use apimachinery::validation::names::parse_ip;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::EndpointSlice;

/// An IP family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both families.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    pub fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// Transport protocol of a Service port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    fn parse(text: Option<&str>) -> Option<Self> {
        match text.unwrap_or("TCP") {
            "TCP" => Some(Self::Tcp),
            "UDP" => Some(Self::Udp),
            "SCTP" => Some(Self::Sctp),
            _ => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// An address that connections are sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// Address of the pod.
    pub ip: IpAddr,
    /// Port of the pod.
    pub port: u16,
    /// Whether the pod runs on this node.
    pub local: bool,
}

/// One port of one Service in one IP family, with everything that rules are made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePortInfo {
    /// `namespace/name:port-name`, as upstream prints a ServicePortName.
    pub name: String,
    /// Transport protocol.
    pub protocol: Protocol,
    /// The Service's address of this family.
    pub cluster_ip: IpAddr,
    /// The Service's port.
    pub port: u16,
    /// The node port, 0 for none.
    pub node_port: u16,
    /// `externalIPs` of this family.
    pub external_ips: Vec<IpAddr>,
    /// Load balancer addresses of this family that nodes must take themselves (`ipMode: VIP`).
    pub load_balancer_ips: Vec<IpAddr>,
    /// `loadBalancerSourceRanges` of this family; empty lets everyone in.
    pub source_ranges: Vec<IpNet>,
    /// Seconds of client affinity, `None` without.
    pub affinity_seconds: Option<u32>,
    /// Where traffic from inside the cluster goes.
    pub cluster_endpoints: Vec<Endpoint>,
    /// Where traffic from outside goes, when `externalTrafficPolicy` is `Local`; `None` means as inside
    /// traffic, masqueraded.
    pub local_only_external: Option<Vec<Endpoint>>,
    /// Whether any endpoint is usable on any node: without one, connections are rejected, with one only
    /// elsewhere (policy `Local`), they are dropped.
    pub any_endpoints: bool,
    /// `internalTrafficPolicy` is `Local`.
    pub internal_local: bool,
}

/// The ports of a Service that rules are needed for. Headless and ExternalName Services have none.
pub fn resolve(service: &Service, slices: &[Arc<EndpointSlice>], node_name: &str) -> Vec<ServicePortInfo> {
    let Some(spec) = &service.spec else { return Vec::new() };
    if spec.type_.as_deref() == Some("ExternalName") {
        return Vec::new();
    }
    let mut ports = Vec::new();
    for cluster_ip in cluster_ips(spec) {
        for port in spec.ports.iter().flatten() {
            if let Some(info) = resolve_port(service, spec, cluster_ip, port, slices, node_name) {
                ports.push(info);
            }
        }
    }
    ports
}

fn cluster_ips(spec: &ServiceSpec) -> Vec<IpAddr> {
    let texts = spec.cluster_ips.as_deref().filter(|ips| !ips.is_empty());
    let texts = texts.or(spec.cluster_ip.as_ref().map(std::slice::from_ref)).unwrap_or_default();
    texts.iter().filter_map(|text| parse_ip(text)).collect()
}

fn resolve_port(
    service: &Service,
    spec: &ServiceSpec,
    cluster_ip: IpAddr,
    port: &ServicePort,
    slices: &[Arc<EndpointSlice>],
    node_name: &str,
) -> Option<ServicePortInfo> {
    let family = Family::of(cluster_ip);
    let protocol = Protocol::parse(port.protocol.as_deref())?;
    let key = apimachinery::meta::key_of(service);
    let port_name = port.name.as_deref().unwrap_or_default();
    let name = if port_name.is_empty() { key.to_string() } else { format!("{key}:{port_name}") };
    let all = endpoints(slices, family, port_name, protocol, node_name);
    let internal_local = spec.internal_traffic_policy.as_deref() == Some("Local");
    let external_local = spec.external_traffic_policy.as_deref() == Some("Local");
    let of_family = |ips: Vec<IpAddr>| ips.into_iter().filter(|ip| Family::of(*ip) == family).collect();
    let external_ips: Vec<IpAddr> = spec.external_ips.iter().flatten().filter_map(|t| parse_ip(t)).collect();
    let affinity_seconds = (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| {
        let config = spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref());
        config.and_then(|c| c.timeout_seconds).and_then(|s| u32::try_from(s).ok()).unwrap_or(10_800)
    });
    Some(ServicePortInfo {
        name,
        protocol,
        cluster_ip,
        port: u16::try_from(port.port).ok()?,
        node_port: port.node_port.and_then(|p| u16::try_from(p).ok()).unwrap_or(0),
        external_ips: of_family(external_ips),
        load_balancer_ips: of_family(load_balancer_ips(service)),
        source_ranges: source_ranges(spec, family),
        affinity_seconds,
        cluster_endpoints: usable(&all, internal_local),
        local_only_external: external_local.then(|| usable(&all, true)),
        any_endpoints: !usable(&all, false).is_empty(),
        internal_local,
    })
}

fn load_balancer_ips(service: &Service) -> Vec<IpAddr> {
    let status = service.status.as_ref().and_then(|s| s.load_balancer.as_ref());
    let ingress = status.and_then(|l| l.ingress.as_deref()).unwrap_or_default();
    ingress
        .iter()
        .filter(|i| i.ip_mode.as_deref() != Some("Proxy"))
        .filter_map(|i| parse_ip(i.ip.as_deref()?))
        .collect()
}

fn source_ranges(spec: &ServiceSpec, family: Family) -> Vec<IpNet> {
    let ranges = spec.load_balancer_source_ranges.iter().flatten();
    let ranges = ranges.filter_map(|r| r.trim().parse::<IpNet>().ok());
    ranges.filter(|r| Family::of(r.addr()) == family).map(|r| r.trunc()).collect()
}

/// An endpoint with the conditions that decide whether it is used.
struct Candidate {
    endpoint: Endpoint,
    ready: bool,
    /// Serving while terminating: used only when nothing is ready (KEP-1669).
    terminating: bool,
}

fn endpoints(
    slices: &[Arc<EndpointSlice>],
    family: Family,
    port_name: &str,
    protocol: Protocol,
    node_name: &str,
) -> Vec<Candidate> {
    let mut candidates = Vec::new();
    let mut seen = BTreeSet::new();
    for slice in slices {
        for port in slice.ports.iter().flatten() {
            let same = port.name.as_deref().unwrap_or_default() == port_name
                && Protocol::parse(port.protocol.as_deref()) == Some(protocol);
            let Some(number) = port.port.and_then(|p| u16::try_from(p).ok()).filter(|p| same && *p > 0)
            else {
                continue;
            };
            for endpoint in slice.endpoints.iter().flatten() {
                let Some(ip) = endpoint.addresses.first().and_then(|a| parse_ip(a)) else { continue };
                if Family::of(ip) != family || !seen.insert((ip, number)) {
                    continue;
                }
                let conditions = endpoint.conditions.clone().unwrap_or_default();
                let ready = conditions.ready.unwrap_or(true);
                let terminating = conditions.terminating.unwrap_or(false);
                let serving = conditions.serving.unwrap_or(ready);
                let local = endpoint.node_name.as_deref() == Some(node_name);
                candidates.push(Candidate {
                    endpoint: Endpoint { ip, port: number, local },
                    ready,
                    terminating: terminating && serving,
                });
            }
        }
    }
    candidates
}

/// The ready endpoints, or else those that still serve while they terminate; sorted, so that rules only
/// change when endpoints do.
fn usable(candidates: &[Candidate], local_only: bool) -> Vec<Endpoint> {
    let fits = |c: &&Candidate| !local_only || c.endpoint.local;
    let mut list: Vec<Endpoint> =
        candidates.iter().filter(fits).filter(|c| c.ready).map(|c| c.endpoint).collect();
    if list.is_empty() {
        list = candidates.iter().filter(fits).filter(|c| c.terminating).map(|c| c.endpoint).collect();
    }
    list.sort_unstable();
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn service(spec: Value) -> Service {
        serde_json::from_value(json!({"metadata": {"namespace": "ns", "name": "web"}, "spec": spec}))
            .expect("valid")
    }

    fn slice(endpoints: Value) -> Arc<EndpointSlice> {
        Arc::new(
            serde_json::from_value(json!({
                "metadata": {"namespace": "ns", "name": "web-1"}, "addressType": "IPv4",
                "endpoints": endpoints, "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}]
            }))
            .expect("valid"),
        )
    }

    fn endpoint(ip: &str, node: &str, ready: bool, serving: bool, terminating: bool) -> Value {
        json!({"addresses": [ip], "nodeName": node, "conditions": {"ready": ready, "serving": serving, "terminating": terminating}})
    }

    fn ips(endpoints: &[Endpoint]) -> Vec<String> {
        endpoints.iter().map(|e| e.ip.to_string()).collect()
    }

    const HTTP: &str = r#"[{"name": "http", "port": 80, "protocol": "TCP"}]"#;

    fn spec(extra: Value) -> Value {
        let mut spec =
            json!({"clusterIP": "10.96.0.10", "ports": serde_json::from_str::<Value>(HTTP).expect("valid")});
        spec.as_object_mut().expect("object").extend(extra.as_object().expect("object").clone());
        spec
    }

    #[test]
    fn ready_endpoints_are_used_and_terminating_ones_only_without_them() {
        let both = slice(json!([
            endpoint("10.0.0.2", "a", true, true, false),
            endpoint("10.0.0.1", "b", false, true, true)
        ]));
        let port = &resolve(&service(spec(json!({}))), &[both], "a")[0];
        assert_eq!(port.name, "ns/web:http");
        assert_eq!(ips(&port.cluster_endpoints), ["10.0.0.2"]);
        assert!(port.cluster_endpoints[0].local);
        let going = slice(json!([
            endpoint("10.0.0.1", "b", false, true, true),
            endpoint("10.0.0.3", "b", false, false, true),
            endpoint("10.0.0.4", "b", false, false, false)
        ]));
        let port = &resolve(&service(spec(json!({}))), &[going], "a")[0];
        assert_eq!(ips(&port.cluster_endpoints), ["10.0.0.1"]);
    }

    #[test]
    fn traffic_policies_choose_local_endpoints() {
        let two = slice(json!([
            endpoint("10.0.0.1", "a", true, true, false),
            endpoint("10.0.0.2", "b", true, true, false)
        ]));
        let local = spec(json!({"internalTrafficPolicy": "Local", "externalTrafficPolicy": "Local"}));
        let port = &resolve(&service(local), &[two], "a")[0];
        assert_eq!(ips(&port.cluster_endpoints), ["10.0.0.1"]);
        assert_eq!(port.local_only_external.as_deref().map(ips), Some(vec!["10.0.0.1".to_owned()]));
        assert!(port.any_endpoints);
    }

    #[test]
    fn headless_external_and_foreign_ports_have_no_rules() {
        let one = slice(json!([endpoint("10.0.0.1", "a", true, true, false)]));
        assert!(
            resolve(
                &service(spec(json!({"clusterIP": "None", "clusterIPs": ["None"]}))),
                std::slice::from_ref(&one),
                "a"
            )
            .is_empty()
        );
        assert!(
            resolve(&service(spec(json!({"type": "ExternalName"}))), std::slice::from_ref(&one), "a")
                .is_empty()
        );
        let other = spec(json!({"ports": [{"name": "dns", "port": 53, "protocol": "UDP"}]}));
        let ports = resolve(&service(other), &[one], "a");
        assert!(ports[0].cluster_endpoints.is_empty() && !ports[0].any_endpoints);
    }

    #[test]
    fn bad_addresses_are_left_out() {
        let odd = slice(
            json!([{"addresses": ["010.0.0.1"]}, {"addresses": []}, {"addresses": ["fd00::1"]}, {"addresses": ["10.0.0.9"]}]),
        );
        let port = &resolve(&service(spec(json!({}))), &[odd], "a")[0];
        assert_eq!(ips(&port.cluster_endpoints), ["10.0.0.9"]);
    }
}
