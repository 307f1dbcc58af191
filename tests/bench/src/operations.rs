//! What clients do with one pod after the other: create, get, patch, delete.

use crate::client::{Connection, Target};
use crate::crew::{self, Cost};
use crate::pod::{self, Template};
use crate::server::Server;
use anyhow::{Context, Result};
use bytes::Bytes;
use http::Method;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::task::JoinSet;

pub(crate) const PODS: &str = "/api/v1/namespaces/bench/pods";

/// Makes every patch of this process different from all others: one that changes nothing makes no event.
static PATCHES: AtomicU32 = AtomicU32::new(0);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    Get,
    Patch,
    Delete,
}

/// An operation to do `count` times, over the pods in turn, by all the clients together.
#[derive(Debug)]
pub(crate) struct Job {
    operation: Operation,
    pods: u32,
    count: u32,
    next: AtomicU32,
    body: Template,
}

impl Job {
    pub(crate) fn new(operation: Operation, pods: u32, count: u32) -> Arc<Job> {
        Arc::new(Job { operation, pods, count, next: AtomicU32::new(0), body: Template::body() })
    }

    /// One client for each connection, until nothing is left to do.
    pub(crate) fn start(self: &Arc<Job>, clients: Vec<Connection>, tasks: &mut JoinSet<Result<()>>) {
        for connection in clients {
            let job = Arc::clone(self);
            tasks.spawn(async move {
                loop {
                    let index = job.next.fetch_add(1, Ordering::Relaxed);
                    if index >= job.count {
                        return Ok(());
                    }
                    job.perform(&connection, index % job.pods).await?;
                }
            });
        }
    }

    async fn perform(&self, connection: &Connection, index: u32) -> Result<()> {
        let pod = || format!("{PODS}/{}", pod::name(index));
        let (method, path, content_type, body) = match self.operation {
            Operation::Create => {
                (Method::POST, PODS.to_owned(), Some("application/json"), self.body.of(index))
            }
            Operation::Get => (Method::GET, pod(), None, Bytes::new()),
            Operation::Patch => {
                let change = PATCHES.fetch_add(1, Ordering::Relaxed);
                let patch =
                    format!(r#"{{"metadata":{{"annotations":{{"bench.keelson.dev/patch":"{change}"}}}}}}"#);
                (Method::PATCH, pod(), Some("application/merge-patch+json"), patch.into())
            }
            Operation::Delete => {
                (Method::DELETE, format!("{}?gracePeriodSeconds=0", pod()), None, Bytes::new())
            }
        };
        let answer = connection.size(method, &path, content_type, body).await;
        answer.with_context(|| format!("{:?} {path}", self.operation))?;
        Ok(())
    }
}

/// Connections, one for each client.
pub(crate) async fn connect(target: &Target, clients: u32) -> Result<Vec<Connection>> {
    let mut connections = Vec::new();
    for _ in 0..clients {
        connections.push(target.connect().await?);
    }
    Ok(connections)
}

/// Does an operation `count` times and measures it.
pub(crate) fn run(
    server: &Server,
    clients: u32,
    operation: Operation,
    pods: u32,
    count: u32,
) -> Result<Cost> {
    let job = Job::new(operation, pods, count);
    crew::run(
        server.pid(),
        async |place| connect(&server.target, place.share(clients)).await,
        async |connections| {
            let mut tasks = JoinSet::new();
            job.start(connections.clone(), &mut tasks);
            finish(tasks).await?;
            Ok(connections)
        },
    )
}

/// Waits for all, or for the first error.
pub(crate) async fn finish<T: 'static>(mut tasks: JoinSet<Result<T>>) -> Result<Vec<T>> {
    let mut results = Vec::new();
    while let Some(result) = tasks.join_next().await {
        results.push(result??);
    }
    Ok(results)
}
