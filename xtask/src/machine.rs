//! Facts about this machine that the cluster is built on: its name, its address, its distribution, its init system.

use crate::command::run;
use crate::stages::Remedy;
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;

/// The node that this machine becomes.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) ip: Ipv4Addr,
}

impl Node {
    /// The node's name and address from the flags, or else from the machine.
    pub(crate) fn find(name: Option<&str>, ip: Option<Ipv4Addr>) -> Result<Node> {
        let name = match name {
            Some(name) => name.to_owned(),
            None => nix::unistd::gethostname()?.to_string_lossy().trim().to_lowercase(),
        };
        let valid = !name.is_empty()
            && name.len() <= 63
            && name.split('.').all(|part| {
                !part.is_empty()
                    && !part.starts_with('-')
                    && !part.ends_with('-')
                    && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            });
        if !valid {
            return Err(anyhow::anyhow!("{name:?} cannot be the name of a node"))
                .remedy("give a name of lower-case letters, digits and dashes with --node-name");
        }
        let ip = match ip {
            Some(ip) => ip,
            None => default_address()?,
        };
        Ok(Node { name, ip })
    }
}

/// The address that this machine uses towards its default route.
fn default_address() -> Result<Ipv4Addr> {
    let routes = run("ip").args(["-4", "-json", "route", "show", "default"]).stdout()?;
    parse_default_route(&routes)
        .and_then(|(device, source)| match source {
            Some(ip) => Ok(ip),
            None => {
                parse_address(&run("ip").args(["-4", "-json", "address", "show", "dev", &device]).stdout()?)
            }
        })
        .remedy("give the node's address with --node-ip")
}

fn parse_default_route(json: &str) -> Result<(String, Option<Ipv4Addr>)> {
    let routes: serde_json::Value = serde_json::from_str(json).context("`ip -json route` printed no JSON")?;
    let Some(route) = routes.as_array().and_then(|list| list.first()) else {
        bail!("this machine has no default IPv4 route");
    };
    let device = route["dev"].as_str().context("the default route names no device")?.to_owned();
    Ok((device, route["prefsrc"].as_str().and_then(|ip| ip.parse().ok())))
}

fn parse_address(json: &str) -> Result<Ipv4Addr> {
    let links: serde_json::Value =
        serde_json::from_str(json).context("`ip -json address` printed no JSON")?;
    links
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|link| link["addr_info"].as_array().cloned().unwrap_or_default())
        .filter(|address| address["scope"] == "global")
        .find_map(|address| address["local"].as_str().and_then(|ip| ip.parse().ok()))
        .context("the interface of the default route has no IPv4 address")
}

/// Whether systemd is the init system at work, and not merely installed.
pub(crate) fn has_systemd() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// The fields of /etc/os-release.
pub(crate) fn os_release() -> BTreeMap<String, String> {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    text.lines()
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.trim_matches('"').to_owned()))
        .collect()
}

/// Whether this process holds a capability, by its bit number in the effective set.
pub(crate) fn has_capability(bit: u32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .is_some_and(|set| set >> bit & 1 == 1)
}

/// CAP_SYS_RESOURCE: without it an oom_score_adj cannot be lowered.
pub(crate) const CAP_SYS_RESOURCE: u32 = 24;

/// Every process whose command line fulfils the condition, as (pid, arguments).
pub(crate) fn processes(wanted: impl Fn(&[String]) -> bool) -> Vec<(i32, Vec<String>)> {
    let Ok(dir) = std::fs::read_dir("/proc") else { return Vec::new() };
    dir.flatten()
        .filter_map(|entry| {
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            let bytes = std::fs::read(entry.path().join("cmdline")).ok()?;
            let words: Vec<String> = bytes
                .split(|b| *b == 0)
                .filter(|word| !word.is_empty())
                .map(|word| String::from_utf8_lossy(word).into_owned())
                .collect();
            wanted(&words).then_some((pid, words))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_comes_from_the_default_route() {
        let with_source = r#"[{"dst":"default","gateway":"192.0.2.1","dev":"eth0","prefsrc":"192.0.2.7"}]"#;
        assert_eq!(
            parse_default_route(with_source).unwrap(),
            ("eth0".to_owned(), Some(Ipv4Addr::new(192, 0, 2, 7)))
        );
        assert!(parse_default_route("[]").unwrap_err().to_string().contains("no default IPv4 route"));
        let links = r#"[{"addr_info":[{"local":"127.0.0.1","scope":"host"},{"local":"192.0.2.2","scope":"global"}]}]"#;
        assert_eq!(parse_address(links).unwrap(), Ipv4Addr::new(192, 0, 2, 2));
    }

    #[test]
    fn node_names_are_checked() {
        let ip = Some(Ipv4Addr::LOCALHOST);
        assert_eq!(Node::find(Some("node-1.lan"), ip).unwrap().name, "node-1.lan");
        for bad in ["", "Node", "-a", "a..b", "a_b"] {
            assert!(Node::find(Some(bad), ip).is_err(), "{bad:?}");
        }
    }
}
