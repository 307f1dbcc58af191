//! kube-system and the node look as in any tutorial.

use anyhow::{Context, Result, ensure};
use harness::cluster::{Cluster, condition, is_ready};
use serde_json::Value;

pub(crate) fn look_as_in_any_tutorial(cluster: &Cluster) -> Result<()> {
    let node = cluster.node()?;
    let node_name = node["metadata"]["name"].as_str().context("the node has no name")?;
    let pods = cluster.json(&["get", "pods", "--namespace", "kube-system"])?;
    let pods = pods["items"].as_array().context("no list of pods")?;
    let name = |pod: &Value| pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    for component in ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"] {
        let wanted = format!("{component}-{node_name}");
        let pod = pods.iter().find(|pod| name(pod) == wanted).with_context(|| format!("no pod {wanted}"))?;
        ensure!(is_ready(pod), "{wanted} is not ready: {}", pod["status"]);
        let annotations = &pod["metadata"]["annotations"];
        ensure!(annotations["kubernetes.io/config.source"] == "file", "{wanted}: {annotations}");
        ensure!(annotations["kubernetes.io/config.mirror"].is_string(), "{wanted}: {annotations}");
        let owner = &pod["metadata"]["ownerReferences"][0];
        ensure!(owner["kind"] == "Node" && owner["name"] == node_name, "{wanted}: owner {owner}");
        ensure!(pod["spec"]["hostNetwork"] == true, "{wanted} is not on the host's network");
    }
    for daemon in ["kube-proxy", "pod-network"] {
        let prefix = format!("{daemon}-");
        let pod = pods
            .iter()
            .find(|pod| name(pod).starts_with(&prefix))
            .with_context(|| format!("no {daemon} pod"))?;
        ensure!(is_ready(pod), "{} is not ready: {}", name(pod), pod["status"]);
        ensure!(pod["metadata"]["ownerReferences"][0]["kind"] == "DaemonSet", "{daemon} has no DaemonSet");
    }
    Ok(())
}

pub(crate) fn node_tells_about_itself(cluster: &Cluster) -> Result<()> {
    let node = cluster.node()?;
    ensure!(condition(&node, "Ready") == Some("True"), "not Ready: {}", node["status"]["conditions"]);
    for pressure in ["MemoryPressure", "DiskPressure", "PIDPressure"] {
        ensure!(condition(&node, pressure) == Some("False"), "{pressure}: {}", node["status"]["conditions"]);
    }
    let info = &node["status"]["nodeInfo"];
    let version = info["kubeletVersion"].as_str().unwrap_or_default();
    ensure!(version.starts_with("v1.36.") && version.contains("+keelson"), "kubeletVersion {version:?}");
    for field in
        ["osImage", "kernelVersion", "containerRuntimeVersion", "architecture", "machineID", "bootID"]
    {
        ensure!(
            info[field].as_str().is_some_and(|text| !text.is_empty()),
            "nodeInfo.{field} is empty: {info}"
        );
    }
    ensure!(info["containerRuntimeVersion"].as_str().is_some_and(|text| text.starts_with("containerd://")));
    let labels = &node["metadata"]["labels"];
    ensure!(labels["node-role.kubernetes.io/control-plane"] == "", "labels {labels}");
    ensure!(labels["kubernetes.io/os"] == "linux", "labels {labels}");
    ensure!(
        node["spec"]["podCIDR"].as_str().is_some_and(|cidr| cidr.starts_with("10.244.")),
        "{}",
        node["spec"]
    );
    let wide = cluster.kubectl(&["get", "nodes", "-o", "wide"])?;
    let heading = wide.lines().next().unwrap_or_default();
    for column in [
        "NAME",
        "STATUS",
        "ROLES",
        "AGE",
        "VERSION",
        "INTERNAL-IP",
        "OS-IMAGE",
        "KERNEL-VERSION",
        "CONTAINER-RUNTIME",
    ] {
        ensure!(heading.contains(column), "no column {column} in {heading:?}");
    }
    ensure!(wide.contains(" Ready ") && wide.contains("control-plane"), "{wide}");
    Ok(())
}
