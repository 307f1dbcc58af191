//! The cgroups above containers: `kubepods`, one per QoS class, one per pod. Containers' own cgroups are the runtime's.
//! Works on cgroup v1 (a mount per controller) and v2; a controller that the kernel lacks is passed over. With the
//! systemd driver the slices are systemd's, made when the runtime starts a scope in them: only their names are ours
//! and pod-level limits are not set. Upstream's concept: `pkg/kubelet/cm`.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

pub mod name;
pub mod values;

use crate::runtime::CgroupDriver;
use name::CgroupName;
use values::{CgroupValues, MIN_SHARES, pod_values};

/// One cgroup file system.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mount {
    path: PathBuf,
    /// v1 controllers mounted here (`cpu`, `cpuacct`), none for v2 and for named hierarchies.
    controllers: Vec<String>,
    v2: bool,
}

/// Which cgroup version carries the limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// A hierarchy per controller.
    V1,
    /// The unified hierarchy.
    V2,
}

/// Makes and removes the cgroups above containers.
#[derive(Debug)]
pub struct CgroupManager {
    mounts: Vec<Mount>,
    version: Version,
    driver: CgroupDriver,
    root: CgroupName,
    per_qos: bool,
    pids_limit: Option<i64>,
    cfs_quota: bool,
}

/// How the kubelet wants its cgroups.
#[derive(Debug, Clone)]
pub struct CgroupConfig {
    /// `cgroupDriver`.
    pub driver: CgroupDriver,
    /// `cgroupRoot`.
    pub root: String,
    /// `cgroupsPerQOS`.
    pub per_qos: bool,
    /// `podPidsLimit`.
    pub pids_limit: Option<i64>,
    /// `cpuCFSQuota`.
    pub cfs_quota: bool,
}

/// A cgroup that couldn't be made or removed.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// mkdir failed.
    #[error("failed to create cgroup {path}")]
    Create {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something in it doesn't go away.
    #[error("failed to remove cgroup {path}")]
    Remove {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Finds the cgroup mounts in `/proc/self/mountinfo`. The first mount of a hierarchy counts.
fn parse_mounts(mountinfo: &str) -> Vec<Mount> {
    let mut mounts: Vec<Mount> = Vec::new();
    for line in mountinfo.lines() {
        let Some((before, after)) = line.split_once(" - ") else { continue };
        let Some(path) = before.split(' ').nth(4).map(PathBuf::from) else { continue };
        let mut after = after.split(' ');
        let (kind, options) = (after.next().unwrap_or_default(), after.nth(1).unwrap_or_default());
        let mount = match kind {
            "cgroup2" => Mount { path, controllers: Vec::new(), v2: true },
            "cgroup" => {
                let known = ["rw", "ro", "xattr", "clone_children", "noprefix"];
                let controllers = options
                    .split(',')
                    .filter(|o| !known.contains(o) && !o.contains('='))
                    .map(str::to_owned)
                    .collect();
                Mount { path, controllers, v2: false }
            }
            _ => continue,
        };
        let repeated = mounts.iter().any(|m| {
            m.v2 == mount.v2 && m.controllers == mount.controllers && (m.v2 || !m.controllers.is_empty())
        });
        if !repeated {
            mounts.push(mount);
        }
    }
    mounts
}

impl CgroupManager {
    /// Looks at what this machine mounts.
    pub fn detect(config: &CgroupConfig) -> io::Result<Self> {
        Ok(Self::with_mounts(config, parse_mounts(&std::fs::read_to_string("/proc/self/mountinfo")?)))
    }

    fn with_mounts(config: &CgroupConfig, mounts: Vec<Mount>) -> Self {
        // A v2 mount beside v1 controllers (systemd's "hybrid" layout) carries no controllers of its own.
        let v1 = mounts.iter().any(|m| !m.controllers.is_empty());
        Self {
            mounts,
            version: if v1 { Version::V1 } else { Version::V2 },
            driver: config.driver,
            root: CgroupName::root(&config.root),
            per_qos: config.per_qos,
            pids_limit: config.pids_limit,
            cfs_quota: config.cfs_quota,
        }
    }

    /// Which version carries the limits.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// What a pod's sandbox gets as `cgroup_parent`.
    #[must_use]
    pub fn pod_cgroup_parent(&self, pod: &Pod) -> String {
        let name = if self.per_qos { self.root.pod(pod) } else { self.root.clone() };
        name.to_runtime(self.driver)
    }

    fn makes_directories(&self) -> bool {
        self.per_qos && self.driver == CgroupDriver::Cgroupfs
    }

    /// Makes `kubepods` and its QoS classes. `cpus` and `memory` are the node's.
    pub fn ensure_qos_tree(&self, cpus: u64, memory: u64) -> Result<(), CgroupError> {
        if !self.makes_directories() {
            return Ok(());
        }
        let node = CgroupValues {
            cpu_shares: Some(values::milli_cpu_to_shares(cpus.saturating_mul(1000))),
            memory_limit: Some(memory),
            ..Default::default()
        };
        self.create(&self.root.kubepods(), &node)?;
        let least = CgroupValues { cpu_shares: Some(MIN_SHARES), ..Default::default() };
        self.create(&self.root.kubepods().child("besteffort"), &least)?;
        self.create(&self.root.kubepods().child("burstable"), &CgroupValues::default())?;
        self.share_burstable();
        Ok(())
    }

    /// Makes a pod's cgroup, or brings its values up to date.
    pub fn ensure_pod(&self, pod: &Pod) -> Result<(), CgroupError> {
        if !self.makes_directories() {
            return Ok(());
        }
        let mut values = pod_values(pod, self.cfs_quota);
        values.pids_limit = self.pids_limit.filter(|limit| *limit > 0);
        self.create(&self.root.pod(pod), &values)?;
        self.share_burstable();
        Ok(())
    }

    /// Removes the cgroup of a pod whose containers are gone, in whatever class it was; kills what still runs in it.
    pub async fn remove_pod(&self, uid: &str) -> Result<(), CgroupError> {
        if !self.makes_directories() || !name::is_plain_uid(uid) {
            return Ok(());
        }
        for name in self.root.all_names_of_pod(uid) {
            for mount in &self.mounts {
                remove_tree(&name.below(&mount.path)).await?;
            }
        }
        self.share_burstable();
        Ok(())
    }

    /// Removes `kubepods` itself where it is empty.
    pub async fn remove_qos_tree(&self) -> Result<(), CgroupError> {
        for mount in &self.mounts {
            remove_tree(&self.root.kubepods().below(&mount.path)).await?;
        }
        Ok(())
    }

    /// The uids of pods that have a cgroup.
    #[must_use]
    pub fn pods_on_disk(&self) -> BTreeSet<String> {
        let kubepods = self.root.kubepods();
        let classes = [kubepods.clone(), kubepods.child("burstable"), kubepods.child("besteffort")];
        let directories = self.mounts.iter().flat_map(|m| classes.iter().map(|c| c.below(&m.path)));
        directories
            .filter_map(|directory| std::fs::read_dir(directory).ok())
            .flat_map(|entries| entries.filter_map(Result::ok))
            .filter_map(|entry| entry.file_name().to_str()?.strip_prefix("pod").map(str::to_owned))
            .collect()
    }

    fn create(&self, name: &CgroupName, values: &CgroupValues) -> Result<(), CgroupError> {
        for mount in &self.mounts {
            if mount.v2 != (self.version == Version::V2) || !carries_limits(mount) {
                continue;
            }
            let path = name.below(&mount.path);
            std::fs::create_dir_all(&path)
                .map_err(|source| CgroupError::Create { path: path.clone(), source })?;
            if mount.v2 {
                delegate_controllers(&mount.path, name);
            }
            for (file, value) in values.files(self.version, &mount.controllers) {
                write_value(&path.join(file), &value);
            }
        }
        Ok(())
    }

    /// The Burstable class weighs as much as its pods together: it competes with the Guaranteed pods beside it.
    fn share_burstable(&self) {
        let name = self.root.kubepods().child("burstable");
        let file = values::shares_file(self.version);
        for mount in self.mounts.iter().filter(|m| carries_limits(m) && m.v2 == (self.version == Version::V2))
        {
            let directory = name.below(&mount.path);
            if !directory.join(file).exists() {
                continue;
            }
            let Ok(entries) = std::fs::read_dir(&directory) else { continue };
            let pods = entries.filter_map(Result::ok).filter_map(|entry| {
                std::fs::read_to_string(entry.path().join(file)).ok()?.trim().parse::<u64>().ok()
            });
            write_value(&directory.join(file), &values::clamp_class(self.version, pods.sum()).to_string());
        }
    }
}

fn carries_limits(mount: &Mount) -> bool {
    mount.v2 || mount.controllers.iter().any(|c| ["cpu", "memory", "pids"].contains(&c.as_str()))
}

/// Lets each ancestor's children have controllers (v2). One at a time: a controller the kernel lacks fails alone.
fn delegate_controllers(mount: &Path, name: &CgroupName) {
    for ancestor in name.ancestors() {
        let control = ancestor.below(mount).join("cgroup.subtree_control");
        for controller in ["+cpu", "+memory", "+pids", "+cpuset", "+io", "+hugetlb"] {
            if let Err(error) = std::fs::write(&control, controller) {
                tracing::debug!(path = %control.display(), controller, %error, "cgroup controller not delegated");
            }
        }
    }
}

fn write_value(path: &Path, value: &str) {
    if std::fs::read_to_string(path).is_ok_and(|current| current.trim() == value) {
        return;
    }
    if let Err(error) = std::fs::write(path, value) {
        // A limit below what is in use, or a kernel without the file: the pod must run all the same.
        tracing::warn!(path = %path.display(), value, %error, "cgroup value not set");
    }
}

/// Removes a cgroup and its children, leaves first. A process that is dying holds its cgroup for a moment.
async fn remove_tree(path: &Path) -> Result<(), CgroupError> {
    const ATTEMPTS: u32 = 40;
    let mut directories = vec![path.to_owned()];
    let mut next = 0;
    while let Some(directory) = directories.get(next) {
        next += 1;
        let Ok(entries) = std::fs::read_dir(directory) else { continue };
        let children = entries.filter_map(Result::ok).filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
        let children: Vec<_> = children.map(|e| e.path()).collect();
        directories.extend(children);
    }
    for directory in directories.iter().rev() {
        let mut attempt = 0;
        while let Err(source) = std::fs::remove_dir(directory) {
            if source.kind() == io::ErrorKind::NotFound {
                break;
            }
            attempt += 1;
            if attempt == ATTEMPTS {
                return Err(CgroupError::Remove { path: directory.clone(), source });
            }
            kill_members(directory);
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }
    Ok(())
}

fn kill_members(directory: &Path) {
    let Ok(members) = std::fs::read_to_string(directory.join("cgroup.procs")) else { return };
    for pid in members.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 1) {
        // It may be gone already, which is what we want.
        if kill(Pid::from_raw(pid), Signal::SIGKILL).is_ok() {
            tracing::warn!(pid, path = %directory.display(), "killed a process left in a pod's cgroup");
        }
    }
}

#[cfg(test)]
#[path = "cgroups/tests.rs"]
mod tests;
