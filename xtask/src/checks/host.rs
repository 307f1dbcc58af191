//! The user, the distribution, memory, swap, limits, clock, and other software that manages the same things.

use super::Check;
use crate::command::{run, which};
use crate::machine;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Who runs this, and on what.
pub(super) fn identity() -> Vec<Check> {
    let mut checks = Vec::new();
    checks.push(if nix::unistd::geteuid().is_root() {
        Check::ok("user", "root")
    } else {
        Check::fail("user", "not root", "run it as root, or with `sudo -E env PATH=$PATH cargo xtask ...`")
    });
    let os = machine::os_release();
    let name = os.get("PRETTY_NAME").cloned().unwrap_or_else(|| "unknown".to_owned());
    let family = format!(
        "{} {}",
        os.get("ID").cloned().unwrap_or_default(),
        os.get("ID_LIKE").cloned().unwrap_or_default()
    );
    let init = if machine::has_systemd() { "systemd" } else { "no systemd" };
    checks.push(if family.contains("debian") || family.contains("ubuntu") {
        Check::ok("system", format!("{name}, {init}"))
    } else {
        Check::warn(
            "system",
            format!("{name}, {init}"),
            "tried on Debian 12 and Ubuntu only; elsewhere install the packages by hand first",
        )
    });
    checks.push(clock(SystemTime::now()));
    checks
}

/// A clock before the source's own time makes every certificate "not yet valid" somewhere.
fn clock(now: SystemTime) -> Check {
    const SOURCE_YEAR: u64 = 2026;
    let year = 1970 + now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / 31_556_952;
    if year < SOURCE_YEAR {
        return Check::fail(
            "clock",
            format!("the clock says {year}"),
            "set the clock (`timedatectl set-ntp true` or `date -s ...`): certificates are dated by it",
        );
    }
    Check::ok("clock", format!("year {year}"))
}

fn meminfo(field: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with(field))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib / 1024)
}

/// Memory, swap and limits.
pub(super) fn resources() -> Vec<Check> {
    let mut checks = Vec::new();
    if let (Some(total), Some(free)) = (meminfo("MemTotal:"), meminfo("MemAvailable:")) {
        let found = format!("{total} MiB, {free} MiB available");
        checks.push(if total < 450 {
            Check::fail("memory", found, "a node with its control plane needs 512 MiB")
        } else if free < 300 {
            Check::warn("memory", found, "stop what else runs here: the control plane takes about 200 MiB")
        } else {
            Check::ok("memory", found)
        });
    }
    match meminfo("SwapTotal:") {
        None | Some(0) => checks.push(Check::ok("swap", "none")),
        Some(mib) => checks.push(Check::warn(
            "swap",
            format!("{mib} MiB"),
            "memory limits of pods do not cover swap; `swapoff -a` gives what Kubernetes expects",
        )),
    }
    let limit = |name: &str| {
        std::fs::read_to_string(format!("/proc/sys/fs/inotify/{name}"))
            .ok()
            .and_then(|t| t.trim().parse::<u64>().ok())
    };
    if let (Some(watches), Some(instances)) = (limit("max_user_watches"), limit("max_user_instances")) {
        // `up` raises them; they are shown because other tools run into them too.
        checks.push(Check::ok("inotify limits", format!("{watches} watches, {instances} instances")));
    }
    checks.push(if machine::has_capability(machine::CAP_SYS_RESOURCE) {
        Check::ok("capabilities", "an oom_score_adj may be lowered")
    } else {
        Check::warn(
            "capabilities",
            "CAP_SYS_RESOURCE is missing: no oom_score_adj can be lowered",
            "the cluster works; under memory pressure the kernel may kill critical pods first. \
             Give this machine the capability if it is itself a container",
        )
    });
    checks
}

/// Other managers of firewalls and networks.
pub(super) fn neighbours() -> Vec<Check> {
    let mut checks = Vec::new();
    let firewalld = which("firewall-cmd").is_some() && run("firewall-cmd").arg("--state").succeeds();
    if firewalld {
        checks.push(Check::warn(
            "firewalld",
            "running",
            "let the pods through: `firewall-cmd --permanent --zone=trusted --add-source=10.244.0.0/16 \
             --add-source=10.96.0.0/12 && firewall-cmd --permanent --add-port=6443/tcp --add-port=30000-32767/tcp \
             && firewall-cmd --reload`",
        ));
    }
    let ufw = std::fs::read_to_string("/etc/ufw/ufw.conf").is_ok_and(|text| text.contains("ENABLED=yes"));
    if ufw {
        checks.push(Check::warn(
            "ufw",
            "enabled",
            "let the pods through: `ufw allow from 10.244.0.0/16 && ufw allow 6443/tcp && \
             ufw allow 30000:32767/tcp && ufw default allow routed`",
        ));
    }
    if !firewalld && !ufw {
        checks.push(Check::ok("firewall", "neither firewalld nor ufw at work"));
    }
    if Path::new("/var/run/docker.sock").exists() {
        checks.push(Check::warn(
            "docker",
            "present: it sets the policy of forwarded packets to drop",
            "if pods do not reach the outside: `iptables -I DOCKER-USER -s 10.244.0.0/16 -j ACCEPT` and the same with -d",
        ));
    }
    checks
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_clock_in_the_past_fails() {
        assert_eq!(clock(UNIX_EPOCH + Duration::from_secs(1000)).level, Level::Fail);
        assert_eq!(clock(SystemTime::now()).level, Level::Ok);
    }
}
