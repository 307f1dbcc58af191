//! `bench-pods`: how long pods take on the cluster of this machine, from creation to Running and from deletion to gone, as
//! one watch of the API server sees it. Upstream's figures stand beside.

use crate::images;
use crate::kubectl::{kubectl, wait_for};
use crate::layout;
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

const NAMESPACE: &str = "keelson-bench-pods";
/// Pods started one after the other.
const SINGLES: usize = 8;
/// Pods started together.
const TOGETHER: usize = 30;
const PATIENCE: Duration = Duration::from_secs(120);

/// Something that the watch saw.
struct Seen {
    at: Instant,
    kind: String,
    pod: Value,
}

impl Seen {
    fn name(&self) -> String {
        self.pod["metadata"]["name"].as_str().unwrap_or_default().to_owned()
    }
}

/// A running `kubectl get --watch`, and what it prints.
struct Watch {
    kubectl: Child,
    seen: Receiver<Seen>,
}

impl Watch {
    fn start() -> Result<Watch> {
        let mut kubectl = Command::new("kubectl")
            .args(["--kubeconfig", layout::ADMIN_CONF, "--namespace", NAMESPACE, "get", "pods"])
            .args(["--watch", "--output-watch-events", "-o", "json"])
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start kubectl")?;
        let stdout = kubectl.stdout.take().context("kubectl has no standard output")?;
        let (sender, seen) = channel();
        std::thread::spawn(move || {
            for event in serde_json::Deserializer::from_reader(stdout).into_iter::<Value>() {
                let Ok(mut event) = event else { return };
                let (at, kind) = (Instant::now(), event["type"].as_str().unwrap_or_default().to_owned());
                if sender.send(Seen { at, kind, pod: event["object"].take() }).is_err() {
                    return;
                }
            }
        });
        Ok(Watch { kubectl, seen })
    }

    /// From the first event for which `begins` to the last of `count` pods for which `ends`.
    fn measure(
        &self,
        count: usize,
        begins: impl Fn(&Seen) -> bool,
        ends: impl Fn(&Seen) -> bool,
    ) -> Result<Duration> {
        let (mut begun, mut done) = (None, HashSet::new());
        while done.len() < count {
            let Ok(seen) = self.seen.recv_timeout(PATIENCE) else {
                bail!("only {} of {count} pods got there within {} s", done.len(), PATIENCE.as_secs());
            };
            if begun.is_none() && begins(&seen) {
                begun = Some(seen.at);
            }
            if ends(&seen) {
                done.insert(seen.name());
                if let (true, Some(begun)) = (done.len() == count, begun) {
                    return Ok(seen.at - begun);
                }
            }
        }
        bail!("the pods were there before they were created");
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.kubectl.kill();
        let _ = self.kubectl.wait();
    }
}

fn pods(prefix: &str, count: usize) -> String {
    let pod = |index| {
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": format!("{prefix}-{index}")},
            "spec": {"containers": [{"name": "web", "image": images::SELF_CHECK_IMAGE}]},
        });
        format!("---\n{pod}\n")
    };
    (0..count).map(pod).collect()
}

/// Measures, prints a table, and takes away what it made.
pub(crate) fn run() -> Result<()> {
    kubectl(&["create", "namespace", NAMESPACE]).ok()?;
    let result = measure();
    kubectl(&["delete", "namespace", NAMESPACE, "--wait=false"]).ok()?;
    result
}

fn measure() -> Result<()> {
    wait_for("the namespace's service account", Duration::from_secs(30), || {
        let account = kubectl(&["--namespace", NAMESPACE, "get", "serviceaccount", "default"]).output()?;
        Ok(if account.status.success() { Ok(()) } else { Err("not there".to_owned()) })
    })?;
    let watch = Watch::start()?;
    let added = |seen: &Seen| seen.kind == "ADDED";
    let running = |seen: &Seen| seen.pod["status"]["phase"] == "Running";
    let create =
        |objects: String| kubectl(&["--namespace", NAMESPACE, "create", "-f", "-"]).input(objects).ok();
    let mut singles = Vec::new();
    for index in 0..SINGLES {
        create(pods(&format!("single-{index}"), 1))?;
        singles.push(watch.measure(1, added, running)?);
    }
    singles.sort();
    create(pods("together", TOGETHER))?;
    let together = watch.measure(TOGETHER, added, running)?;
    let count = SINGLES + TOGETHER;
    kubectl(&["--namespace", NAMESPACE, "delete", "pods", "--all", "--wait=false"]).ok()?;
    let marked = |seen: &Seen| !seen.pod["metadata"]["deletionTimestamp"].is_null();
    let gone = watch.measure(count, marked, |seen| seen.kind == "DELETED")?;

    let median = singles.get(singles.len() / 2).copied().unwrap_or_default();
    println!("{:<52} {:>9} {:>9} {:>6}", "work, as a watch sees it", "Keelson", "upstream", "goal");
    for (work, took, upstream, goal) in [
        (format!("pod start, image present (median of {SINGLES})"), median, 0.65, 0.4),
        (format!("{TOGETHER} pods created at once, all Running"), together, 5.1, 3.0),
        (format!("{count} pods deleted, gone"), gone, 6.1, 3.0),
    ] {
        println!("{work:<52} {:>7.2} s {upstream:>7.2} s {goal:>4.1} s", took.as_secs_f64());
    }
    Ok(())
}
