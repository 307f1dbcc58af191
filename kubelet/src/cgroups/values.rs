//! The values in cgroup files: from millicores and bytes to shares, quota and limits, on v1 and v2.
//! Upstream's concept: `cm.ResourceConfigForPod`.

use apimachinery::pod::all_containers;
use apimachinery::quantity::{Quantity, parse_k8s};
use apimachinery::resources::{limits, requests};
use k8s_openapi::api::core::v1::{Container, Pod};

use super::Version;

/// The least cpu.shares the kernel takes.
pub const MIN_SHARES: u64 = 2;
const MAX_SHARES: u64 = 262_144;
/// The period of CFS quota, in microseconds.
pub const QUOTA_PERIOD: u64 = 100_000;
const MIN_QUOTA: u64 = 1_000;

/// cpu.shares for millicores.
#[must_use]
pub fn milli_cpu_to_shares(milli: u64) -> u64 {
    (milli.saturating_mul(1024) / 1000).clamp(MIN_SHARES, MAX_SHARES)
}

/// The quota in a [`QUOTA_PERIOD`] for millicores; none for 0, which means no limit.
#[must_use]
pub fn milli_cpu_to_quota(milli: u64) -> Option<u64> {
    (milli > 0).then(|| (milli.saturating_mul(QUOTA_PERIOD) / 1000).max(MIN_QUOTA))
}

/// cpu.weight for cpu.shares, by the mapping that runc and systemd share.
#[must_use]
pub fn shares_to_weight(shares: u64) -> u64 {
    1 + (shares.clamp(MIN_SHARES, MAX_SHARES) - MIN_SHARES) * 9999 / (MAX_SHARES - MIN_SHARES)
}

/// The file that holds a cgroup's weight.
#[must_use]
pub fn shares_file(version: Version) -> &'static str {
    match version {
        Version::V1 => "cpu.shares",
        Version::V2 => "cpu.weight",
    }
}

/// The weight of a class whose pods weigh `sum`.
#[must_use]
pub fn clamp_class(version: Version, sum: u64) -> u64 {
    match version {
        Version::V1 => sum.clamp(MIN_SHARES, MAX_SHARES),
        Version::V2 => sum.clamp(1, 10_000),
    }
}

/// Values of one cgroup; what is `None` stays as the kernel has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CgroupValues {
    /// cpu.shares.
    pub cpu_shares: Option<u64>,
    /// Microseconds in each [`QUOTA_PERIOD`].
    pub cpu_quota: Option<u64>,
    /// Bytes.
    pub memory_limit: Option<u64>,
    /// Processes.
    pub pids_limit: Option<i64>,
}

impl CgroupValues {
    /// The files to write in a cgroup of a mount that carries these controllers (v2 carries all).
    #[must_use]
    pub fn files(&self, version: Version, controllers: &[String]) -> Vec<(&'static str, String)> {
        let mut files = Vec::new();
        let mut add = |controller: &str, file: &'static str, value: Option<String>| {
            if let Some(value) =
                value.filter(|_| version == Version::V2 || controllers.iter().any(|c| c == controller))
            {
                files.push((file, value));
            }
        };
        match version {
            Version::V1 => {
                add("cpu", "cpu.shares", self.cpu_shares.map(|s| s.to_string()));
                add("cpu", "cpu.cfs_period_us", self.cpu_quota.map(|_| QUOTA_PERIOD.to_string()));
                add("cpu", "cpu.cfs_quota_us", self.cpu_quota.map(|q| q.to_string()));
                add("memory", "memory.limit_in_bytes", self.memory_limit.map(|m| m.to_string()));
            }
            Version::V2 => {
                add("cpu", "cpu.weight", self.cpu_shares.map(|s| shares_to_weight(s).to_string()));
                add("cpu", "cpu.max", self.cpu_quota.map(|q| format!("{q} {QUOTA_PERIOD}")));
                add("memory", "memory.max", self.memory_limit.map(|m| m.to_string()));
            }
        }
        add("pids", "pids.max", self.pids_limit.map(|p| p.to_string()));
        files
    }
}

/// A container's limit of one resource; `None` also when it doesn't parse (the apiserver refuses those).
#[must_use]
pub fn container_limit(container: &Container, resource: &str) -> Option<Quantity> {
    let limits = container.resources.as_ref()?.limits.as_ref()?;
    parse_k8s(limits.get(resource)?).ok()
}

/// A container's request of one resource.
#[must_use]
pub fn container_request(container: &Container, resource: &str) -> Option<Quantity> {
    let requests = container.resources.as_ref()?.requests.as_ref()?;
    parse_k8s(requests.get(resource)?).ok()
}

/// Never negative: a negative quantity is refused long before, and means nothing here.
#[must_use]
pub fn positive(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// A pod's cgroup values: the sum of requests as weight, limits only where every container has one.
#[must_use]
pub fn pod_values(pod: &Pod, cfs_quota: bool) -> CgroupValues {
    let all_limited = |resource: &str| {
        all_containers(pod).all(|c| container_limit(c, resource).is_some_and(|q| q > Quantity::ZERO))
    };
    let requests = requests(pod);
    let limits = limits(pod);
    let cpu_request = requests.get("cpu").or(limits.get("cpu")).map_or(0, |q| positive(q.milli_value()));
    CgroupValues {
        cpu_shares: Some(milli_cpu_to_shares(cpu_request)),
        cpu_quota: limits
            .get("cpu")
            .filter(|_| cfs_quota && all_limited("cpu"))
            .and_then(|q| milli_cpu_to_quota(positive(q.milli_value()))),
        memory_limit: limits.get("memory").filter(|_| all_limited("memory")).map(|q| positive(q.value())),
        pids_limit: None,
    }
}
