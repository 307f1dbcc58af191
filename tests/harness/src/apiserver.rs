//! A real kube-apiserver on loopback over a real etcd, with certificates of its own or shared with other servers.

use crate::etcd::{Etcd, keep_on_panic};
use crate::process::{Process, free_port};
use anyhow::{Context, Result};
use pki::{Leaf, Pair};
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};
use tempfile::TempDir;

/// What the API servers of one cluster share.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The authority that signs their certificates and those of clients.
    pub ca: Pair,
    /// A client certificate of the group system:masters.
    pub admin: Pair,
    server: Pair,
    signing: Pair,
}

impl Credentials {
    /// A new authority and what hangs on it.
    ///
    /// # Errors
    /// Keys cannot be made.
    pub fn new() -> Result<Credentials> {
        let now = SystemTime::now();
        let ca = pki::new_ca("kubernetes", now)?;
        let sans = ["127.0.0.1", "localhost", "kubernetes", "10.96.0.1"].map(str::to_owned);
        let server = pki::new_leaf(&ca, &Leaf::server("kube-apiserver", &sans), now)?;
        let admin = pki::new_leaf(&ca, &Leaf::client("kubernetes-admin", &["system:masters"]), now)?;
        Ok(Credentials { admin, server, signing: pki::new_signing_key()?, ca })
    }
}

/// What an API server is started with.
#[derive(Debug)]
pub struct Options<'a> {
    /// Client URLs of etcd.
    pub etcd_servers: &'a [String],
    /// Shared by the servers of one cluster.
    pub credentials: &'a Credentials,
    /// Flags beside those that every server here gets.
    pub args: &'a [String],
}

/// A running kube-apiserver, with the administrator's credentials.
#[derive(Debug)]
pub struct ApiServer {
    /// `None` while it is killed.
    process: Option<Process>,
    started: Instant,
    program: PathBuf,
    args: Vec<String>,
    dir: Option<TempDir>,
    /// Where it listens, on 127.0.0.1.
    pub port: u16,
    /// The authority that signed its certificate.
    pub ca: Pair,
    /// A client certificate of the group system:masters.
    pub admin: Pair,
}

impl ApiServer {
    /// Starts the program; it may not be ready yet when this returns.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start(program: &Path, etcd: &Etcd) -> Result<ApiServer> {
        let credentials = Credentials::new()?;
        let etcd_servers = &[etcd.endpoint().to_owned()];
        ApiServer::start_with(program, &Options { etcd_servers, credentials: &credentials, args: &[] })
    }

    /// Starts the program with these options; it may not be ready yet when this returns.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start_with(program: &Path, options: &Options<'_>) -> Result<ApiServer> {
        let dir = tempfile::Builder::new().prefix("keelson-apiserver-").tempdir()?;
        let Credentials { ca, admin, server, signing } = options.credentials;
        let write = |name: &str, text: &str| -> Result<String> {
            let path = dir.path().join(name);
            std::fs::write(&path, text)?;
            Ok(path.display().to_string())
        };
        let port = free_port()?;
        let mut args = vec![
            format!("--etcd-servers={}", options.etcd_servers.join(",")),
            "--bind-address=127.0.0.1".to_owned(),
            "--advertise-address=127.0.0.1".to_owned(),
            format!("--secure-port={port}"),
            format!("--client-ca-file={}", write("ca.crt", &ca.cert)?),
            format!("--tls-cert-file={}", write("apiserver.crt", &server.cert)?),
            format!("--tls-private-key-file={}", write("apiserver.key", &server.key)?),
            format!("--service-account-key-file={}", write("sa.pub", &signing.cert)?),
            format!("--service-account-signing-key-file={}", write("sa.key", &signing.key)?),
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
            "--service-cluster-ip-range=10.96.0.0/12".to_owned(),
            "--authorization-mode=Node,RBAC".to_owned(),
        ];
        args.extend_from_slice(options.args);
        let mut server = ApiServer {
            process: None,
            started: Instant::now(),
            // It is started in its own directory.
            program: std::path::absolute(program)?,
            args,
            dir: Some(dir),
            port,
            ca: ca.clone(),
            admin: admin.clone(),
        };
        server.restart()?;
        Ok(server)
    }

    /// Its process id; 0 while it is killed.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().map_or(0, Process::pid)
    }

    /// The moment just before it was last forked.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Fails with the end of its log when it has ended.
    ///
    /// # Errors
    /// The program is not running any more.
    pub fn check_running(&mut self) -> Result<()> {
        self.process.as_mut().context("kube-apiserver is killed")?.check_running()
    }

    /// Kills it (SIGKILL).
    ///
    /// # Errors
    /// It is killed already.
    pub fn kill(&mut self) -> Result<()> {
        self.process.take().context("kube-apiserver is killed")?.kill()
    }

    /// Starts it again after [`Self::kill`], on the same port; it may not be ready yet when this returns.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn restart(&mut self) -> Result<()> {
        if self.process.is_none() {
            let dir = self.dir.as_ref().context("the directory stays until the end")?;
            let process = Process::start("kube-apiserver", &self.program, &self.args, dir.path())?;
            self.started = process.started();
            self.process = Some(process);
        }
        Ok(())
    }

    /// Stops it where it stands (SIGSTOP).
    ///
    /// # Errors
    /// It is killed.
    pub fn pause(&self) -> Result<()> {
        self.process.as_ref().context("kube-apiserver is killed")?.pause()
    }

    /// Lets it go on after [`Self::pause`] (SIGCONT).
    ///
    /// # Errors
    /// It is killed.
    pub fn resume(&self) -> Result<()> {
        self.process.as_ref().context("kube-apiserver is killed")?.resume()
    }

    /// Its directory, with its log.
    pub fn dir(&self) -> Option<PathBuf> {
        self.dir.as_ref().map(|dir| dir.path().to_owned())
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.process = None;
        keep_on_panic("kube-apiserver", self.dir.take());
    }
}
