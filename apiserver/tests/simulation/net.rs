//! What all actors of a world share: etcd with its faults, the servers, the truth, the one source of chance, the clock.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use anyhow::ensure;
use etcd_model::{Cluster, Error, Faults, Model, RequestError, TxnRequest};
use kube_apiserver::registry::all::all;
use kube_apiserver::registry::resources::Resources;
use kube_apiserver::storage::cache::Caches;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::Bug;
use super::server::Server;
use super::truth::{HistoryId, Truth};
use super::view::View;

pub(super) static RESOURCES: LazyLock<Resources> = LazyLock::new(|| Resources::new(all()));

/// The least bytes of changes that a cache's history holds, as in `storage/cache/history.rs`.
const HISTORY_BYTES: usize = 8 << 20;

/// How often things happened, so that a run in which nothing happened is no proof.
pub(super) type Counts = BTreeMap<&'static str, u64>;

pub(super) struct Net {
    pub(super) rng: SmallRng,
    pub(super) cluster: Cluster,
    pub(super) truth: Truth,
    pub(super) servers: Vec<Server>,
    pub(super) faults: Faults,
    /// Whether things go wrong.
    pub(super) disturbed: bool,
    pub(super) bug: Option<Bug>,
    pub(super) now_ms: u64,
    /// Revisions that a server that fills its caches replays; the feed's are 1,000.
    pub(super) head_start: i64,
    /// Whether some objects are large.
    pub(super) large: bool,
    /// Writes whose answers were lost, and which may still come to pass.
    pub(super) late: Vec<TxnRequest>,
    pub(super) counts: Counts,
    trace: Option<Vec<String>>,
}

impl Net {
    pub(super) fn new(seed: u64, bug: Option<Bug>, traced: bool) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let head_start = [2, 20, 1_000][rng.random_range(0..3)];
        let large = rng.random_bool(0.05);
        let mut net = Self {
            rng,
            cluster: Cluster::default(),
            truth: Truth::new(),
            servers: Vec::new(),
            faults: Faults::default(),
            disturbed: false,
            bug,
            now_ms: 0,
            head_start,
            large,
            late: Vec::new(),
            counts: Counts::new(),
            trace: traced.then(Vec::new),
        };
        for _ in 0..2 {
            let server = net.new_server(0);
            net.servers.push(server);
        }
        net
    }

    pub(super) fn disturb(&mut self, faults: Faults) {
        (self.faults, self.disturbed) = (faults, true);
    }

    /// Ends all faults.
    pub(super) fn calm(&mut self) {
        (self.faults, self.disturbed) = (Faults::default(), false);
        for stream in self.cluster.streams() {
            self.cluster.thaw(stream);
            self.cluster.delay(stream, 0);
        }
        self.note(|| "calm".to_owned());
    }

    fn new_server(&mut self, incarnation: u64) -> Server {
        let caches = Caches::new(&RESOURCES, "/registry");
        Server::new(caches, incarnation, self.rng.random_bool(0.7), self.truth.current())
    }

    pub(super) fn restart_server(&mut self, index: usize) {
        let fresh = self.new_server(self.servers[index].incarnation + 1);
        let old = std::mem::replace(&mut self.servers[index], fresh);
        if let Some(stream) = old.stream() {
            self.cluster.cut(stream);
        }
        self.count("server restarted");
        self.note(|| format!("server {index} restarted"));
    }

    pub(super) fn step_server(&mut self, index: usize) {
        // Taken out, so that it can use the rest.
        let mut server = self.servers.remove(index);
        server.step(self);
        self.servers.insert(index, server);
    }

    pub(super) fn random_server(&mut self) -> usize {
        self.rng.random_range(0..self.servers.len())
    }

    /// Makes a request of etcd, which may fail on its way.
    pub(super) fn request<T>(
        &mut self,
        request: impl FnOnce(&mut Model) -> Result<T, Error>,
    ) -> Result<T, RequestError> {
        let fate = self.faults.fate(&mut self.rng);
        let answer = self.cluster.request(fate, request);
        self.truth.absorb(self.cluster.model());
        answer
    }

    pub(super) fn advance(&mut self, by_ms: u64) {
        self.now_ms += by_ms;
        self.cluster.advance(self.now_ms);
        self.truth.absorb(self.cluster.model());
    }

    pub(super) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// Writes down what happened, if somebody wants to read it.
    pub(super) fn note(&mut self, what: impl FnOnce() -> String) {
        let (now_ms, latest) = (self.now_ms, self.truth.latest());
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{now_ms:>6} ms, revision {latest}: {}", what()));
        }
    }

    pub(super) fn into_trace(self) -> Vec<String> {
        self.trace.unwrap_or_default()
    }

    /// Whether what a client knows of one history would be taken by a server for what it is not.
    pub(super) fn is_ambiguous(&self, history: HistoryId, revision: i64, server: usize) -> bool {
        self.truth.ambiguous(history, revision, self.servers[server].history)
    }

    /// Checks that a server may say that it does not hold what came after a revision.
    pub(super) fn check_expired(&self, server: usize, view: &View, asked: i64) -> anyhow::Result<()> {
        let server = &self.servers[server];
        let now = self.truth.latest();
        let weight = self.truth.weight(view, server.history, asked, now);
        ensure!(
            asked < server.from || weight > HISTORY_BYTES,
            "410 for {asked}, though the history was loaded at {} and {weight} bytes have followed",
            server.from
        );
        Ok(())
    }
}
