//! A container's and a pod's resources as CRI wants them, and the oom_score_adj that follows from them.
//! Upstream's concept: `kuberuntime_container_linux.go`, `pkg/kubelet/qos`.

use std::collections::HashMap;

use apimachinery::pod::qos_class;
use k8s_openapi::api::core::v1::{Container, Pod};
use proto::runtime_v1::LinuxContainerResources;

use crate::cgroups::Version;
use crate::cgroups::values::{
    QUOTA_PERIOD, container_limit, container_request, milli_cpu_to_quota, milli_cpu_to_shares, pod_values,
    positive,
};

/// Pods of this priority and above are the node's own.
const SYSTEM_CRITICAL_PRIORITY: i32 = 2_000_000_000;
const GUARANTEED_OOM_SCORE: i64 = -997;
const BEST_EFFORT_OOM_SCORE: i64 = 1000;

/// What of the node matters to resources.
#[derive(Debug, Clone, Copy)]
pub struct NodeResources {
    /// Processors.
    pub cpus: u64,
    /// Bytes of memory.
    pub memory: u64,
    /// cgroup version.
    pub cgroup_version: Version,
    /// `cpuCFSQuota`.
    pub cfs_quota: bool,
}

/// How readily the kernel kills a container when the node is out of memory: the smaller its share of what it asked
/// for, the later.
#[must_use]
pub fn oom_score_adj(pod: &Pod, container: &Container, node_memory: u64) -> i64 {
    let spec = pod.spec.as_ref();
    if spec.and_then(|s| s.priority).is_some_and(|p| p >= SYSTEM_CRITICAL_PRIORITY) {
        return GUARANTEED_OOM_SCORE;
    }
    match qos_class(pod) {
        "Guaranteed" => GUARANTEED_OOM_SCORE,
        "BestEffort" => BEST_EFFORT_OOM_SCORE,
        _ => {
            let request =
                container_request(container, "memory").or_else(|| container_limit(container, "memory"));
            let request = request.map_or(0, |q| i128::from(q.value()));
            let score = 1000 - 1000 * request / i128::from(node_memory.max(1));
            // Strictly between the other two classes.
            i64::try_from(score.clamp(1000 + i128::from(GUARANTEED_OOM_SCORE), 999)).unwrap_or(999)
        }
    }
}

/// A container's own resources.
#[must_use]
pub fn container_resources(pod: &Pod, container: &Container, node: NodeResources) -> LinuxContainerResources {
    let milli =
        |quantity: Option<apimachinery::quantity::Quantity>| quantity.map(|q| positive(q.milli_value()));
    let cpu_limit = milli(container_limit(container, "cpu")).unwrap_or(0);
    let cpu_request = milli(container_request(container, "cpu")).filter(|r| *r > 0).unwrap_or(cpu_limit);
    let memory_limit = container_limit(container, "memory").map_or(0, |q| q.value().max(0));
    let (cpu_period, cpu_quota) = match milli_cpu_to_quota(cpu_limit).filter(|_| node.cfs_quota) {
        Some(quota) => (signed(QUOTA_PERIOD), signed(quota)),
        None => (signed(QUOTA_PERIOD), if node.cfs_quota { -1 } else { 0 }),
    };
    let v2 = node.cgroup_version == Version::V2;
    LinuxContainerResources {
        cpu_period,
        cpu_quota,
        cpu_shares: signed(milli_cpu_to_shares(cpu_request)),
        memory_limit_in_bytes: memory_limit,
        // No swap for pods (v2, where swap is accounted for by itself); on v1 the file may not exist at all.
        memory_swap_limit_in_bytes: if v2 { memory_limit } else { 0 },
        oom_score_adj: oom_score_adj(pod, container, node.memory),
        // A process killed for memory takes its whole container with it, so that no half-dead container remains.
        unified: if v2 {
            HashMap::from([("memory.oom.group".to_owned(), "1".to_owned())])
        } else {
            HashMap::new()
        },
        ..Default::default()
    }
}

/// All containers of a pod together, which sandboxed runtimes size their virtual machine by.
#[must_use]
pub fn sandbox_resources(pod: &Pod, node: NodeResources) -> LinuxContainerResources {
    let values = pod_values(pod, node.cfs_quota);
    LinuxContainerResources {
        cpu_period: signed(QUOTA_PERIOD),
        cpu_quota: values.cpu_quota.map_or(0, signed),
        cpu_shares: values.cpu_shares.map_or(0, signed),
        memory_limit_in_bytes: values.memory_limit.map_or(0, signed),
        ..Default::default()
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// This machine's memory, from `/proc/meminfo`.
pub fn node_memory() -> std::io::Result<u64> {
    parse_mem_total(&std::fs::read_to_string("/proc/meminfo")?)
        .ok_or_else(|| std::io::Error::new(std::io::ErrorKind::InvalidData, "/proc/meminfo has no MemTotal"))
}

fn parse_mem_total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(priority: i32, resources: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"uid": "u"}, "spec": {"priority": priority,
            "containers": [{"name": "c", "resources": resources}]}}))
        .unwrap()
    }

    fn first(pod: &Pod) -> &Container {
        &pod.spec.as_ref().unwrap().containers[0]
    }

    #[test]
    fn oom_scores() {
        for (priority, resources, score) in [
            (0, json!({}), 1000),
            (0, json!({"limits": {"cpu": "1", "memory": "1Gi"}}), -997),
            (0, json!({"requests": {"memory": "512Mi"}}), 500),
            (0, json!({"requests": {"cpu": "1"}}), 999),
            (0, json!({"requests": {"memory": "9Gi"}}), 3),
            (2_000_001_000, json!({}), -997),
        ] {
            let pod = pod(priority, resources.clone());
            assert_eq!(oom_score_adj(&pod, first(&pod), 1 << 30), score, "{priority} {resources}");
        }
    }

    #[test]
    fn container_values() {
        let node =
            |version| NodeResources { cpus: 2, memory: 1 << 30, cgroup_version: version, cfs_quota: true };
        let limited = pod(0, json!({"limits": {"cpu": "250m", "memory": "32Mi"}}));
        let v1 = container_resources(&limited, first(&limited), node(Version::V1));
        assert_eq!((v1.cpu_quota, v1.cpu_shares, v1.memory_limit_in_bytes), (25_000, 256, 32 << 20));
        assert!(v1.unified.is_empty() && v1.memory_swap_limit_in_bytes == 0);
        let v2 = container_resources(&limited, first(&limited), node(Version::V2));
        assert_eq!(v2.unified["memory.oom.group"], "1");
        assert_eq!(v2.memory_swap_limit_in_bytes, 32 << 20);
        let free = pod(0, json!({}));
        let free = container_resources(&free, first(&free), node(Version::V1));
        assert_eq!((free.cpu_quota, free.cpu_shares, free.memory_limit_in_bytes), (-1, 2, 0));
    }

    #[test]
    fn meminfo() {
        assert_eq!(parse_mem_total("MemTotal:       1024 kB\nMemFree: 1 kB\n"), Some(1 << 20));
        assert_eq!(parse_mem_total("nothing"), None);
    }
}
