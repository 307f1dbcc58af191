//! `kubectl describe` of a pod and of the node.

use anyhow::{Result, ensure};
use harness::cluster::{Cluster, PATIENCE};
use harness::condition::eventually;

pub(crate) fn pod_and_node(cluster: &Cluster) -> Result<()> {
    let ns = cluster.namespace("describe")?;
    ns.busybox("box")?;
    eventually("the pod's description has its events", PATIENCE, || {
        let text = ns.kubectl(&["describe", "pod", "box"])?;
        let wanted = [
            "Status:           Running",
            "keelson.local/busybox:stable",
            "kube-api-access-",
            "Successfully assigned",
            "Container created",
            "Container started",
        ];
        let missing: Vec<&str> = wanted.into_iter().filter(|part| !text.contains(part)).collect();
        Ok(if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?} not in\n{text}")) })
    })?;
    let node = cluster.node()?;
    let text =
        cluster.kubectl(&["describe", "node", node["metadata"]["name"].as_str().unwrap_or_default()])?;
    for part in [
        "Roles:",
        "control-plane",
        "Capacity:",
        "Allocatable:",
        "Container Runtime Version:",
        "Allocated resources:",
        "kube-apiserver-",
        "HolderIdentity:",
    ] {
        ensure!(text.contains(part), "{part:?} not in\n{text}");
    }
    Ok(())
}
