//! The part of the table that does not depend on any Service: hooks, shared maps, masquerading.
//!
//! The chains are upstream's by name where they do the same. Two things are done once here instead of in each
//! Service's chain: masquerading of traffic from outside the cluster to cluster IPs, and of connections that a
//! pod makes to itself through a Service.

use std::fmt::Write as _;
use std::net::IpAddr;

use super::TABLE;
use crate::config::{Config, NodePortAddresses};
use crate::service_map::Family;

/// Verdicts by Service address, protocol and port.
pub const SERVICE_IPS: &str = "service-ips";
/// Verdicts by node port.
pub const SERVICE_NODEPORTS: &str = "service-nodeports";
/// Service addresses without endpoints, to reject or drop.
pub const NO_ENDPOINT_SERVICES: &str = "no-endpoint-services";
/// Node ports without endpoints.
pub const NO_ENDPOINT_NODEPORTS: &str = "no-endpoint-nodeports";
/// Every active cluster IP.
pub const CLUSTER_IPS: &str = "cluster-ips";
/// Load balancer addresses with source ranges.
pub const FIREWALL_IPS: &str = "firewall-ips";
/// Pairs of one local endpoint address with itself.
pub const HAIRPIN: &str = "hairpin-connections";
/// The chain that marks a packet for masquerading.
pub const MARK_FOR_MASQUERADE: &str = "mark-for-masquerade";
/// The chain that rejects.
pub const REJECT_CHAIN: &str = "reject-chain";

/// What of the node and the flags the skeleton depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skeleton {
    /// The packet mark.
    pub mark: u32,
    /// Pod range of each family.
    pub cluster_cidrs: Vec<ipnet::IpNet>,
    /// Masquerade all Service traffic.
    pub masquerade_all: bool,
    /// Addresses for NodePorts.
    pub node_ports: NodePortAddresses,
    /// The node's addresses.
    pub node_ips: Vec<IpAddr>,
}

impl Skeleton {
    /// The skeleton that a configuration and the node's addresses ask for.
    pub fn new(config: &Config, node_ips: Vec<IpAddr>) -> Self {
        Self {
            mark: config.masquerade_mark,
            cluster_cidrs: config.cluster_cidrs.clone(),
            masquerade_all: config.masquerade_all,
            node_ports: config.node_port_addresses.clone(),
            node_ips,
        }
    }

    /// A script that replaces the family's whole table by the bare skeleton.
    pub fn script(&self, family: Family) -> String {
        let ip = family.nft();
        let t = format!("{ip} {TABLE}");
        let mut out = format!(
            "add table {t}\ndelete table {t}\nadd table {t} {{ comment \"rules for kube-proxy\" ; }}\n"
        );
        self.maps(family, &t, &mut out);
        // Chains that others go to stand first.
        for chain in [
            MARK_FOR_MASQUERADE,
            REJECT_CHAIN,
            "masquerading",
            "services",
            "cluster-ips-check",
            "service-endpoints-check",
            "nodeport-endpoints-check",
            "firewall-check",
        ] {
            line(&mut out, format_args!("add chain {t} {chain}"));
        }
        for (chain, hook) in [
            ("filter-prerouting", "filter hook prerouting priority dstnat - 10"),
            ("filter-input", "filter hook input priority -110"),
            ("filter-forward", "filter hook forward priority -110"),
            ("filter-output", "filter hook output priority -110"),
            ("filter-output-post-dnat", "filter hook output priority -90"),
            ("nat-prerouting", "nat hook prerouting priority dstnat"),
            ("nat-output", "nat hook output priority -100"),
            ("nat-postrouting", "nat hook postrouting priority srcnat"),
        ] {
            line(&mut out, format_args!("add chain {t} {chain} {{ type {hook} ; }}"));
        }
        self.rules(family, &t, &mut out);
        out
    }

    fn maps(&self, family: Family, t: &str, out: &mut String) {
        let address = family.address_type();
        let by_ip = format!("type {address} . inet_proto . inet_service : verdict ;");
        let by_port = "type inet_proto . inet_service : verdict ;";
        for (map, kind) in [
            (SERVICE_IPS, by_ip.as_str()),
            (NO_ENDPOINT_SERVICES, &by_ip),
            (FIREWALL_IPS, &by_ip),
            (SERVICE_NODEPORTS, by_port),
            (NO_ENDPOINT_NODEPORTS, by_port),
        ] {
            line(out, format_args!("add map {t} {map} {{ {kind} }}"));
        }
        line(out, format_args!("add set {t} {CLUSTER_IPS} {{ type {address} ; }}"));
        line(out, format_args!("add set {t} {HAIRPIN} {{ type {address} . {address} ; }}"));
        line(
            out,
            format_args!("add set {t} nodeport-ips {{ type {address} ; flags interval ; auto-merge ; }}"),
        );
        for element in self.node_port_elements(family) {
            line(out, format_args!("add element {t} nodeport-ips {{ {element} }}"));
        }
    }

    fn node_port_elements(&self, family: Family) -> Vec<String> {
        match &self.node_ports {
            NodePortAddresses::Primary => self
                .node_ips
                .iter()
                .filter(|ip| Family::of(**ip) == family)
                .map(ToString::to_string)
                .collect(),
            NodePortAddresses::Ranges(ranges) => ranges
                .iter()
                .filter(|r| Family::of(r.addr()) == family)
                .map(|r| r.trunc().to_string())
                .collect(),
        }
    }

    fn rules(&self, family: Family, t: &str, out: &mut String) {
        let ip = family.nft();
        let mark = self.mark;
        let service = format!("{ip} daddr . meta l4proto . th dport vmap");
        let mut rules: Vec<(&str, String)> = vec![
            (MARK_FOR_MASQUERADE, format!("meta mark set mark or {mark:#x}")),
            (REJECT_CHAIN, "reject".to_owned()),
            // The mark is taken off again, so that it does not follow a packet that is encapsulated later.
            ("masquerading", format!("{ip} saddr . {ip} daddr @{HAIRPIN} masquerade fully-random")),
            ("masquerading", format!("mark and {mark:#x} == 0x0 return")),
            ("masquerading", format!("meta mark set mark xor {mark:#x}")),
            ("masquerading", "masquerade fully-random".to_owned()),
        ];
        if self.masquerade_all {
            rules.push(("services", format!("{ip} daddr @{CLUSTER_IPS} jump {MARK_FOR_MASQUERADE}")));
        } else if let Some(cidr) = self.cluster_cidrs.iter().find(|c| Family::of(c.addr()) == family) {
            rules.push((
                "services",
                format!("{ip} saddr != {cidr} {ip} daddr @{CLUSTER_IPS} jump {MARK_FOR_MASQUERADE}"),
            ));
        }
        let local = match &self.node_ports {
            NodePortAddresses::Primary => String::new(),
            // A range may hold addresses that are not the node's.
            NodePortAddresses::Ranges(_) => "fib daddr type local ".to_owned(),
        };
        let node_port = format!("{local}{ip} daddr @nodeport-ips meta l4proto . th dport vmap");
        rules.extend([
            ("services", format!("{service} @{SERVICE_IPS}")),
            ("services", format!("{node_port} @{SERVICE_NODEPORTS}")),
            ("service-endpoints-check", format!("{service} @{NO_ENDPOINT_SERVICES}")),
            ("nodeport-endpoints-check", format!("{node_port} @{NO_ENDPOINT_NODEPORTS}")),
            ("cluster-ips-check", format!("{ip} daddr @{CLUSTER_IPS} reject")),
            ("firewall-check", format!("{service} @{FIREWALL_IPS}")),
            ("filter-prerouting", "ct state new jump firewall-check".to_owned()),
            ("filter-input", "ct state new jump nodeport-endpoints-check".to_owned()),
            ("filter-input", "ct state new jump service-endpoints-check".to_owned()),
            ("filter-forward", "ct state new jump service-endpoints-check".to_owned()),
            ("filter-forward", "ct state new jump cluster-ips-check".to_owned()),
            ("filter-output", "ct state new jump service-endpoints-check".to_owned()),
            ("filter-output", "ct state new jump firewall-check".to_owned()),
            ("filter-output-post-dnat", "ct state new jump cluster-ips-check".to_owned()),
            ("nat-prerouting", "jump services".to_owned()),
            ("nat-output", "jump services".to_owned()),
            ("nat-postrouting", "jump masquerading".to_owned()),
        ]);
        for (chain, rule) in rules {
            line(out, format_args!("add rule {t} {chain} {rule}"));
        }
    }
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String can't fail.
    let _ = writeln!(out, "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skeleton() -> Skeleton {
        Skeleton {
            mark: 0x4000,
            cluster_cidrs: vec!["10.244.0.0/16".parse().expect("valid")],
            masquerade_all: false,
            node_ports: NodePortAddresses::Primary,
            node_ips: vec!["192.0.2.2".parse().expect("valid"), "fd00::2".parse().expect("valid")],
        }
    }

    #[test]
    fn families_get_their_own_addresses() {
        let script = skeleton().script(Family::V4);
        assert!(script.contains("add element ip kube-proxy nodeport-ips { 192.0.2.2 }\n"));
        assert!(
            script.contains("ip saddr != 10.244.0.0/16 ip daddr @cluster-ips jump mark-for-masquerade\n")
        );
        let script = skeleton().script(Family::V6);
        assert!(script.contains("add element ip6 kube-proxy nodeport-ips { fd00::2 }\n"));
        assert!(!script.contains("10.244"));
    }

    #[test]
    fn only_our_table_is_touched() {
        for line in skeleton().script(Family::V4).lines() {
            let third = line.split_whitespace().nth(3);
            assert_eq!(third, Some("kube-proxy"), "{line}");
        }
    }
}
