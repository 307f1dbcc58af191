//! One world: etcd, two servers, their clients and whatever goes wrong, all decided by one seed.

use anyhow::{Result, ensure};
use etcd_model::{Faults, Snapshot};
use rand::Rng;

use super::Bug;
use super::informer::Informer;
use super::net::{Counts, Net};
use super::readers::{Lister, Watcher};
use super::truth::HistoryId;
use super::view::View;
use super::writer::{self, Compactor};

/// Steps with faults.
const STEPS: u64 = 160;
/// Steps without, in which all must have found its way; reflectors wait up to 30 seconds.
const CALM_STEPS: u64 = 200;
const CALM_STEP_MS: u64 = 500;
pub(super) struct World {
    net: Net,
    informers: Vec<Informer>,
    watchers: Vec<Watcher>,
    listers: Vec<Lister>,
    compactors: Vec<Compactor>,
    backups: Vec<(Snapshot, HistoryId, i64)>,
}

/// How a run went wrong.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: anyhow::Error,
    pub(super) trace: Vec<String>,
}

/// Runs a world to its end.
pub(super) fn run(seed: u64, bug: Option<Bug>, traced: bool) -> Result<(Counts, Vec<String>), Failure> {
    let mut world = World::new(seed, bug, traced);
    match world.live() {
        Ok(()) => Ok((std::mem::take(&mut world.net.counts), world.net.into_trace())),
        Err(error) => Err(Failure { error, trace: world.net.into_trace() }),
    }
}

impl World {
    fn new(seed: u64, bug: Option<Bug>, traced: bool) -> Self {
        let mut net = Net::new(seed, bug, traced);
        let some = View::random(&mut net.rng);
        let views = [View::all("pods"), View::all("configmaps"), some];
        let informers = views.into_iter().map(|view| Informer::new(&mut net, view)).collect();
        let watchers = (0..4).map(|_| Watcher::new(&mut net)).collect();
        let listers = (0..2).map(|_| Lister::new()).collect();
        let compactors = vec![Compactor::default(); net.servers.len()];
        Self { net, informers, watchers, listers, compactors, backups: Vec::new() }
    }

    fn live(&mut self) -> Result<()> {
        let faults = faults(&mut self.net.rng);
        self.net.disturb(faults);
        for _ in 0..STEPS {
            let pace = self.net.rng.random_range(0..40);
            self.net.advance(pace);
            self.disturb();
            if self.net.rng.random_bool(0.7) {
                writer::write(&mut self.net);
            }
            self.act(0.6)?;
        }
        self.net.calm();
        for _ in 0..CALM_STEPS {
            self.net.advance(CALM_STEP_MS);
            self.act(1.0)?;
            if self.unsettled().is_empty() {
                return Ok(());
            }
        }
        let unsettled = self.unsettled();
        ensure!(unsettled.is_empty(), "not settled without faults: {}", unsettled.join("; "));
        Ok(())
    }

    /// Everybody may take a step.
    fn act(&mut self, chance: f64) -> Result<()> {
        for index in 0..self.net.servers.len() {
            if self.net.rng.random_bool(chance) {
                self.net.step_server(index);
            }
        }
        let net = &mut self.net;
        for informer in &mut self.informers {
            if net.rng.random_bool(chance) {
                informer.step(net)?;
            }
        }
        for watcher in &mut self.watchers {
            if net.rng.random_bool(chance) {
                watcher.step(net)?;
            }
        }
        for lister in &mut self.listers {
            // In the calm nobody waits for them.
            if net.disturbed && net.rng.random_bool(chance) {
                lister.step(net)?;
            }
        }
        Ok(())
    }

    /// What goes wrong beside requests: streams, servers, history.
    fn disturb(&mut self) {
        let net = &mut self.net;
        let faults = net.faults;
        net.cluster.disturb(&faults, &mut net.rng);
        match net.rng.random_range(0..1000) {
            0..6 => {
                let server = net.random_server();
                net.restart_server(server);
                self.compactors[server] = Compactor::default();
            }
            6..36 => {
                let server = net.random_server();
                self.compactors[server] = self.compactors[server].step(net);
            }
            36..41 => {
                let latest = net.truth.latest();
                let revision = net.rng.random_range((latest - 30).max(1)..=latest);
                writer::compact(net, revision);
            }
            41..61 => self.backups.push((net.cluster.snapshot(), net.truth.current(), net.truth.latest())),
            61..65 => self.restore(),
            _ => {}
        }
    }

    fn restore(&mut self) {
        let net = &mut self.net;
        if self.backups.is_empty() {
            return;
        }
        let (backup, history, revision) = &self.backups[net.rng.random_range(0..self.backups.len())];
        let bumped = net.rng.random_bool(0.5);
        let by = bumped.then(|| net.truth.highest() + 1_000);
        net.cluster.restore(backup, by);
        net.truth.fork(*history, *revision, by.map(|by| revision + by));
        net.count(if by.is_some() { "restored, bumped" } else { "restored" });
        net.note(|| format!("a backup of {revision} is restored, revisions bumped by {by:?}"));
        for server in &mut net.servers {
            server.history = net.truth.rebase(server.history, server.caches.revision());
        }
    }

    /// Who does not know yet what there is.
    fn unsettled(&self) -> Vec<String> {
        let net = &self.net;
        let mut unsettled = Vec::new();
        for server in &net.servers {
            let revision = server.caches.revision();
            if revision != net.truth.latest()
                || server.history != net.truth.current()
                || !server.caches.is_ready()
            {
                let ready = server.caches.is_ready();
                unsettled.push(format!("server at {revision} of {}, ready: {ready}", net.truth.latest()));
            }
        }
        let informers = self.informers.iter().filter(|informer| !informer.is_current(net));
        unsettled.extend(informers.map(Informer::describe));
        let watchers = self.watchers.iter().filter(|watcher| !watcher.is_current(net));
        unsettled.extend(watchers.map(Watcher::describe));
        unsettled
    }
}

/// Worlds differ in what goes wrong in them.
fn faults(rng: &mut impl Rng) -> Faults {
    let mut some = |most: f64| if rng.random_bool(0.6) { rng.random_range(0.0..most) } else { 0.0 };
    Faults {
        unavailable: some(0.15),
        unknown_applied: some(0.1),
        unknown_not_applied: some(0.1),
        cut: some(0.08),
        freeze: some(0.05),
        thaw: 0.1,
        delay: some(0.1),
        max_delay_ms: 2_000,
        leader_change: some(0.02),
    }
}
