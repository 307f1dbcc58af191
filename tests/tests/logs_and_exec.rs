//! `kubectl logs` and `kubectl exec`.

use anyhow::{Context, Result, ensure};
use harness::cluster::{Cluster, PATIENCE};
use harness::condition::eventually;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

pub(crate) fn logs(cluster: &Cluster) -> Result<()> {
    let ns = cluster.namespace("logs")?;
    // The runtime reads both streams side by side: only the pause puts one after the other.
    ns.apply(
        r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "talker"}, "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "talker", "image": "keelson.local/busybox:stable", "command": ["sh", "-c",
            "for i in 1 2 3 4 5; do echo line $i; done; sleep 1; echo trouble >&2; while true; do sleep 1; echo tick; done"]}]}}"#,
    )?;
    eventually("the log's first lines", PATIENCE, || {
        let text = ns.kubectl(&["logs", "talker"])?;
        Ok(if text.contains("line 5") && text.contains("trouble") { Ok(()) } else { Err(text) })
    })?;
    let tail = ns.kubectl(&["logs", "talker", "--tail=1"])?;
    ensure!(tail.lines().count() == 1, "--tail=1 gave {tail:?}");
    let stamped = ns.kubectl(&["logs", "talker", "--timestamps"])?;
    ensure!(
        stamped.lines().next().is_some_and(|line| line.contains("T") && line.ends_with("line 1")),
        "{stamped}"
    );
    let bytes = ns.kubectl(&["logs", "talker", "--limit-bytes=6"])?;
    ensure!(bytes == "line 1", "--limit-bytes=6 gave {bytes:?}");

    let mut follower = cluster
        .kubectl_command(&["--namespace", &ns.name, "logs", "--follow", "--tail=0", "talker"])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(follower.stdout.take().context("no stdout")?).lines();
    let first = lines.next().context("--follow ended at once")??;
    let second = lines.next().context("--follow ended after a line")??;
    follower.kill()?;
    follower.wait()?;
    ensure!(first == "tick" && second == "tick", "--follow gave {first:?}, {second:?}");

    let missing = ns.try_kubectl(&["logs", "talker", "-c", "nobody"], None)?;
    ensure!(missing.code != 0 && missing.stderr.contains("nobody"), "{missing:?}");
    Ok(())
}

pub(crate) fn exec(cluster: &Cluster) -> Result<()> {
    let ns = cluster.namespace("exec")?;
    ns.busybox("box")?;
    ensure!(ns.kubectl(&["exec", "box", "--", "hostname"])?.trim() == "box");
    let both = ns.try_kubectl(&["exec", "box", "--", "sh", "-c", "echo out; echo err >&2; exit 3"], None)?;
    ensure!(both.code == 3, "exit code {} instead of 3: {}", both.code, both.stderr);
    ensure!(both.stdout == "out\n" && both.stderr.contains("err\n"), "{both:?}");
    let text = "a line\n".repeat(20_000);
    let echoed = ns.try_kubectl(&["exec", "-i", "box", "--", "cat"], Some(&text))?;
    ensure!(
        echoed.code == 0 && echoed.stdout == text,
        "cat gave back {} of {} bytes",
        echoed.stdout.len(),
        text.len()
    );
    let missing = ns.try_kubectl(&["exec", "box", "--", "/no/such/program"], None)?;
    ensure!(missing.code != 0, "a missing program ran: {missing:?}");
    Ok(())
}
