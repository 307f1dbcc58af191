//! What a cluster leaves on a machine while it runs, and what must be gone after `down`: processes, mounts,
//! interfaces, nftables tables, iptables chains, cgroups, network namespaces.

use super::Check;
use crate::command::{run, which};
use crate::containerd;
use crate::layout;
use crate::machine;
use crate::services;
use std::path::{Path, PathBuf};

/// nftables tables of the cluster: kube-proxy's and the pod network's, as (family, name).
pub(crate) const TABLES: [(&str, &str); 4] = [
    ("ip", "kube-proxy"),
    ("ip6", "kube-proxy"),
    ("ip", "keelson-pod-network"),
    ("ip6", "keelson-pod-network"),
];

/// Name of the CNI network that the pod-network daemon writes, and of the bridge that its manifest names.
pub(crate) const CNI_NETWORK: &str = "keelson";
pub(crate) const BRIDGE: &str = "keelson0";

/// Everything of a cluster that is on the machine now, a line each.
pub(crate) fn find() -> Vec<String> {
    let mut found = Vec::new();
    for name in ["kubelet", containerd::SERVICE] {
        if services::is_running(name) {
            found.push(format!("service {name}"));
        }
    }
    found.extend(containerd::shims().into_iter().map(|pid| format!("process {pid} (containerd shim)")));
    found.extend(mounts().into_iter().map(|path| format!("mount {}", path.display())));
    found.extend(cgroups().into_iter().map(|path| format!("cgroup {}", path.display())));
    found.extend(interfaces().into_iter().map(|name| format!("interface {name}")));
    found.extend(tables().into_iter().map(|(family, name)| format!("nftables table {family} {name}")));
    for program in ["iptables", "ip6tables"] {
        found.extend(cni_rules(program).into_iter().map(|rule| format!("{program} rule {rule}")));
    }
    found
}

/// Mount points below the cluster's directories, innermost first.
pub(crate) fn mounts() -> Vec<PathBuf> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounts_in(&text)
}

fn mounts_in(mountinfo: &str) -> Vec<PathBuf> {
    let below = [layout::CONTAINERD_STATE, layout::CONTAINERD_ROOT, layout::KUBELET_ROOT];
    let mut found: Vec<PathBuf> = mountinfo
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|point| PathBuf::from(point.replace("\\040", " ")))
        .filter(|point| below.iter().any(|dir| point.starts_with(dir) && point != Path::new(dir)))
        .collect();
    found.reverse();
    found
}

/// The pods' cgroups: one tree for each hierarchy. A tree with a process in it that is not of our containerd belongs
/// to another kubelet on the machine, and is not ours to touch.
pub(crate) fn cgroups() -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let mut hierarchies = vec![root.to_owned()];
    hierarchies.extend(std::fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path()));
    ["kubepods", "kubepods.slice"]
        .into_iter()
        .flat_map(|name| hierarchies.iter().map(move |dir| dir.join(name)))
        .filter(|path| path.join("cgroup.procs").is_file())
        .filter(|path| processes_below(path).into_iter().all(is_our_container))
        .collect()
}

/// The directory and all below it, innermost first.
pub(crate) fn directories(top: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(top).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(directories(&entry.path()));
        }
    }
    found.push(top.to_owned());
    found
}

/// The processes in a cgroup and in those below it.
pub(crate) fn processes_below(top: &Path) -> Vec<i32> {
    directories(top)
        .iter()
        .map(|dir| std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default())
        .flat_map(|text| text.lines().filter_map(|line| line.parse().ok()).collect::<Vec<i32>>())
        .collect()
}

/// Whether the root file system of a process comes from our containerd's state. One that has gone meanwhile is nobody's.
pub(crate) fn is_our_container(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).map_or(true, |text| has_our_root(&text))
}

fn has_our_root(mountinfo: &str) -> bool {
    // The last mount on a point is the one in sight.
    let root = mountinfo.lines().rfind(|line| line.split(' ').nth(4) == Some("/"));
    root.is_some_and(|line| line.contains(layout::CONTAINERD_ROOT))
}

/// The bridge, and interfaces that are plugged into it.
pub(crate) fn interfaces() -> Vec<String> {
    let master = |name: &str| {
        std::fs::read_link(format!("/sys/class/net/{name}/master"))
            .is_ok_and(|target| target.file_name().is_some_and(|file| file == BRIDGE))
    };
    let names = std::fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    names
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name == BRIDGE || master(name))
        .collect()
}

/// The nftables tables that are there.
pub(crate) fn tables() -> Vec<(&'static str, &'static str)> {
    if which("nft").is_none() {
        return Vec::new();
    }
    let text = run("nft").args(["list", "tables"]).stdout().unwrap_or_default();
    TABLES
        .into_iter()
        .filter(|(family, name)| text.lines().any(|line| line.trim() == format!("table {family} {name}")))
        .collect()
}

/// Rules and chains that CNI's portmap plugin made for our network, in the form of `iptables -S`. Its chains are
/// shared with other CNI networks, so ours are those that carry the network's name.
pub(crate) fn cni_rules(program: &str) -> Vec<String> {
    if which(program).is_none() {
        return Vec::new();
    }
    let text = run(program).args(["-t", "nat", "-S"]).stdout().unwrap_or_default();
    cni_rules_in(&text)
}

fn cni_rules_in(text: &str) -> Vec<String> {
    let marks = [format!("name: \"{CNI_NETWORK}\""), format!("name: \\\"{CNI_NETWORK}\\\"")];
    text.lines().filter(|line| marks.iter().any(|mark| line.contains(mark))).map(str::to_owned).collect()
}

/// Leftovers of a cluster that is not running, and other agents of Kubernetes on the machine.
pub(super) fn before_up() -> Vec<Check> {
    let mut checks = Vec::new();
    let ours = |pid: i32| {
        std::fs::read_link(format!("/proc/{pid}/exe"))
            .is_ok_and(|path| path.to_string_lossy().starts_with(layout::BIN))
    };
    for (pid, words) in machine::processes(|words| {
        words.first().is_some_and(|program| {
            ["kubelet", "k3s", "k0s"].contains(&program.rsplit('/').next().unwrap_or_default())
        })
    }) {
        if !ours(pid) {
            let program = words.first().cloned().unwrap_or_default();
            // Its ports decide whether the two can live together; those are checked apart.
            checks.push(Check::warn(
                "another Kubernetes",
                format!("{program} runs as pid {pid}"),
                "both manage cgroups called kubepods: stop that one unless you know that it is harmless",
            ));
        }
    }
    if let Some(other) = earlier_cni_configuration() {
        checks.push(Check::fail(
            "CNI configuration",
            format!("{} comes before ours in the alphabet, and containerd takes the first", other.display()),
            "move that file out of /etc/cni/net.d",
        ));
    }
    let running = services::is_running("kubelet");
    let found = find();
    checks.push(if running || found.is_empty() {
        Check::ok("leftovers", if running { "a cluster is up" } else { "none" })
    } else {
        Check::warn(
            "leftovers",
            format!("{} of a cluster that is not running, such as {}", found.len(), found[0]),
            "`cargo xtask up` takes them up again; `cargo xtask down` removes them",
        )
    });
    checks
}

fn earlier_cni_configuration() -> Option<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(layout::CNI_CONF)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            path.extension().is_some_and(|e| ["conf", "conflist", "json"].iter().any(|known| e == *known))
        })
        .collect();
    files.sort();
    files.into_iter().next().filter(|first| {
        first.file_name().is_some_and(|name| name.to_string_lossy().as_ref() < layout::CNI_CONF_FILE)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_of_the_cluster_are_found_innermost_first() {
        let text = "22 1 8:1 / / rw - ext4 /dev/vda rw\n\
            40 22 0:5 / /run/keelson/containerd/a rw - overlay overlay rw\n\
            41 40 0:6 / /run/keelson/containerd/a/b rw - tmpfs tmpfs rw\n\
            42 22 0:7 / /var/lib/kubelet/pods/x/volumes/my\\040vol rw - tmpfs tmpfs rw\n\
            43 22 0:7 / /var/lib/kubelet-other rw - tmpfs tmpfs rw\n";
        let found = mounts_in(text);
        assert_eq!(found.len(), 3);
        assert_eq!(found[0], Path::new("/var/lib/kubelet/pods/x/volumes/my vol"));
        assert_eq!(found[1], Path::new("/run/keelson/containerd/a/b"));
    }

    #[test]
    fn a_container_is_known_by_its_root() {
        let ours = "600 540 0:74 / / ro - overlay overlay rw,lowerdir=/var/lib/keelson/containerd/x/fs\n\
                    601 600 0:75 / /proc rw - proc proc rw\n";
        assert!(has_our_root(ours));
        let host = "22 1 8:1 / / rw - ext4 /dev/vda rw\n\
                    90 22 0:74 / /run/keelson/a rw - overlay overlay rw,lowerdir=/var/lib/keelson/containerd/x/fs\n";
        assert!(!has_our_root(host));
    }

    #[test]
    fn inner_directories_come_first() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
        let all = directories(dir.path());
        assert_eq!(all, [dir.path().join("a/b"), dir.path().join("a"), dir.path().to_owned()]);
    }

    #[test]
    fn only_rules_of_our_network_count() {
        let text = "-A CNI-HOSTPORT-DNAT -p tcp -m comment --comment \"dnat name: \\\"keelson\\\" id: \\\"1\\\"\" -j CNI-DN-1\n\
                    -A CNI-HOSTPORT-DNAT -p tcp -m comment --comment \"dnat name: \\\"podman\\\" id: \\\"2\\\"\" -j CNI-DN-2\n";
        assert_eq!(cni_rules_in(text).len(), 1);
    }
}
