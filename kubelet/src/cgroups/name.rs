//! Names of cgroups, independent of the driver. Upstream's concept: `cm.CgroupName`.

use std::path::{Path, PathBuf};

use apimachinery::pod::qos_class;
use k8s_openapi::api::core::v1::Pod;

use crate::runtime::CgroupDriver;

/// A path of names below the root cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CgroupName(Vec<String>);

/// Whether a uid can stand in a path: uids come from manifests too.
#[must_use]
pub fn is_plain_uid(uid: &str) -> bool {
    !uid.is_empty() && uid.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
}

impl CgroupName {
    /// The configured root (`/` or empty: the root itself).
    #[must_use]
    pub fn root(text: &str) -> Self {
        Self(
            text.split('/')
                .filter(|part| !part.is_empty() && *part != "." && *part != "..")
                .map(str::to_owned)
                .collect(),
        )
    }

    /// A child of this cgroup.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        let mut parts = self.0.clone();
        parts.push(name.to_owned());
        Self(parts)
    }

    /// What holds all pods.
    #[must_use]
    pub fn kubepods(&self) -> Self {
        self.child("kubepods")
    }

    /// A pod's cgroup by its QoS class (Guaranteed pods stand beside the other classes).
    #[must_use]
    pub fn pod(&self, pod: &Pod) -> Self {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let kubepods = self.kubepods();
        let class = match qos_class(pod) {
            "Guaranteed" => kubepods,
            "BestEffort" => kubepods.child("besteffort"),
            _ => kubepods.child("burstable"),
        };
        class.child(&format!("pod{uid}"))
    }

    /// Where a pod's cgroup may be, when only its uid is known.
    #[must_use]
    pub fn all_names_of_pod(&self, uid: &str) -> [Self; 3] {
        let (kubepods, leaf) = (self.kubepods(), format!("pod{uid}"));
        [
            kubepods.child(&leaf),
            kubepods.child("burstable").child(&leaf),
            kubepods.child("besteffort").child(&leaf),
        ]
    }

    /// This cgroup's ancestors from the root down, itself excluded.
    pub fn ancestors(&self) -> impl Iterator<Item = Self> + '_ {
        (0..self.0.len()).map(|n| Self(self.0[..n].to_vec()))
    }

    /// The directory below a mount.
    #[must_use]
    pub fn below(&self, mount: &Path) -> PathBuf {
        self.0.iter().fold(mount.to_owned(), |path, part| path.join(part))
    }

    /// The form that CRI's `cgroup_parent` takes with this driver.
    #[must_use]
    pub fn to_runtime(&self, driver: CgroupDriver) -> String {
        match driver {
            CgroupDriver::Cgroupfs => format!("/{}", self.0.join("/")),
            CgroupDriver::Systemd => self.to_systemd(),
        }
    }

    /// systemd's slices: `a`, `b` below it is `/a.slice/a-b.slice`; a dash in a name becomes an underscore.
    fn to_systemd(&self) -> String {
        if self.0.is_empty() {
            return "/".to_owned();
        }
        let mut path = String::new();
        let mut prefix = String::new();
        for part in &self.0 {
            let part = part.strip_suffix(".slice").unwrap_or(part).replace('-', "_");
            if !prefix.is_empty() {
                prefix.push('-');
            }
            prefix.push_str(&part);
            path.push_str(&format!("/{prefix}.slice"));
        }
        path
    }
}
