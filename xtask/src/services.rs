//! Keeps the two host processes running, containerd and the kubelet: as systemd units where systemd is the init
//! system, or else under our own supervisor.

use crate::command::run;
use crate::journal::{Entry, Journal, write_atomically, write_if_changed};
use crate::layout;
use crate::machine;
use crate::supervise;
use crate::templates::{Values, render_file};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A host process that is to run.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) name: &'static str,
    /// The systemd unit below `manifests/`.
    pub(crate) unit_template: &'static str,
    pub(crate) command: Vec<String>,
    /// Digest of everything that asks for a restart when it changes.
    pub(crate) fingerprint: String,
}

/// What [`ensure`] had to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Started {
    New,
    Again,
    Unchanged,
}

/// Makes sure that the service runs as described.
pub(crate) fn ensure(service: &Service) -> Result<Started> {
    let mark = Path::new(layout::RUN).join(format!("{}.fingerprint", service.name));
    let fingerprint = format!("{}\n{}\n", service.fingerprint, service.command.join(" "));
    let running = is_running(service.name);
    let same = std::fs::read_to_string(&mark).is_ok_and(|known| known == fingerprint);
    if running && same {
        return Ok(Started::Unchanged);
    }
    std::fs::create_dir_all(layout::RUN)?;
    std::fs::create_dir_all(layout::LOGS)?;
    if machine::has_systemd() {
        let unit = unit_path(service.name);
        let mut journal = Journal::open()?;
        journal.record(Entry::File { path: unit.clone() })?;
        journal.record(Entry::Unit { name: unit_name(service.name) })?;
        let values = Values::from([("COMMAND", service.command.join(" "))]);
        let text = render_file(&layout::manifests().join(service.unit_template), &values)?;
        write_if_changed(&unit, text.as_bytes(), 0o644)?;
        run("systemctl").arg("daemon-reload").ok()?;
        run("systemctl").args(["enable", "--quiet", &unit_name(service.name)]).ok()?;
        run("systemctl").args(["restart", &unit_name(service.name)]).ok()?;
    } else {
        stop_own(service.name)?;
        start_own(service)?;
    }
    write_atomically(&mark, fingerprint.as_bytes(), 0o600)?;
    Ok(if running { Started::Again } else { Started::New })
}

/// Stops the service; what it has started lives on.
pub(crate) fn stop(name: &str) -> Result<()> {
    if machine::has_systemd() && unit_path(name).is_file() {
        run("systemctl").args(["disable", "--quiet", "--now", &unit_name(name)]).ok()?;
    }
    stop_own(name)
}

/// Whether the service is being kept running.
pub(crate) fn is_running(name: &str) -> bool {
    if machine::has_systemd() {
        return run("systemctl").args(["is-active", "--quiet", &unit_name(name)]).succeeds();
    }
    supervise::supervisor_pid(Path::new(layout::RUN), name).is_some()
}

/// Where a person reads what the service has to say.
pub(crate) fn logs_of(name: &str) -> String {
    if machine::has_systemd() {
        format!("`journalctl -u {name}`")
    } else {
        log_path(name).display().to_string()
    }
}

/// The log file of a service under our own supervisor.
pub(crate) fn log_path(name: &str) -> PathBuf {
    Path::new(layout::LOGS).join(format!("{name}.log"))
}

fn unit_name(name: &str) -> String {
    format!("{name}.service")
}

fn unit_path(name: &str) -> PathBuf {
    Path::new("/etc/systemd/system").join(unit_name(name))
}

fn start_own(service: &Service) -> Result<()> {
    // A copy: the build directory may vanish or change while the cluster runs.
    let supervisor = install_program(&std::env::current_exe()?, "keelson-supervise")?;
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(log_path(service.name))
        .with_context(|| format!("cannot open {}", log_path(service.name).display()))?;
    Command::new(supervisor)
        .args(["supervise", "--run-dir", layout::RUN, "--name", service.name, "--"])
        .args(&service.command)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("cannot start the supervisor")?;
    let deadline = Instant::now() + Duration::from_secs(10);
    while supervise::child_pid(Path::new(layout::RUN), service.name).is_none() {
        if Instant::now() > deadline {
            bail!("{} did not start: see {}", service.name, log_path(service.name).display());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn stop_own(name: &str) -> Result<()> {
    let dir = Path::new(layout::RUN);
    // The supervisor first: it would start the child again. It passes the signal on and waits.
    for find in [supervise::supervisor_pid, supervise::child_pid] {
        if let Some(pid) = find(dir, name) {
            supervise::end(pid, Duration::from_secs(12))?;
        }
    }
    supervise::forget(dir, name);
    match std::fs::remove_file(dir.join(format!("{name}.fingerprint"))) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Copies a program to where the cluster's host programs lie; an unchanged one is left alone.
pub(crate) fn install_program(source: &Path, name: &str) -> Result<PathBuf> {
    let target = Path::new(layout::BIN).join(name);
    let bytes = std::fs::read(source).with_context(|| format!("cannot read {}", source.display()))?;
    write_if_changed(&target, &bytes, 0o755)?;
    Ok(target)
}
