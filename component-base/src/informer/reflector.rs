//! Decides what an informer asks next and what it does to its store. No IO, no clock: answers of the server go in,
//! effects and the next request come out.
//!
//! Answers to client-go's Reflector.ListAndWatch. The order of things:
//!
//! 1. The state, from a watch with initial events where the server can do that, else from a paged list of the
//!    newest state. It replaces the content of the store at once, so whatever vanished is deleted.
//! 2. A watch from the version of that state; a watch that ends is resumed from the last version that has been told
//!    whole: several objects can change at one version, so the version of the last event is asked for once more.
//! 3. A version that the server no longer has (410) leads back to 1.

use std::{collections::BTreeMap, time::Duration};

use apimachinery::meta::ObjectKey;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{
    Object,
    backoff::{Backoff, LONGEST},
    key_of,
    source::{Event, ListRequest, Page, SourceError, WatchFrom, WatchRequest},
};

/// Objects per page, as client-go's pager.
const PAGE_SIZE: u32 = 500;
/// The server ends a watch after this, or up to twice this.
const WATCH_TIMEOUT: Duration = Duration::from_secs(300);
/// A watch that ends this soon without an event counts as a failure.
const SHORT_WATCH: Duration = Duration::from_secs(1);

/// What the driver learnt.
#[derive(Debug)]
pub enum Input<K> {
    /// A page arrived.
    Page(Page<K>),
    /// The open watch has an event.
    Event(Event<K>),
    /// The open watch ended without an error, having lived this long.
    Closed(Duration),
    /// The request, or the open watch, failed.
    Failed(SourceError),
    /// The initial events stopped coming before their end.
    Stalled,
}

/// What to do to the store.
#[derive(Debug)]
pub enum Effect<K> {
    /// The whole state; the informer has synced.
    Replace(Vec<K>),
    Upsert(K),
    Delete(ObjectKey, Option<K>),
}

/// What to ask next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Go on reading the open watch.
    Read,
    List(ListRequest),
    Watch(WatchRequest),
}

/// When to ask it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    Now,
    After(Duration),
    /// After the wait that the process shares while its server is away.
    AfterOutage,
}

/// The outcome of one input.
#[derive(Debug)]
pub struct Step<K> {
    pub effect: Option<Effect<K>>,
    pub next: Next,
    pub when: When,
}

/// See the module.
#[derive(Debug)]
pub struct Reflector<K> {
    phase: Phase<K>,
    /// Until the server refuses initial events.
    initial_events: bool,
    backoff: Backoff,
    random: fn() -> f64,
    /// Whether the watch has brought anything since it was opened.
    heard: bool,
    /// Whether a watch has brought anything since the last whole state.
    useful: bool,
}

#[derive(Debug)]
enum Phase<K> {
    Listing {
        objects: Vec<K>,
        page: ListRequest,
    },
    Initial {
        objects: BTreeMap<ObjectKey, K>,
    },
    Watching {
        /// The last version seen, be it of an event or of a bookmark.
        resource_version: String,
        /// Whether everything that happened at it has been told.
        whole: bool,
    },
}

impl<K: Object> Reflector<K> {
    /// `random` gives numbers from 0 to 1.
    pub fn new(random: fn() -> f64) -> Self {
        Self {
            phase: Phase::Initial { objects: BTreeMap::new() },
            initial_events: true,
            backoff: Backoff::new(random),
            random,
            heard: false,
            useful: true,
        }
    }

    /// The first request.
    pub fn start(&mut self) -> Next {
        self.fetch_state()
    }

    /// Takes what the driver learnt about the request it was told to make last.
    pub fn step(&mut self, input: Input<K>) -> Step<K> {
        match input {
            Input::Page(page) => self.page(page),
            Input::Event(event) => self.event(event),
            Input::Closed(lived) => {
                if self.heard || lived >= SHORT_WATCH && matches!(self.phase, Phase::Watching { .. }) {
                    self.resume(When::Now)
                } else {
                    let wait = self.backoff.failure();
                    self.resume(When::After(wait))
                }
            }
            Input::Failed(error) => self.failed(&error),
            Input::Stalled => {
                self.initial_events = false;
                self.restart(When::Now)
            }
        }
    }

    fn page(&mut self, page: Page<K>) -> Step<K> {
        self.backoff.success();
        let Phase::Listing { objects, page: request } = &mut self.phase else {
            // Not asked for: start from what is known.
            return self.restart(When::Now);
        };
        objects.extend(page.objects);
        if let Some(token) = page.continue_token {
            request.continue_token = Some(token);
            return step(None, Next::List(request.clone()), When::Now);
        }
        let objects = std::mem::take(objects);
        self.state(objects, page.resource_version)
    }

    /// The whole state is known: hold it and watch from there.
    fn state(&mut self, objects: Vec<K>, resource_version: String) -> Step<K> {
        let reading = matches!(self.phase, Phase::Initial { .. });
        self.phase = Phase::Watching { resource_version, whole: true };
        let next = if reading { Next::Read } else { self.watch() };
        step(Some(Effect::Replace(objects)), next, When::Now)
    }

    fn event(&mut self, event: Event<K>) -> Step<K> {
        let event = match event {
            Event::Error(error) => return self.failed(&error),
            event => event,
        };
        self.heard = true;
        self.backoff.success();
        match &mut self.phase {
            Phase::Initial { objects } => {
                match event {
                    Event::Added(object) | Event::Modified(object) => {
                        objects.insert(key_of(&object), object);
                    }
                    Event::Deleted(object) => {
                        objects.remove(&key_of(&object));
                    }
                    Event::Malformed { deleted: Some(key), .. } => {
                        objects.remove(&key);
                    }
                    Event::Bookmark { resource_version, initial_events_end: true } => {
                        let objects = std::mem::take(objects).into_values().collect();
                        return self.state(objects, resource_version);
                    }
                    Event::Bookmark { .. } | Event::Malformed { .. } | Event::Error(_) => {}
                }
                step(None, Next::Read, When::Now)
            }
            Phase::Watching { resource_version: last, whole } => {
                self.useful = true;
                let bookmark = matches!(event, Event::Bookmark { .. });
                let (version, effect) = match event {
                    Event::Added(object) | Event::Modified(object) => {
                        (object.metadata().resource_version.clone(), Some(Effect::Upsert(object)))
                    }
                    Event::Deleted(object) => {
                        let version = object.metadata().resource_version.clone();
                        (version, Some(Effect::Delete(key_of(&object), Some(object))))
                    }
                    Event::Bookmark { resource_version, .. } => (Some(resource_version), None),
                    Event::Malformed { resource_version, deleted } => {
                        (resource_version, deleted.map(|key| Effect::Delete(key, None)))
                    }
                    Event::Error(_) => (None, None),
                };
                // A repeated event must neither turn the watch back nor bring back what is gone; whether a deletion, or
                // another event of the same version, is news, the cache can tell by the version it holds.
                let repeated = version.as_ref().is_some_and(|version| is_earlier(version, last));
                let effect = effect.filter(|effect| !repeated || matches!(effect, Effect::Delete(..)));
                if let Some(version) = version.filter(|_| !repeated) {
                    *whole = bookmark || *whole && version == *last;
                    *last = version;
                }
                step(effect, Next::Read, When::Now)
            }
            Phase::Listing { .. } => self.restart(When::Now),
        }
    }

    fn failed(&mut self, error: &SourceError) -> Step<K> {
        match (error, &mut self.phase) {
            (SourceError::Disconnected(_), _) => self.resume(When::AfterOutage),
            // The pages outlived their snapshot: one answer with everything cannot.
            (SourceError::Expired(_), Phase::Listing { objects, page }) if page.continue_token.is_some() => {
                objects.clear();
                *page = ListRequest { limit: None, continue_token: None };
                step(None, Next::List(page.clone()), When::Now)
            }
            (SourceError::Expired(_), _) => {
                // Once is normal after a pause; again and again, without an event between, is not.
                let when = if self.useful { When::Now } else { When::After(self.backoff.failure()) };
                self.useful = false;
                self.restart(when)
            }
            (SourceError::Refused { code, .. }, Phase::Initial { .. }) if refuses_initial_events(*code) => {
                self.initial_events = false;
                self.restart(When::Now)
            }
            (SourceError::Refused { retry_after, .. }, _) => {
                let wait = self.backoff.failure().max(*retry_after).min(LONGEST);
                self.resume(When::After(wait))
            }
            (SourceError::Malformed(_), _) => {
                let wait = self.backoff.failure();
                self.resume(When::After(wait))
            }
        }
    }

    /// Goes on from the last version, or starts over when there is none yet.
    fn resume(&mut self, when: When) -> Step<K> {
        match self.phase {
            Phase::Watching { .. } => step(None, self.watch(), when),
            Phase::Listing { .. } | Phase::Initial { .. } => self.restart(when),
        }
    }

    fn restart(&mut self, when: When) -> Step<K> {
        step(None, self.fetch_state(), when)
    }

    fn fetch_state(&mut self) -> Next {
        if self.initial_events {
            self.phase = Phase::Initial { objects: BTreeMap::new() };
            self.watch()
        } else {
            let page = ListRequest { limit: Some(PAGE_SIZE), continue_token: None };
            self.phase = Phase::Listing { objects: Vec::new(), page: page.clone() };
            Next::List(page)
        }
    }

    fn watch(&mut self) -> Next {
        self.heard = false;
        let from = match &self.phase {
            Phase::Watching { resource_version, whole: true } => WatchFrom::Version(resource_version.clone()),
            Phase::Watching { resource_version, whole: false } => {
                WatchFrom::Version(before(resource_version))
            }
            Phase::Listing { .. } | Phase::Initial { .. } => WatchFrom::InitialEvents,
        };
        Next::Watch(WatchRequest { from, timeout: WATCH_TIMEOUT.mul_f64(1.0 + (self.random)()) })
    }

    /// Whether initial events are awaited, which must not stop coming.
    pub(super) fn awaits_initial_events(&self) -> bool {
        matches!(self.phase, Phase::Initial { .. })
    }
}

/// Servers without WatchList refuse its parameters; 401, 403, 404 and 429 are about something else.
fn refuses_initial_events(code: u16) -> bool {
    matches!(code, 400 | 405 | 406 | 415 | 422 | 501)
}

fn step<K>(effect: Option<Effect<K>>, next: Next, when: When) -> Step<K> {
    Step { effect, next, when }
}

/// The version before one, to see everything that happened at it.
fn before(version: &str) -> String {
    match version.parse::<u64>() {
        Ok(number) if number > 1 => (number - 1).to_string(),
        _ => version.to_owned(),
    }
}

/// Whether `a` is an earlier version of an object than `b`.
pub(super) fn is_older(a: &ObjectMeta, b: &ObjectMeta) -> bool {
    match (&a.resource_version, &b.resource_version) {
        (Some(a), Some(b)) => is_earlier(a, b),
        _ => false,
    }
}

/// Resource versions are comparable numbers since Kubernetes 1.35; what is not a number is not compared.
fn is_earlier(a: &str, b: &str) -> bool {
    matches!((a.parse::<u64>(), b.parse::<u64>()), (Ok(a), Ok(b)) if a < b)
}

#[cfg(test)]
mod tests;
