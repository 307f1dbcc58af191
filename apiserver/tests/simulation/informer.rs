//! The daemons' informer: the real reflector and store of component-base, driven over the simulated servers. After every
//! step its store must be exactly the state at the version that it has got to.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use component_base::informer::Store;
use component_base::informer::sans_io::{
    Effect, Event, Input, ListRequest, Next, Page, Reflector, SourceError, Step, WatchFrom, When,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::{ClusterResourceScope, Metadata, Resource};
use kube_apiserver::storage::encoded::with_revision;
use kube_apiserver::storage::{EventType, name_of_key, namespace_of_key};
use rand::Rng;
use serde::Deserialize;

use super::connection::{Arrived, Connection};
use super::net::Net;
use super::read::{self, Ask, Asked, Exact, Interest};
use super::truth::HistoryId;
use super::view::View;

/// Of an object only what informers look at.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Seen {
    metadata: ObjectMeta,
}

impl Resource for Seen {
    const API_VERSION: &'static str = "v1";
    const GROUP: &'static str = "";
    const KIND: &'static str = "Seen";
    const VERSION: &'static str = "v1";
    const URL_PATH_SEGMENT: &'static str = "seen";
    type Scope = ClusterResourceScope;
}

impl Metadata for Seen {
    type Ty = ObjectMeta;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// As a client decodes what a server sends.
fn seen(value: &bytes::Bytes, revision: i64) -> Seen {
    serde_json::from_slice(&with_revision(value, revision)).unwrap()
}

/// The request under way.
enum Doing {
    Nothing,
    Asking(Ask),
    Watching(Box<Connection>),
}

pub(super) struct Informer {
    interest: Interest,
    reflector: Reflector<Seen>,
    store: Store<Seen>,
    next: Next,
    /// When the next request is made.
    at_ms: u64,
    server: usize,
    doing: Doing,
    /// The list whose pages are being read.
    listing: (HistoryId, i64),
    /// What the store is a state of, once it is one.
    version: Option<(HistoryId, i64)>,
    /// It was cut among the events of that version.
    half: bool,
}

impl Informer {
    pub(super) fn new(net: &mut Net, view: View) -> Self {
        let mut reflector = Reflector::new(|| 0.5);
        Self {
            interest: Interest::new(view),
            next: reflector.start(),
            reflector,
            store: Store::from_objects(Vec::new()),
            at_ms: net.now_ms,
            server: net.random_server(),
            doing: Doing::Nothing,
            listing: (0, 0),
            version: None,
            half: false,
        }
    }

    pub(super) fn step(&mut self, net: &mut Net) -> Result<()> {
        if net.now_ms < self.at_ms {
            return Ok(());
        }
        if let Some((history, revision)) = &mut self.version {
            *history = net.truth.rebase(*history, *revision);
        }
        match self.next.clone() {
            Next::List(request) => self.list(net, &request),
            Next::Watch(request) => match request.from {
                WatchFrom::InitialEvents => self.initial_events(net),
                WatchFrom::Version(version) => self.watch(net, version.parse().unwrap()),
            },
            Next::Read => self.read(net),
        }
    }

    /// Whether it holds the present state.
    pub(super) fn is_current(&self, net: &Net) -> bool {
        let at = self.version.is_some_and(|(history, revision)| {
            net.truth.agree(history, net.truth.current(), revision) && {
                let later = net.truth.seen(&self.interest.view, net.truth.current(), revision, i64::MAX);
                later.is_empty()
            }
        });
        at && !self.half && matches!(self.doing, Doing::Watching(_))
    }

    pub(super) fn describe(&self) -> String {
        format!("informer of {:?} at {:?}, next {:?}", self.interest.view, self.version, self.next)
    }

    fn list(&mut self, net: &mut Net, request: &ListRequest) -> Result<()> {
        let limit = request.limit.map_or(usize::MAX, |_| net.rng.random_range(1..6));
        let page = if let Some(token) = &request.continue_token {
            // Pages go on wherever the client is now.
            if net.rng.random_bool(0.3) {
                self.server = net.random_server();
            }
            match read::exact(net, &self.interest, self.server, self.listing, Some(token), limit)? {
                Exact::Page(page) => page,
                Exact::Expired => return self.failed(net, SourceError::Expired("compacted".to_owned())),
                Exact::Failed => return self.failed(net, refused(503)),
            }
        } else {
            let Some((snapshot, history)) = self.ask(net)? else { return Ok(()) };
            self.listing = (history, snapshot.revision);
            read::page(net, &self.interest, &snapshot, history, None, limit)?
        };
        let continue_token = if page.more { page.items.last().map(|(key, ..)| key.clone()) } else { None };
        let objects = page.items.iter().map(|(_, revision, value)| seen(value, *revision)).collect();
        let resource_version = self.listing.1.to_string();
        self.feed(net, Input::Page(Page { objects, resource_version, continue_token }))
    }

    /// The answer to a consistent read, once it is there.
    fn ask(
        &mut self,
        net: &mut Net,
    ) -> Result<Option<(kube_apiserver::storage::cache::Snapshot, HistoryId)>> {
        let ask = match std::mem::replace(&mut self.doing, Doing::Nothing) {
            Doing::Asking(ask) => ask,
            _ => Ask::begin(net, self.server),
        };
        match ask.poll(net, &self.interest)? {
            Asked::Pending(ask) => self.doing = Doing::Asking(ask),
            Asked::Failed => self.failed(net, refused(504))?,
            Asked::Fresh(snapshot, history) => return Ok(Some((snapshot, history))),
        }
        Ok(None)
    }

    fn initial_events(&mut self, net: &mut Net) -> Result<()> {
        if !net.servers[self.server].watch_list {
            return self.failed(net, refused(400));
        }
        let Some((snapshot, history)) = self.ask(net)? else { return Ok(()) };
        let page = read::page(net, &self.interest, &snapshot, history, None, usize::MAX)?;
        self.listing = (history, snapshot.revision);
        let opened = Connection::open(net, self.server, &self.interest, self.listing)?;
        let Some(connection) = opened else { return self.failed(net, expired()) };
        self.doing = Doing::Watching(Box::new(connection));
        for (_, revision, value) in &page.items {
            if net.disturbed && net.rng.random_bool(0.01) {
                return self.cut(net);
            }
            self.feed(net, Input::Event(Event::Added(seen(value, *revision))))?;
        }
        net.count("initial events");
        let resource_version = snapshot.revision.to_string();
        self.feed(net, Input::Event(Event::Bookmark { resource_version, initial_events_end: true }))
    }

    fn watch(&mut self, net: &mut Net, version: i64) -> Result<()> {
        let known = self.version.unwrap();
        // Of the version of its last event it asks for everything once more.
        let told =
            if self.half { version + 1 == known.1 } else { version == known.1 || version + 1 == known.1 };
        ensure!(told, "the reflector resumes from {version}, having got to {}", known.1);
        if net.is_ambiguous(known.0, known.1, self.server) {
            net.count("client restarted");
            return self.restart(net);
        }
        if !net.servers[self.server].caches.is_ready() {
            return self.failed(net, refused(503));
        }
        match Connection::open(net, self.server, &self.interest, (known.0, version))? {
            Some(connection) => {
                self.doing = Doing::Watching(Box::new(connection));
                self.next = Next::Read;
                Ok(())
            }
            None => self.failed(net, expired()),
        }
    }

    fn read(&mut self, net: &mut Net) -> Result<()> {
        let Doing::Watching(connection) = &mut self.doing else { return self.cut(net) };
        if net.disturbed && net.rng.random_bool(0.02) {
            return self.cut(net);
        }
        let most = net.rng.random_range(1..20);
        match connection.read(net, &self.interest, most)? {
            Arrived::Cut => self.cut(net),
            Arrived::Expired => self.feed(net, Input::Event(Event::Error(expired()))),
            Arrived::Ambiguous => self.restart(net),
            Arrived::Events { events, up_to, idle } => {
                let known = connection.known;
                let any = !events.is_empty();
                for told in events {
                    if net.disturbed && net.rng.random_bool(0.01) {
                        return self.cut(net);
                    }
                    self.version = Some((known.0, told.revision));
                    let object = seen(&told.value, told.revision);
                    let (namespace, name) = (namespace_of_key(&told.key), name_of_key(&told.key));
                    let meta = &object.metadata;
                    ensure!(
                        (meta.namespace.as_deref(), meta.name.as_deref()) == (Some(namespace), Some(name))
                    );
                    let event = match told.kind {
                        EventType::Added => Event::Added(object),
                        EventType::Modified => Event::Modified(object),
                        EventType::Deleted => Event::Deleted(object),
                    };
                    self.half = true;
                    self.feed(net, Input::Event(event))?;
                }
                self.half &= !any;
                if idle && up_to > self.version.unwrap().1 && net.rng.random_bool(0.3) {
                    (self.version, self.half) = (Some((known.0, up_to)), false);
                    let resource_version = up_to.to_string();
                    net.count("bookmark");
                    self.feed(
                        net,
                        Input::Event(Event::Bookmark { resource_version, initial_events_end: false }),
                    )?;
                }
                self.check_store(net)
            }
        }
    }

    fn cut(&mut self, net: &mut Net) -> Result<()> {
        let lived = match &self.doing {
            Doing::Watching(connection) => net.now_ms - connection.opened_ms,
            _ => 0,
        };
        net.count("informer cut");
        self.server = net.random_server();
        self.feed(net, Input::Closed(Duration::from_millis(lived)))
    }

    fn failed(&mut self, net: &mut Net, error: SourceError) -> Result<()> {
        self.server = net.random_server();
        self.feed(net, Input::Failed(error))
    }

    fn restart(&mut self, net: &mut Net) -> Result<()> {
        *self = Self::new(net, self.interest.view.clone());
        Ok(())
    }

    fn feed(&mut self, net: &mut Net, input: Input<Seen>) -> Result<()> {
        let Step { effect, next, when } = self.reflector.step(input);
        if let Some(effect) = effect {
            let whole = matches!(effect, Effect::Replace(_));
            self.store.apply(effect);
            if whole {
                self.replaced(net)?;
            }
        }
        if next != Next::Read {
            self.doing = Doing::Nothing;
        }
        self.next = next;
        self.at_ms = net.now_ms
            + match when {
                When::Now => 0,
                When::After(wait) => u64::try_from(wait.as_millis())?,
                When::AfterOutage => 800,
            };
        Ok(())
    }

    /// It has the whole state: as it was when the list was made, and no older than what it had before.
    fn replaced(&mut self, net: &mut Net) -> Result<()> {
        let (history, revision) = self.listing;
        self.half = false;
        if let Some((before, had)) = self.version.replace(self.listing)
            && history == net.truth.current()
            && net.truth.agree(before, history, had)
        {
            ensure!(revision >= had, "an informer goes back in time from {had} to {revision}");
        }
        net.count("informer has the state");
        self.check_store(net)
    }

    fn check_store(&self, net: &Net) -> Result<()> {
        let Some((history, revision)) = self.version.filter(|_| !self.half) else { return Ok(()) };
        let held: BTreeMap<String, String> = self
            .store
            .list()
            .iter()
            .map(|object| {
                let ObjectMeta { namespace, name, resource_version, .. } = object.metadata.clone();
                let key = format!("{}/{}", namespace.unwrap_or_default(), name.unwrap_or_default());
                (key, resource_version.unwrap_or_default())
            })
            .collect();
        let view = &self.interest.view;
        let state = net.truth.state(view, history, revision);
        let expected: BTreeMap<String, String> = state
            .map(|(key, held)| {
                let key = key.strip_prefix(&format!("/registry/{}/", view.resource)).unwrap_or(key);
                (key.to_owned(), held.revision.to_string())
            })
            .collect();
        ensure!(held == expected, "an informer of {view:?} at {revision} holds {held:?}, not {expected:?}");
        Ok(())
    }
}

fn refused(code: u16) -> SourceError {
    SourceError::Refused { code, message: String::new(), retry_after: Duration::ZERO }
}

fn expired() -> SourceError {
    SourceError::Expired("too old resource version".to_owned())
}
