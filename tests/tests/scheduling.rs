//! A pod that fits nowhere stays Pending with upstream's words, and is scheduled as soon as it fits.

use anyhow::Result;
use harness::cluster::{Cluster, PATIENCE, condition, is_ready};
use harness::condition::eventually;

pub(crate) fn pod_that_fits_nowhere_waits(cluster: &Cluster) -> Result<()> {
    let ns = cluster.namespace("pending")?;
    let label = format!("keelson.dev/{}", ns.name);
    ns.apply(&format!(
        r#"{{"apiVersion": "v1", "kind": "Pod", "metadata": {{"name": "choosy"}}, "spec": {{
            "nodeSelector": {{"{label}": "yes"}}, "terminationGracePeriodSeconds": 0,
            "containers": [{{"name": "c", "image": "keelson.local/busybox:stable", "command": ["sleep", "100000"]}}]}}}}"#
    ))?;
    eventually("the pod to be unschedulable", PATIENCE, || {
        let pod = ns.json(&["get", "pod", "choosy"])?;
        let text = pod["status"]["conditions"].to_string();
        let said = condition(&pod, "PodScheduled") == Some("False")
            && text.contains("0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector");
        Ok(if said { Ok(()) } else { Err(text) })
    })?;
    eventually("the event FailedScheduling", PATIENCE, || {
        let events = ns.kubectl(&["get", "events", "--field-selector", "reason=FailedScheduling"])?;
        Ok(if events.contains("nodes are available") { Ok(()) } else { Err(events) })
    })?;
    let node = cluster.node()?;
    let node = node["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    cluster.kubectl(&["label", "node", &node, &format!("{label}=yes")])?;
    let result = eventually("the pod to run once the label is there", PATIENCE, || {
        let pod = ns.json(&["get", "pod", "choosy"])?;
        Ok(if is_ready(&pod) { Ok(()) } else { Err(pod["status"].to_string()) })
    });
    cluster.kubectl(&["label", "node", &node, &format!("{label}-")])?;
    result
}
