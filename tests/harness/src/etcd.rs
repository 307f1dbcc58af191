//! A real etcd of one member, on loopback, with its data in a temporary directory.

use crate::process::{Process, find_program, free_port};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A running etcd.
#[derive(Debug)]
pub struct Etcd {
    process: Process,
    endpoint: String,
    dir: Option<TempDir>,
}

impl Etcd {
    /// Starts etcd and waits until it takes connections. `KEELSON_ETCD` names another program than PATH's.
    ///
    /// # Errors
    /// etcd is missing, or does not come up.
    pub fn start() -> Result<Etcd> {
        Etcd::start_with(&[])
    }

    /// The same with further flags.
    ///
    /// # Errors
    /// etcd is missing, or does not come up.
    pub fn start_with(flags: &[&str]) -> Result<Etcd> {
        let program = program()?;
        // A port can be lost to somebody else between finding it and using it.
        let mut last = None;
        for _ in 0..3 {
            match Etcd::try_start(&program, flags) {
                Ok(etcd) => return Ok(etcd),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| anyhow::anyhow!("etcd was never tried")))
    }

    fn try_start(program: &Path, flags: &[&str]) -> Result<Etcd> {
        let dir = tempfile::Builder::new().prefix("keelson-etcd-").tempdir()?;
        let client = free_port()?;
        let endpoint = format!("http://127.0.0.1:{client}");
        let peer = format!("http://127.0.0.1:{}", free_port()?);
        let mut args = vec![
            "--name=test".to_owned(),
            format!("--data-dir={}", dir.path().join("data").display()),
            format!("--listen-client-urls={endpoint}"),
            format!("--advertise-client-urls={endpoint}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster=test={peer}"),
        ];
        args.extend(flags.iter().map(|flag| (*flag).to_owned()));
        let mut process = Process::start("etcd", program, &args, dir.path())?;
        let until = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(("127.0.0.1", client)).is_err() {
            process.check_running()?;
            if Instant::now() > until {
                bail!("etcd does not listen on {endpoint}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Etcd { process, endpoint, dir: Some(dir) })
    }

    /// The version of the program that [`Etcd::start`] starts.
    ///
    /// # Errors
    /// etcd is missing, or does not say.
    pub fn version() -> Result<String> {
        let said = Command::new(program()?).arg("--version").output().context("cannot start etcd")?;
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        let version = said.lines().find_map(|line| line.strip_prefix("etcd Version:"));
        Ok(version.with_context(|| format!("etcd --version said {said:?}"))?.trim().to_owned())
    }

    /// Its client URL.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        keep_on_panic("etcd", self.dir.take());
    }
}

fn program() -> Result<PathBuf> {
    find_program("KEELSON_ETCD", "etcd")
}

/// Leaves a failed test's directory in place and says where it is.
pub(crate) fn keep_on_panic(what: &str, dir: Option<TempDir>) {
    if let Some(dir) = dir
        && std::thread::panicking()
    {
        eprintln!("{what}: data and log kept in {}", dir.keep().display());
    }
}
