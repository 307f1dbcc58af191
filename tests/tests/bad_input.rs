//! What the API server refuses: each with upstream's HTTP code and Status, and nothing stored.

use anyhow::{Context, Result, bail, ensure};
use harness::cluster::{Answer, Cluster};
use serde_json::{Value, json};

const JSON: &str = "Content-Type: application/json";
const YAML: &str = "Content-Type: application/yaml";
const MERGE: &str = "Content-Type: application/merge-patch+json";

/// A request that must be refused.
struct Case {
    name: &'static str,
    method: &'static str,
    /// Below the test's namespace.
    path: &'static str,
    header: &'static str,
    body: String,
    code: u16,
    reason: &'static str,
    /// Part of the message.
    says: &'static str,
}

fn pod(name: &str, spec: Value) -> String {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}).to_string()
}

fn container() -> Value {
    json!({"containers": [{"name": "c", "image": "keelson.local/busybox:stable"}]})
}

fn create(name: &'static str, body: String, code: u16, reason: &'static str, says: &'static str) -> Case {
    Case { name, method: "POST", path: "pods", header: JSON, body, code, reason, says }
}

/// Bodies that are no object, no pod, or no valid one.
fn bodies() -> Vec<Case> {
    vec![
        create("malformed JSON", r#"{"apiVersion": "v1", "kind": "Pod", "#.into(), 400, "BadRequest", ""),
        Case { header: YAML, ..create("malformed YAML", "apiVersion: v1\nkind: [Pod\n".into(), 400, "BadRequest", "") },
        create("not an object", "[1, 2]".into(), 400, "BadRequest", ""),
        create("empty body", String::new(), 400, "BadRequest", ""),
        create(
            "wrong type",
            pod("a", json!({"containers": [{"name": "c", "image": 7}]})),
            400,
            "BadRequest",
            "",
        ),
        create(
            "wrong kind",
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}}).to_string(),
            400,
            "BadRequest",
            "",
        ),
        create("invalid name", pod("Not_A_Name", container()), 422, "Invalid", "metadata.name: Invalid value: \"Not_A_Name\""),
        create("no name", json!({"apiVersion": "v1", "kind": "Pod", "spec": container()}).to_string(), 422, "Invalid", "name or generateName is required"),
        create("no containers", pod("a", json!({"containers": []})), 422, "Invalid", "spec.containers: Required value"),
        create(
            "no image",
            pod("a", json!({"containers": [{"name": "c"}]})),
            422,
            "Invalid",
            "spec.containers[0].image: Required value",
        ),
        create(
            "bad restart policy",
            pod("a", json!({"restartPolicy": "Sometimes", "containers": [{"name": "c", "image": "i"}]})),
            422,
            "Invalid",
            "spec.restartPolicy: Unsupported value: \"Sometimes\"",
        ),
        create(
            "bad quantity",
            pod("a", json!({"containers": [{"name": "c", "image": "i", "resources": {"limits": {"memory": "much"}}}]})),
            400,
            "BadRequest",
            "quantities must match the regular expression",
        ),
        create(
            "bad label",
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "labels": {"a": "not ok!"}}, "spec": container()}).to_string(),
            422,
            "Invalid",
            "metadata.labels: Invalid value: \"not ok!\"",
        ),
        create(
            "other namespace",
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "elsewhere"}, "spec": container()}).to_string(),
            400,
            "BadRequest",
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
    ]
}

/// Paths, parameters and media types.
fn requests() -> Vec<Case> {
    vec![
        Case {
            path: "pods?fieldValidation=Strict",
            ..create(
                "unknown field, strictly",
                pod("a", json!({"contaners": [], "containers": [{"name": "c", "image": "i"}]})),
                400,
                "BadRequest",
                "unknown field \"spec.contaners\"",
            )
        },
        Case { header: "Content-Type: text/plain", ..create("media type", pod("a", container()), 415, "UnsupportedMediaType", "") },
        Case { method: "GET", path: "pods/nobody", body: String::new(), ..create("missing", String::new(), 404, "NotFound", "pods \"nobody\" not found") },
        Case { method: "DELETE", path: "pods/nobody", body: String::new(), ..create("delete missing", String::new(), 404, "NotFound", "pods \"nobody\" not found") },
        Case {
            method: "PATCH",
            path: "pods/nobody",
            header: MERGE,
            ..create("patch missing", "{}".into(), 404, "NotFound", "pods \"nobody\" not found")
        },
        Case { method: "GET", path: "pods?labelSelector=a=b=c", ..create("bad selector", String::new(), 400, "BadRequest", "") },
        Case { method: "GET", path: "pods?fieldSelector=spec.nothing=1", ..create("bad field", String::new(), 400, "BadRequest", "") },
        Case { method: "GET", path: "nothings", ..create("no such resource", String::new(), 404, "NotFound", "the server could not find the requested resource") },
        Case {
            path: "services",
            ..create(
                "service without ports",
                json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": []}}).to_string(),
                422,
                "Invalid",
                "spec.ports: Required value",
            )
        },
        Case {
            path: "services",
            ..create(
                "service with a node port out of range",
                json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": 80}]}}).to_string(),
                422,
                "Invalid",
                "provided port is not in the valid range",
            )
        },
    ]
}

fn check(case: &Case, answer: &Answer) -> Result<()> {
    let status = &answer.body;
    ensure!(answer.code == case.code, "HTTP {} instead of {}: {}", answer.code, case.code, answer.text);
    if status["kind"] != "Status" || status["status"] != "Failure" {
        // A path that no resource owns is answered in plain text.
        ensure!(case.name == "no such resource" && answer.code == 404, "no Status: {}", answer.text);
        return Ok(());
    }
    ensure!(status["code"] == case.code, "code {}", status["code"]);
    if !case.reason.is_empty() {
        ensure!(status["reason"] == case.reason, "reason {}: {status}", status["reason"]);
    }
    let message = status["message"].as_str().unwrap_or_default();
    ensure!(message.contains(case.says), "message {message:?}");
    Ok(())
}

pub(crate) fn is_refused_as_upstream_does(cluster: &Cluster) -> Result<()> {
    let ns = cluster.namespace("bad")?;
    let mut wrong = Vec::new();
    for case in bodies().into_iter().chain(requests()) {
        let path = format!("/api/v1/namespaces/{}/{}", ns.name, case.path);
        let body = (case.method != "GET").then_some(case.body.as_bytes());
        let answer = cluster.request(case.method, &path, &[case.header], body)?;
        if let Err(error) = check(&case, &answer) {
            wrong.push(format!("{}: {error:#}", case.name));
        }
    }
    let stored = ns.kubectl(&["get", "pods,services", "-o", "name"])?;
    if !stored.trim().is_empty() {
        wrong.push(format!("stored nevertheless: {stored}"));
    }
    if !wrong.is_empty() {
        bail!("{} cases:\n{}", wrong.len(), wrong.join("\n"));
    }
    Ok(())
}

pub(crate) fn kubectl_validation(cluster: &Cluster) -> Result<()> {
    let ns = cluster.namespace("validate")?;
    // Block style: what starts with a brace kubectl takes for JSON.
    let typo = "apiVersion: v1\nkind: Pod\nmetadata: {name: typo}\n\
                spec: {contaners: [], containers: [{name: c, image: i}]}\n";
    let refused = ns.try_kubectl(&["apply", "--validate=strict", "-f", "-"], Some(typo))?;
    ensure!(refused.code != 0 && refused.stderr.contains("unknown field \"spec.contaners\""), "{refused:?}");
    let warned = ns.try_kubectl(&["apply", "--validate=warn", "--dry-run=server", "-f", "-"], Some(typo))?;
    ensure!(warned.code == 0 && warned.stderr.contains("unknown field \"spec.contaners\""), "{warned:?}");
    let ignored =
        ns.try_kubectl(&["apply", "--validate=false", "--dry-run=server", "-f", "-"], Some(typo))?;
    ensure!(ignored.code == 0, "{ignored:?}");
    let missing = ns.try_kubectl(&["get", "pod", "typo"], None)?;
    ensure!(missing.code != 0, "a dry run stored the pod");
    let explained = cluster.kubectl(&["explain", "pod.spec.containers.image"])?;
    ensure!(explained.contains("image <string>"), "{explained}");
    let garbage = ns.try_kubectl(&["apply", "-f", "-"], Some("kind: [Pod\n"))?;
    ensure!(garbage.code != 0, "{garbage:?}");
    Ok(())
}

pub(crate) fn stale_version_and_oversize(cluster: &Cluster) -> Result<()> {
    let ns = cluster.namespace("stale")?;
    ns.create(&["configmap", "a", "--from-literal=k=1"])?;
    let old = ns.json(&["get", "configmap", "a"])?;
    ns.kubectl(&["patch", "configmap", "a", "-p", r#"{"data": {"k": "2"}}"#])?;
    let path = format!("/api/v1/namespaces/{}/configmaps", ns.name);
    let mut stale = old.clone();
    stale["data"]["k"] = json!("3");
    let answer = cluster.request("PUT", &format!("{path}/a"), &[JSON], Some(stale.to_string().as_bytes()))?;
    ensure!(answer.code == 409 && answer.body["reason"] == "Conflict", "{}", answer.text);
    let message = answer.body["message"].as_str().context("no message")?;
    ensure!(
        message.contains("the object has been modified; please apply your changes to the latest version"),
        "{message}"
    );
    let now = ns.json(&["get", "configmap", "a"])?;
    ensure!(now["data"]["k"] == "2", "the stale write was stored: {now}");

    let again = cluster.request(
        "POST",
        &path,
        &[JSON],
        Some(
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}})
                .to_string()
                .as_bytes(),
        ),
    )?;
    ensure!(again.code == 409 && again.body["reason"] == "AlreadyExists", "{}", again.text);

    let big = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "big"}, "data": {"k": "x".repeat(3 << 20)}});
    let answer = cluster.request("POST", &path, &[JSON], Some(big.to_string().as_bytes()))?;
    ensure!(
        answer.code == 413 && answer.body["reason"] == "RequestEntityTooLarge",
        "{} {}",
        answer.code,
        answer.text
    );
    let deep = format!("{}{}", "{\"a\":".repeat(100_000), "}".repeat(100_000));
    let answer = cluster.request("POST", &path, &[JSON], Some(deep.as_bytes()))?;
    ensure!(answer.code == 400, "{} {}", answer.code, answer.text);
    let left = ns.kubectl(&["get", "configmaps", "-o", "name"])?;
    ensure!(!left.contains("big"), "{left}");
    Ok(())
}
