//! What the node's pod network consists of: a CNI configuration list and a masquerading table for each family.

use ipnet::IpNet;
use serde_json::{Value, json};

use crate::config::Config;

/// Name of the CNI configuration file.
pub const FILE: &str = "10-keelson.conflist";
/// Our nftables table, one in each family.
pub const TABLE: &str = "keelson-pod-network";
/// Its one chain.
pub const CHAIN: &str = "postrouting";

/// The whole of what is set up for a node's ranges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    ranges: Vec<IpNet>,
    cluster_cidrs: Vec<IpNet>,
    bridge: String,
}

/// The masquerading rules of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MasqueradeTable {
    /// `ip` or `ip6`.
    pub family: &'static str,
    rule: String,
}

impl Plan {
    /// The plan for the ranges that the node was given.
    pub fn new(config: &Config, ranges: Vec<IpNet>) -> Self {
        let ranges = ranges.into_iter().map(|r| r.trunc()).collect();
        Self { ranges, cluster_cidrs: config.cluster_cidrs.clone(), bridge: config.bridge_name.clone() }
    }

    /// The CNI configuration list, as the file's text.
    pub fn conflist(&self) -> String {
        let ranges: Vec<Value> = self.ranges.iter().map(|r| json!([{"subnet": r.to_string()}])).collect();
        let routes: Vec<Value> = self
            .ranges
            .iter()
            .map(|r| json!({"dst": if r.addr().is_ipv4() { "0.0.0.0/0" } else { "::/0" }}))
            .collect();
        let list = json!({
            "cniVersion": "1.0.0",
            "name": "keelson",
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": self.bridge,
                    "isGateway": true,
                    // A pod may reach itself through a Service.
                    "hairpinMode": true,
                    "ipMasq": false,
                    "ipam": {"type": "host-local", "ranges": ranges, "routes": routes},
                },
                {"type": "portmap", "capabilities": {"portMappings": true}, "snat": true},
            ],
        });
        format!("{list:#}\n")
    }

    /// The masquerading tables: what this node's pods send out of the cluster takes the node's address.
    pub fn tables(&self) -> Vec<MasqueradeTable> {
        self.ranges
            .iter()
            .map(|range| {
                let family = if range.addr().is_ipv4() { "ip" } else { "ip6" };
                let inside: Vec<String> = self
                    .cluster_cidrs
                    .iter()
                    .filter(|c| c.addr().is_ipv4() == range.addr().is_ipv4())
                    .map(|c| format!("{family} daddr != {} ", c.trunc()))
                    .collect();
                let rule = format!("{family} saddr {range} {}masquerade fully-random", inside.concat());
                MasqueradeTable { family, rule }
            })
            .collect()
    }
}

impl MasqueradeTable {
    /// A script that replaces the table.
    pub fn script(&self) -> String {
        let t = format!("{} {TABLE}", self.family);
        format!(
            "add table {t}\ndelete table {t}\nadd table {t}\n\
             add chain {t} {CHAIN} {{ type nat hook postrouting priority srcnat + 10 ; }}\n\
             add rule {t} {CHAIN} {}\n",
            self.rule
        )
    }

    /// A text that the chain's listing holds when the table stands: the rule as nft prints it.
    pub fn marker(&self) -> String {
        self.rule.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(ranges: &[&str]) -> Plan {
        Plan {
            ranges: ranges.iter().map(|r| r.parse().expect("valid")).collect(),
            cluster_cidrs: vec![
                "10.244.0.0/16".parse().expect("valid"),
                "fd00:10::/56".parse().expect("valid"),
            ],
            bridge: "cni0".into(),
        }
    }

    #[test]
    fn the_list_is_what_the_plugins_take() {
        let list: Value = serde_json::from_str(&plan(&["10.244.1.0/24"]).conflist()).expect("JSON");
        assert_eq!(list["plugins"][0]["ipam"]["ranges"], json!([[{"subnet": "10.244.1.0/24"}]]));
        assert_eq!(list["plugins"][1]["type"], "portmap");
    }

    #[test]
    fn only_traffic_out_of_the_cluster_is_masqueraded() {
        let tables = plan(&["10.244.1.0/24", "fd00:10::/64"]).tables();
        assert_eq!(tables.len(), 2);
        assert_eq!(
            tables[0].rule,
            "ip saddr 10.244.1.0/24 ip daddr != 10.244.0.0/16 masquerade fully-random"
        );
        assert!(tables[1].script().contains("add chain ip6 keelson-pod-network postrouting"));
    }
}
