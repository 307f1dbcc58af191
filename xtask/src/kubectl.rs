//! Runs the machine's kubectl against the cluster, as its administrator.

use crate::command::{Run, run};
use crate::layout;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::time::{Duration, Instant};

/// A kubectl command with the administrator's kubeconfig.
pub(crate) fn kubectl(words: &[&str]) -> Run {
    run("kubectl").args(["--kubeconfig", layout::ADMIN_CONF, "--request-timeout=15s"]).args(words)
}

/// The JSON that kubectl prints.
pub(crate) fn json(words: &[&str]) -> Result<Value> {
    let text = kubectl(words).args(["-o", "json"]).stdout()?;
    serde_json::from_str(&text).with_context(|| format!("`kubectl {}` printed no JSON", words.join(" ")))
}

/// Asks until the answer is there; the error tells the last thing that was missing.
pub(crate) fn wait_for<T>(
    what: &str,
    at_most: Duration,
    mut ask: impl FnMut() -> Result<std::result::Result<T, String>>,
) -> Result<T> {
    let until = Instant::now() + at_most;
    loop {
        let state = match ask() {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(state)) => state,
            Err(error) => format!("{error:#}"),
        };
        if Instant::now() > until {
            bail!("{what}: not within {} s; last state: {state}", at_most.as_secs());
        }
        std::thread::sleep(Duration::from_millis(150));
    }
}

/// The status of a condition in `status.conditions`.
pub(crate) fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    object["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
}

/// A line for each pod of the list that is not running and ready.
pub(crate) fn unready_pods(list: &Value) -> Vec<String> {
    let Some(items) = list["items"].as_array() else { return Vec::new() };
    items
        .iter()
        .filter(|pod| pod["status"]["phase"] != "Succeeded")
        .filter(|pod| condition(pod, "Ready").is_none_or(|ready| ready["status"] != "True"))
        .map(|pod| {
            let name = pod["metadata"]["name"].as_str().unwrap_or_default();
            let namespace = pod["metadata"]["namespace"].as_str().unwrap_or_default();
            format!("{namespace}/{name}: {}", why_unready(pod))
        })
        .collect()
}

fn why_unready(pod: &Value) -> String {
    let containers = ["initContainerStatuses", "containerStatuses"]
        .into_iter()
        .filter_map(|field| pod["status"][field].as_array())
        .flatten();
    for status in containers {
        let name = status["name"].as_str().unwrap_or_default();
        for state in ["waiting", "terminated"] {
            let detail = &status["state"][state];
            let reason = detail["reason"].as_str().unwrap_or_default();
            if !detail.is_null() && reason != "Completed" {
                let message = detail["message"].as_str().unwrap_or_default();
                return format!("container {name} {state}: {reason} {message}").trim_end().to_owned();
            }
        }
    }
    let scheduled = condition(pod, "PodScheduled").and_then(|c| c["message"].as_str());
    let phase = pod["status"]["phase"].as_str().unwrap_or("no status yet");
    scheduled.map_or_else(|| phase.to_owned(), |message| format!("{phase}: {message}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_that_is_not_ready_is_named_with_its_reason() {
        let pod = |status: Value| json!({"metadata": {"name": "p", "namespace": "n"}, "status": status});
        let list = json!({"items": [
            pod(json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]})),
            pod(json!({"phase": "Succeeded"})),
            pod(json!({"phase": "Pending", "containerStatuses": [
                {"name": "c", "state": {"waiting": {"reason": "ErrImagePull", "message": "no host"}}}]})),
            pod(json!({})),
        ]});
        assert_eq!(
            unready_pods(&list),
            ["n/p: container c waiting: ErrImagePull no host", "n/p: no status yet"]
        );
    }
}
