//! Whether the kernel can do what pods need. Each feature is tried, in a network namespace or directory that is gone
//! afterwards: configuration files and module lists do not tell what works.

use super::Check;
use crate::command::{run, which};
use crate::containerd;
use crate::layout;
use std::path::Path;

/// A chain of each kind that kube-proxy's and the pod network's rules are made of.
const RULES: &str = "table ip check {
  set s { type ipv4_addr . inet_proto . inet_service; }
  map m { type ipv4_addr . inet_proto . inet_service : verdict; }
  chain n { type nat hook prerouting priority dstnat; ip daddr 192.0.2.1 tcp dport 80 dnat to 192.0.2.2:80; }
  chain p { type nat hook postrouting priority srcnat; ip saddr 192.0.2.0/24 masquerade; }
  chain f { type filter hook forward priority 0; ct state new numgen random mod 2 vmap { 0 : accept, 1 : accept }; }
  chain r { type filter hook output priority 0; ip daddr . meta l4proto . th dport @s reject; }
}";

/// Tries every feature.
pub(super) fn features() -> Vec<Check> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned();
    let mut checks = vec![version(&release)];
    if !nix::unistd::geteuid().is_root() {
        return checks;
    }
    checks.push(match containerd::overlayfs_works(Path::new(layout::STATE)) {
        Ok(()) => Check::ok("overlayfs", "works"),
        Err(error) => Check::warn(
            "overlayfs",
            format!("cannot be mounted below {}: {error:#}", layout::STATE),
            "images are unpacked as plain copies instead, which is slower and takes more space; \
             put the directory on ext4 or xfs",
        ),
    });
    let full_kernel =
        "install your distribution's full kernel package (cloud and minimal kernels leave modules out)";
    if which("ip").is_some() {
        for (name, script) in [
            ("bridge", "ip link add check0 type bridge"),
            ("veth", "ip link add check1 type veth peer name check2"),
        ] {
            checks.push(match in_namespace(script, None) {
                Ok(()) => Check::ok(name, "works"),
                Err(error) => Check::fail(name, error, full_kernel),
            });
        }
    }
    if which("nft").is_some() {
        checks.push(match in_namespace("nft -f -", Some(RULES)) {
            Ok(()) => Check::ok("nf_tables", "nat, sets, maps and reject work"),
            Err(error) => Check::fail("nf_tables", error, full_kernel),
        });
    }
    let bridge_netfilter = Path::new("/proc/sys/net/bridge/bridge-nf-call-iptables");
    let module = || run("modprobe").args(["--dry-run", "--quiet", "br_netfilter"]).succeeds();
    checks.push(if bridge_netfilter.exists() || module() {
        Check::ok("br_netfilter", "present")
    } else {
        Check::fail("br_netfilter", "neither built in nor a module", full_kernel)
    });
    checks
}

fn version(release: &str) -> Check {
    let mut numbers = release.split(['.', '-', '+']).map_while(|part| part.parse::<u32>().ok());
    let (major, minor) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    // 5.13 is where upstream's kube-proxy starts to trust nf_tables.
    if (major, minor) < (5, 13) {
        return Check::fail("kernel", release, "kube-proxy's nftables rules need Linux 5.13 or later");
    }
    Check::ok("kernel", release)
}

/// Runs a command in a fresh network namespace, which vanishes with it.
fn in_namespace(script: &str, input: Option<&str>) -> anyhow::Result<()> {
    let command = run("unshare").args(["--net", "sh", "-c", script]);
    match input {
        Some(text) => command.input(text).ok(),
        None => command.ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn old_kernels_are_refused() {
        assert_eq!(version("5.10.0-28-amd64").level, Level::Fail);
        assert_eq!(version("6.1.0-28-amd64").level, Level::Ok);
        assert_eq!(version("5.15.153.1-microsoft-standard-WSL2").level, Level::Ok);
    }
}
