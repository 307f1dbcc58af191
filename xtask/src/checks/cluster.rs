//! The health of the cluster on this machine: its components, its node, its pods, its certificates.

use super::Check;
use crate::command::run;
use crate::containerd;
use crate::credentials;
use crate::kubectl;
use crate::layout;
use crate::services;
use std::path::Path;
use std::time::SystemTime;

/// Whether there is a cluster to check.
pub(crate) fn exists() -> bool {
    services::is_running("kubelet") || services::is_running(containerd::SERVICE)
}

/// Everything about the cluster.
pub(crate) fn all() -> Vec<Check> {
    let mut checks = processes();
    checks.extend(certificates(SystemTime::now()));
    let apiserver = health("kube-apiserver", &["get", "--raw", "/readyz"]);
    let answers = apiserver.level == super::Level::Ok;
    checks.push(apiserver);
    if answers {
        checks.extend(objects());
    }
    checks
}

fn processes() -> Vec<Check> {
    let mut checks = Vec::new();
    for name in [containerd::SERVICE, "kubelet"] {
        checks.push(if services::is_running(name) {
            Check::ok(name, "running")
        } else {
            Check::fail(
                name,
                "not running",
                format!("`cargo xtask up`; its log: {}", services::logs_of(name)),
            )
        });
    }
    // What each says of itself on its health port, on loopback.
    for (name, port, tls) in [
        ("kubelet health", 10248, false),
        ("kube-controller-manager", 10257, true),
        ("kube-scheduler", 10259, true),
        ("kube-proxy", 10256, false),
    ] {
        let listening = std::net::TcpStream::connect_timeout(
            &std::net::SocketAddr::from(([127, 0, 0, 1], port)),
            std::time::Duration::from_secs(1),
        );
        let scheme = if tls { "https" } else { "http" };
        checks.push(match listening {
            Ok(_) => Check::ok(name, format!("listens on {port}")),
            Err(error) => Check::fail(
                name,
                format!("{scheme}://127.0.0.1:{port}/healthz: {error}"),
                format!(
                    "look at its log: /var/log/pods/kube-system_{name}*, or {}",
                    services::logs_of("kubelet")
                ),
            ),
        });
    }
    checks
}

fn health(name: &'static str, words: &[&str]) -> Check {
    match kubectl::kubectl(words).stdout() {
        Ok(text) => Check::ok(name, text.trim()),
        Err(error) => Check::fail(
            name,
            format!("{error:#}"),
            format!(
                "look at its log below /var/log/pods/kube-system_kube-apiserver-*, then at etcd's, then at {}",
                services::logs_of("kubelet")
            ),
        ),
    }
}

fn objects() -> Vec<Check> {
    let mut checks = Vec::new();
    match kubectl::json(&["get", "nodes"]) {
        Err(error) => checks.push(Check::fail("nodes", format!("{error:#}"), "see kube-apiserver's log")),
        Ok(nodes) => {
            for node in nodes["items"].as_array().into_iter().flatten() {
                let name = node["metadata"]["name"].as_str().unwrap_or_default();
                let ready = kubectl::condition(node, "Ready");
                if ready.is_some_and(|ready| ready["status"] == "True") {
                    checks.push(Check::ok("node", format!("{name} is Ready")));
                } else {
                    let why = ready.and_then(|r| r["message"].as_str()).unwrap_or("no status yet").to_owned();
                    checks.push(Check::fail(
                        "node",
                        format!("{name} is not Ready: {why}"),
                        format!("see `kubectl describe node {name}` and {}", services::logs_of("kubelet")),
                    ));
                }
            }
        }
    }
    match kubectl::json(&["get", "pods", "--all-namespaces"]) {
        Err(error) => checks.push(Check::fail("pods", format!("{error:#}"), "see kube-apiserver's log")),
        Ok(pods) => {
            let unready = kubectl::unready_pods(&pods);
            if unready.is_empty() {
                let count = pods["items"].as_array().map_or(0, Vec::len);
                checks.push(Check::ok("pods", format!("all {count} ready or done")));
            }
            for line in unready {
                checks.push(Check::warn(
                    "pods",
                    line,
                    "see `kubectl describe pod` and `kubectl logs` for it",
                ));
            }
        }
    }
    checks.push(skew());
    checks
}

/// kubectl promises to work with API servers one minor version away from it.
fn skew() -> Check {
    let minor = |value: &serde_json::Value| {
        value["minor"].as_str().and_then(|text| text.trim_end_matches('+').parse::<i32>().ok())
    };
    let versions = run("kubectl")
        .args(["--kubeconfig", layout::ADMIN_CONF, "version", "-o", "json"])
        .stdout()
        .ok()
        .and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok());
    let Some(versions) = versions else {
        return Check::warn("kubectl", "does not tell its version", "run `kubectl version`");
    };
    let server = versions["serverVersion"]["gitVersion"].as_str().unwrap_or_default().to_owned();
    match (minor(&versions["clientVersion"]), minor(&versions["serverVersion"])) {
        (Some(client), Some(server_minor)) if (client - server_minor).abs() > 1 => Check::warn(
            "kubectl",
            format!("1.{client} against {server}"),
            "it works for most things; kubectl promises one minor version of difference",
        ),
        (Some(client), Some(_)) => Check::ok("kubectl", format!("1.{client} against {server}")),
        _ => Check::warn("kubectl", "the versions cannot be compared", "run `kubectl version`"),
    }
}

/// How long the certificates are good for.
fn certificates(now: SystemTime) -> Vec<Check> {
    let all = credentials::days_left(now);
    let mut checks = Vec::new();
    let mut least = u64::MAX;
    for (path, days) in &all {
        match days {
            Ok(days) if *days < 30 => checks.push(Check::warn(
                "certificates",
                format!("{} ends in {days} days", path.display()),
                "`cargo xtask up` renews it",
            )),
            Ok(days) => least = least.min(*days),
            Err(error) => checks.push(Check::fail(
                "certificates",
                format!("{}: {error}", path.display()),
                "remove the file; `cargo xtask up` issues it again",
            )),
        }
    }
    if all.is_empty() && Path::new(layout::KUBERNETES).exists() {
        checks.push(Check::fail(
            "certificates",
            format!("none in {}", layout::PKI),
            "`cargo xtask up` issues them",
        ));
    } else if checks.is_empty() {
        checks
            .push(Check::ok("certificates", format!("{} files, the first ends in {least} days", all.len())));
    }
    checks
}
