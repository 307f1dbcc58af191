//! Whether the ports of the control plane and the node are free, or held by the cluster's own processes.

use super::Check;
use crate::layout;
use crate::supervise;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const PORTS: [(u16, &str); 10] = [
    (6443, "kube-apiserver"),
    (2379, "etcd clients"),
    (2380, "etcd peers"),
    (2381, "etcd metrics"),
    (10248, "kubelet health"),
    (10249, "kube-proxy metrics"),
    (10250, "kubelet"),
    (10256, "kube-proxy health"),
    (10257, "kube-controller-manager"),
    (10259, "kube-scheduler"),
];

/// Who listens on the cluster's ports.
pub(super) fn listeners() -> Vec<Check> {
    let mut taken = BTreeMap::new();
    for file in ["/proc/net/tcp", "/proc/net/tcp6"] {
        for (port, inode) in listening(&std::fs::read_to_string(file).unwrap_or_default()) {
            if PORTS.iter().any(|(known, _)| *known == port) {
                taken.entry(port).or_insert(inode);
            }
        }
    }
    if taken.is_empty() {
        return vec![Check::ok("ports", "all free")];
    }
    let owners = owners(&taken.values().copied().collect());
    let mut checks = Vec::new();
    let mut ours = 0;
    for (port, inode) in &taken {
        let purpose = PORTS.iter().find(|(known, _)| known == port).map_or("", |(_, purpose)| purpose);
        match owners.get(inode) {
            Some(pid) if is_ours(*pid) => ours += 1,
            owner => {
                let who = owner.map_or_else(
                    || "a process that cannot be seen from here".to_owned(),
                    |pid| format!("{} (pid {pid})", process_name(*pid)),
                );
                checks.push(Check::fail(
                    "ports",
                    format!("{port} ({purpose}) is taken by {who}"),
                    "stop that program, or move it to another port",
                ));
            }
        }
    }
    if checks.is_empty() {
        checks.push(Check::ok("ports", format!("{ours} held by the cluster, the others free")));
    }
    checks
}

/// The listening sockets of a /proc/net/tcp table, as (port, inode).
fn listening(table: &str) -> Vec<(u16, u64)> {
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let port = u16::from_str_radix(fields.get(1)?.rsplit_once(':')?.1, 16).ok()?;
            (*fields.get(3)? == "0A").then_some((port, fields.get(9)?.parse().ok()?))
        })
        .collect()
}

/// Which process has each of these sockets open.
fn owners(inodes: &BTreeSet<u64>) -> BTreeMap<u64, i32> {
    let mut found = BTreeMap::new();
    for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        for fd in std::fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten() {
            let Ok(target) = std::fs::read_link(fd.path()) else { continue };
            let text = target.to_string_lossy();
            let inode =
                text.strip_prefix("socket:[").and_then(|t| t.strip_suffix(']')).and_then(|t| t.parse().ok());
            if let Some(inode) = inode.filter(|inode| inodes.contains(inode)) {
                found.entry(inode).or_insert(pid);
            }
        }
    }
    found
}

/// The kubelet, or a process in one of its pods.
fn is_ours(pid: i32) -> bool {
    let cgroups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    cgroups.contains("kubepods")
        || supervise::child_pid(Path::new(layout::RUN), "kubelet")
            .is_some_and(|kubelet| kubelet.as_raw() == pid)
        || cgroups.contains("/kubelet.service")
}

fn process_name(pid: i32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_sockets_are_read() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            \x20  0: 0100007F:094B 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4242 1 0\n\
            \x20  1: 0100007F:094B 0100007F:8000 01 00000000:00000000 00:00000000 00000000     0        0 4243 1 0\n";
        assert_eq!(listening(table), [(2379, 4242)]);
    }
}
