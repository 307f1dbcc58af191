//! Forgets UDP flows that lead to endpoints which are gone.
//!
//! A UDP flow has no end that the kernel sees, so conntrack would send a client's datagrams to a dead pod for
//! as long as it talks. TCP and SCTP connections end by themselves. Upstream: `pkg/proxy/conntrack`.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::process::Stdio;

use tokio::process::Command;

use crate::service_map::{Protocol, ServicePortInfo};

/// A set of flows to forget.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stale {
    /// Flows to a Service address that were translated to an endpoint now gone.
    Endpoint {
        /// The address that clients talk to.
        service: IpAddr,
        /// The endpoint that is gone.
        endpoint: IpAddr,
    },
    /// Flows to a Service address and port that had no endpoints before.
    Service {
        /// The address that clients talk to.
        service: IpAddr,
        /// Its port.
        port: u16,
    },
    /// Flows to a node port that had no endpoints before.
    NodePort(u16),
}

/// The flows made stale by a change of one Service's ports.
pub fn stale_flows(old: &[ServicePortInfo], new: &[ServicePortInfo]) -> BTreeSet<Stale> {
    let mut stale = BTreeSet::new();
    let udp = |ports: &[ServicePortInfo]| -> Vec<ServicePortInfo> {
        ports.iter().filter(|p| p.protocol == Protocol::Udp).cloned().collect()
    };
    let (old, new) = (udp(old), udp(new));
    let same = |a: &ServicePortInfo, b: &ServicePortInfo| a.name == b.name && a.cluster_ip == b.cluster_ip;
    for before in &old {
        let after = new.iter().find(|p| same(p, before));
        let kept: BTreeSet<IpAddr> =
            after.map(|p| p.cluster_endpoints.iter().map(|e| e.ip).collect()).unwrap_or_default();
        for endpoint in before.cluster_endpoints.iter().filter(|e| !kept.contains(&e.ip)) {
            for service in addresses(before) {
                stale.insert(Stale::Endpoint { service, endpoint: endpoint.ip });
            }
        }
    }
    for after in new.iter().filter(|p| !p.cluster_endpoints.is_empty()) {
        let before = old.iter().find(|p| same(p, after));
        if before.is_none_or(|p| p.cluster_endpoints.is_empty()) {
            stale.extend(addresses(after).map(|service| Stale::Service { service, port: after.port }));
            if after.node_port != 0 {
                stale.insert(Stale::NodePort(after.node_port));
            }
        }
    }
    stale
}

fn addresses(port: &ServicePortInfo) -> impl Iterator<Item = IpAddr> + '_ {
    std::iter::once(port.cluster_ip).chain(port.external_ips.iter().chain(&port.load_balancer_ips).copied())
}

impl Stale {
    fn arguments(&self) -> Vec<String> {
        let text = |s: &str| s.to_owned();
        let mut args = vec![text("-D"), text("-p"), text("udp")];
        match self {
            Self::Endpoint { service, endpoint } => {
                args.extend([
                    text("--orig-dst"),
                    service.to_string(),
                    text("--dst-nat"),
                    endpoint.to_string(),
                ]);
            }
            Self::Service { service, port } => {
                args.extend([text("--orig-dst"), service.to_string(), text("--dport"), port.to_string()]);
            }
            Self::NodePort(port) => args.extend([text("--dport"), port.to_string()]),
        }
        if matches!(self, Self::Endpoint { service, .. } | Self::Service { service, .. } if service.is_ipv6())
        {
            args.extend([text("-f"), text("ipv6")]);
        }
        args
    }
}

/// Forgets the flows. Failures are logged: the rules are right already, only old UDP flows linger.
pub async fn forget(flows: BTreeSet<Stale>) {
    for flow in flows {
        let output =
            Command::new("conntrack").args(flow.arguments()).stdin(Stdio::null()).kill_on_drop(true).output();
        match output.await {
            // Exit code 1 with "0 flow entries" is the usual answer when there was nothing to forget.
            Ok(output) if output.status.success() => {}
            Ok(output) if String::from_utf8_lossy(&output.stderr).contains("0 flow entries") => {}
            Ok(output) => {
                let error = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                tracing::warn!(?flow, %error, "conntrack could not forget stale flows");
            }
            Err(error) => {
                tracing::warn!(%error, "conntrack can't be run; UDP clients may keep a dead endpoint")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service_map::Endpoint;

    fn port(protocol: Protocol, endpoints: &[&str]) -> ServicePortInfo {
        let endpoint = |ip: &&str| Endpoint { ip: ip.parse().expect("valid"), port: 53, local: false };
        ServicePortInfo {
            name: "ns/dns:dns".into(),
            protocol,
            cluster_ip: "10.96.0.10".parse().expect("valid"),
            port: 53,
            node_port: 0,
            external_ips: vec![],
            load_balancer_ips: vec![],
            source_ranges: vec![],
            affinity_seconds: None,
            cluster_endpoints: endpoints.iter().map(endpoint).collect(),
            local_only_external: None,
            any_endpoints: true,
            internal_local: false,
        }
    }

    #[test]
    fn only_udp_flows_go_stale() {
        let old = [port(Protocol::Udp, &["10.0.0.1", "10.0.0.2"])];
        let new = [port(Protocol::Udp, &["10.0.0.2"])];
        let service = "10.96.0.10".parse().expect("valid");
        let gone = Stale::Endpoint { service, endpoint: "10.0.0.1".parse().expect("valid") };
        assert_eq!(stale_flows(&old, &new), BTreeSet::from([gone]));
        assert!(stale_flows(&[port(Protocol::Tcp, &["10.0.0.1"])], &[]).is_empty());
        let none = [port(Protocol::Udp, &[])];
        assert_eq!(stale_flows(&none, &new), BTreeSet::from([Stale::Service { service, port: 53 }]));
    }
}
