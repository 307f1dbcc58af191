//! What lies between a client and etcd, and what can go wrong there.
//!
//! Nothing happens by itself: a [`Fate`] is given with each request, streams stall and break when told to, and
//! [`Faults`] turns chances and a seeded generator into such decisions. A request that takes effect after its client
//! has given up is one made later, with an answer nobody waits for.

use crate::{Error, Model, WatchCreateRequest, WatchResponse};
use rand::Rng;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fate {
    Answered,
    /// Not applied, and the client is told so.
    Unavailable,
    /// Applied, but the client is not told.
    UnknownApplied,
    /// Not applied, and the client is not told.
    UnknownNotApplied,
}

/// Why a request has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// etcd's own refusal.
    #[error(transparent)]
    Refused(Error),
    #[error("etcdserver: no leader")]
    Unavailable,
    /// Applied or not, nobody knows.
    #[error("etcdserver: request timed out")]
    Unknown,
}

/// The watch stream is broken, and its watches with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the watch stream is broken")]
pub struct StreamCut;

/// A gRPC stream of watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(u64);

/// The content of etcd at a moment, as a backup has it.
#[derive(Clone, Debug)]
pub struct Snapshot(Model);

/// Chances, from 0 to 1, of what goes wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Faults {
    /// Of each request.
    pub unavailable: f64,
    pub unknown_applied: f64,
    pub unknown_not_applied: f64,
    /// Of each stream in each [`Cluster::disturb`].
    pub cut: f64,
    pub freeze: f64,
    pub thaw: f64,
    /// A new delay, up to `max_delay_ms`.
    pub delay: f64,
    pub max_delay_ms: u64,
    /// Of each [`Cluster::disturb`].
    pub leader_change: f64,
}

impl Faults {
    pub fn fate(&self, rng: &mut impl Rng) -> Fate {
        let mut left = rng.random::<f64>();
        let chances = [
            (self.unavailable, Fate::Unavailable),
            (self.unknown_applied, Fate::UnknownApplied),
            (self.unknown_not_applied, Fate::UnknownNotApplied),
        ];
        for (chance, fate) in chances {
            if left < chance {
                return fate;
            }
            left -= chance;
        }
        Fate::Answered
    }
}

#[derive(Debug, Default)]
struct Stream {
    watches: BTreeSet<i64>,
    /// What is on its way, with the time of its arrival.
    sent: VecDeque<(u64, WatchResponse)>,
    frozen: bool,
    delay_ms: u64,
}

impl Stream {
    /// Nothing overtakes on a stream, whatever becomes of its delay.
    fn send(&mut self, now_ms: u64, responses: impl IntoIterator<Item = WatchResponse>) {
        for response in responses {
            let behind = self.sent.back().map_or(0, |(arrival, _)| *arrival);
            self.sent.push_back(((now_ms + self.delay_ms).max(behind), response));
        }
    }
}

/// A model with watch streams between it and its clients. A stream that is not frozen is sent every event at once, so
/// that no later compaction takes it back; one that is frozen is a slow watcher, which a compaction cancels.
#[derive(Debug, Default)]
pub struct Cluster {
    model: Model,
    streams: BTreeMap<StreamId, Stream>,
    next_stream: u64,
}

impl Cluster {
    pub fn new(model: Model) -> Self {
        Self { model, ..Self::default() }
    }

    /// For looking only: what goes on in etcd, without a way to it that could fail.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Makes a request of KV or Lease: `cluster.request(fate, |etcd| etcd.put(&put))`.
    ///
    /// # Errors
    /// etcd refuses it, or its fate is not to be answered.
    pub fn request<T>(
        &mut self,
        fate: Fate,
        request: impl FnOnce(&mut Model) -> Result<T, Error>,
    ) -> Result<T, RequestError> {
        let answer = match fate {
            Fate::Unavailable => return Err(RequestError::Unavailable),
            Fate::UnknownNotApplied => return Err(RequestError::Unknown),
            Fate::Answered | Fate::UnknownApplied => request(&mut self.model),
        };
        self.pump();
        if fate == Fate::UnknownApplied {
            return Err(RequestError::Unknown);
        }
        answer.map_err(RequestError::Refused)
    }

    /// Lets time pass: leases run out, and what is on its way arrives.
    pub fn advance(&mut self, now_ms: u64) {
        self.model.advance(now_ms);
        self.pump();
    }

    pub fn open_stream(&mut self) -> StreamId {
        let id = StreamId(self.next_stream);
        self.next_stream += 1;
        self.streams.insert(id, Stream::default());
        id
    }

    /// Creates a watch and answers its id; the stream carries the answer too, as etcd's does. -1 where the range holds no
    /// key.
    ///
    /// # Errors
    /// The stream is broken.
    pub fn watch(&mut self, stream: StreamId, request: &WatchCreateRequest) -> Result<i64, StreamCut> {
        let open = self.streams.get_mut(&stream).ok_or(StreamCut)?;
        let created = self.model.watch_create(request);
        let id = created.watch_id;
        if !created.canceled {
            open.watches.insert(id);
        }
        open.send(self.model.now_ms(), [created]);
        self.pump();
        Ok(id)
    }

    /// # Errors
    /// The stream is broken.
    pub fn cancel(&mut self, stream: StreamId, watch: i64) -> Result<(), StreamCut> {
        let open = self.streams.get_mut(&stream).ok_or(StreamCut)?;
        if open.watches.remove(&watch) {
            open.send(self.model.now_ms(), self.model.watch_cancel(watch));
        }
        Ok(())
    }

    /// Asks for progress, which arrives on the stream if etcd gives it.
    ///
    /// # Errors
    /// The stream is broken.
    pub fn request_progress(&mut self, stream: StreamId) -> Result<(), StreamCut> {
        let open = self.streams.get_mut(&stream).ok_or(StreamCut)?;
        let progress = self.model.watch_progress(open.watches.iter().copied());
        open.send(self.model.now_ms(), progress);
        Ok(())
    }

    /// What has arrived since the last time.
    ///
    /// # Errors
    /// The stream is broken; what was on its way is lost.
    pub fn receive(&mut self, stream: StreamId) -> Result<Vec<WatchResponse>, StreamCut> {
        let now_ms = self.model.now_ms();
        let open = self.streams.get_mut(&stream).ok_or(StreamCut)?;
        let arrived = open.sent.iter().take_while(|(arrival, _)| *arrival <= now_ms).count();
        Ok(open.sent.drain(..arrived).map(|(_, response)| response).collect())
    }

    /// When the next response on any stream arrives, for a simulator that skips idle time.
    pub fn next_arrival(&self) -> Option<u64> {
        self.streams.values().filter_map(|stream| stream.sent.front()).map(|(arrival, _)| *arrival).min()
    }

    /// Streams that are not broken.
    pub fn streams(&self) -> Vec<StreamId> {
        self.streams.keys().copied().collect()
    }

    /// Stops sending on a stream until it thaws. What is on its way still arrives.
    pub fn freeze(&mut self, stream: StreamId) {
        self.streams.entry(stream).and_modify(|stream| stream.frozen = true);
    }

    pub fn thaw(&mut self, stream: StreamId) {
        self.streams.entry(stream).and_modify(|stream| stream.frozen = false);
        self.pump();
    }

    /// How long what is sent from now on is on its way.
    pub fn delay(&mut self, stream: StreamId, delay_ms: u64) {
        self.streams.entry(stream).and_modify(|stream| stream.delay_ms = delay_ms);
    }

    /// Breaks a stream. A client that closes one does the same.
    pub fn cut(&mut self, stream: StreamId) {
        for watch in self.streams.remove(&stream).into_iter().flat_map(|stream| stream.watches) {
            self.model.watch_cancel(watch);
        }
    }

    /// Breaks all streams, as streams that require a leader are, and gives leases their whole time anew.
    pub fn leader_change(&mut self) {
        self.streams().into_iter().for_each(|stream| self.cut(stream));
        self.model.promote();
    }

    pub fn snapshot(&self) -> Snapshot {
        Snapshot(self.model.clone())
    }

    /// Puts an earlier content in place and breaks all streams. Revisions go back, and numbers once given to one state
    /// come to mean another; unless `bump_revision` says by how much they go on instead, with everything before it
    /// compacted.
    pub fn restore(&mut self, snapshot: &Snapshot, bump_revision: Option<i64>) {
        self.leader_change();
        self.model = self.model.restored_from(&snapshot.0);
        if let Some(by) = bump_revision {
            self.model.bump_revision(by);
        }
    }

    /// Lets chance decide what goes wrong with the streams now.
    pub fn disturb(&mut self, faults: &Faults, rng: &mut impl Rng) {
        for stream in self.streams() {
            if rng.random_bool(faults.freeze) {
                self.freeze(stream);
            }
            if rng.random_bool(faults.thaw) {
                self.thaw(stream);
            }
            if rng.random_bool(faults.delay) {
                self.delay(stream, rng.random_range(0..=faults.max_delay_ms));
            }
            if rng.random_bool(faults.cut) {
                self.cut(stream);
            }
        }
        if rng.random_bool(faults.leader_change) {
            self.leader_change();
        }
    }

    fn pump(&mut self) {
        let now_ms = self.model.now_ms();
        for stream in self.streams.values_mut().filter(|stream| !stream.frozen) {
            for watch in stream.watches.clone() {
                stream.send(now_ms, self.model.watch_poll(watch));
            }
        }
    }
}

#[cfg(test)]
mod tests;
