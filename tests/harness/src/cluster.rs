//! The cluster under test, through the machine's kubectl, and through curl where a test must say what kubectl would
//! not let it say.

use crate::condition::eventually;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// How long a condition that involves pods may take on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// The cluster, as its administrator sees it.
#[derive(Debug)]
pub struct Cluster {
    kubeconfig: PathBuf,
    run: u32,
    count: AtomicU32,
}

/// What a command printed.
#[derive(Debug, Clone)]
pub struct Said {
    /// Exit code; -1 when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// The answer to a raw request.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status code.
    pub code: u16,
    /// Body, as JSON; null when it is none.
    pub body: Value,
    /// Body, as text.
    pub text: String,
}

/// A namespace that goes with its value.
#[derive(Debug)]
pub struct Namespace<'a> {
    cluster: &'a Cluster,
    /// Its name.
    pub name: String,
}

impl Cluster {
    /// The cluster that `KEELSON_CLUSTER_KUBECONFIG` names; none when it is not set.
    pub fn from_env() -> Option<Cluster> {
        let kubeconfig = PathBuf::from(std::env::var_os("KEELSON_CLUSTER_KUBECONFIG")?);
        Some(Cluster { kubeconfig, run: std::process::id(), count: AtomicU32::new(0) })
    }

    /// The directory of the examples.
    pub fn examples() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests/examples")
    }

    /// A kubectl command that is not started yet.
    pub fn kubectl_command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command.arg("--kubeconfig").arg(&self.kubeconfig).args(words);
        command
    }

    /// Runs kubectl, whatever comes out.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn try_kubectl(&self, words: &[&str], input: Option<&str>) -> Result<Said> {
        run(self.kubectl_command(words), input)
    }

    /// Runs kubectl, which must succeed, and returns its output.
    ///
    /// # Errors
    /// It fails.
    pub fn kubectl(&self, words: &[&str]) -> Result<String> {
        succeed(words, self.try_kubectl(words, None)?)
    }

    /// Runs kubectl with this input, which must succeed.
    ///
    /// # Errors
    /// It fails.
    pub fn kubectl_with(&self, words: &[&str], input: &str) -> Result<String> {
        succeed(words, self.try_kubectl(words, Some(input))?)
    }

    /// The JSON of a kubectl command.
    ///
    /// # Errors
    /// It fails or prints no JSON.
    pub fn json(&self, words: &[&str]) -> Result<Value> {
        let text = self.kubectl(&[words, &["-o", "json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("`kubectl {}` printed no JSON", words.join(" ")))
    }

    /// Makes an object from the words of a `kubectl create`, in two steps: from 1.32 on kubectl sends the object of such
    /// a command as protobuf, which the API server does not take yet.
    ///
    /// # Errors
    /// A step fails.
    pub fn create(&self, words: &[&str]) -> Result<String> {
        let object = self.kubectl(&[&["create"], words, &["--dry-run=client", "-o", "json"]].concat())?;
        self.kubectl_with(&["create", "-f", "-"], &object)
    }

    /// Makes a namespace and waits until pods can be created in it.
    ///
    /// # Errors
    /// It cannot be made, or its service account does not come.
    pub fn namespace(&self, purpose: &str) -> Result<Namespace<'_>> {
        let name = format!("test-{purpose}-{}-{}", self.run, self.count.fetch_add(1, Ordering::Relaxed));
        self.create(&["namespace", &name])?;
        let namespace = Namespace { cluster: self, name };
        eventually("service account and root certificate of the namespace", PATIENCE, || {
            namespace.kubectl(&["get", "serviceaccount/default", "configmap/kube-root-ca.crt"]).map(Ok)
        })?;
        Ok(namespace)
    }

    /// The only node.
    ///
    /// # Errors
    /// There is no node.
    pub fn node(&self) -> Result<Value> {
        let nodes = self.json(&["get", "nodes"])?;
        nodes["items"].as_array().and_then(|items| items.first()).cloned().context("there is no node")
    }

    /// The only node's address.
    ///
    /// # Errors
    /// It has none.
    pub fn node_ip(&self) -> Result<String> {
        let node = self.node()?;
        let addresses = node["status"]["addresses"].as_array().cloned().unwrap_or_default();
        addresses
            .iter()
            .find(|address| address["type"] == "InternalIP")
            .and_then(|address| address["address"].as_str())
            .map(str::to_owned)
            .context("the node has no InternalIP")
    }

    /// Sends a request as the administrator, byte for byte.
    ///
    /// # Errors
    /// No answer came.
    pub fn request(&self, method: &str, path: &str, headers: &[&str], body: Option<&[u8]>) -> Result<Answer> {
        let config = self.json(&["config", "view", "--raw", "--minify"])?;
        let server = config["clusters"][0]["cluster"]["server"].as_str().context("no server")?.to_owned();
        let dir = tempfile::tempdir()?;
        let pki = Path::new("/etc/kubernetes/pki");
        let body_file = dir.path().join("body");
        let answer_file = dir.path().join("answer");
        let mut command = Command::new("curl");
        command
            .args(["--silent", "--show-error", "--max-time", "30", "--request", method])
            .arg("--cacert")
            .arg(pki.join("ca.crt"))
            .arg("--cert")
            .arg(pki.join("admin.crt"))
            .arg("--key")
            .arg(pki.join("admin.key"))
            .args(["--write-out", "%{http_code}", "--output"])
            .arg(&answer_file);
        for header in headers {
            command.args(["--header", header]);
        }
        if let Some(body) = body {
            std::fs::write(&body_file, body)?;
            command.args(["--header", "Expect:", "--data-binary"]).arg(format!("@{}", body_file.display()));
        }
        command.arg(format!("{server}{path}"));
        let said = run(command, None)?;
        let code: u16 = said.stdout.trim().parse().unwrap_or(0);
        if code == 0 {
            bail!("{method} {path}: no answer: {}", said.stderr.trim());
        }
        let text = std::fs::read_to_string(&answer_file).unwrap_or_default();
        Ok(Answer { code, body: serde_json::from_str(&text).unwrap_or(Value::Null), text })
    }
}

impl Namespace<'_> {
    /// Runs kubectl in this namespace, which must succeed.
    ///
    /// # Errors
    /// It fails.
    pub fn kubectl(&self, words: &[&str]) -> Result<String> {
        self.cluster.kubectl(&[&["--namespace", self.name.as_str()], words].concat())
    }

    /// Runs kubectl in this namespace, whatever comes out.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn try_kubectl(&self, words: &[&str], input: Option<&str>) -> Result<Said> {
        self.cluster.try_kubectl(&[&["--namespace", self.name.as_str()], words].concat(), input)
    }

    /// Makes an object in this namespace from the words of a `kubectl create`.
    ///
    /// # Errors
    /// The API server refuses it.
    pub fn create(&self, words: &[&str]) -> Result<String> {
        self.cluster.create(&[words, &["--namespace", self.name.as_str()]].concat())
    }

    /// Applies manifests.
    ///
    /// # Errors
    /// The API server refuses them.
    pub fn apply(&self, manifests: &str) -> Result<String> {
        self.cluster.kubectl_with(&["--namespace", &self.name, "apply", "-f", "-"], manifests)
    }

    /// The JSON of a kubectl command in this namespace.
    ///
    /// # Errors
    /// It fails or prints no JSON.
    pub fn json(&self, words: &[&str]) -> Result<Value> {
        self.cluster.json(&[&["--namespace", self.name.as_str()], words].concat())
    }

    /// Waits until a Deployment has rolled out.
    ///
    /// # Errors
    /// It does not in time; the error has the pods.
    pub fn rolled_out(&self, what: &str) -> Result<String> {
        let said = self.try_kubectl(&["rollout", "status", what, "--timeout=90s"], None)?;
        if said.code != 0 {
            let pods = self.kubectl(&["get", "pods", "-o", "wide"]).unwrap_or_default();
            let events = self.kubectl(&["get", "events"]).unwrap_or_default();
            bail!("{what} did not roll out: {}\n{pods}\n{events}", said.stderr.trim());
        }
        Ok(said.stdout)
    }

    /// Names of the pods with these labels that are ready and not ending, sorted.
    ///
    /// # Errors
    /// kubectl fails.
    pub fn ready_pods(&self, selector: &str) -> Result<Vec<String>> {
        let pods = self.json(&["get", "pods", "-l", selector])?;
        let mut names: Vec<String> = pods["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null() && is_ready(pod))
            .filter_map(|pod| pod["metadata"]["name"].as_str().map(str::to_owned))
            .collect();
        names.sort();
        Ok(names)
    }

    /// Runs a pod of busybox that does nothing, and waits until commands can be run in it.
    ///
    /// # Errors
    /// It does not become ready.
    pub fn busybox(&self, name: &str) -> Result<()> {
        self.apply(&format!(
            r#"{{"apiVersion": "v1", "kind": "Pod", "metadata": {{"name": "{name}", "labels": {{"app": "{name}"}}}},
                "spec": {{"terminationGracePeriodSeconds": 0, "containers": [{{"name": "{name}",
                "image": "keelson.local/busybox:stable", "command": ["sleep", "100000"]}}]}}}}"#
        ))?;
        eventually(&format!("pod {name} ready"), PATIENCE, || {
            let pod = self.json(&["get", "pod", name])?;
            Ok(if is_ready(&pod) { Ok(()) } else { Err(pod["status"].to_string()) })
        })
    }
}

impl Drop for Namespace<'_> {
    fn drop(&mut self) {
        // Its objects stay for a look when the test has failed.
        if std::thread::panicking() {
            return;
        }
        let words = ["delete", "namespace", self.name.as_str(), "--wait=false", "--ignore-not-found"];
        if let Err(error) = self.cluster.kubectl(&words) {
            eprintln!("namespace {} stays: {error:#}", self.name);
        }
    }
}

/// Whether a pod's Ready condition is true.
pub fn is_ready(pod: &Value) -> bool {
    condition(pod, "Ready") == Some("True")
}

/// The status of a condition.
pub fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a str> {
    let conditions = object["status"]["conditions"].as_array()?;
    conditions.iter().find(|condition| condition["type"] == kind)?["status"].as_str()
}

fn run(mut command: Command, input: Option<&str>) -> Result<Said> {
    let name = command.get_program().to_string_lossy().into_owned();
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {name}"))?;
    if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
        match stdin.write_all(input.as_bytes()) {
            // It may refuse its input before it has read all of it.
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => return Err(error.into()),
            _ => {}
        }
    }
    let output = child.wait_with_output()?;
    Ok(Said {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

fn succeed(words: &[&str], said: Said) -> Result<String> {
    if said.code != 0 {
        bail!(
            "`kubectl {}` failed ({}): {}{}",
            words.join(" "),
            said.code,
            said.stderr.trim(),
            said.stdout.trim()
        );
    }
    Ok(said.stdout)
}
