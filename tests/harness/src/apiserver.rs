//! A real kube-apiserver on loopback over a real etcd, with certificates of its own.

use crate::etcd::{Etcd, keep_on_panic};
use crate::process::{Process, free_port};
use anyhow::Result;
use pki::{Leaf, Pair};
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};
use tempfile::TempDir;

/// A running kube-apiserver, with the administrator's credentials.
#[derive(Debug)]
pub struct ApiServer {
    process: Process,
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
        let dir = tempfile::Builder::new().prefix("keelson-apiserver-").tempdir()?;
        let now = SystemTime::now();
        let ca = pki::new_ca("kubernetes", now)?;
        let sans = ["127.0.0.1", "localhost", "kubernetes", "10.96.0.1"].map(str::to_owned);
        let server = pki::new_leaf(&ca, &Leaf::server("kube-apiserver", &sans), now)?;
        let admin = pki::new_leaf(&ca, &Leaf::client("kubernetes-admin", &["system:masters"]), now)?;
        let signing = pki::new_signing_key()?;
        let write = |name: &str, text: &str| -> Result<String> {
            let path = dir.path().join(name);
            std::fs::write(&path, text)?;
            Ok(path.display().to_string())
        };
        let port = free_port()?;
        let args = [
            format!("--etcd-servers={}", etcd.endpoint()),
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
        let process = Process::start("kube-apiserver", program, &args, dir.path())?;
        Ok(ApiServer { process, dir: Some(dir), port, ca, admin })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The moment just before it was forked.
    pub fn started(&self) -> Instant {
        self.process.started()
    }

    /// Fails with the end of its log when it has ended.
    ///
    /// # Errors
    /// The program is not running any more.
    pub fn check_running(&mut self) -> Result<()> {
        self.process.check_running()
    }

    /// Its directory, with its log.
    pub fn dir(&self) -> Option<PathBuf> {
        self.dir.as_ref().map(|dir| dir.path().to_owned())
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        keep_on_panic("kube-apiserver", self.dir.take());
    }
}
