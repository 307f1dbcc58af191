//! One run: traffic, faults, the end, and what is then in the history.

use crate::faults::{Fault, Faults, Schedule, inject};
use crate::history::{Record, Recorder};
use crate::setup::Setup;
use crate::traffic::{Client, Sessions, Shared, Transport, finish, watchers};
use crate::truth_watch::TruthWatch;
use anyhow::{Context as _, Result};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How much longer than asked a run may take to have every kind of fault; some cannot be done on some setups.
const LATE_FAULTS: Duration = Duration::from_secs(60);
/// Time between reports of progress.
const PROGRESS: Duration = Duration::from_secs(10);

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    pub apiserver: PathBuf,
    pub seed: u64,
    pub servers: usize,
    pub etcd_members: usize,
    pub clients: u32,
    /// Traffic without faults, by which the rate is judged.
    pub calm: Duration,
    /// Traffic with faults; up to a minute longer if not every kind was done by then.
    pub faults: Duration,
    /// How many milliseconds a pause between faults and a fault take.
    pub pace: (u64, u64),
    /// Names of the only kinds of faults; empty: all.
    pub only: Vec<String>,
    pub history: PathBuf,
}

/// Runs, and leaves the history in its file. Everything that was started is over when this returns.
///
/// # Errors
/// The run could not be made; this says nothing of what was found.
pub async fn run(options: &Options) -> Result<Arc<Setup>> {
    let recorder = Recorder::create(&options.history)?;
    let Options { seed, servers, etcd_members, .. } = *options;
    recorder.record(&Record::Run { seed, servers, etcd_members });
    let setup = Arc::new(Setup::start(&options.apiserver, servers, etcd_members).await?);
    let truth = TruthWatch::start(setup.endpoints.clone(), recorder.clone());
    let shared = Shared {
        target: Arc::new(setup.target()?),
        recorder: recorder.clone(),
        stop: CancellationToken::new(),
        next_id: Arc::default(),
        seen: Arc::default(),
    };
    let mut transports = vec![Transport::Http];
    let sessions = Sessions::new(servers);
    if sessions.offered(&shared.target, 0).await? {
        transports.push(Transport::Grpc(Arc::new(sessions)));
    }
    println!("watches over {}", if transports.len() > 1 { "HTTP and gRPC" } else { "HTTP" });
    let watchers = watchers(&transports);
    let watchers_stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    for watcher in &watchers {
        tasks.spawn(watcher.clone().run(seed, shared.clone(), watchers_stop.clone()));
    }
    for number in 0..options.clients {
        tasks.spawn(Client::new(number, seed, shared.clone()).run());
    }
    // What is done here is traffic without faults.
    tokio::time::sleep(options.calm).await;
    recorder.record(&Record::CalmOver { at: recorder.now() });
    let done = tokio::select! {
        done = break_things(options, &setup, &shared, &truth) => done,
        never = progress(&shared, &truth) => never,
    };
    setup.heal();
    shared.stop.cancel();
    done?;
    for server in 0..servers {
        setup.wait_ready(&shared.target, server).await?;
    }
    finish(&shared, &watchers).await?;
    watchers_stop.cancel();
    while let Some(ended) = tasks.join_next().await {
        ended.context("a client or watcher panicked")?;
    }
    truth.finish(&recorder).await?;
    recorder.flush()?;
    Ok(setup)
}

/// Says now and then that something happens.
async fn progress(shared: &Shared, truth: &TruthWatch) -> Result<()> {
    let mut every = tokio::time::interval(PROGRESS);
    loop {
        every.tick().await;
        let seconds = shared.recorder.now() / 1_000_000;
        let revision = truth.seen().load(Ordering::Relaxed);
        println!("{seconds} s: etcd is at revision {revision}; {} records", shared.recorder.count());
    }
}

/// Both lanes of faults, until the time is over and each kind has come at least once.
async fn break_things(
    options: &Options,
    setup: &Arc<Setup>,
    shared: &Shared,
    truth: &TruthWatch,
) -> Result<()> {
    let stop = CancellationToken::new();
    let faults = Faults {
        setup: Arc::clone(setup),
        target: Arc::clone(&shared.target),
        recorder: shared.recorder.clone(),
        recorded: truth.seen(),
        stop: stop.clone(),
        done: Arc::default(),
    };
    let lasting = Schedule::lasting(options.seed, options.pace).only(&options.only);
    let sudden = Schedule::sudden(options.seed, options.pace).only(&options.only);
    let wanted: Vec<Fault> = [lasting.kinds(), sudden.kinds()].concat();
    let timing = async {
        tokio::time::sleep(options.faults).await;
        let until = Instant::now() + LATE_FAULTS;
        let lacking = || wanted.iter().any(|kind| !faults.done.lock().contains(kind));
        while lacking() && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        stop.cancel();
        Ok(())
    };
    tokio::try_join!(inject(&faults, lasting), inject(&faults, sudden), timing)?;
    Ok(())
}
