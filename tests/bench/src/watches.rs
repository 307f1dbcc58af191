//! Watches: streams of events that are counted and not looked into, some under load and many at rest.

use crate::args::Load;
use crate::client::{self, Connection, Target};
use crate::crew::{self, Cost};
use crate::grpc;
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

/// What carries the watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    /// A stream of JSON for each.
    Http,
    /// One stream for all of a connection.
    Grpc,
}

impl Transport {
    /// Whether the server has it; every server has HTTP.
    pub(crate) fn is_offered(self, server: &Server) -> Result<bool> {
        match self {
            Transport::Http => Ok(true),
            Transport::Grpc => {
                crew::runtime()?.block_on(async { grpc::is_offered(&server.target.connect().await?).await })
            }
        }
    }
}

/// All watches of one connection.
#[derive(Debug)]
enum Watching {
    Http(Vec<Watcher>),
    Grpc(grpc::Stream),
}

impl Watching {
    async fn open(connection: &Connection, transport: Transport, count: u32, from: i64) -> Result<Watching> {
        Ok(match transport {
            Transport::Http => {
                let mut watchers = Vec::new();
                for _ in 0..count {
                    watchers.push(Watcher::open(connection, &format!("resourceVersion={from}")).await?);
                }
                Watching::Http(watchers)
            }
            Transport::Grpc => Watching::Grpc(grpc::Stream::open(connection, count, from).await?),
        })
    }

    /// Reads on until each of the watches has seen so many events in all.
    async fn see(self, wanted: u64) -> Result<Watching> {
        let all = async {
            match self {
                Watching::Http(watchers) => {
                    let mut tasks = JoinSet::new();
                    for mut watcher in watchers {
                        tasks.spawn(async move { watcher.see(wanted).await.map(|()| watcher) });
                    }
                    Ok(Watching::Http(finish(tasks).await?))
                }
                Watching::Grpc(mut stream) => {
                    stream.see(wanted).await?;
                    Ok(Watching::Grpc(stream))
                }
            }
        };
        timeout(EVENTS_WITHIN, all)
            .await
            .with_context(|| format!("no {wanted} events in {EVENTS_WITHIN:?}"))?
    }
}

/// A watch over HTTP, and what it has seen.
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

    /// Reads on until it has seen so many events in all. Each ends in a newline, and JSON has none inside.
    async fn see(&mut self, wanted: u64) -> Result<()> {
        while self.seen < wanted {
            let Some(data) = client::next(&mut self.events).await? else {
                let end = self.last.len().saturating_sub(300);
                let last = String::from_utf8_lossy(&self.last[end..]);
                bail!("a watch ended after {} of {wanted} events: {last}", self.seen);
            };
            self.seen += memchr_iter(b'\n', &data).count() as u64;
            self.last = data;
        }
        Ok(())
    }
}

/// The revision of what the pods are now.
async fn resource_version(connection: &Connection) -> Result<i64> {
    let mut body = connection.get(&format!("{PODS}?limit=1")).await?;
    let mut list = Vec::new();
    while let Some(data) = client::next(&mut body).await? {
        list.extend_from_slice(&data);
    }
    let list: Value = serde_json::from_slice(&list)?;
    let version = list["metadata"]["resourceVersion"].as_str();
    Ok(version.context("the list has no resourceVersion")?.parse()?)
}

/// Opens so many watches, `each` on a connection.
async fn open(
    target: &Target,
    transport: Transport,
    count: u32,
    each: u32,
    from: i64,
) -> Result<Vec<Watching>> {
    let mut tasks = JoinSet::new();
    for first in (0..count).step_by(each as usize) {
        let connection = target.connect().await?;
        let here = each.min(count - first);
        tasks.spawn(async move { Watching::open(&connection, transport, here, from).await });
    }
    finish(tasks).await
}

/// Waits until all of them have seen so many events.
async fn see(watching: Vec<Watching>, wanted: u64) -> Result<Vec<Watching>> {
    let mut tasks = JoinSet::new();
    for watches in watching {
        tasks.spawn(watches.see(wanted));
    }
    finish(tasks).await
}

/// One patch, and the revision before it: whoever watches from there has one event to see.
async fn mark(connection: &Connection) -> Result<i64> {
    let before = resource_version(connection).await?;
    let mut tasks = JoinSet::new();
    Job::new(Operation::Patch, 1, 1).start(vec![connection.clone()], &mut tasks);
    finish(tasks).await?;
    Ok(before)
}

/// Patches pods while many watchers look on, until each watcher has seen every patch.
pub(crate) fn fan_out(server: &Server, load: &Load, pods: u32, transport: Transport) -> Result<Cost> {
    let from = crew::runtime()?.block_on(async { mark(&server.target.connect().await?).await })?;
    let job = Job::new(Operation::Patch, pods, load.patches);
    crew::run(
        server.pid(),
        async |place| {
            let clients = connect(&server.target, place.share(load.clients)).await?;
            let watching = open(&server.target, transport, place.share(load.watchers), BUSY, from).await?;
            // All are open and at work when the patches begin.
            Ok((clients, see(watching, 1).await?))
        },
        async |(clients, watching)| {
            let mut patching = JoinSet::new();
            job.start(clients.clone(), &mut patching);
            let (patched, watching) =
                tokio::join!(finish(patching), see(watching, 1 + u64::from(load.patches)));
            patched?;
            Ok((clients, watching?))
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
    operations::run(server, 1, Operation::Create, 1, 1)?;
    let runtime = crew::runtime()?;
    let client = runtime.block_on(server.target.connect())?;
    let from = runtime.block_on(resource_version(&client))?;
    // What the server needs for any watch at all is not for each of them.
    let first = runtime.block_on(open(&server.target, Transport::Http, 1, 1, from))?;
    let before = server.settled_memory()?;
    drop(first);
    let begun = Instant::now();
    let watching = runtime.block_on(open(&server.target, Transport::Http, count, IDLE, from))?;
    let opening = begun.elapsed();
    let memory = (server.settled_memory()?.resident - before.resident) * 1024.0 / f64::from(count);
    let delivery = runtime.block_on(async {
        let begun = Instant::now();
        mark(&client).await?;
        see(watching, 1).await?;
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
        let mut watcher = Watcher::open(&connection, query).await?;
        let all = timeout(EVENTS_WITHIN, watcher.see(u64::from(pods) + 1)).await;
        all.with_context(|| format!("the initial events did not come in {EVENTS_WITHIN:?}"))??;
        let took = begun.elapsed();
        let marked = memchr::memmem::find(&watcher.last, INITIAL_EVENTS_END).is_some();
        ensure!(marked, "the last of the initial events is not the bookmark that ends them");
        Ok(took)
    })
}
