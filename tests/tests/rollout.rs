//! Deployments: scale, new image, rollout status, history and undo.

use anyhow::{Result, ensure};
use harness::cluster::{Cluster, PATIENCE};
use harness::condition::eventually;

pub(crate) fn scale_up_and_down(cluster: &Cluster) -> Result<()> {
    let ns = cluster.namespace("scale")?;
    ns.create(&["deployment", "web", "--image=keelson.local/hello-web:v1"])?;
    ns.rolled_out("deployment/web")?;
    for count in [4, 1, 0, 2] {
        ns.kubectl(&["scale", "deployment", "web", &format!("--replicas={count}")])?;
        eventually(&format!("{count} pods"), PATIENCE, || {
            let pods = ns.kubectl(&["get", "pods", "-l", "app=web", "-o", "name"])?;
            let (all, ready) = (pods.lines().count(), ns.ready_pods("app=web")?.len());
            Ok(if (all, ready) == (count, count) {
                Ok(())
            } else {
                Err(format!("{all} pods, {ready} ready"))
            })
        })?;
    }
    let refused =
        ns.try_kubectl(&["scale", "deployment", "web", "--replicas=3", "--current-replicas=9"], None)?;
    ensure!(refused.code != 0, "a precondition was ignored: {refused:?}");
    Ok(())
}

pub(crate) fn new_image_and_back(cluster: &Cluster) -> Result<()> {
    let ns = cluster.namespace("rollout")?;
    ns.create(&["deployment", "web", "--image=keelson.local/hello-web:v1", "--replicas=3"])?;
    ns.rolled_out("deployment/web")?;
    ns.kubectl(&["set", "image", "deployment/web", "hello-web=keelson.local/hello-web:v2"])?;
    let said = ns.rolled_out("deployment/web")?;
    ensure!(said.contains("successfully rolled out"), "{said}");
    let images = |wanted: &str| {
        eventually(&format!("three pods of {wanted} alone"), PATIENCE, || {
            let text = ns.kubectl(&[
                "get",
                "pods",
                "-l",
                "app=web",
                "-o",
                "jsonpath={.items[*].spec.containers[0].image}",
            ])?;
            let list: Vec<&str> = text.split_whitespace().collect();
            Ok(if list.len() == 3 && list.iter().all(|image| image.ends_with(wanted)) {
                Ok(())
            } else {
                Err(text)
            })
        })
    };
    images("hello-web:v2")?;
    let history = ns.kubectl(&["rollout", "history", "deployment/web"])?;
    ensure!(history.lines().filter(|line| line.starts_with(['1', '2'])).count() == 2, "{history}");
    let sets = ns.json(&["get", "rs", "-l", "app=web"])?;
    ensure!(sets["items"].as_array().map(Vec::len) == Some(2), "{sets}");
    ns.kubectl(&["rollout", "undo", "deployment/web"])?;
    ns.rolled_out("deployment/web")?;
    images("hello-web:v1")?;
    let sets = ns.json(&["get", "rs", "-l", "app=web"])?;
    ensure!(sets["items"].as_array().map(Vec::len) == Some(2), "undo made a new ReplicaSet: {sets}");
    let before = ns.ready_pods("app=web")?;
    ns.kubectl(&["rollout", "restart", "deployment/web"])?;
    ns.rolled_out("deployment/web")?;
    eventually("all pods replaced", PATIENCE, || {
        let now = ns.ready_pods("app=web")?;
        Ok(if now.len() == 3 && now.iter().all(|pod| !before.contains(pod)) {
            Ok(())
        } else {
            Err(format!("{now:?}"))
        })
    })
}
