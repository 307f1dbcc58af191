//! A real etcd on loopback, with its data in temporary directories: of one member, or a cluster whose members can be
//! killed, paused and started again one by one.

use crate::process::{Process, find_program, free_port};
use anyhow::{Context, Result, bail};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long a member may take to be healthy.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running etcd of one member.
#[derive(Debug)]
pub struct Etcd {
    cluster: EtcdCluster,
}

impl Etcd {
    /// Starts etcd and waits until it is healthy. `KEELSON_ETCD` names another program than PATH's.
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
        Ok(Etcd { cluster: EtcdCluster::start_with(1, flags)? })
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
        &self.cluster.members[0].endpoint
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.cluster.members[0].process.as_ref().map_or(0, Process::pid)
    }
}

/// A running etcd of several members.
#[derive(Debug)]
pub struct EtcdCluster {
    program: PathBuf,
    members: Vec<Member>,
    dir: Option<TempDir>,
}

#[derive(Debug)]
struct Member {
    endpoint: String,
    args: Vec<String>,
    /// `None` while it is killed.
    process: Option<Process>,
}

impl EtcdCluster {
    /// Starts the members and waits until each is healthy: it has a leader and answers. `KEELSON_ETCD` names another program than PATH's.
    ///
    /// # Errors
    /// etcd is missing, or does not come up.
    pub fn start(members: usize) -> Result<EtcdCluster> {
        EtcdCluster::start_with(members, &[])
    }

    fn start_with(members: usize, flags: &[&str]) -> Result<EtcdCluster> {
        let program = program()?;
        // A port can be lost to somebody else between finding it and using it.
        let mut last = None;
        for _ in 0..3 {
            match EtcdCluster::try_start(&program, members, flags) {
                Ok(cluster) => return Ok(cluster),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| anyhow::anyhow!("etcd was never tried")))
    }

    fn try_start(program: &Path, members: usize, flags: &[&str]) -> Result<EtcdCluster> {
        let dir = tempfile::Builder::new().prefix("keelson-etcd-").tempdir()?;
        let url = || free_port().map(|port| format!("http://127.0.0.1:{port}"));
        let urls: Vec<(String, String)> =
            (0..members).map(|_| Ok((url()?, url()?))).collect::<Result<_>>()?;
        let names: Vec<String> =
            urls.iter().enumerate().map(|(index, (_, peer))| format!("member{index}={peer}")).collect();
        let members = urls
            .into_iter()
            .enumerate()
            .map(|(index, (endpoint, peer))| Member {
                args: [
                    format!("--name=member{index}"),
                    format!("--data-dir={}", dir.path().join(format!("member{index}")).display()),
                    format!("--listen-client-urls={endpoint}"),
                    format!("--advertise-client-urls={endpoint}"),
                    format!("--listen-peer-urls={peer}"),
                    format!("--initial-advertise-peer-urls={peer}"),
                    format!("--initial-cluster={}", names.join(",")),
                ]
                .into_iter()
                .chain(flags.iter().map(|flag| (*flag).to_owned()))
                .collect(),
                endpoint,
                process: None,
            })
            .collect();
        let mut cluster = EtcdCluster { program: program.to_owned(), members, dir: Some(dir) };
        for index in 0..cluster.members.len() {
            cluster.spawn(index)?;
        }
        for index in 0..cluster.members.len() {
            cluster.wait_healthy(index)?;
        }
        Ok(cluster)
    }

    /// How many members it has, running or not.
    pub fn size(&self) -> usize {
        self.members.len()
    }

    /// The members' client URLs.
    pub fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(|member| member.endpoint.clone()).collect()
    }

    /// Its directory, with data and logs.
    pub fn dir(&self) -> Option<&Path> {
        self.dir.as_ref().map(TempDir::path)
    }

    /// Kills a member (SIGKILL).
    ///
    /// # Errors
    /// It is not running.
    pub fn kill(&mut self, index: usize) -> Result<()> {
        self.members[index].process.take().with_context(|| format!("etcd member {index} is killed"))?.kill()
    }

    /// Starts a killed member again, on its data. It may not listen yet when this returns.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn restart(&mut self, index: usize) -> Result<()> {
        if self.members[index].process.is_none() { self.spawn(index) } else { Ok(()) }
    }

    /// Stops a member where it stands (SIGSTOP).
    ///
    /// # Errors
    /// It is not running.
    pub fn pause(&self, index: usize) -> Result<()> {
        self.running(index)?.pause()
    }

    /// Lets a paused member go on (SIGCONT).
    ///
    /// # Errors
    /// It is not running.
    pub fn resume(&self, index: usize) -> Result<()> {
        self.running(index)?.resume()
    }

    fn running(&self, index: usize) -> Result<&Process> {
        self.members[index].process.as_ref().with_context(|| format!("etcd member {index} is killed"))
    }

    fn spawn(&mut self, index: usize) -> Result<()> {
        let dir = self.dir.as_ref().context("the directory stays until the end")?;
        let member = &mut self.members[index];
        let name = format!("etcd{index}");
        member.process = Some(Process::start(&name, &self.program, &member.args, dir.path())?);
        Ok(())
    }

    fn wait_healthy(&mut self, index: usize) -> Result<()> {
        let member = &mut self.members[index];
        let address = member.endpoint.trim_start_matches("http://").to_owned();
        let until = Instant::now() + PATIENCE;
        while !is_healthy(&address).unwrap_or(false) {
            if let Some(process) = &mut member.process {
                process.check_running()?;
            }
            if Instant::now() > until {
                bail!("etcd on {address} is not healthy");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for EtcdCluster {
    fn drop(&mut self) {
        // All at once: one that loses its peers first waits for them before it ends.
        for member in &self.members {
            if let Some(process) = &member.process {
                // It is ended for good below, by its own drop.
                let _ = process.terminate();
            }
        }
        self.members.clear();
        keep_on_panic("etcd", self.dir.take());
    }
}

fn is_healthy(address: &str) -> std::io::Result<bool> {
    let mut stream = std::net::TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(b"GET /health HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.contains(r#""health":"true""#))
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
