//! A client's watch of one server, with what is on its way. Whatever arrives is checked: exactly the events that the view
//! sees after the revision that the client knows, in order, and no promise of more than has been told.

use std::collections::VecDeque;
use std::sync::Arc;

use anyhow::{Result, bail, ensure};
use futures::FutureExt;
use kube_apiserver::storage::cache::CachedWatch;
use kube_apiserver::storage::{Delivered, StorageError};

use super::Bug;
use super::net::Net;
use super::read::Interest;
use super::truth::{HistoryId, Told};

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) server: usize,
    incarnation: u64,
    /// The load of the caches that it watches.
    loads: u64,
    watch: CachedWatch,
    on_its_way: VecDeque<Told>,
    /// The client knows everything up to here.
    pub(super) known: (HistoryId, i64),
    pub(super) opened_ms: u64,
}

/// What a look at a watch brought.
#[derive(Debug)]
pub(super) enum Arrived {
    /// Whole revisions, and everything that the view saw up to `up_to`. `idle`: there is nothing more for now.
    Events { events: Vec<Told>, up_to: i64, idle: bool },
    /// 410: the server does not hold the history any more.
    Expired,
    /// The server is gone.
    Cut,
    /// The server goes on in another history, and nobody can tell it: the client is started anew, as operators do who
    /// restore a backup.
    Ambiguous,
}

impl Connection {
    /// Opens a watch after what the client knows; `None`: 410.
    pub(super) fn open(
        net: &mut Net,
        server: usize,
        interest: &Interest,
        mut known: (HistoryId, i64),
    ) -> Result<Option<Self>> {
        let of = &net.servers[server];
        // A server of a lost history has nothing to tell to who comes from the present one.
        if net.truth.agree(known.0, of.history, known.1) {
            known.0 = of.history;
        }
        let watch = of.caches.watch(&interest.view.prefix, &interest.selection, known.1).unwrap();
        match watch {
            Ok(watch) => {
                let (incarnation, loads) = (of.incarnation, of.loads);
                let opened_ms = net.now_ms;
                net.count("watch opened");
                let on_its_way = VecDeque::new();
                Ok(Some(Self { server, incarnation, loads, watch, on_its_way, known, opened_ms }))
            }
            Err(StorageError::TooOld { asked, .. }) => {
                net.check_expired(server, &interest.view, asked)?;
                net.count("watch refused as too old");
                Ok(None)
            }
            Err(other) => bail!("a watch is refused: {other}"),
        }
    }

    /// Takes at most `most` events from the server and gives the client what is whole.
    pub(super) fn read(&mut self, net: &mut Net, interest: &Interest, most: usize) -> Result<Arrived> {
        let of = &net.servers[self.server];
        if of.incarnation != self.incarnation {
            return Ok(Arrived::Cut);
        }
        let same = of.loads == self.loads;
        if same && net.is_ambiguous(self.known.0, self.known.1, self.server) {
            net.count("client restarted");
            return Ok(Arrived::Ambiguous);
        }
        if same && net.truth.agree(self.known.0, of.history, self.known.1) {
            self.known.0 = of.history;
        }
        let (reached, mut idle) = (of.caches.revision(), false);
        for _ in 0..most {
            let next = match self.watch.pending() {
                Some(delivered) => Some(Ok(delivered)),
                None => Box::pin(self.watch.next()).now_or_never(),
            };
            match next {
                Some(Ok(delivered)) => self.arrive(delivered)?,
                Some(Err(StorageError::TooSlow { told, .. })) => {
                    return self.too_slow(net, interest, same, told);
                }
                Some(Err(other)) => bail!("a watch ended: {other}"),
                None => {
                    idle = true;
                    break;
                }
            }
        }
        ensure!(same || !idle, "a watch outlives the history that it is of");
        let mut up_to = self.known.1;
        if idle {
            up_to = self.watch.revision();
            ensure!(up_to >= reached, "a watch that has told everything up to {reached} says {up_to}");
        } else if net.bug == Some(Bug::MarksAhead) {
            up_to = reached;
        } else if let Some(last) = self.on_its_way.back() {
            // The last revision may have more events.
            up_to = self
                .on_its_way
                .iter()
                .rev()
                .map(|told| told.revision)
                .find(|at| *at < last.revision)
                .unwrap_or(up_to);
        }
        let whole = self.on_its_way.iter().take_while(|told| told.revision <= up_to).count();
        let events = self.on_its_way.drain(..whole).collect();
        self.check(net, interest, events, up_to.max(self.known.1), idle)
    }

    fn arrive(&mut self, Delivered { kind, event }: Delivered) -> Result<()> {
        let before = self.on_its_way.back().map_or(self.known.1, |told| told.revision);
        ensure!(event.revision >= before, "an event of {} after one of {before}", event.revision);
        let value = event.shown(kind).unwrap().value.clone();
        self.on_its_way.push_back(Told {
            revision: event.revision,
            key: Arc::from(event.key()),
            kind,
            value,
        });
        Ok(())
    }

    fn check(
        &mut self,
        net: &mut Net,
        interest: &Interest,
        mut events: Vec<Told>,
        up_to: i64,
        idle: bool,
    ) -> Result<Arrived> {
        let (history, after) = self.known;
        events.sort_by(|a, b| (a.revision, &a.key).cmp(&(b.revision, &b.key)));
        let expected = net.truth.seen(&interest.view, history, after, up_to);
        ensure!(
            events == expected,
            "a watch of {:?} told between {after} and {up_to} {:?}, not {:?}",
            interest.view,
            brief(&events),
            brief(&expected)
        );
        *net.counts.entry("event").or_default() += events.len() as u64;
        self.known.1 = up_to;
        Ok(Arrived::Events { events, up_to, idle })
    }

    fn too_slow(&self, net: &mut Net, interest: &Interest, same_load: bool, told: i64) -> Result<Arrived> {
        if same_load {
            net.check_expired(self.server, &interest.view, told)?;
            net.count("watch too slow");
        } else {
            net.count("watch ended by a load");
        }
        Ok(Arrived::Expired)
    }
}

fn brief(events: &[Told]) -> Vec<String> {
    events.iter().map(|told| format!("{} {:?} {}", told.revision, told.kind, told.key)).collect()
}
