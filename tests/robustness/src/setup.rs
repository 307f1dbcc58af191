//! What a run is made of: etcd, API servers on it, and proxies between all of them where connections can be broken.

use crate::faults::WatchGate;
use crate::traffic::{NAMESPACES, Target};
use anyhow::{Context as _, Result, bail};
use harness::apiserver::{ApiServer, Credentials, Options};
use harness::etcd::EtcdCluster;
use harness::proxy::Proxy;
use parking_lot::Mutex;
use serde_json::json;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a server may take to be ready.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a question may take here.
const ANSWER: Duration = Duration::from_secs(5);

/// See the module. Everything ends with it.
#[derive(Debug)]
pub struct Setup {
    pub servers: Vec<Server>,
    pub etcd: Mutex<EtcdCluster>,
    /// The members' own URLs, past all proxies.
    pub endpoints: Vec<String>,
    credentials: Credentials,
}

/// An API server, and what its connections go through.
#[derive(Debug)]
pub struct Server {
    pub process: Mutex<ApiServer>,
    /// Between clients and it.
    pub front: Proxy,
    /// Between it and each member of etcd.
    pub back: Vec<Proxy>,
    /// On the way to each member, for its watches alone: the last server has them. Through them nobody sees a member
    /// that does not answer pings, so the others go without.
    pub gates: Vec<WatchGate>,
}

impl Setup {
    /// Starts everything and waits until it is ready.
    ///
    /// # Errors
    /// Something does not come up.
    pub async fn start(apiserver: &Path, servers: usize, etcd_members: usize) -> Result<Setup> {
        let etcd = EtcdCluster::start(etcd_members)?;
        let credentials = Credentials::new()?;
        let endpoints = etcd.endpoints();
        let mut setup = Setup { servers: Vec::new(), etcd: Mutex::new(etcd), endpoints, credentials };
        for number in 0..servers {
            let gated = servers > 1 && number + 1 == servers;
            let server = setup.server(apiserver, gated).await?;
            setup.servers.push(server);
        }
        let target = setup.target()?;
        for server in 0..servers {
            setup.wait_ready(&target, server).await?;
        }
        let mut connection = target.connect(0).await?;
        for name in NAMESPACES {
            let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
            let path = "/api/v1/namespaces";
            let media_type = Some("application/json");
            let answer =
                connection.ask(ANSWER, http::Method::POST, path, media_type, Some(&namespace)).await?;
            anyhow::ensure!(answer.code == 201, "namespace {name}: {}", answer.text);
        }
        Ok(setup)
    }

    async fn server(&self, program: &Path, gated: bool) -> Result<Server> {
        let (mut back, mut gates, mut urls) = (Vec::new(), Vec::new(), Vec::new());
        for endpoint in &self.endpoints {
            let port = endpoint.rsplit(':').next().and_then(|port| port.parse().ok());
            let mut port: u16 = port.with_context(|| format!("a port in {endpoint}"))?;
            if gated {
                gates.push(WatchGate::start(port).await?);
                port = gates.last().map_or(port, WatchGate::port);
            }
            let proxy = Proxy::start(port).await?;
            urls.push(format!("http://127.0.0.1:{}", proxy.port()));
            back.push(proxy);
        }
        let args = [
            // Compaction is a fault, at times of its own.
            "--etcd-compaction-interval=0".to_owned(),
            // Pods here need no account.
            "--disable-admission-plugins=ServiceAccount".to_owned(),
        ];
        let options = Options { etcd_servers: &urls, credentials: &self.credentials, args: &args };
        let process = ApiServer::start_with(program, &options)?;
        let front = Proxy::start(process.port).await?;
        Ok(Server { process: Mutex::new(process), front, back, gates })
    }

    /// The way of clients to the servers.
    ///
    /// # Errors
    /// The certificates are unusable.
    pub fn target(&self) -> Result<Target> {
        let ports = self.servers.iter().map(|server| server.front.port()).collect();
        Target::new(ports, &self.credentials.ca.cert, &self.credentials.admin)
    }

    /// Waits until a server says that it is ready.
    ///
    /// # Errors
    /// It does not within a minute, or it has ended.
    pub async fn wait_ready(&self, target: &Target, server: usize) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        loop {
            let state = match readyz(target, server).await {
                Ok(answer) if answer.code == 200 => return Ok(()),
                Ok(answer) => answer.text,
                Err(error) => format!("{error:#}"),
            };
            self.servers[server].process.lock().check_running()?;
            if Instant::now() > until {
                bail!("server {server} is not ready: {state}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Undoes every fault.
    pub fn heal(&self) {
        let mut etcd = self.etcd.lock();
        for member in 0..etcd.size() {
            // One that is killed cannot be resumed, and is restarted.
            if etcd.resume(member).is_err()
                && let Err(error) = etcd.restart(member)
            {
                eprintln!("etcd member {member}: {error:#}");
            }
        }
        for server in &self.servers {
            let mut process = server.process.lock();
            if process.resume().is_err()
                && let Err(error) = process.restart()
            {
                eprintln!("kube-apiserver: {error:#}");
            }
            server.front.thaw();
            server.back.iter().for_each(Proxy::thaw);
            server.gates.iter().for_each(WatchGate::thaw);
        }
    }

    /// Copies the logs of all programs, for a run that found something.
    ///
    /// # Errors
    /// They cannot be copied.
    pub fn copy_logs(&self, to: &Path) -> Result<()> {
        std::fs::create_dir_all(to)?;
        let mut dirs = vec![("etcd".to_owned(), self.etcd.lock().dir().map(Path::to_owned))];
        for (number, server) in self.servers.iter().enumerate() {
            dirs.push((format!("server{number}"), server.process.lock().dir()));
        }
        for (prefix, dir) in dirs {
            for entry in std::fs::read_dir(dir.context("directories stay until the end")?)? {
                let path = entry?.path();
                if path.extension().is_some_and(|extension| extension == "log") {
                    let name = path.file_name().unwrap_or_default().to_string_lossy();
                    std::fs::copy(&path, to.join(format!("{prefix}-{name}")))?;
                }
            }
        }
        Ok(())
    }
}

/// What a server says of itself.
///
/// # Errors
/// It does not answer.
pub async fn readyz(target: &Target, server: usize) -> Result<crate::traffic::Answer> {
    target.connect(server).await?.get(ANSWER, "/readyz").await
}
