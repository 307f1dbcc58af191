//! The cgroup hierarchy and its controllers. Boards often boot with the memory controller switched off.

use super::Check;
use std::path::Path;

const NEEDED: [&str; 3] = ["cpu", "memory", "pids"];

/// Whether the controllers that limits need are there.
pub(super) fn controllers() -> Vec<Check> {
    let root = Path::new("/sys/fs/cgroup");
    let cgroups = std::fs::read_to_string("/proc/cgroups").unwrap_or_default();
    if let Ok(list) = std::fs::read_to_string(root.join("cgroup.controllers")) {
        return vec![judge("v2", &list.split_whitespace().collect::<Vec<_>>(), &cgroups)];
    }
    let mounted: Vec<&str> = ["cpu", "cpuacct", "cpuset", "memory", "pids", "devices", "freezer", "blkio"]
        .into_iter()
        .filter(|name| root.join(name).join("cgroup.procs").is_file())
        .collect();
    vec![judge("v1", &mounted, &cgroups)]
}

fn judge(version: &str, controllers: &[&str], cgroups: &str) -> Check {
    let missing: Vec<&str> = NEEDED.into_iter().filter(|name| !controllers.contains(name)).collect();
    if missing.is_empty() {
        return Check::ok("cgroups", format!("{version}: {}", controllers.join(" ")));
    }
    let found = format!("{version}, without {}", missing.join(", "));
    if missing.contains(&"memory") && is_disabled(cgroups, "memory") {
        return Check::fail("cgroups", found, memory_remedy());
    }
    if controllers.is_empty() {
        return Check::fail(
            "cgroups",
            "no cgroup hierarchy is mounted below /sys/fs/cgroup",
            "mount -t cgroup2 none /sys/fs/cgroup",
        );
    }
    Check::fail(
        "cgroups",
        found,
        "mount the missing controllers below /sys/fs/cgroup, or boot with cgroup v2",
    )
}

/// Whether /proc/cgroups lists the controller as switched off on the kernel's command line.
fn is_disabled(cgroups: &str, name: &str) -> bool {
    let line = cgroups.lines().find(|line| line.split_whitespace().next() == Some(name));
    // A controller that is not listed at all is not in the kernel, or hidden by the same switch.
    line.is_none_or(|line| line.split_whitespace().last() == Some("0"))
}

/// On a Raspberry Pi the switch stands in one of two files.
fn memory_remedy() -> String {
    let file = ["/boot/firmware/cmdline.txt", "/boot/cmdline.txt"]
        .into_iter()
        .find(|file| Path::new(file).is_file());
    match file {
        Some(file) => {
            format!("add `cgroup_enable=memory cgroup_memory=1` to the one line of {file} and reboot")
        }
        None => "boot with `cgroup_enable=memory` on the kernel's command line (GRUB_CMDLINE_LINUX in \
                 /etc/default/grub, then `update-grub` and reboot)"
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn a_memory_controller_that_is_off_gets_its_remedy() {
        let off = "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t0\t1\t1\nmemory\t0\t1\t0\n";
        let check = judge("v2", &["cpu", "pids"], off);
        assert_eq!(check.level, Level::Fail);
        assert!(check.remedy.contains("cgroup_enable=memory"), "{}", check.remedy);
        assert_eq!(judge("v2", &["cpuset", "cpu", "io", "memory", "pids"], off).level, Level::Ok);
        assert_eq!(judge("v1", &[], off.replace("\t0\n", "\t1\n").as_str()).level, Level::Fail);
    }
}
