//! A client: one request after the other, each to a server by chance, each recorded with its outcome.

use super::connection::Answer;
use super::mix::{Fresh, Step, step};
use super::objects::{self, Mark, SHADES};
use super::{Connection, Shared, outcome};
use crate::history::{
    Action, Freshness, Item, Key, List, Listed, Operation, Outcome, Record, Scope, Shown, version_of,
};
use anyhow::Result;
use http::Method;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long a client waits for an answer. Faults last about as long.
const PATIENCE: Duration = Duration::from_secs(5);
/// After a failed connection.
const PAUSE: Duration = Duration::from_millis(50);

/// See the module.
#[derive(Debug)]
pub struct Client {
    pub(super) number: u32,
    pub(super) shared: Shared,
    pub(super) server: usize,
    random: StdRng,
    connections: HashMap<usize, Connection>,
    /// Objects as last shown.
    known: HashMap<Key, Value>,
    writes: u64,
}

impl Client {
    pub fn new(number: u32, seed: u64, shared: Shared) -> Client {
        Client {
            number,
            shared,
            server: 0,
            random: StdRng::seed_from_u64(seed.wrapping_mul(1_000).wrapping_add(u64::from(number))),
            connections: HashMap::new(),
            known: HashMap::new(),
            writes: 0,
        }
    }

    /// Works until told to stop.
    pub async fn run(mut self) {
        while !self.shared.stop.is_cancelled() {
            self.server = self.random.random_range(0..self.shared.target.servers());
            match step(&mut self.random) {
                Step::Get(key, fresh) => self.get(key, fresh).await,
                Step::List(scope, fresh) => self.list(&scope, fresh).await,
                Step::Pages(scope) => self.pages(&scope).await,
                Step::Put(key) => self.put(key).await,
                Step::Patch(key) => self.patch(key).await,
                Step::Delete(key) => self.delete(key).await,
            }
        }
    }

    /// Asks the chosen server; `None` if there is no connection, so that nothing was asked.
    pub(super) async fn ask(
        &mut self,
        method: Method,
        path: &str,
        media_type: Option<&str>,
        body: Option<&Value>,
    ) -> Option<Result<Answer>> {
        let mut connection = match self.connections.remove(&self.server) {
            Some(connection) => connection,
            None => match self.shared.target.connect(self.server).await {
                Ok(connection) => connection,
                Err(_) => {
                    tokio::time::sleep(PAUSE).await;
                    return None;
                }
            },
        };
        let answer = connection.ask(PATIENCE, method, path, media_type, body).await;
        if answer.is_ok() {
            self.connections.insert(self.server, connection);
        }
        Some(answer)
    }

    fn freshness(&self, fresh: Fresh) -> Freshness {
        let seen = self.shared.seen.load(Ordering::Relaxed);
        match fresh {
            Fresh::NotOlder if seen > 0 => Freshness::NotOlderThan(seen),
            Fresh::Exact if seen > 0 => Freshness::Exact(seen),
            Fresh::Any => Freshness::Any,
            _ => Freshness::Consistent,
        }
    }

    fn mark(&mut self) -> Mark {
        self.writes += 1;
        let shade = *SHADES.choose(&mut self.random).expect("there are shades");
        Mark { write: format!("c{}-{}", self.number, self.writes), slot: format!("c{}", self.number), shade }
    }

    async fn get(&mut self, key: Key, fresh: Fresh) {
        let freshness = self.freshness(fresh);
        let query = match freshness {
            Freshness::Consistent => String::new(),
            Freshness::Any => "?resourceVersion=0".to_owned(),
            Freshness::NotOlderThan(revision) | Freshness::Exact(revision) => {
                format!("?resourceVersion={revision}")
            }
        };
        let path = format!("{}{query}", object_path(&key));
        self.operate(Action::Get(freshness), key, String::new(), (Method::GET, &path, None, None)).await;
    }

    /// Updates what it knows, which may be out of date, or else creates.
    async fn put(&mut self, key: Key) {
        let mark = self.mark();
        match self.known.get(&key).cloned() {
            Some(mut object) => {
                let version = object["metadata"]["resourceVersion"].as_str().unwrap_or_default();
                let Ok(expected) = version.parse() else { return };
                objects::stamp(&mut object, &mark);
                let request = (Method::PUT, &*object_path(&key), Some(JSON), Some(&object));
                self.operate(Action::Update { expected }, key, mark.write, request).await;
            }
            None => {
                let object = objects::new(&key, &mark);
                let path = objects::collection(key.resource, Some(&key.namespace));
                let request = (Method::POST, &*path, Some(JSON), Some(&object));
                self.operate(Action::Create, key, mark.write, request).await;
            }
        }
    }

    async fn patch(&mut self, key: Key) {
        let mark = self.mark();
        let patch = objects::patch(&mark);
        let path = object_path(&key);
        let request = (Method::PATCH, &*path, Some("application/merge-patch+json"), Some(&patch));
        self.operate(Action::Patch, key, mark.write, request).await;
    }

    async fn delete(&mut self, key: Key) {
        let path = object_path(&key);
        self.operate(Action::Delete, key, String::new(), (Method::DELETE, &path, None, None)).await;
    }

    async fn operate(
        &mut self,
        action: Action,
        key: Key,
        write: String,
        (method, path, media_type, body): (Method, &str, Option<&str>, Option<&Value>),
    ) {
        let call = self.shared.recorder.now();
        let Some(answer) = self.ask(method, path, media_type, body).await else { return };
        let outcome = outcome(&answer, |body| shown(&action, body));
        self.learn(&action, &key, answer.ok(), &outcome);
        let operation = Operation {
            client: self.number,
            server: self.server,
            action,
            key,
            write,
            call,
            answer: self.shared.recorder.now(),
            outcome,
        };
        self.shared.recorder.record(&Record::Operation(operation));
    }

    fn learn(&mut self, action: &Action, key: &Key, answer: Option<Answer>, outcome: &Outcome<Shown>) {
        match (action, outcome, answer) {
            (Action::Delete, Outcome::Done(_), _) | (_, Outcome::Refused { .. }, _) => {
                self.known.remove(key);
            }
            (_, Outcome::Done(Shown::Version(version)), Some(answer)) => {
                self.shared.seen.fetch_max(version.revision, Ordering::Relaxed);
                self.known.insert(key.clone(), answer.body);
            }
            // Unknown: what it knows may be out of date, which makes a good compare-and-set.
            _ => {}
        }
    }

    async fn list(&mut self, scope: &Scope, fresh: Fresh) {
        let freshness = self.freshness(fresh);
        let query = match freshness {
            Freshness::Consistent => String::new(),
            Freshness::Any => "resourceVersion=0".to_owned(),
            Freshness::NotOlderThan(revision) => {
                format!("resourceVersion={revision}&resourceVersionMatch=NotOlderThan")
            }
            Freshness::Exact(revision) => format!("resourceVersion={revision}&resourceVersionMatch=Exact"),
        };
        let call = self.shared.recorder.now();
        let path = format!("{}{query}", objects::path(scope));
        let Some(answer) = self.ask(Method::GET, &path, None, None).await else { return };
        self.shared.recorder.record(&Record::List(List {
            client: self.number,
            server: self.server,
            scope: scope.clone(),
            freshness,
            page: None,
            call,
            answer: self.shared.recorder.now(),
            outcome: outcome(&answer, listed),
        }));
    }
}

pub(super) const JSON: &str = "application/json";

pub(super) fn object_path(key: &Key) -> String {
    format!("{}/{}", objects::collection(key.resource, Some(&key.namespace)), key.name)
}

pub(super) fn shown(action: &Action, body: &Value) -> Option<Shown> {
    if *action == Action::Delete && body["kind"] == "Status" {
        return Some(Shown::Deleted { uid: body["details"]["uid"].as_str()?.to_owned() });
    }
    version_of(body, None).map(Shown::Version)
}

/// What a list shows; `None` if it is none.
pub(super) fn listed(body: &Value) -> Option<Listed> {
    let items = body["items"].as_array()?.iter().map(item).collect::<Option<Vec<Item>>>()?;
    let metadata = &body["metadata"];
    Some(Listed {
        revision: metadata["resourceVersion"].as_str()?.parse().ok()?,
        items,
        more: metadata["continue"].as_str().is_some_and(|token| !token.is_empty()),
    })
}

/// An object of a list or of an event.
pub(super) fn item(object: &Value) -> Option<Item> {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    Some(Item { namespace: text("namespace"), name: text("name"), version: version_of(object, None)? })
}
