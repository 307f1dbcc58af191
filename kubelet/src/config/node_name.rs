//! Who this node is: its name, hostname, addresses and the labels it may give itself.
//!
//! Upstream's concept: `nodeutil.GetHostname`, `--node-ip` handling and `validateNodeLabels`-like checks of options.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

/// The machine's hostname.
pub(super) fn hostname() -> std::io::Result<String> {
    let name = nix::unistd::gethostname().map_err(std::io::Error::from)?;
    Ok(name.to_string_lossy().into_owned())
}

/// The override or the hostname, in lower case and without spaces around.
pub(super) fn node_name(override_: Option<&str>, hostname: &str) -> Result<String, String> {
    let name = override_.filter(|name| !name.is_empty()).unwrap_or(hostname).trim().to_lowercase();
    if name.is_empty() {
        return Err("empty hostname is invalid".to_owned());
    }
    match apimachinery::validation::names::is_dns1123_subdomain(&name).first() {
        Some(problem) => Err(format!("invalid node name {name:?}: {problem}")),
        None => Ok(name),
    }
}

/// The addresses given, or the one that the default route goes out from.
pub(super) fn node_ips(given: &[IpAddr]) -> Result<Vec<IpAddr>, String> {
    match given {
        [] => {}
        [ip] if ip.is_unspecified() => {}
        [ip] => return check(*ip).map(|ip| vec![ip]),
        [a, b] if a.is_ipv4() != b.is_ipv4() => return Ok(vec![check(*a)?, check(*b)?]),
        _ => {
            return Err(
                "bad --node-ip: must contain either a single IP or a dual-stack pair of IPs".to_owned()
            );
        }
    }
    Ok(vec![default_route_ip().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))])
}

fn check(ip: IpAddr) -> Result<IpAddr, String> {
    if ip.is_multicast() {
        return Err(format!("bad --node-ip {ip}: nodeIP can't be a multicast address"));
    }
    Ok(ip)
}

/// The source address that the kernel would use to reach the world. Connecting a UDP socket sends nothing.
fn default_route_ip() -> Option<IpAddr> {
    for (local, remote) in [("0.0.0.0:0", "192.0.2.1:9"), ("[::]:0", "[2001:db8::1]:9")] {
        let Ok(socket) = std::net::UdpSocket::bind(local) else { continue };
        if socket.connect(remote).is_ok()
            && let Ok(address) = socket.local_addr()
            && !address.ip().is_unspecified()
        {
            return Some(address.ip());
        }
    }
    interface_ip()
}

/// Without a default route: the first address of an interface that is up and not loopback.
fn interface_ip() -> Option<IpAddr> {
    let addresses = nix::ifaddrs::getifaddrs().ok()?;
    addresses
        .filter(|a| !a.flags.contains(nix::net::if_::InterfaceFlags::IFF_LOOPBACK))
        .filter_map(|a| Some(IpAddr::V4(a.address?.as_sockaddr_in()?.ip())))
        .next()
}

/// Prefixes of kubernetes.io labels that a kubelet may set on itself.
const ALLOWED_PREFIXES: &[&str] = &["kubelet.kubernetes.io", "node.kubernetes.io"];
const ALLOWED_LABELS: &[&str] = &[
    "kubernetes.io/hostname",
    "kubernetes.io/arch",
    "kubernetes.io/os",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/os",
];

/// Refuses labels that a kubelet must not give itself (they would let a node attract other workloads).
pub(super) fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), String> {
    let mut forbidden = Vec::new();
    for (key, value) in labels {
        if let Some(problem) = apimachinery::validation::names::is_qualified_name(key).first() {
            return Err(format!("invalid --node-labels key {key:?}: {problem}"));
        }
        if let Some(problem) = apimachinery::validation::names::is_valid_label_value(value).first() {
            return Err(format!("invalid --node-labels value {value:?}: {problem}"));
        }
        let namespace = key.split_once('/').map_or("", |(namespace, _)| namespace);
        let within = |domain: &str| namespace == domain || namespace.ends_with(&format!(".{domain}"));
        let reserved = within("kubernetes.io") || within("k8s.io");
        if reserved && !ALLOWED_LABELS.contains(&key.as_str()) && !ALLOWED_PREFIXES.iter().any(|p| within(p))
        {
            forbidden.push(key.as_str());
        }
    }
    if forbidden.is_empty() {
        return Ok(());
    }
    Err(format!(
        "unknown 'kubernetes.io' or 'k8s.io' labels specified with --node-labels: [{}]\n--node-labels in the \
         'kubernetes.io' namespace must begin with an allowed prefix ({}) or be in the specifically allowed set ({})",
        forbidden.join(", "),
        ALLOWED_PREFIXES.join(", "),
        ALLOWED_LABELS.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_lowered_and_checked() {
        assert_eq!(node_name(None, "Box").as_deref(), Ok("box"));
        assert_eq!(node_name(Some(" Node-1 "), "box").as_deref(), Ok("node-1"));
        assert!(node_name(Some("a_b"), "box").is_err());
        assert!(node_name(None, "").is_err());
    }

    #[test]
    fn a_node_may_not_give_itself_a_role() {
        let label = |key: &str| check_labels(&[(key.to_owned(), "x".to_owned())].into());
        assert!(label("node-role.kubernetes.io/control-plane").is_err());
        assert!(label("topology.kubernetes.io/zone").is_ok());
        assert!(label("node.kubernetes.io/disk").is_ok());
        assert!(label("example.com/a").is_ok());
        assert!(label("a b").is_err());
    }

    #[test]
    fn node_ips_are_one_or_a_dual_stack_pair() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(node_ips(&[ip("10.0.0.1")]).unwrap(), [ip("10.0.0.1")]);
        assert!(node_ips(&[ip("10.0.0.1"), ip("fd00::1")]).is_ok());
        assert!(node_ips(&[ip("10.0.0.1"), ip("10.0.0.2")]).is_err());
        assert!(node_ips(&[ip("224.0.0.1")]).is_err());
        assert_eq!(node_ips(&[]).unwrap().len(), 1);
    }
}
