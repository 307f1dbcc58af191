//! The cluster's own containerd: its configuration, its start, and `ctr` against it. A containerd that the machine
//! runs for others is never touched: ours has its own root, state, socket and configuration.

use crate::command::run;
use crate::images;
use crate::journal::write_if_changed;
use crate::layout;
use crate::machine;
use crate::services::{self, Service, Started};
use crate::stages::Remedy;
use crate::templates::{Values, render_file};
use anyhow::{Context, Result, bail};
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

pub(crate) const CTR_FLAGS: [&str; 4] = ["--address", layout::CONTAINERD_SOCKET, "--namespace", "k8s.io"];
pub(crate) const OVERLAYFS: &str = "overlayfs";

/// The service's name, also that of its systemd unit: `containerd` is the name of the machine's own.
pub(crate) const SERVICE: &str = "keelson-containerd";

/// Runs `ctr` against the cluster's containerd.
pub(crate) fn ctr<S: AsRef<std::ffi::OsStr>>(words: impl IntoIterator<Item = S>) -> Result<String> {
    run("ctr").args(CTR_FLAGS).args(words).stdout()
}

/// overlayfs where it can be mounted on the state's file system, or else plain copies.
pub(crate) fn snapshotter() -> &'static str {
    static KNOWN: OnceLock<&'static str> = OnceLock::new();
    KNOWN.get_or_init(|| if overlayfs_works(Path::new(layout::STATE)).is_ok() { OVERLAYFS } else { "native" })
}

/// Mounts an overlay in a scratch directory below `dir` and takes it away again.
pub(crate) fn overlayfs_works(dir: &Path) -> Result<()> {
    // Before the first `up` the directory is not there: the file system it will be on is what counts.
    let dir = dir.ancestors().find(|dir| dir.is_dir()).unwrap_or_else(|| Path::new("/"));
    let scratch = tempfile::Builder::new().prefix("overlay-check-").tempdir_in(dir)?;
    let path = |name: &str| scratch.path().join(name);
    for name in ["lower", "upper", "work", "merged"] {
        std::fs::create_dir(path(name))?;
    }
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        path("lower").display(),
        path("upper").display(),
        path("work").display()
    );
    run("mount").args(["-t", "overlay", "overlay", "-o", &options]).arg(path("merged")).ok()?;
    run("umount").arg(path("merged")).ok()
}

/// Writes the configuration and starts containerd, or restarts it when something changed.
pub(crate) fn start(pause_image: &str) -> Result<String> {
    let program = crate::command::which("containerd").context("containerd is not installed")?;
    let values = Values::from([
        ("CONTAINERD_ROOT", layout::CONTAINERD_ROOT.to_owned()),
        ("CONTAINERD_STATE", layout::CONTAINERD_STATE.to_owned()),
        ("CONTAINERD_SOCKET", layout::CONTAINERD_SOCKET.to_owned()),
        ("PAUSE_IMAGE", pause_image.to_owned()),
        ("SNAPSHOTTER", snapshotter().to_owned()),
        ("CNI_BIN", layout::CNI_BIN.to_owned()),
        ("CNI_CONF", layout::CNI_CONF.to_owned()),
        (
            // Lowering an oom_score_adj needs the capability; without it containers are left at their parent's.
            "RESTRICT_OOM_SCORE_ADJ",
            (!machine::has_capability(machine::CAP_SYS_RESOURCE)).to_string(),
        ),
    ]);
    let config = render_file(&layout::manifests().join("node/containerd.toml"), &values)?;
    write_if_changed(Path::new(layout::CONTAINERD_CONFIG), config.as_bytes(), 0o644)?;
    std::fs::create_dir_all(layout::CNI_CONF)?;
    let version = run(&program).arg("--version").stdout()?;
    let service = Service {
        name: SERVICE,
        unit_template: "node/containerd.service",
        command: vec![
            program.to_string_lossy().into_owned(),
            "--config".to_owned(),
            layout::CONTAINERD_CONFIG.to_owned(),
        ],
        fingerprint: images::digest(format!("{version}{config}").as_bytes()),
    };
    let started = services::ensure(&service)?;
    wait_until_answering().remedy(format!("look at {}", services::logs_of(SERVICE)))?;
    let version = version.split_whitespace().nth(2).unwrap_or_default().to_owned();
    Ok(match started {
        Started::Unchanged => format!("{version}, running"),
        Started::New => format!("{version}, {}", snapshotter()),
        Started::Again => format!("{version}, restarted with a new configuration"),
    })
}

fn wait_until_answering() -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match ctr(["version"]) {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > deadline => {
                bail!("containerd does not answer on {}: {error:#}", layout::CONTAINERD_SOCKET)
            }
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// Whether our containerd answers.
pub(crate) fn is_up() -> bool {
    Path::new(layout::CONTAINERD_SOCKET).exists() && ctr(["version"]).is_ok()
}

/// The shims that serve our containerd: each names its address in its arguments.
pub(crate) fn shims() -> Vec<i32> {
    machine::processes(|words| {
        words.first().is_some_and(|program| program.ends_with("containerd-shim-runc-v2"))
            && words.iter().any(|word| word == layout::CONTAINERD_SOCKET)
    })
    .into_iter()
    .map(|(pid, _)| pid)
    .collect()
}
