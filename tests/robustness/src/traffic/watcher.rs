//! A watcher: goes on from stream to stream where the last one ended, as an informer does, and begins anew after 410.

use super::client::listed;
use super::watch_stream::{EventStream, Transport};
use super::{Shared, objects, outcome};
use crate::history::{
    Freshness, List, Outcome, Received, Record, Resource, Revision, Scope, Sent, Start, WatchOpened,
};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long a list may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// After something failed.
const PAUSE: Duration = Duration::from_millis(100);
/// Watchers in records of lists are told from clients by this.
const CLIENT: u32 = 1_000;

/// What a watcher watches, and how far it is.
#[derive(Debug, Clone)]
pub struct Watcher {
    number: u32,
    pub scope: Scope,
    /// Whether it begins with initial events, or else with a list.
    initial_events: bool,
    transport: Transport,
    /// The last revision that it was told.
    pub told: Arc<AtomicI64>,
}

/// One watcher for each transport and kind of scope.
pub fn watchers(transports: &[Transport]) -> Vec<Watcher> {
    let mut watchers = Vec::new();
    for transport in transports {
        for resource in Resource::ALL {
            for (index, scope) in objects::scopes(resource).into_iter().enumerate() {
                watchers.push(Watcher {
                    number: u32::try_from(watchers.len()).expect("there are few watchers"),
                    scope,
                    initial_events: (index % 2 == 0) == (resource == Resource::ConfigMaps),
                    transport: transport.clone(),
                    told: Arc::default(),
                });
            }
        }
    }
    watchers
}

impl Watcher {
    fn is_grpc(&self) -> bool {
        matches!(self.transport, Transport::Grpc(_))
    }

    /// Watches until `stop`.
    pub async fn run(self, seed: u64, shared: Shared, stop: CancellationToken) {
        let mut random =
            StdRng::seed_from_u64(seed.wrapping_mul(1_000).wrapping_add(u64::from(CLIENT + self.number)));
        let mut position = None;
        while !stop.is_cancelled() {
            let server = random.random_range(0..shared.target.servers());
            let start = match position {
                Some(revision) => Start::After(revision),
                // Over gRPC there is no other.
                None if self.initial_events && (self.is_grpc() || random.random_bool(0.7)) => {
                    Start::InitialEvents(Freshness::Consistent)
                }
                None if self.initial_events => Start::InitialEvents(Freshness::Any),
                None => match self.list(&shared, server, random.random_bool(0.7)).await {
                    Some(revision) => Start::After(revision),
                    None => {
                        tokio::time::sleep(PAUSE).await;
                        continue;
                    }
                },
            };
            let call = shared.recorder.now();
            // Some streams last long enough for a bookmark, many do not.
            let long = random.random_bool(0.2);
            let seconds = if long { random.random_range(65..130) } else { random.random_range(5..30) };
            let opened = self.transport.open(&shared.target, server, &self.scope, start, seconds).await;
            let Ok(stream) = opened else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            let record = WatchOpened {
                stream: shared.id(),
                watcher: self.number,
                server,
                grpc: self.is_grpc(),
                scope: self.scope.clone(),
                start,
                call,
                answer: shared.recorder.now(),
            };
            let id = record.stream;
            shared.recorder.record(&Record::WatchOpened(record));
            // Some watchers leave by themselves.
            let leave =
                Duration::from_millis(if long { 130_000 } else { random.random_range(2_000..20_000) });
            position = self.follow(&shared, &stop, stream, (id, start), leave).await;
        }
    }

    /// A list to begin from.
    async fn list(&self, shared: &Shared, server: usize, consistent: bool) -> Option<Revision> {
        let freshness = if consistent { Freshness::Consistent } else { Freshness::Any };
        let version = if consistent { "" } else { "resourceVersion=0" };
        let call = shared.recorder.now();
        let path = format!("{}{version}", objects::path(&self.scope));
        let mut connection = shared.target.connect(server).await.ok()?;
        let answer = connection.get(PATIENCE, &path).await;
        let outcome = outcome(&answer, listed);
        let revision = match &outcome {
            Outcome::Done(listed) => Some(listed.revision),
            _ => None,
        };
        shared.recorder.record(&Record::List(List {
            client: CLIENT + self.number,
            server,
            scope: self.scope.clone(),
            freshness,
            page: None,
            call,
            answer: shared.recorder.now(),
            outcome,
        }));
        revision
    }

    /// Reads a stream to its end. Returns where to go on; `None`: begin anew.
    async fn follow(
        &self,
        shared: &Shared,
        stop: &CancellationToken,
        mut stream: EventStream,
        (id, start): (u64, Start),
        leave: Duration,
    ) -> Option<Revision> {
        let leave = tokio::time::sleep(leave);
        tokio::pin!(leave);
        let mut position = match start {
            Start::After(revision) => Some(revision),
            Start::InitialEvents(_) => None,
        };
        loop {
            let end = |why: &str| Sent::End { why: why.to_owned() };
            let sent = tokio::select! {
                biased;
                () = stop.cancelled() => end("the run is over"),
                () = &mut leave, if !shared.stop.is_cancelled() => end("the watcher left"),
                sent = stream.next() => sent,
            };
            shared.recorder.record(&Record::Received(Received {
                stream: id,
                at: shared.recorder.now(),
                sent: sent.clone(),
            }));
            match sent {
                // Before the initial events are over there is no revision to go on from.
                Sent::Event { item, .. } if position.is_some() => position = Some(item.version.revision),
                Sent::Event { .. } => {}
                Sent::Bookmark { revision, initial_end } if position.is_some() || initial_end => {
                    position = Some(revision);
                }
                Sent::Bookmark { .. } => {}
                Sent::Error { code: 410, .. } => return None,
                Sent::Error { .. } => {
                    tokio::time::sleep(PAUSE).await;
                    return position;
                }
                Sent::End { .. } => return position,
            }
            if let Some(position) = position {
                self.told.fetch_max(position, Ordering::Relaxed);
            }
        }
    }
}
