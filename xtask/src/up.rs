//! `up`: makes this machine a Kubernetes node with its own control plane. Every stage looks at what is there and does
//! only what is missing, so that a second `up` is harmless and quick, and one that was interrupted is taken up again.

use crate::binaries::{self, Source};
use crate::checks::{self, Check, Level};
use crate::cli::UpArgs;
use crate::containerd;
use crate::context;
use crate::credentials;
use crate::etcd_package;
use crate::images::{self, Image};
use crate::journal::{write_atomically, write_if_changed};
use crate::kubectl::{self, kubectl, wait_for};
use crate::layout;
use crate::machine::Node;
use crate::network;
use crate::packages;
use crate::self_check;
use crate::services::{self, Service, Started};
use crate::stages::{Remedy, Stage, Stages};
use crate::templates::{Values, render_file};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::time::Duration;

const STATIC_PODS: [&str; 4] = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];
const ADDONS: [&str; 2] = ["pod-network", "kube-proxy"];

/// Brings the cluster up.
pub(crate) fn run(args: &UpArgs) -> Result<()> {
    let source = match (&args.bin_dir, args.skip_build) {
        (Some(dir), _) => Source::Directory(dir),
        (None, true) => Source::Built,
        (None, false) => Source::Build,
    };
    let stages = Stages::new();
    println!("Bringing up a Keelson cluster on this machine");
    stages.run("check the machine", |stage| judge(stage, checks::machine()))?;
    stages.run("packages", |stage| {
        let needs: &[&[packages::Need]] = match source {
            Source::Build => &[packages::NODE, packages::BUILD],
            _ => &[packages::NODE],
        };
        let installed = packages::install(stage, needs)?;
        judge(stage, checks::after_packages())?;
        Ok(installed)
    })?;
    let node = Node::find(args.node_name.as_deref(), args.node_ip)?;
    let (_, bin) = stages.run("build the daemons", |stage| binaries::provide(stage, &source))?;
    let (_, all) = stages.run("pack images", |stage| pack(stage, &bin))?;
    let built = stages.elapsed();
    stages.run("certificates", |_| credentials::provide(&node))?;
    let placeholders = images::placeholders(&all);
    let pause = placeholders.get("PAUSE_IMAGE").context("there is no pause image")?;
    stages.run("containerd", |_| containerd::start(pause))?;
    stages.run("import images", |_| images::import(&all))?;
    stages.run("kernel parameters", network::set_kernel_parameters)?;
    stages.run("routes", |_| network::add_routes(&node))?;
    let values = values(&node, placeholders)?;
    stages.run("static pods", |_| write_static_pods(&values))?;
    stages.run("kubelet", |_| start_kubelet(&node, &bin, &values))?;
    stages.run("control plane", |stage| wait_for_apiserver(stage, &node))?;
    stages.run("add-ons", |stage| apply_addons(stage, &node, &values))?;
    stages.run("node and system pods", |stage| wait_until_ready(stage, &node))?;
    stages.run("self-check", |stage| self_check::run(stage, &node))?;
    stages.run("clean old images", |_| {
        let removed = images::remove_old(&all)?;
        Ok(if removed == 0 { String::new() } else { format!("{removed} removed") })
    })?;
    let files = stages
        .run("kubeconfig", |_| context::merge(&format!("https://{}:{}", node.ip, layout::APISERVER_PORT)))?;
    let total = stages.elapsed();
    println!(
        "Ready in {:.1} s, {:.1} s of them after the build\n",
        total.as_secs_f64(),
        total.saturating_sub(built).as_secs_f64()
    );
    report(&files)
}

/// Fails on the first failed check and shows warnings.
fn judge(stage: &Stage, checks: Vec<Check>) -> Result<String> {
    let mut failures = Vec::new();
    for check in &checks {
        let line = format!("{}: {}", check.name, check.found);
        match check.level {
            Level::Ok => {}
            Level::Warn => stage.note(&format!("warning: {line} ({})", check.remedy)),
            Level::Fail => failures.push((line, check.remedy.clone())),
        }
    }
    if failures.is_empty() {
        return Ok(format!("{} checks passed", checks.len()));
    }
    let (lines, remedies): (Vec<_>, Vec<_>) = failures.into_iter().unzip();
    Err(anyhow::anyhow!(lines.join("; "))).remedy(remedies.join("; "))
}

fn pack(stage: &Stage, bin: &Path) -> Result<(String, Vec<Image>)> {
    let etcd = etcd_package::find(stage)?;
    stage.busy("hashing programs and libraries");
    let all = images::all(bin, &etcd.path)?;
    Ok((format!("{}, with etcd {}", all.len(), etcd.version), all))
}

fn values(node: &Node, placeholders: std::collections::BTreeMap<&'static str, String>) -> Result<Values> {
    let mut values = Values::from([
        ("NODE_NAME", node.name.clone()),
        ("NODE_IP", node.ip.to_string()),
        ("SERVICE_CIDR", layout::SERVICE_CIDR.to_owned()),
        ("POD_CIDR", layout::POD_CIDR.to_owned()),
        ("CONTAINERD_SOCKET", layout::CONTAINERD_SOCKET.to_owned()),
        ("PKI_HASH", pki_hash()?),
    ]);
    values.extend(placeholders);
    Ok(values)
}

/// Changes when a certificate that a static pod holds does: those pods read them at their start.
fn pki_hash() -> Result<String> {
    let mut bytes = Vec::new();
    for file in [
        "pki/ca.crt",
        "pki/sa.pub",
        "pki/apiserver.crt",
        "pki/apiserver-kubelet-client.crt",
        "pki/apiserver-etcd-client.crt",
        "pki/etcd/ca.crt",
        "pki/etcd/server.crt",
        "pki/etcd/peer.crt",
        "controller-manager.conf",
        "scheduler.conf",
    ] {
        let path = Path::new(layout::KUBERNETES).join(file);
        bytes.extend(std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?);
    }
    Ok(images::digest(&bytes)[7..23].to_owned())
}

fn write_static_pods(values: &Values) -> Result<String> {
    std::fs::create_dir_all(layout::STATIC_PODS)?;
    std::fs::create_dir_all(layout::ETCD_DATA)?;
    // As kubeadm: the data of the whole cluster is for root only.
    std::fs::set_permissions(layout::ETCD_DATA, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    let mut changed = 0;
    for name in STATIC_PODS {
        let text = render_file(&layout::manifests().join(format!("static-pods/{name}.yaml")), values)?;
        let target = Path::new(layout::STATIC_PODS).join(format!("{name}.yaml"));
        if std::fs::read_to_string(&target).is_ok_and(|old| old == text) {
            continue;
        }
        // Written beside the directory and moved in: the kubelet watches it.
        let aside = Path::new(layout::KUBERNETES).join(format!(".{name}.yaml"));
        write_atomically(&aside, text.as_bytes(), 0o600)?;
        std::fs::rename(&aside, &target).with_context(|| format!("cannot write {}", target.display()))?;
        changed += 1;
    }
    Ok(if changed == 0 { "as they are".to_owned() } else { format!("{changed} written") })
}

fn start_kubelet(node: &Node, bin: &Path, values: &Values) -> Result<String> {
    let program = services::install_program(&bin.join("kubelet"), "kubelet")?;
    let config = render_file(&layout::manifests().join("node/kubelet-config.yaml"), values)?;
    write_if_changed(Path::new(layout::KUBELET_CONFIG), config.as_bytes(), 0o644)?;
    let flags = [
        format!("--config={}", layout::KUBELET_CONFIG),
        format!("--kubeconfig={}/kubelet.conf", layout::KUBERNETES),
        format!("--hostname-override={}", node.name),
        format!("--node-ip={}", node.ip),
    ];
    let identity = std::fs::read(Path::new(layout::KUBERNETES).join("kubelet.conf"))?;
    let mut content = std::fs::read(&program)?;
    content.extend(config.as_bytes());
    content.extend(identity);
    let service = Service {
        name: "kubelet",
        unit_template: "node/kubelet.service",
        command: [program.to_string_lossy().into_owned()].into_iter().chain(flags).collect(),
        fingerprint: images::digest(&content),
    };
    let started = services::ensure(&service)?;
    wait_for("the kubelet's health port", Duration::from_secs(20), || {
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], 10248));
        Ok(std::net::TcpStream::connect_timeout(&address, Duration::from_secs(1))
            .map(drop)
            .map_err(|e| e.to_string()))
    })
    .remedy(format!("look at {}", services::logs_of("kubelet")))?;
    Ok(match started {
        Started::New => "started",
        Started::Again => "restarted with a new version or configuration",
        Started::Unchanged => "running",
    }
    .to_owned())
}

fn wait_for_apiserver(stage: &Stage, node: &Node) -> Result<String> {
    wait_for("kube-apiserver's /readyz", Duration::from_secs(120), || {
        let output = kubectl(&["get", "--raw", "/readyz"]).output()?;
        if output.status.success() {
            return Ok(Ok(()));
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        stage.busy(said.lines().last().unwrap_or_default());
        Ok(Err(said))
    })
    .remedy(format!(
        "look at {} and below {}/kube-system_kube-apiserver-{}_*, then etcd's",
        services::logs_of("kubelet"),
        layout::POD_LOGS,
        node.name
    ))?;
    stage.busy("waiting for the node to register");
    wait_for(&format!("node {}", node.name), Duration::from_secs(60), || {
        let output = kubectl(&["get", "node", &node.name, "-o", "name"]).output()?;
        Ok(if output.status.success() {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
        })
    })
    .remedy(format!("look at {}", services::logs_of("kubelet")))?;
    Ok(format!("https://{}:{}", node.ip, layout::APISERVER_PORT))
}

fn apply_addons(stage: &Stage, node: &Node, values: &Values) -> Result<String> {
    // The kubelet may not give itself this label; the administrator may.
    kubectl(&["label", "node", &node.name, "node-role.kubernetes.io/control-plane=", "--overwrite"]).ok()?;
    let mut manifests = Vec::new();
    for name in ADDONS {
        manifests.push(render_file(&layout::manifests().join(format!("addons/{name}.yaml")), values)?);
    }
    let text = manifests.join("\n---\n");
    // Right after the start a controller may not have made what an add-on refers to.
    wait_for("`kubectl apply` of the add-ons", Duration::from_secs(30), || {
        stage.busy("kubectl apply");
        let output = kubectl(&["apply", "-f", "-"]).input(text.as_bytes()).output()?;
        if !output.status.success() {
            return Ok(Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
        }
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let changed = said.lines().filter(|line| !line.ends_with("unchanged")).count();
        Ok(Ok(if changed == 0 { "unchanged".to_owned() } else { format!("{changed} objects applied") }))
    })
}

fn wait_until_ready(stage: &Stage, node: &Node) -> Result<String> {
    wait_for("node Ready and all of kube-system running", Duration::from_secs(120), || {
        let object = kubectl::json(&["get", "node", &node.name])?;
        let ready = kubectl::condition(&object, "Ready");
        if ready.is_none_or(|ready| ready["status"] != "True") {
            let why = ready.and_then(|ready| ready["message"].as_str()).unwrap_or("no condition Ready yet");
            stage.busy(why);
            return Ok(Err(format!("node {} is not Ready: {why}", node.name)));
        }
        let pods = kubectl::json(&["get", "pods", "--namespace", "kube-system"])?;
        let names: Vec<String> = pods["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|pod| pod["metadata"]["name"].as_str().map(str::to_owned))
            .collect();
        let expected = STATIC_PODS.iter().map(|name| format!("{name}-{}", node.name));
        let expected = expected.chain(ADDONS.iter().map(|name| format!("{name}-")));
        let missing: Vec<String> =
            expected.filter(|prefix| !names.iter().any(|name| name.starts_with(prefix.as_str()))).collect();
        if !missing.is_empty() {
            return Ok(Err(format!("not there yet: {}", missing.join(", "))));
        }
        let unready = kubectl::unready_pods(&pods);
        if let Some(first) = unready.first() {
            stage.busy(first);
            return Ok(Err(unready.join("; ")));
        }
        Ok(Ok(format!("{} pods", names.len())))
    })
    .remedy("`cargo xtask doctor` tells what is wrong; `kubectl -n kube-system describe pods` has the events")
}

fn report(files: &str) -> Result<()> {
    for words in [&["get", "nodes", "-o", "wide"][..], &["get", "pods", "-A", "-o", "wide"][..]] {
        println!("$ kubectl {}", words.join(" "));
        print!("{}", kubectl(words).stdout()?);
        println!();
    }
    let default = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".kube/config"));
    if default.is_some_and(|path| path == Path::new(files)) {
        println!(
            "kubectl's current context is now `{}`; elsewhere: export KUBECONFIG={files}",
            layout::CONTEXT
        );
    } else {
        println!("export KUBECONFIG={files}");
    }
    if files.is_empty() {
        bail!("no kubeconfig was written");
    }
    Ok(())
}
