//! Services: every ready pod is reached by the cluster IP from a pod and by the node port from the host; a pod that
//! is not ready is not; a Service without pods refuses.

use anyhow::{Context, Result, ensure};
use harness::cluster::{Cluster, Namespace, PATIENCE};
use harness::condition::eventually;
use std::collections::BTreeSet;

/// A Deployment of the web server with a readiness probe, and a NodePort Service on a port of the server's choice.
fn web(ns: &Namespace<'_>, replicas: u32) -> Result<(String, u64)> {
    ns.apply(&format!(
        r#"
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: keelson.local/hello-web:v1
        ports: [{{name: http, containerPort: 8080}}]
        readinessProbe: {{httpGet: {{path: /ready, port: http}}, periodSeconds: 1}}
        volumeMounts: [{{name: state, mountPath: /run/hello}}]
      volumes: [{{name: state, emptyDir: {{}}}}]
---
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec: {{type: NodePort, selector: {{app: web}}, ports: [{{port: 80, targetPort: http}}]}}
"#
    ))?;
    ns.rolled_out("deployment/web")?;
    let service = ns.json(&["get", "service", "web"])?;
    let ip = service["spec"]["clusterIP"].as_str().context("no clusterIP")?.to_owned();
    let port = service["spec"]["ports"][0]["nodePort"].as_u64().context("no nodePort")?;
    Ok((ip, port))
}

/// The pod that answered, from the web server's text `Hello: POD VERSION`.
fn answered(text: &str) -> Option<String> {
    text.trim().split(' ').nth(1).map(str::to_owned)
}

/// Asks until exactly these pods have answered in a row of tries.
fn reaches(what: &str, wanted: &[String], mut ask: impl FnMut() -> Result<Vec<String>>) -> Result<()> {
    let wanted: BTreeSet<String> = wanted.iter().cloned().collect();
    eventually(&format!("{what} reaches {wanted:?} and no other"), PATIENCE, || {
        let seen: BTreeSet<String> = ask()?.iter().filter_map(|text| answered(text)).collect();
        Ok(if seen == wanted { Ok(()) } else { Err(format!("{seen:?}")) })
    })
}

/// Forty answers seen from the host.
fn from_host(url: &str) -> Result<Vec<String>> {
    let mut answers = Vec::new();
    for _ in 0..40 {
        let output = std::process::Command::new("curl").args(["-sS", "--max-time", "2", url]).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        answers.push(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Ok(answers)
}

/// Forty answers seen from a pod.
fn from_pod(ns: &Namespace<'_>, url: &str) -> Result<Vec<String>> {
    let script = format!("for i in $(seq 40); do wget -q -O - {url} || exit 1; done");
    Ok(ns.kubectl(&["exec", "box", "--", "sh", "-c", &script])?.lines().map(str::to_owned).collect())
}

pub(crate) fn cluster_ip_and_node_port_reach_all(cluster: &Cluster) -> Result<()> {
    let ns = cluster.namespace("services")?;
    ns.busybox("box")?;
    let (ip, port) = web(&ns, 3)?;
    let pods = ns.ready_pods("app=web")?;
    ensure!(pods.len() == 3, "{pods:?}");
    reaches("the cluster IP from a pod", &pods, || from_pod(&ns, &format!("http://{ip}/")))?;
    reaches("the cluster IP from the host", &pods, || from_host(&format!("http://{ip}/")))?;
    let node_port = format!("http://{}:{port}/", cluster.node_ip()?);
    reaches("the node port from the host", &pods, || from_host(&node_port))?;
    reaches("the node port from a pod", &pods, || from_pod(&ns, &node_port))?;
    // The environment of pods made after the Service names it.
    ns.busybox("later")?;
    let env = ns.kubectl(&["exec", "later", "--", "env"])?;
    ensure!(
        env.contains(&format!("WEB_SERVICE_HOST={ip}")) && env.contains("KUBERNETES_SERVICE_HOST=10.96.0.1"),
        "{env}"
    );
    // A pod may be behind the Service that it asks.
    let first = pods.first().context("no pod")?;
    let pod_ip = ns.kubectl(&["get", "pod", first, "-o", "jsonpath={.status.podIP}"])?;
    ensure!(
        from_pod(&ns, &format!("http://{pod_ip}:8080/"))?
            .iter()
            .all(|text| answered(text).as_ref() == Some(first))
    );
    // Headless: no address of its own, but endpoints.
    ns.kubectl(&["expose", "deployment", "web", "--name=headless", "--cluster-ip=None", "--port=8080"])?;
    eventually("endpoints of the headless Service", PATIENCE, || {
        let slices = ns.json(&["get", "endpointslices", "-l", "kubernetes.io/service-name=headless"])?;
        let count = slices["items"][0]["endpoints"].as_array().map_or(0, Vec::len);
        Ok(if count == 3 { Ok(()) } else { Err(slices.to_string()) })
    })
}

pub(crate) fn unready_pod_gets_no_traffic(cluster: &Cluster) -> Result<()> {
    let ns = cluster.namespace("unready")?;
    ns.busybox("box")?;
    let (ip, _) = web(&ns, 2)?;
    let pods = ns.ready_pods("app=web")?;
    let (out, rest) = pods.split_first().context("no pod")?;
    ns.kubectl(&["exec", out, "--", "hello-web", "unready"])?;
    reaches("the Service", rest, || from_pod(&ns, &format!("http://{ip}/")))?;
    let pod = ns.json(&["get", "pod", out])?;
    ensure!(
        pod["status"]["containerStatuses"][0]["restartCount"] == 0,
        "readiness restarted it: {}",
        pod["status"]
    );
    ns.kubectl(&["exec", out, "--", "hello-web", "ready"])?;
    reaches("the Service", &pods, || from_pod(&ns, &format!("http://{ip}/")))
}

pub(crate) fn service_without_pods_refuses(cluster: &Cluster) -> Result<()> {
    let ns = cluster.namespace("refuse")?;
    ns.busybox("box")?;
    ns.create(&["service", "clusterip", "nobody", "--tcp=80:80"])?;
    let ip = ns.kubectl(&["get", "service", "nobody", "-o", "jsonpath={.spec.clusterIP}"])?;
    eventually("connections to be refused at once", PATIENCE, || {
        let said =
            ns.try_kubectl(&["exec", "box", "--", "wget", "-q", "-O", "-", &format!("http://{ip}/")], None)?;
        Ok(if said.stderr.contains("refused") { Ok(()) } else { Err(format!("{said:?}")) })
    })
}
