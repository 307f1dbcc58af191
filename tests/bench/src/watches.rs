//! Watches: streams of events that are counted and not looked into, some under load and many at rest.

use crate::args::Load;
use crate::client::{self, Connection, Target};
use crate::crew::{self, Cost};
use crate::operations::{self, Job, Operation, PODS, connect, finish};
use crate::server::Server;
use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use h2::RecvStream;
use memchr::memchr_iter;
use serde_json::Value;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Watches of one connection in the fan-out: few connections, as a load client should have, yet more than cores.
const BUSY: u32 = 50;
/// Watches of one connection at rest. Every server allows as many: upstream's `--http2-max-streams-per-connection`.
const IDLE: u32 = 100;
/// All events must have come by then.
const EVENTS_WITHIN: Duration = Duration::from_secs(120);
/// Ends the initial events of a watch.
const INITIAL_EVENTS_END: &[u8] = b"k8s.io/initial-events-end";

/// A watch, and what it has seen.
#[derive(Debug)]
struct Watcher {
    events: RecvStream,
    seen: u64,
    last: Bytes,
}

impl Watcher {
    async fn open(connection: &Connection, query: &str) -> Result<Watcher> {
        let events = connection.get(&format!("{PODS}?watch=true&{query}")).await?;
        Ok(Watcher { events, seen: 0, last: Bytes::new() })
    }

    /// Reads on until it has seen so many events. Each ends in a newline, and JSON has none inside.
    async fn see(mut self, wanted: u64) -> Result<Watcher> {
        let all = async {
            while self.seen < wanted {
                let Some(data) = client::next(&mut self.events).await? else {
                    let end = self.last.len().saturating_sub(300);
                    bail!("it ended: {}", String::from_utf8_lossy(&self.last[end..]));
                };
                self.seen += memchr_iter(b'\n', &data).count() as u64;
                self.last = data;
            }
            Ok(())
        };
        let result = timeout(EVENTS_WITHIN, all).await.context("no more came").and_then(|result| result);
        result.with_context(|| format!("a watch saw {} of {wanted} events", self.seen))?;
        Ok(self)
    }
}

/// The revision of what the pods are now.
async fn resource_version(connection: &Connection) -> Result<String> {
    let mut body = connection.get(&format!("{PODS}?limit=1")).await?;
    let mut list = Vec::new();
    while let Some(data) = client::next(&mut body).await? {
        list.extend_from_slice(&data);
    }
    let list: Value = serde_json::from_slice(&list)?;
    let version = list["metadata"]["resourceVersion"].as_str();
    Ok(version.context("the list has no resourceVersion")?.to_owned())
}

/// Opens so many watches from now on, `each` on a connection.
async fn open(target: &Target, count: u32, each: u32) -> Result<Vec<Watcher>> {
    let mut tasks = JoinSet::new();
    for first in (0..count).step_by(each as usize) {
        let connection = target.connect().await?;
        tasks.spawn(async move {
            let version = resource_version(&connection).await?;
            let query = format!("resourceVersion={version}");
            let mut watchers = Vec::new();
            for _ in first..count.min(first + each) {
                watchers.push(Watcher::open(&connection, &query).await?);
            }
            Ok(watchers)
        });
    }
    Ok(finish(tasks).await?.into_iter().flatten().collect())
}

/// Patches pods while many watchers look on, until each watcher has seen every patch.
pub(crate) fn fan_out(server: &Server, load: &Load, pods: u32) -> Result<Cost> {
    let job = Job::new(Operation::Patch, pods, load.patches);
    crew::run(
        server.pid(),
        async |place| {
            let clients = connect(&server.target, place.share(load.clients)).await?;
            let watchers = open(&server.target, place.share(load.watchers), BUSY).await?;
            Ok((clients, watchers))
        },
        async |(clients, watchers)| {
            let (mut patching, mut watching) = (JoinSet::new(), JoinSet::new());
            for watcher in watchers {
                watching.spawn(watcher.see(u64::from(load.patches)));
            }
            job.start(clients.clone(), &mut patching);
            finish(patching).await?;
            Ok((clients, finish(watching).await?))
        },
    )
}

/// What watches at rest cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Idle {
    /// To open them all.
    pub(crate) opening: Duration,
    /// Memory of the server for each, in KiB.
    pub(crate) memory: f64,
    /// From a patch to the last watch that sees it.
    pub(crate) delivery: Duration,
}

/// Opens `count` watches and lets them rest; then one pod is patched, and all of them must see it.
pub(crate) fn idle(server: &Server, count: u32) -> Result<Idle> {
    // What the server needs for any watch at all is not for each of them.
    operations::run(server, 1, Operation::Create, 1, 1)?;
    let runtime = crew::runtime()?;
    drop(runtime.block_on(open(&server.target, 1, 1))?);
    let before = server.settled_memory()?;
    let begun = Instant::now();
    let watchers = runtime.block_on(open(&server.target, count, IDLE))?;
    let opening = begun.elapsed();
    let memory = (server.settled_memory()?.resident - before.resident) * 1024.0 / f64::from(count);
    let delivery = runtime.block_on(async {
        let client = connect(&server.target, 1).await?;
        let begun = Instant::now();
        let (mut patching, mut watching) = (JoinSet::new(), JoinSet::new());
        Job::new(Operation::Patch, 1, 1).start(client, &mut patching);
        for watcher in watchers {
            watching.spawn(watcher.see(1));
        }
        finish(patching).await?;
        finish(watching).await?;
        Ok::<_, anyhow::Error>(begun.elapsed())
    })?;
    Ok(Idle { opening, memory, delivery })
}

/// Watches from the initial state on (WatchList) until all pods have come; how long it took.
pub(crate) fn initial_events(server: &Server, pods: u32) -> Result<Duration> {
    crew::runtime()?.block_on(async {
        let connection = server.target.connect().await?;
        let begun = Instant::now();
        let query = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
        let watcher = Watcher::open(&connection, query).await?.see(u64::from(pods) + 1).await?;
        let took = begun.elapsed();
        let marked = memchr::memmem::find(&watcher.last, INITIAL_EVENTS_END).is_some();
        ensure!(marked, "the last of the initial events is not the bookmark that ends them");
        Ok(took)
    })
}
