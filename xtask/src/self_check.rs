//! The last stage of `up`: a pod starts, and a Service answers by its cluster IP and its node port. What it makes, it
//! takes away.

use crate::images;
use crate::kubectl::{self, kubectl, wait_for};
use crate::machine::Node;
use crate::stages::{Remedy, Stage};
use anyhow::{Context, Result};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

const NAME: &str = "keelson-self-check";

fn objects() -> String {
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: {NAME}, labels: {{app: {NAME}}}}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: web
    image: {image}
    ports: [{{containerPort: 8080}}]
    readinessProbe: {{httpGet: {{path: /ready, port: 8080}}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {{name: {NAME}}}
spec:
  type: NodePort
  selector: {{app: {NAME}}}
  ports: [{{port: 80, targetPort: 8080}}]
"#,
        image = images::SELF_CHECK_IMAGE
    )
}

/// Runs the check and cleans up, whatever came out.
pub(crate) fn run(stage: &Stage, node: &Node) -> Result<String> {
    clean()?;
    let result = check(stage, node);
    let cleaned = clean();
    let found = result.remedy(
        "`kubectl get events -A` and the logs of kube-proxy and pod-network tell more; `cargo xtask doctor` checks the rest",
    )?;
    cleaned?;
    Ok(found)
}

fn clean() -> Result<()> {
    kubectl(&[
        "delete",
        "pod,service",
        NAME,
        "--namespace",
        "default",
        "--ignore-not-found",
        "--grace-period=1",
    ])
    .ok()
}

fn check(stage: &Stage, node: &Node) -> Result<String> {
    let begun = Instant::now();
    // The namespace's service account may still be on its way.
    wait_for("creating the pod of the self-check", Duration::from_secs(30), || {
        let output = kubectl(&["apply", "--namespace", "default", "-f", "-"]).input(objects()).output()?;
        Ok(if output.status.success() {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
        })
    })?;
    stage.busy("waiting for the pod");
    wait_for("the pod of the self-check", Duration::from_secs(60), || {
        let pods = kubectl::json(&["get", "pods", "--namespace", "default", "-l", &format!("app={NAME}")])?;
        Ok(match kubectl::unready_pods(&pods).into_iter().next() {
            Some(why) => Err(why),
            None => Ok(()),
        })
    })?;
    let ready = begun.elapsed();
    let service = kubectl::json(&["get", "service", NAME, "--namespace", "default"])?;
    let cluster_ip: Ipv4Addr = service["spec"]["clusterIP"]
        .as_str()
        .and_then(|ip| ip.parse().ok())
        .context("the Service has no clusterIP")?;
    let node_port = service["spec"]["ports"][0]["nodePort"]
        .as_u64()
        .and_then(|port| u16::try_from(port).ok())
        .context("the Service has no nodePort")?;
    for (what, address) in [
        ("cluster IP", SocketAddr::from((cluster_ip, 80))),
        ("node port", SocketAddr::from((node.ip, node_port))),
    ] {
        stage.busy(&format!("asking the Service at its {what}"));
        wait_for(&format!("the Service at its {what} {address}"), Duration::from_secs(20), || {
            Ok(match get(address) {
                Ok(text) if text.contains(NAME) => Ok(()),
                Ok(text) => Err(format!("a strange answer: {text:?}")),
                Err(error) => Err(format!("{error:#}")),
            })
        })?;
    }
    Ok(format!("pod ready after {:.1} s, Service answers", ready.as_secs_f64()))
}

/// The answer to `GET /`.
fn get(address: SocketAddr) -> Result<String> {
    let patience = Duration::from_secs(2);
    let mut stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_read_timeout(Some(patience))?;
    write!(stream, "GET / HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut text = String::new();
    stream.take(64 * 1024).read_to_string(&mut text)?;
    Ok(text)
}
