//! Drives the model and a real etcd together and fails at the first difference.

use crate::operation::{Answer, Operation, apply};
use crate::real::{Real, RealStream};
use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use etcd_model::{
    DeleteRangeRequest, Event, KeyRange, Model, PutRequest, Quirks, WatchCreateRequest, WatchResponse,
};
use std::collections::BTreeMap;

/// What has been compared so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) requests: u64,
    pub(crate) operations: u64,
    pub(crate) refused: u64,
    pub(crate) compactions: u64,
    pub(crate) watches: u64,
    pub(crate) events: u64,
    pub(crate) compacted_watches: u64,
}

/// What a watch delivers, without regard to how it is cut into responses.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Delivery {
    Event(Event),
    Compacted { compact_revision: i64, revision: i64 },
}

/// The deliveries of one watch on one side.
#[derive(Debug, Default)]
struct Flow {
    deliveries: Vec<Delivery>,
    last_revision: i64,
}

impl Flow {
    fn push(&mut self, response: WatchResponse) -> Result<()> {
        for (index, event) in response.events.iter().enumerate() {
            let at = event.kv.mod_revision;
            ensure!(at >= self.last_revision, "{event:?} goes back from revision {}", self.last_revision);
            ensure!(index > 0 || at > self.last_revision, "revision {at} is in two responses");
            ensure!(at <= response.revision, "{event:?} is later than its response's {}", response.revision);
            self.last_revision = at;
        }
        self.deliveries.extend(response.events.into_iter().map(Delivery::Event));
        if response.canceled {
            let (compact_revision, revision) = (response.compact_revision, response.revision);
            self.deliveries.push(Delivery::Compacted { compact_revision, revision });
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Watched {
    request: WatchCreateRequest,
    stream: usize,
    real_id: i64,
    /// Whether etcd is known to have caught up with it. Until then a compaction may cancel it, or not.
    synced: bool,
    /// Canceled by a compaction, but not by its client yet.
    compacted: bool,
    expected: Flow,
    arrived: Flow,
}

pub(crate) struct Differential {
    pub(crate) model: Model,
    pub(crate) quirks: Quirks,
    pub(crate) real: Real,
    streams: Vec<RealStream>,
    /// By the model's id.
    watches: BTreeMap<i64, Watched>,
    /// Progress of whole streams that nobody has waited for yet.
    progress: Vec<(usize, WatchResponse)>,
    keys: &'static [&'static str],
    pub(crate) counts: Counts,
}

impl Differential {
    /// `keys` are all that the program will ever write.
    pub(crate) async fn start(keys: &'static [&'static str]) -> Result<Differential> {
        let mut real = Real::start().await?;
        let quirks = Quirks::of_version(&real.version().await?);
        Ok(Differential {
            model: Model::with_quirks(quirks),
            quirks,
            real,
            streams: Vec::new(),
            watches: BTreeMap::new(),
            progress: Vec::new(),
            keys,
            counts: Counts::default(),
        })
    }

    pub(crate) fn watches(&self) -> Vec<i64> {
        self.watches.keys().copied().collect()
    }

    pub(crate) async fn step(&mut self, operation: &Operation) -> Result<Answer> {
        if matches!(operation, Operation::Compact(_)) {
            self.settle().await?;
            self.counts.compactions += 1;
        }
        self.both(operation).await
    }

    async fn both(&mut self, operation: &Operation) -> Result<Answer> {
        let expected = apply(&mut self.model, operation);
        let answer = self.real.apply(operation).await?;
        if without_time(&expected) != without_time(&answer) {
            bail!("{operation:?}\nmodel: {expected:?}\netcd:  {answer:?}");
        }
        self.counts.requests += 1;
        self.counts.operations += answer.operations();
        self.counts.refused += u64::from(matches!(answer, Answer::Refused { .. }));
        Ok(answer)
    }

    /// Opens one more stream where `stream` is the number of those that are open.
    pub(crate) async fn watch(&mut self, stream: usize, request: &WatchCreateRequest) -> Result<i64> {
        if stream == self.streams.len() {
            self.streams.push(self.real.open_stream(request).await?);
        } else {
            self.streams[stream].watch(request).await?;
        }
        let created = self.control(stream, |response| response.created).await?;
        let expected = self.model.watch_create(request);
        let id = expected.watch_id;
        let alike = WatchResponse { watch_id: created.watch_id, ..expected.clone() } == created;
        ensure!(
            alike && (id == -1) == (created.watch_id == -1),
            "{request:?}\nmodel: {expected:?}\netcd:  {created:?}"
        );
        self.counts.watches += 1;
        if !created.canceled {
            let synced = request.start_revision == 0 || request.start_revision > self.model.revision();
            let (expected, arrived) = (Flow::default(), Flow::default());
            let (request, real_id) = (request.clone(), created.watch_id);
            let watched = Watched { request, stream, real_id, synced, compacted: false, expected, arrived };
            self.watches.insert(id, watched);
        }
        Ok(id)
    }

    pub(crate) async fn cancel(&mut self, id: i64) -> Result<()> {
        self.drain().await?;
        let watched = self.watches.remove(&id).context("no such watch")?;
        let (stream, real_id) = (watched.stream, watched.real_id);
        self.streams[stream].cancel(real_id).await?;
        let canceled = self.control(stream, |response| response.canceled).await?;
        let expected =
            self.model.watch_cancel(id).map(|expected| WatchResponse { watch_id: real_id, ..expected });
        ensure!(Some(&canceled) == expected.as_ref(), "cancel\nmodel: {expected:?}\netcd:  {canceled:?}");
        Ok(())
    }

    /// Asks for progress on a stream, unless versions of etcd differ in whether they answer: they do where a watch is not
    /// synced, where it begins in the future, where a compaction has canceled it, and where there is none.
    pub(crate) async fn progress(&mut self, stream: usize) -> Result<()> {
        self.drain().await?;
        let compacted =
            self.watches.iter().filter(|(_, watched)| watched.stream == stream && watched.compacted);
        for id in compacted.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.cancel(id).await?;
        }
        let watches = || self.watches.iter().filter(|(_, watched)| watched.stream == stream);
        let begun = |watched: &Watched| watched.request.start_revision <= self.model.revision();
        if watches().next().is_none() || !watches().all(|(_, watched)| watched.synced && begun(watched)) {
            return Ok(());
        }
        let expected = self.model.watch_progress(watches().map(|(id, _)| *id));
        self.ask_for_progress(stream).await?;
        let progress = Some(self.next_progress(stream).await?);
        ensure!(progress == expected, "progress\nmodel: {expected:?}\netcd:  {progress:?}");
        Ok(())
    }

    /// Asks etcd alone; there may be no answer.
    pub(crate) async fn ask_for_progress(&mut self, stream: usize) -> Result<()> {
        self.streams[stream].request_progress().await
    }

    pub(crate) async fn next_progress(&mut self, stream: usize) -> Result<WatchResponse> {
        match self.progress.iter().position(|(of, _)| *of == stream) {
            Some(first) => Ok(self.progress.remove(first).1),
            None => self.control(stream, |response| response.watch_id == -1).await,
        }
    }

    /// The next response on a stream that is an answer; events before it go to their watches.
    async fn control(
        &mut self,
        stream: usize,
        is_answer: fn(&WatchResponse) -> bool,
    ) -> Result<WatchResponse> {
        loop {
            let response = self.streams[stream].next().await?;
            if response.compact_revision == 0 && is_answer(&response) {
                return Ok(response);
            }
            self.route(stream, response)?;
        }
    }

    fn route(&mut self, stream: usize, response: WatchResponse) -> Result<()> {
        let id = response.watch_id;
        if id == -1 {
            self.progress.push((stream, response));
            return Ok(());
        }
        let mut watches = self.watches.values_mut();
        let watched = watches.find(|watched| watched.stream == stream && watched.real_id == id);
        watched.with_context(|| format!("no such watch: {response:?}"))?.arrived.push(response)
    }

    /// Takes from the model what its watches have to say.
    pub(crate) fn poll(&mut self) -> Result<()> {
        for (id, watched) in &mut self.watches {
            for response in self.model.watch_poll(*id) {
                watched.expected.push(response).context("the model's watch")?;
            }
        }
        Ok(())
    }

    /// Waits until etcd has sent as much as the model has, and compares it.
    pub(crate) async fn drain(&mut self) -> Result<Vec<(i64, Vec<Delivery>)>> {
        self.poll()?;
        let mut drained = Vec::new();
        for id in self.watches() {
            loop {
                let watched = &self.watches[&id];
                if watched.arrived.deliveries.len() >= watched.expected.deliveries.len() {
                    break;
                }
                let stream = watched.stream;
                let response =
                    self.streams[stream].next().await.with_context(|| format!("waiting for {watched:?}"))?;
                self.route(stream, response)?;
            }
            drained.push((id, self.compare(id)?));
        }
        Ok(drained)
    }

    fn compare(&mut self, id: i64) -> Result<Vec<Delivery>> {
        let watched = self.watches.get_mut(&id).context("the watch is there")?;
        let expected = std::mem::take(&mut watched.expected.deliveries);
        let arrived = std::mem::take(&mut watched.arrived.deliveries);
        if expected != arrived {
            let same =
                expected.iter().zip(&arrived).take_while(|(expected, arrived)| expected == arrived).count();
            bail!(
                "{:?} differs after {same} of {} deliveries\nmodel: {:?}\netcd:  {:?}",
                watched.request,
                expected.len(),
                &expected[same..],
                &arrived[same..]
            );
        }
        watched.synced |= !arrived.is_empty();
        self.counts.events += arrived.len() as u64;
        if matches!(arrived.last(), Some(Delivery::Compacted { .. })) {
            self.counts.compacted_watches += 1;
            watched.compacted = true;
        }
        Ok(arrived)
    }

    /// Has etcd catch up with every watch, so that it is no matter of luck what a compaction does to them. One that has no
    /// events is given one, or canceled where it can have none.
    async fn settle(&mut self) -> Result<()> {
        self.drain().await?;
        let unsynced = self.watches.iter().filter(|(_, watched)| !watched.synced);
        let unsynced: Vec<(i64, WatchCreateRequest)> =
            unsynced.map(|(id, watched)| (*id, watched.request.clone())).collect();
        for (id, request) in unsynced {
            let key = self.keys.iter().find(|key| request.keys.contains(key.as_bytes()));
            let Some(key) = key.filter(|_| !(request.no_put && request.no_delete)) else {
                self.cancel(id).await?;
                continue;
            };
            let key = Bytes::from_static(key.as_bytes());
            self.both(&Operation::Put(PutRequest::new(key.clone(), "nudge"))).await?;
            if request.no_put {
                self.both(&Operation::DeleteRange(DeleteRangeRequest::from(KeyRange::one(key)))).await?;
            }
        }
        self.drain().await?;
        Ok(())
    }
}

/// The model's clock stands still here, so of what is left of a lease only the sign is compared.
fn without_time(answer: &Answer) -> Answer {
    let mut answer = answer.clone();
    if let Answer::LeaseTimeToLive(lease) = &mut answer {
        lease.ttl = lease.ttl.signum();
    }
    answer
}
