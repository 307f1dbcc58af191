//! Deletion: what an owner owns goes with it, or stays when asked to; a namespace takes everything along.

use anyhow::{Result, ensure};
use harness::cluster::{Cluster, PATIENCE};
use harness::condition::eventually;
use std::time::Instant;

pub(crate) fn owners_take_their_own_along(cluster: &Cluster) -> Result<()> {
    let ns = cluster.namespace("owners")?;
    let make = || -> Result<()> {
        ns.create(&["deployment", "web", "--image=keelson.local/hello-web:v1", "--replicas=2"])?;
        ns.rolled_out("deployment/web").map(drop)
    };
    let gone = |what: &str| {
        eventually(&format!("no {what} left"), PATIENCE, || {
            let left = ns.kubectl(&["get", what, "-l", "app=web", "-o", "name"])?;
            Ok(if left.trim().is_empty() { Ok(()) } else { Err(left) })
        })
    };
    make()?;
    ns.kubectl(&["delete", "deployment", "web"])?;
    gone("rs")?;
    gone("pods")?;

    make()?;
    ns.kubectl(&["delete", "deployment", "web", "--cascade=orphan"])?;
    let sets = ns.json(&["get", "rs", "-l", "app=web"])?;
    ensure!(sets["items"].as_array().map(Vec::len) == Some(1), "orphans are gone: {sets}");
    eventually("the orphan has no owner", PATIENCE, || {
        let set =
            ns.json(&["get", "rs", "-l", "app=web"])?["items"][0]["metadata"]["ownerReferences"].clone();
        Ok(if set.is_null() || set == serde_json::json!([]) { Ok(()) } else { Err(set.to_string()) })
    })?;
    ensure!(ns.ready_pods("app=web")?.len() == 2);
    ns.kubectl(&["delete", "rs", "-l", "app=web", "--cascade=foreground", "--timeout=60s"])?;
    gone("pods")
}

pub(crate) fn namespace_goes_with_all_in_it(cluster: &Cluster) -> Result<()> {
    let ns = cluster.namespace("whole")?;
    ns.create(&["deployment", "web", "--image=keelson.local/hello-web:v1", "--replicas=2"])?;
    ns.create(&["configmap", "a", "--from-literal=b=c"])?;
    ns.rolled_out("deployment/web")?;
    let begun = Instant::now();
    cluster.kubectl(&["delete", "namespace", &ns.name, "--timeout=90s"])?;
    let gone = cluster.try_kubectl(&["get", "namespace", &ns.name], None)?;
    ensure!(gone.stderr.contains("NotFound"), "{gone:?}");
    let left = cluster.kubectl(&[
        "get",
        "pods",
        "--all-namespaces",
        "--field-selector",
        &format!("metadata.namespace={}", ns.name),
        "-o",
        "name",
    ])?;
    ensure!(left.trim().is_empty(), "after {:?} there is still {left}", begun.elapsed());
    let refused = cluster
        .try_kubectl(&["--namespace", &ns.name, "create", "configmap", "late", "--from-literal=a=b"], None)?;
    ensure!(refused.code != 0, "a namespace that is gone took an object");
    Ok(())
}
