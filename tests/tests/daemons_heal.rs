//! `kill -9` of any one daemon heals, with no container restarted that was not killed.

use anyhow::{Result, bail, ensure};
use harness::cluster::{Cluster, Namespace, PATIENCE, is_ready};
use harness::condition::eventually;
use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

/// How long until everything works again: a leader's lease that a killed process holds takes 15 s to run out.
const HEALED_WITHIN: Duration = Duration::from_secs(60);

/// Container ids of all pods, by pod and container.
type Containers = BTreeMap<String, String>;

fn containers(cluster: &Cluster) -> Result<Containers> {
    let pods = cluster.json(&["get", "pods", "--all-namespaces"])?;
    let mut found = Containers::new();
    for pod in pods["items"].as_array().into_iter().flatten() {
        // One that is on its way out for an earlier test says nothing.
        if !pod["metadata"]["deletionTimestamp"].is_null() {
            continue;
        }
        for status in pod["status"]["containerStatuses"].as_array().into_iter().flatten() {
            let name =
                format!("{}/{}/{}", pod["metadata"]["namespace"], pod["metadata"]["name"], status["name"]);
            found
                .insert(name.replace('"', ""), status["containerID"].as_str().unwrap_or_default().to_owned());
        }
    }
    Ok(found)
}

/// The processes with this name, in a pod of the cluster or on the host.
fn pids(name: &str, in_pod: bool) -> Vec<i32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|text| text.parse::<i32>().ok()) else {
            continue;
        };
        let read = |file: &str| std::fs::read_to_string(entry.path().join(file)).unwrap_or_default();
        let program = read("cmdline")
            .split('\0')
            .next()
            .unwrap_or_default()
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .to_owned();
        let ours = if in_pod {
            read("cgroup").contains("kubepods")
        } else {
            read("cmdline").contains("/var/lib/keelson/")
        };
        if program == name && ours {
            found.push(pid);
        }
    }
    found
}

/// Makes a pod and waits until it is ready: scheduler, kubelet and runtime are at work.
fn pod_starts(ns: &Namespace<'_>, name: &str) -> Result<()> {
    ns.busybox(name)
}

fn kill_and_heal(cluster: &Cluster, process: &str, in_pod: bool) -> Result<()> {
    let ns = cluster.namespace("heal")?;
    ns.create(&["deployment", "web", "--image=keelson.local/hello-web:v1", "--replicas=2"])?;
    ns.kubectl(&["expose", "deployment", "web", "--port=80", "--target-port=8080"])?;
    ns.rolled_out("deployment/web")?;
    pod_starts(&ns, "before")?;
    let ip = ns.kubectl(&["get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"])?;
    let before = containers(cluster)?;
    let victims = pids(process, in_pod);
    ensure!(victims.len() == 1, "processes called {process}: {victims:?}");
    let begun = Instant::now();
    let killed = Command::new("kill").arg("-9").arg(victims[0].to_string()).status()?;
    ensure!(killed.success(), "cannot kill {process}");

    eventually(&format!("a new {process}"), HEALED_WITHIN, || {
        let now = pids(process, in_pod);
        Ok(if now.len() == 1 && now != victims { Ok(()) } else { Err(format!("{now:?}")) })
    })?;
    eventually("the API server ready", HEALED_WITHIN, || {
        cluster.kubectl(&["get", "--raw", "/readyz"]).map(Ok)
    })?;
    // Each part has work to do: a controller makes pods, the scheduler binds, the kubelet starts, the proxy routes.
    ns.kubectl(&["scale", "deployment", "web", "--replicas=3"])?;
    eventually("a third replica", HEALED_WITHIN, || {
        let ready = ns.ready_pods("app=web")?;
        Ok(if ready.len() == 3 { Ok(()) } else { Err(format!("{ready:?}")) })
    })?;
    eventually("all three behind the Service", HEALED_WITHIN, || {
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..30 {
            let output =
                Command::new("curl").args(["-sS", "--max-time", "2", &format!("http://{ip}/")]).output()?;
            seen.insert(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Ok(if seen.len() == 3 { Ok(()) } else { Err(format!("{seen:?}")) })
    })?;
    println!("    {process}: all works {:.1} s after kill -9", begun.elapsed().as_secs_f64());

    // What its own status says may come later than what it does.
    eventually("all system pods ready", PATIENCE, || {
        let pods = cluster.json(&["get", "pods", "--namespace", "kube-system"])?;
        let unready: Vec<&str> = pods["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|pod| !is_ready(pod))
            .filter_map(|pod| pod["metadata"]["name"].as_str())
            .collect();
        Ok(if unready.is_empty() { Ok(()) } else { Err(unready.join(", ")) })
    })?;
    let after = containers(cluster)?;
    for (name, id) in &before {
        let own = name.starts_with("kube-system/") || name.starts_with(&format!("{}/", ns.name));
        let Some(now) = after.get(name) else {
            // The namespace of an earlier test is deleted meanwhile, and its pods with it.
            ensure!(!own, "{name} is gone");
            continue;
        };
        let is_victim = in_pod && name.starts_with("kube-system/") && name.ends_with(&format!("/{process}"));
        if is_victim && now == id {
            bail!("{name} was killed and has the same container still");
        }
        if !is_victim && now != id {
            bail!("{name} was restarted though only {process} was killed");
        }
    }
    Ok(())
}

pub(crate) fn etcd(cluster: &Cluster) -> Result<()> {
    kill_and_heal(cluster, "etcd", true)
}

pub(crate) fn kube_apiserver(cluster: &Cluster) -> Result<()> {
    kill_and_heal(cluster, "kube-apiserver", true)
}

pub(crate) fn kube_controller_manager(cluster: &Cluster) -> Result<()> {
    kill_and_heal(cluster, "kube-controller-manager", true)
}

pub(crate) fn kube_scheduler(cluster: &Cluster) -> Result<()> {
    kill_and_heal(cluster, "kube-scheduler", true)
}

pub(crate) fn kube_proxy(cluster: &Cluster) -> Result<()> {
    kill_and_heal(cluster, "kube-proxy", true)
}

pub(crate) fn pod_network(cluster: &Cluster) -> Result<()> {
    kill_and_heal(cluster, "pod-network", true)
}

pub(crate) fn kubelet(cluster: &Cluster) -> Result<()> {
    kill_and_heal(cluster, "kubelet", false)
}

pub(crate) fn containerd(cluster: &Cluster) -> Result<()> {
    kill_and_heal(cluster, "containerd", false)
}
