//! Carries out what the reflector decides: makes requests, reads watches, applies effects to the cache.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::StreamExt as _;
use tokio::{sync::watch, time::timeout};

use super::{
    Object, Transform,
    backoff::{OUTAGE, random},
    cache::Cache,
    reflector::{Effect, Input, Next, Reflector, Step, When},
    source::{EventStream, ListRequest, ListWatch, SourceError, WatchRequest},
};
use crate::{Shutdown, error_chain::Chain};

/// A page must be there by then.
const LIST_DEADLINE: Duration = Duration::from_secs(60);
/// The server's answer to a watch must begin by then.
const OPEN_DEADLINE: Duration = Duration::from_secs(30);
/// The longest pause between two initial events.
const INITIAL_EVENTS_DEADLINE: Duration = Duration::from_secs(10);
/// How long after the requested end of a watch the connection is given up.
const OVERTIME: Duration = Duration::from_secs(30);

/// See the module.
pub(super) struct Driver<K> {
    source: Arc<dyn ListWatch<K>>,
    cache: Arc<Cache<K>>,
    transform: Transform<K>,
    synced: watch::Sender<bool>,
    reflector: Reflector<K>,
    open: Option<Open<K>>,
}

/// The watch being read.
struct Open<K> {
    events: EventStream<K>,
    since: Instant,
    deadline: Instant,
}

impl<K: Object> Driver<K> {
    pub(super) fn new(
        source: Arc<dyn ListWatch<K>>,
        cache: Arc<Cache<K>>,
        transform: Transform<K>,
        synced: watch::Sender<bool>,
    ) -> Self {
        Self { source, cache, transform, synced, reflector: Reflector::new(random), open: None }
    }

    pub(super) async fn run(mut self, shutdown: Shutdown) {
        let resource = self.source.describe();
        // Cancelled between two steps or inside a request: a step itself never waits.
        shutdown.run_until_cancelled(self.follow(&resource)).await;
        self.cache.close();
    }

    async fn follow(&mut self, resource: &str) {
        let mut next = self.reflector.start();
        loop {
            let input = match next {
                Next::List(request) => self.list(request).await,
                Next::Watch(request) => match self.open(request).await {
                    Ok(()) => self.read().await,
                    Err(error) => Input::Failed(error),
                },
                Next::Read => self.read().await,
            };
            self.count_malformed();
            note(resource, &input);
            let Step { effect, next: following, when } = self.reflector.step(input);
            if let Some(effect) = effect {
                self.apply(effect);
            }
            match when {
                When::Now => {}
                When::After(wait) => tokio::time::sleep(wait).await,
                When::AfterOutage => tokio::time::sleep(OUTAGE.failure(Instant::now(), random())).await,
            }
            next = following;
        }
    }

    async fn list(&mut self, request: ListRequest) -> Input<K> {
        self.open = None;
        match timeout(LIST_DEADLINE, self.source.list(request)).await {
            Ok(Ok(page)) => {
                OUTAGE.success();
                Input::Page(page)
            }
            Ok(Err(error)) => Input::Failed(error),
            Err(_) => Input::Failed(too_slow("list")),
        }
    }

    async fn open(&mut self, request: WatchRequest) -> Result<(), SourceError> {
        // The old watch is closed before the new one opens: the server counts them.
        self.open = None;
        let since = Instant::now();
        let deadline = since + request.timeout + OVERTIME;
        let events =
            timeout(OPEN_DEADLINE, self.source.watch(request)).await.map_err(|_| too_slow("watch"))??;
        OUTAGE.success();
        self.open = Some(Open { events, since, deadline });
        Ok(())
    }

    async fn read(&mut self) -> Input<K> {
        let initial = self.reflector.awaits_initial_events();
        let Some(open) = &mut self.open else { return Input::Closed(Duration::ZERO) };
        let now = Instant::now();
        let rest = open.deadline.saturating_duration_since(now);
        let patience = if initial { rest.min(INITIAL_EVENTS_DEADLINE) } else { rest };
        match timeout(patience, open.events.next()).await {
            Ok(Some(Ok(event))) => Input::Event(event),
            Ok(Some(Err(error))) => Input::Failed(error),
            Ok(None) => Input::Closed(open.since.elapsed()),
            Err(_) if initial => Input::Stalled,
            // The server should have ended it long ago: nobody is there.
            Err(_) => Input::Closed(open.since.elapsed()),
        }
    }

    fn apply(&self, effect: Effect<K>) {
        match effect {
            Effect::Replace(objects) => {
                self.cache.replace(objects.into_iter().filter_map(|object| self.prepare(object)).collect());
                self.synced.send_if_modified(|synced| !std::mem::replace(synced, true));
            }
            Effect::Upsert(object) => {
                if let Some(object) = self.prepare(object) {
                    self.cache.upsert(object);
                }
            }
            Effect::Delete(key, last) => self.cache.delete(&key, last.and_then(|last| self.prepare(last))),
        }
    }

    /// Transforms an object; `None` when the daemon's own functions panic on it. That costs the object, not the
    /// informer: a store that silently stopped following would be far worse.
    fn prepare(&self, mut object: K) -> Option<K> {
        let prepared = catch_unwind(AssertUnwindSafe(|| {
            (self.transform)(&mut object);
            self.cache.try_indexes(&object);
        }));
        if prepared.is_ok() {
            return Some(object);
        }
        self.cache.count_malformed();
        let key = super::key_of(&object);
        tracing::error!(
            kind = K::KIND,
            namespace = key.namespace,
            name = key.name,
            "object made a transform or index panic and is left out"
        );
        None
    }

    fn count_malformed(&self) {
        for _ in 0..self.source.take_malformed() {
            self.cache.count_malformed();
        }
    }
}

fn too_slow(what: &str) -> SourceError {
    SourceError::from_status(504, format!("no answer to {what} in time"), 0)
}

/// Logs what a person may want to know; a watch that ends in time is no news.
fn note<K>(resource: &str, input: &Input<K>) {
    match input {
        Input::Failed(SourceError::Expired(message)) => {
            tracing::info!(resource, error = message, "watched version is gone, fetching the state anew");
        }
        Input::Failed(error) => {
            tracing::warn!(resource, error = %Chain(error), "list or watch failed, will retry")
        }
        Input::Stalled => tracing::info!(resource, "server sends no initial events, listing instead"),
        Input::Page(_) | Input::Event(_) | Input::Closed(_) => {}
    }
}
