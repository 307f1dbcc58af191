//! An image that is nowhere: ErrImagePull, then ImagePullBackOff; ErrImageNeverPull when pulling is forbidden.

use anyhow::Result;
use harness::cluster::{Cluster, PATIENCE};
use harness::condition::eventually;

pub(crate) fn missing_image(cluster: &Cluster) -> Result<()> {
    let ns = cluster.namespace("images")?;
    ns.kubectl(&["run", "missing", "--image=keelson.local/nowhere:v1"])?;
    ns.kubectl(&["run", "never", "--image=keelson.local/nowhere:v1", "--image-pull-policy=Never"])?;
    // `kubectl run` would not let this one through.
    ns.apply("{\"apiVersion\": \"v1\", \"kind\": \"Pod\", \"metadata\": {\"name\": \"invalid\"}, \"spec\": {\"containers\": [{\"name\": \"c\", \"image\": \"UPPER/Case:!\"}]}}")?;
    for (pod, reasons) in [
        ("missing", &["ErrImagePull", "ImagePullBackOff"][..]),
        ("missing", &["ImagePullBackOff"][..]),
        ("never", &["ErrImageNeverPull"][..]),
        ("invalid", &["InvalidImageName"][..]),
    ] {
        eventually(&format!("{pod}: {reasons:?}"), PATIENCE, || {
            let status = ns.json(&["get", "pod", pod])?["status"].clone();
            let reason =
                status["containerStatuses"][0]["state"]["waiting"]["reason"].as_str().unwrap_or_default();
            Ok(if reasons.contains(&reason) { Ok(()) } else { Err(status.to_string()) })
        })?;
    }
    eventually("the event of the failed pull", PATIENCE, || {
        let events = ns.kubectl(&["get", "events"])?;
        Ok(if events.contains("Failed to pull image") { Ok(()) } else { Err(events) })
    })
}
