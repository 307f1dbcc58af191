//! The examples of `manifests/examples`, from `kubectl apply` to `kubectl delete`.

use anyhow::{Result, ensure};
use harness::cluster::{Cluster, PATIENCE};
use harness::condition::eventually;

pub(crate) fn applies_serves_and_goes(cluster: &Cluster) -> Result<()> {
    let ns = cluster.namespace("example")?;
    let examples = Cluster::examples().display().to_string();
    let said = ns.kubectl(&["apply", "--recursive", "-f", &examples])?;
    for object in [
        "configmap/web",
        "secret/web",
        "deployment.apps/web",
        "service/web",
        "service/web-nodeport",
        "daemonset.apps/load-logger",
    ] {
        ensure!(said.contains(&format!("{object} created")), "{object} was not created:\n{said}");
    }
    ns.rolled_out("deployment/web")?;
    ns.rolled_out("daemonset/load-logger")?;

    let again = ns.kubectl(&["apply", "--recursive", "-f", &examples])?;
    // A Secret's stringData is never read back, so kubectl sends it each time.
    let changed: Vec<&str> =
        again.lines().filter(|line| !line.ends_with("unchanged") && !line.starts_with("secret/")).collect();
    ensure!(changed.is_empty(), "a second apply changed something: {changed:?}");

    let deployment = ns.json(&["get", "deployment", "web"])?;
    ensure!(deployment["status"]["readyReplicas"] == 3, "{}", deployment["status"]);
    let pods = ns.ready_pods("app=web")?;
    ensure!(pods.len() == 3, "ready pods: {pods:?}");

    // Through the fixed node port, with the greeting from the ConfigMap.
    let url = format!("http://{}:30080/", cluster.node_ip()?);
    eventually("the node port answers with the greeting", PATIENCE, || {
        let output = std::process::Command::new("curl").args(["-sS", "--max-time", "2", &url]).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(if text.starts_with("Hello from Keelson: web-") && text.contains(" v1") {
            Ok(())
        } else {
            Err(text)
        })
    })?;
    // The daemon's log has the node's name, which it knows from the downward API.
    let node = cluster.node()?;
    let node = node["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    eventually("a line in the DaemonSet's log", PATIENCE, || {
        let log = ns.kubectl(&["logs", "daemonset/load-logger", "--tail=1"])?;
        Ok(if log.starts_with(&format!("{node} load: ")) { Ok(()) } else { Err(log) })
    })?;

    ns.kubectl(&["delete", "--recursive", "-f", &examples, "--timeout=60s"])?;
    eventually("all objects of the example gone", PATIENCE, || {
        let left = ns.kubectl(&["get", "all,endpointslices", "-o", "name"])?;
        Ok(if left.trim().is_empty() { Ok(()) } else { Err(left) })
    })
}
