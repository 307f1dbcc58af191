//! A kube-apiserver under measurement, and how long it took to be ready.

use crate::client::{Connection, Target};
use crate::crew;
use crate::usage::{self, Memory};
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use harness::apiserver::ApiServer;
use harness::etcd::Etcd;
use http::Method;
use serde_json::json;
use std::path::Path;
use std::time::{Duration, Instant};

const READY_WITHIN: Duration = Duration::from_secs(120);
/// Time between questions whether it is ready: as fine as the figure needs, and of no weight.
const ASK_EVERY: Duration = Duration::from_millis(1);

pub(crate) struct Server {
    process: ApiServer,
    pub(crate) target: Target,
    /// From fork to the first 200 of /readyz.
    pub(crate) start: Duration,
}

impl Server {
    pub(crate) fn start(program: &Path, etcd: &Etcd) -> Result<Server> {
        let process = ApiServer::start(program, etcd)?;
        let target = Target::new(process.port, &process.ca.cert, &process.admin.cert, &process.admin.key)?;
        let mut server = Server { process, target, start: Duration::ZERO };
        server.start = crew::runtime()?.block_on(server.ready())?;
        Ok(server)
    }

    async fn ready(&mut self) -> Result<Duration> {
        let begun = self.process.started();
        let mut connection: Option<Connection> = None;
        loop {
            if connection.is_none() {
                connection = self.target.connect().await.ok();
            }
            if let Some(open) = &connection {
                match open.is_ready().await {
                    Ok(true) => return Ok(begun.elapsed()),
                    Ok(false) => {}
                    Err(_) => connection = None,
                }
            }
            self.process.check_running()?;
            ensure!(begun.elapsed() < READY_WITHIN, "kube-apiserver is not ready after {READY_WITHIN:?}");
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub(crate) fn memory(&self) -> Result<Memory> {
        Memory::of(self.pid())
    }

    /// Memory when it has stopped changing: what goes through queues is not what is kept.
    pub(crate) fn settled_memory(&self) -> Result<Memory> {
        const STEP: Duration = Duration::from_millis(250);
        let until = Instant::now() + Duration::from_secs(10);
        let mut last = self.memory()?;
        loop {
            std::thread::sleep(STEP);
            let now = self.memory()?;
            if now.resident == last.resident || Instant::now() > until {
                return Ok(now);
            }
            last = now;
        }
    }

    /// CPU time over `period`, as parts of one core.
    pub(crate) fn cpu_over(&self, period: Duration) -> Result<f64> {
        let (before, begun) = (usage::cpu(self.pid())?, Instant::now());
        std::thread::sleep(period);
        Ok((usage::cpu(self.pid())? - before).as_secs_f64() / begun.elapsed().as_secs_f64())
    }

    /// Makes the namespace of the pods, and the service account that they run under.
    pub(crate) fn make_namespace(&self, name: &str) -> Result<()> {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
        crew::runtime()?.block_on(async {
            let connection = self.target.connect().await?;
            for (path, object) in [
                ("/api/v1/namespaces".to_owned(), namespace),
                (format!("/api/v1/namespaces/{name}/serviceaccounts"), account),
            ] {
                let body = Bytes::from(object.to_string());
                connection
                    .size(Method::POST, &path, Some("application/json"), body)
                    .await
                    .context("the namespace")?;
            }
            Ok(())
        })
    }
}
