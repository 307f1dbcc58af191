//! One Service port to its chains and map elements.
//!
//! A port with endpoints has one chain with one rule that picks an endpoint at random and translates to it, so
//! ten thousand Services cost ten thousand rules. Client affinity needs a chain and a set for each endpoint.

use sha2::{Digest, Sha256};

use super::ruleset::Piece;
use super::skeleton::{
    CLUSTER_IPS, FIREWALL_IPS, HAIRPIN, MARK_FOR_MASQUERADE, NO_ENDPOINT_NODEPORTS, NO_ENDPOINT_SERVICES,
    REJECT_CHAIN, SERVICE_IPS, SERVICE_NODEPORTS,
};
use crate::service_map::{Endpoint, Family, ServicePortInfo};
use std::net::IpAddr;

/// The pieces of one Service, by family.
pub fn render(ports: &[ServicePortInfo], family: Family) -> Piece {
    let mut piece = Piece::default();
    for port in ports.iter().filter(|p| Family::of(p.cluster_ip) == family) {
        render_port(port, family, &mut piece);
    }
    piece
}

/// What connections to an address of the port meet.
enum Target {
    Goto(String),
    NoEndpoints { reject: bool },
}

fn render_port(port: &ServicePortInfo, family: Family, piece: &mut Piece) {
    piece.elements.insert((CLUSTER_IPS, port.cluster_ip.to_string()), String::new());
    for endpoint in port.cluster_endpoints.iter().filter(|e| e.local) {
        piece.elements.insert((HAIRPIN, format!("{0} . {0}", endpoint.ip)), String::new());
    }
    let internal = if port.cluster_endpoints.is_empty() {
        Target::NoEndpoints { reject: !(port.internal_local && port.any_endpoints) }
    } else {
        let chain = chain_name("service", port);
        balance(port, family, &chain, &port.cluster_endpoints, piece);
        Target::Goto(chain)
    };
    to_address(piece, port, port.cluster_ip, &internal);

    let has_external =
        port.node_port != 0 || !port.external_ips.is_empty() || !port.load_balancer_ips.is_empty();
    if !has_external {
        return;
    }
    let external = external_target(port, family, &internal, piece);
    for ip in port.external_ips.iter().chain(&port.load_balancer_ips) {
        to_address(piece, port, *ip, &external);
    }
    if port.node_port != 0 {
        let key = format!("{} . {}", port.protocol, port.node_port);
        let (map, verdict) = element(&external, SERVICE_NODEPORTS, NO_ENDPOINT_NODEPORTS);
        piece.elements.insert((map, key), verdict);
    }
    if !port.source_ranges.is_empty() && !port.load_balancer_ips.is_empty() {
        let chain = chain_name("firewall", port);
        let ranges: Vec<String> = port.source_ranges.iter().map(ToString::to_string).collect();
        let rule = format!("{} saddr != {{ {} }} drop", family.nft(), ranges.join(", "));
        piece.chains.insert(chain.clone(), vec![rule]);
        for ip in &port.load_balancer_ips {
            piece.elements.insert((FIREWALL_IPS, address_key(port, *ip)), format!("goto {chain}"));
        }
    }
}

/// The chain for traffic from outside: policy `Cluster` masquerades and goes on as inside traffic, policy
/// `Local` keeps the client's address and stays on this node.
fn external_target(port: &ServicePortInfo, family: Family, internal: &Target, piece: &mut Piece) -> Target {
    let chain = chain_name("external", port);
    match (&port.local_only_external, internal) {
        (None, Target::Goto(service)) => {
            let rules = vec![format!("jump {MARK_FOR_MASQUERADE}"), format!("goto {service}")];
            piece.chains.insert(chain.clone(), rules);
            Target::Goto(chain)
        }
        (None, Target::NoEndpoints { reject }) => Target::NoEndpoints { reject: *reject },
        (Some(local), _) if local.is_empty() => Target::NoEndpoints { reject: !port.any_endpoints },
        (Some(local), _) => {
            balance(port, family, &chain, local, piece);
            Target::Goto(chain)
        }
    }
}

fn element(target: &Target, map: &'static str, none: &'static str) -> (&'static str, String) {
    match target {
        Target::Goto(chain) => (map, format!("goto {chain}")),
        Target::NoEndpoints { reject: true } => (none, format!("goto {REJECT_CHAIN}")),
        Target::NoEndpoints { reject: false } => (none, "drop".to_owned()),
    }
}

fn to_address(piece: &mut Piece, port: &ServicePortInfo, ip: IpAddr, target: &Target) {
    let (map, verdict) = element(target, SERVICE_IPS, NO_ENDPOINT_SERVICES);
    piece.elements.insert((map, address_key(port, ip)), verdict);
}

fn address_key(port: &ServicePortInfo, ip: IpAddr) -> String {
    format!("{ip} . {} . {}", port.protocol, port.port)
}

/// Fills `chain` with the choice of one of `endpoints`, which are not empty.
fn balance(port: &ServicePortInfo, family: Family, chain: &str, endpoints: &[Endpoint], piece: &mut Piece) {
    let ip = family.nft();
    let proto = port.protocol;
    let Some(seconds) = port.affinity_seconds else {
        let rule = match endpoints {
            [one] => format!("meta l4proto {proto} dnat {ip} to {}", socket(one)),
            many => {
                let targets: Vec<String> =
                    many.iter().enumerate().map(|(i, e)| format!("{i} : {} . {}", e.ip, e.port)).collect();
                format!(
                    "meta l4proto {proto} dnat {ip} to numgen random mod {} map {{ {} }}",
                    many.len(),
                    targets.join(", ")
                )
            }
        };
        piece.chains.insert(chain.to_owned(), vec![rule]);
        return;
    };
    let mut rules = Vec::new();
    let mut verdicts = Vec::new();
    for (index, endpoint) in endpoints.iter().enumerate() {
        let name = format!(
            "{}__{}/{}",
            chain_name("endpoint", port),
            endpoint.ip.to_string().replace(':', "."),
            endpoint.port
        );
        let set = format!("affinity-{}", name.trim_start_matches("endpoint-"));
        piece.sets.insert(
            set.clone(),
            format!("{{ type {} ; flags dynamic,timeout ; timeout {seconds}s ; }}", family.address_type()),
        );
        piece.chains.insert(
            name.clone(),
            vec![
                format!("update @{set} {{ {ip} saddr }}"),
                format!("meta l4proto {proto} dnat {ip} to {}", socket(endpoint)),
            ],
        );
        rules.push(format!("{ip} saddr @{set} goto {name}"));
        verdicts.push(format!("{index} : goto {name}"));
    }
    rules.push(format!("numgen random mod {} vmap {{ {} }}", endpoints.len(), verdicts.join(", ")));
    piece.chains.insert(chain.to_owned(), rules);
}

fn socket(endpoint: &Endpoint) -> String {
    match endpoint.ip {
        IpAddr::V4(ip) => format!("{ip}:{}", endpoint.port),
        IpAddr::V6(ip) => format!("[{ip}]:{}", endpoint.port),
    }
}

/// `service-HASH-ns/name/tcp/port`, as upstream; long names are cut, the hash keeps them apart.
///
/// Names come from validated objects, whose characters (letters, digits, `-`, `.`) nft takes as they are.
fn chain_name(prefix: &str, port: &ServicePortInfo) -> String {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let (service, port_name) = port.name.split_once(':').unwrap_or((&port.name, ""));
    let readable = format!("{service}/{}/{port_name}", port.protocol);
    let digest = Sha256::digest(readable.as_bytes());
    let hash: String = digest.iter().take(8).map(|b| char::from(ALPHABET[usize::from(b & 31)])).collect();
    let mut name = format!("{prefix}-{hash}-{readable}");
    // Chain names end at 127 bytes; an endpoint's address still follows some of them.
    name.truncate(80);
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service_map::Protocol;

    fn endpoint(ip: &str, local: bool) -> Endpoint {
        Endpoint { ip: ip.parse().expect("valid"), port: 8080, local }
    }

    fn port(endpoints: Vec<Endpoint>) -> ServicePortInfo {
        ServicePortInfo {
            name: "ns/web:http".into(),
            protocol: Protocol::Tcp,
            cluster_ip: "10.96.0.10".parse().expect("valid"),
            port: 80,
            node_port: 30080,
            external_ips: vec![],
            load_balancer_ips: vec![],
            source_ranges: vec![],
            affinity_seconds: None,
            any_endpoints: !endpoints.is_empty(),
            cluster_endpoints: endpoints,
            local_only_external: None,
            internal_local: false,
        }
    }

    fn get<'a>(piece: &'a Piece, map: &'static str, key: &str) -> Option<&'a str> {
        piece.elements.get(&(map, key.to_owned())).map(String::as_str)
    }

    #[test]
    fn a_port_is_one_chain_with_one_rule() {
        let piece =
            render(&[port(vec![endpoint("10.0.0.1", true), endpoint("10.0.0.2", false)])], Family::V4);
        let verdict = get(&piece, SERVICE_IPS, "10.96.0.10 . tcp . 80").expect("present");
        let chain = verdict.strip_prefix("goto ").expect("goto");
        assert_eq!(
            piece.chains[chain],
            [
                "meta l4proto tcp dnat ip to numgen random mod 2 map { 0 : 10.0.0.1 . 8080, 1 : 10.0.0.2 . 8080 }"
            ]
        );
        let external = get(&piece, SERVICE_NODEPORTS, "tcp . 30080").expect("present");
        let external = external.strip_prefix("goto ").expect("goto");
        assert_eq!(piece.chains[external], ["jump mark-for-masquerade".to_owned(), format!("goto {chain}")]);
        assert_eq!(get(&piece, HAIRPIN, "10.0.0.1 . 10.0.0.1"), Some(""));
        assert_eq!(get(&piece, HAIRPIN, "10.0.0.2 . 10.0.0.2"), None);
    }

    #[test]
    fn without_endpoints_connections_are_rejected_or_dropped() {
        let piece = render(&[port(vec![])], Family::V4);
        assert_eq!(get(&piece, NO_ENDPOINT_SERVICES, "10.96.0.10 . tcp . 80"), Some("goto reject-chain"));
        assert_eq!(get(&piece, NO_ENDPOINT_NODEPORTS, "tcp . 30080"), Some("goto reject-chain"));
        assert!(piece.chains.is_empty());
        let mut elsewhere = port(vec![endpoint("10.0.0.2", false)]);
        elsewhere.local_only_external = Some(vec![]);
        let piece = render(&[elsewhere], Family::V4);
        assert_eq!(get(&piece, NO_ENDPOINT_NODEPORTS, "tcp . 30080"), Some("drop"));
    }

    #[test]
    fn affinity_remembers_clients() {
        let mut sticky = port(vec![endpoint("10.0.0.1", false), endpoint("10.0.0.2", false)]);
        sticky.affinity_seconds = Some(60);
        let piece = render(&[sticky], Family::V4);
        assert_eq!(piece.sets.len(), 2);
        assert!(piece.sets.values().all(|s| s.contains("timeout 60s")));
        let verdict = get(&piece, SERVICE_IPS, "10.96.0.10 . tcp . 80").expect("present");
        let rules = &piece.chains[verdict.strip_prefix("goto ").expect("goto")];
        assert_eq!(rules.len(), 3);
        assert!(rules[2].starts_with("numgen random mod 2 vmap"));
    }

    #[test]
    fn source_ranges_guard_the_load_balancer() {
        let mut guarded = port(vec![endpoint("10.0.0.1", false)]);
        guarded.load_balancer_ips = vec!["203.0.113.1".parse().expect("valid")];
        guarded.source_ranges = vec!["198.51.100.0/24".parse().expect("valid")];
        let piece = render(&[guarded], Family::V4);
        let verdict = get(&piece, FIREWALL_IPS, "203.0.113.1 . tcp . 80").expect("present");
        let rules = &piece.chains[verdict.strip_prefix("goto ").expect("goto")];
        assert_eq!(rules, &["ip saddr != { 198.51.100.0/24 } drop"]);
    }
}
