//! Kernel parameters and routes that a node needs, each noted in the journal with its value before.

use crate::command::run;
use crate::journal::{Entry, Journal};
use crate::layout;
use crate::machine::Node;
use crate::stages::{Remedy, Stage};
use anyhow::{Context, Result};
use std::path::PathBuf;

/// Parameters that must have at least this value.
const AT_LEAST: &[(&str, u64)] = &[
    // Pods reach each other and the outside through the node.
    ("net.ipv4.ip_forward", 1),
    // A pod that reaches its neighbour through a Service gets the answer over the bridge: it must pass conntrack.
    ("net.bridge.bridge-nf-call-iptables", 1),
    // The distributions' defaults run out with a few dozen pods.
    ("fs.inotify.max_user_instances", 1024),
    ("fs.inotify.max_user_watches", 524_288),
];

/// Parameters that the node's daemons switch on themselves; noted here so that `down` switches them back.
const BY_DAEMONS: &[&str] = &["net.ipv6.conf.all.forwarding", "net.bridge.bridge-nf-call-ip6tables"];

fn sysctl_path(key: &str) -> PathBuf {
    PathBuf::from(format!("/proc/sys/{}", key.replace('.', "/")))
}

fn read_sysctl(key: &str) -> Result<String> {
    let path = sysctl_path(key);
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text.trim().to_owned())
}

pub(crate) fn write_sysctl(key: &str, value: &str) -> Result<()> {
    let path = sysctl_path(key);
    std::fs::write(&path, value).with_context(|| format!("cannot write {value} to {}", path.display()))
}

/// Sets what is too low.
pub(crate) fn set_kernel_parameters(stage: &Stage) -> Result<String> {
    let mut journal = Journal::open()?;
    if !sysctl_path("net.bridge.bridge-nf-call-iptables").exists() {
        stage.busy("loading br_netfilter");
        run("modprobe").arg("br_netfilter").ok().remedy(
            "the kernel needs CONFIG_BRIDGE_NETFILTER; install your distribution's full kernel package",
        )?;
    }
    let mut changed = 0;
    for (key, least) in AT_LEAST {
        let before = read_sysctl(key)?;
        if before.parse::<u64>().is_ok_and(|value| value >= *least) {
            continue;
        }
        journal.record(Entry::Sysctl { key: (*key).to_owned(), before })?;
        write_sysctl(key, &least.to_string())?;
        changed += 1;
    }
    for key in BY_DAEMONS {
        // Not there where the kernel has no IPv6.
        if let Ok(before) = read_sysctl(key) {
            journal.record(Entry::Sysctl { key: (*key).to_owned(), before })?;
        }
    }
    Ok(if changed == 0 { "as needed".to_owned() } else { format!("{changed} set") })
}

/// The routes of a node, as the words after `ip route add`.
fn routes(node: &Node) -> Vec<Vec<String>> {
    let words = |text: String| text.split_whitespace().map(str::to_owned).collect();
    vec![
        // Service addresses live on no wire. They are local to each node until kube-proxy's rules say which pod is
        // meant, so that a connection to one never leaves by the default route, with or without those rules.
        words(format!("local {} dev lo src {}", layout::SERVICE_CIDR, node.ip)),
        // The node's own pods have a more specific route; the rest of the pod network is nowhere on one node.
        words(format!("unreachable {} metric 4096", layout::POD_CIDR)),
    ]
}

/// Adds the routes that are missing.
pub(crate) fn add_routes(node: &Node) -> Result<String> {
    let mut journal = Journal::open()?;
    let wanted = routes(node);
    // The node's address may have changed since: its old routes go first.
    let stale: Vec<Entry> = journal
        .entries()
        .iter()
        .filter(|entry| matches!(entry, Entry::Route { words } if !wanted.contains(words)))
        .cloned()
        .collect();
    for entry in &stale {
        undo_route(entry)?;
        journal.strike(entry)?;
    }
    let mut added = 0;
    for words in wanted {
        journal.record(Entry::Route { words: words.clone() })?;
        let output = run("ip").args(["route", "add"]).args(&words).output()?;
        if output.status.success() {
            added += 1;
            continue;
        }
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if !said.contains("File exists") {
            return Err(anyhow::anyhow!("`ip route add {}`: {}", words.join(" "), said.trim())).remedy(
                "see `ip route show table all` for a route that collides with the cluster's networks",
            );
        }
    }
    Ok(if added == 0 { "as needed".to_owned() } else { format!("{added} added") })
}

/// Takes a journalled route away; one that is gone already is fine.
pub(crate) fn undo_route(entry: &Entry) -> Result<()> {
    let Entry::Route { words } = entry else { return Ok(()) };
    let output = run("ip").args(["route", "del"]).args(words).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() || said.contains("No such process") || said.contains("Cannot find device") {
        return Ok(());
    }
    anyhow::bail!("`ip route del {}`: {}", words.join(" "), said.trim())
}
