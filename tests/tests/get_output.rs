//! `kubectl get` in its forms: tables, wide, yaml, json, jsonpath, selectors, watch.

use anyhow::{Context, Result, ensure};
use harness::cluster::{Cluster, PATIENCE};
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::mpsc;

pub(crate) fn every_form_of_get(cluster: &Cluster) -> Result<()> {
    let ns = cluster.namespace("get")?;
    ns.create(&["deployment", "web", "--image=keelson.local/hello-web:v1", "--replicas=2"])?;
    ns.kubectl(&["expose", "deployment", "web", "--port=80", "--target-port=8080"])?;
    ns.rolled_out("deployment/web")?;

    let columns = |words: &[&str], wanted: &[&str]| -> Result<String> {
        let text = ns.kubectl(words)?;
        let heading: Vec<&str> = text
            .lines()
            .next()
            .unwrap_or_default()
            .split("  ")
            .map(str::trim)
            .filter(|c| !c.is_empty())
            .collect();
        ensure!(heading == wanted, "kubectl {}: columns {heading:?}, not {wanted:?}", words.join(" "));
        Ok(text)
    };
    columns(&["get", "pods"], &["NAME", "READY", "STATUS", "RESTARTS", "AGE"])?;
    columns(
        &["get", "pods", "-o", "wide"],
        &["NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP", "NODE", "NOMINATED NODE", "READINESS GATES"],
    )?;
    let deployments = columns(&["get", "deployments"], &["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"])?;
    ensure!(deployments.contains("2/2"), "{deployments}");
    columns(&["get", "rs"], &["NAME", "DESIRED", "CURRENT", "READY", "AGE"])?;
    let services =
        columns(&["get", "svc"], &["NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE"])?;
    ensure!(services.contains("80/TCP"), "{services}");
    let endpoints = columns(&["get", "endpoints"], &["NAME", "ENDPOINTS", "AGE"])?;
    ensure!(endpoints.contains(":8080"), "{endpoints}");
    columns(&["get", "events"], &["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"])?;
    columns(&["get", "configmaps"], &["NAME", "DATA", "AGE"])?;
    let all = cluster.kubectl(&["get", "pods", "--all-namespaces"])?;
    ensure!(all.contains("kube-system") && all.contains(&ns.name), "{all}");

    let yaml = ns.kubectl(&["get", "deployment", "web", "-o", "yaml"])?;
    ensure!(yaml.contains("kind: Deployment") && yaml.contains("availableReplicas: 2"), "{yaml}");
    let json = ns.json(&["get", "pods", "-l", "app=web"])?;
    let items = json["items"].as_array().context("no items")?;
    ensure!(items.len() == 2, "{} pods have the label", items.len());
    ensure!(items.iter().all(|pod| pod["status"]["phase"] == "Running"), "{json}");
    ensure!(ns.json(&["get", "pods", "-l", "app!=web"])?["items"] == serde_json::json!([]));
    ensure!(
        ns.json(&["get", "pods", "-l", "app in (web,other)"])?["items"].as_array().map(Vec::len) == Some(2)
    );
    let running = ns.json(&["get", "pods", "--field-selector", "status.phase=Running"])?;
    ensure!(running["items"].as_array().map(Vec::len) == Some(2), "{running}");
    let path = ns.kubectl(&[
        "get",
        "deployment",
        "web",
        "-o",
        "jsonpath={.spec.template.spec.containers[0].image}",
    ])?;
    ensure!(path == "keelson.local/hello-web:v1", "{path}");
    let missing = ns.try_kubectl(&["get", "pod", "nobody"], None)?;
    ensure!(
        missing.code == 1
            && missing.stderr.contains("Error from server (NotFound): pods \"nobody\" not found"),
        "{missing:?}"
    );
    Ok(())
}

pub(crate) fn watch_shows_changes(cluster: &Cluster) -> Result<()> {
    let ns = cluster.namespace("watch")?;
    let mut watcher = cluster
        .kubectl_command(&["--namespace", &ns.name, "get", "configmaps", "--watch", "-o", "name"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let stdout = watcher.stdout.take().context("no stdout")?;
    let (sender, lines) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    let wait = |wanted: &str| -> Result<()> {
        loop {
            let line =
                lines.recv_timeout(PATIENCE).with_context(|| format!("the watch never showed {wanted}"))?;
            if line == wanted {
                return Ok(());
            }
        }
    };
    let result = (|| {
        wait("configmap/kube-root-ca.crt")?;
        ns.create(&["configmap", "first", "--from-literal=a=1"])?;
        wait("configmap/first")?;
        ns.kubectl(&["patch", "configmap", "first", "-p", r#"{"data": {"a": "2"}}"#])?;
        wait("configmap/first")
    })();
    watcher.kill()?;
    watcher.wait()?;
    drop(lines);
    reader.join().map_err(|_| anyhow::anyhow!("the reader panicked"))?;
    result
}
