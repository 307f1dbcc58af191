//! The reflector against a model server that loses connections, repeats events, forgets its history and changes
//! its objects all the while; every run is a seed.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use super::*;
use crate::informer::{Change, cache::Cache};

fn object(name: &str, version: u64) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            namespace: Some("ns".into()),
            name: Some(name.into()),
            uid: Some(format!("uid-{name}")),
            resource_version: Some(version.to_string()),
            ..ObjectMeta::default()
        },
        ..ConfigMap::default()
    }
}

fn version_of(object: &ConfigMap) -> u64 {
    object.metadata.resource_version.as_ref().unwrap().parse().unwrap()
}

fn disconnected() -> SourceError {
    SourceError::Disconnected(std::sync::Arc::new(crate::client::raw::RawError::Body("reset".into())))
}

#[derive(Clone)]
enum Kind {
    Added,
    Modified,
    Deleted,
}

/// A server with a history that can be forgotten, and the one connection of one client.
struct Server {
    version: u64,
    objects: BTreeMap<String, ConfigMap>,
    history: Vec<(u64, Kind, ConfigMap)>,
    forgotten: u64,
    has_initial_events: bool,
    snapshots: Vec<(u64, Vec<ConfigMap>)>,
    stream: Option<Stream>,
}

struct Stream {
    initial: Vec<ConfigMap>,
    end_of_initial: Option<u64>,
    after: u64,
}

impl Server {
    fn change(&mut self, random: &mut StdRng) {
        self.version += 1;
        let name = format!("o{}", random.random_range(0..8));
        let (kind, object) = match self.objects.remove(&name) {
            Some(mut old) if random.random_bool(0.5) => {
                old.metadata.resource_version = Some(self.version.to_string());
                (Kind::Deleted, old)
            }
            held => {
                let mut new = object(&name, self.version);
                new.metadata.uid =
                    held.as_ref().map_or(Some(format!("uid-{}", self.version)), |h| h.metadata.uid.clone());
                self.objects.insert(name, new.clone());
                (if held.is_some() { Kind::Modified } else { Kind::Added }, new)
            }
        };
        self.history.push((self.version, kind, object));
    }

    fn list(&mut self, request: &ListRequest) -> Input<ConfigMap> {
        let (version, offset) = match &request.continue_token {
            Some(token) => {
                let (version, offset) = token.split_once(':').unwrap();
                (version.parse().unwrap(), offset.parse().unwrap())
            }
            None => {
                self.snapshots.push((self.version, self.objects.values().cloned().collect()));
                (self.version, 0)
            }
        };
        if version < self.forgotten {
            return Input::Failed(SourceError::Expired("continue token is too old".into()));
        }
        let all = &self.snapshots.iter().find(|(of, _)| *of == version).unwrap().1;
        let end = match request.limit {
            // A server may give fewer than asked for.
            Some(_) => all.len().min(offset + 3),
            None => all.len(),
        };
        Input::Page(Page {
            objects: all[offset..end].to_vec(),
            resource_version: version.to_string(),
            continue_token: (end < all.len()).then(|| format!("{version}:{end}")),
        })
    }

    fn watch(&mut self, request: &WatchRequest) -> Option<Input<ConfigMap>> {
        self.stream = None;
        match &request.from {
            WatchFrom::InitialEvents if !self.has_initial_events => {
                return Some(Input::Failed(SourceError::from_status(422, "forbidden".into(), 0)));
            }
            WatchFrom::InitialEvents => {
                let initial = self.objects.values().cloned().collect();
                self.stream =
                    Some(Stream { initial, end_of_initial: Some(self.version), after: self.version });
            }
            WatchFrom::Version(version) => {
                let after = version.parse().unwrap();
                assert!(after > 0, "never from version 0");
                if after < self.forgotten {
                    return Some(Input::Failed(SourceError::Expired("too old resource version".into())));
                }
                self.stream = Some(Stream { initial: Vec::new(), end_of_initial: None, after });
            }
        }
        None
    }

    /// The next event of the stream; `None` when there is none now.
    fn read(&mut self, random: &mut StdRng, faults: bool) -> Option<Input<ConfigMap>> {
        let stream = self.stream.as_mut().expect("reads only an open stream");
        if let Some(object) = stream.initial.pop() {
            return Some(Input::Event(Event::Added(object)));
        }
        if let Some(version) = stream.end_of_initial.take() {
            let resource_version = version.to_string();
            return Some(Input::Event(Event::Bookmark { resource_version, initial_events_end: true }));
        }
        if stream.after < self.forgotten {
            return Some(Input::Event(Event::Error(SourceError::Expired("too slow".into()))));
        }
        if faults && random.random_bool(0.2) && stream.after > 0 {
            // An event sent twice.
            if let Some((_, kind, object)) =
                self.history.iter().rev().find(|(version, ..)| *version <= stream.after)
            {
                return Some(Input::Event(event(kind, object.clone())));
            }
        }
        let next = self.history.iter().find(|(version, ..)| *version > stream.after).cloned();
        match next {
            Some((version, kind, object)) => {
                stream.after = version;
                Some(Input::Event(event(&kind, object)))
            }
            None if random.random_bool(0.3) => {
                let resource_version = stream.after.to_string();
                Some(Input::Event(Event::Bookmark { resource_version, initial_events_end: false }))
            }
            None => None,
        }
    }
}

fn event(kind: &Kind, object: ConfigMap) -> Event<ConfigMap> {
    match kind {
        Kind::Added => Event::Added(object),
        Kind::Modified => Event::Modified(object),
        Kind::Deleted => Event::Deleted(object),
    }
}

fn fault(random: &mut StdRng) -> Input<ConfigMap> {
    match random.random_range(0..4) {
        0 => Input::Failed(disconnected()),
        1 => Input::Failed(SourceError::from_status(500, "etcd leader changed".into(), 0)),
        2 => Input::Closed(Duration::from_secs(5)),
        _ => Input::Event(Event::Error(SourceError::from_status(500, "internal".into(), 0))),
    }
}

/// Follows the changes as a subscriber would, and checks that each continues what was seen before.
#[derive(Default)]
struct Follower {
    seen: BTreeMap<String, (u64, Option<String>)>,
}

impl Follower {
    fn take(&mut self, change: &Change<ConfigMap>, seed: u64) {
        let name = change.key().name;
        let state = |object: &ConfigMap| (version_of(object), object.metadata.uid.clone());
        match change {
            Change::Added(new) => {
                assert_eq!(self.seen.insert(name, state(new)), None, "seed {seed}");
            }
            Change::Updated { old, new } => {
                assert_eq!(old.metadata.uid, new.metadata.uid, "seed {seed}");
                assert!(version_of(old) < version_of(new), "seed {seed}");
                assert_eq!(self.seen.insert(name, state(new)), Some(state(old)), "seed {seed}");
            }
            Change::Deleted(_) => assert!(self.seen.remove(&name).is_some(), "seed {seed}"),
        }
    }
}

fn simulate(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut server = Server {
        version: 1,
        objects: BTreeMap::new(),
        history: Vec::new(),
        forgotten: 0,
        has_initial_events: random.random_bool(0.5),
        snapshots: Vec::new(),
        stream: None,
    };
    let cache = Cache::<ConfigMap>::new(Vec::new());
    let mut changes = cache.subscribe();
    let mut follower = Follower::default();
    let mut reflector = Reflector::new(|| 0.5);
    let mut next = reflector.start();
    let mut turn = 0;
    loop {
        turn += 1;
        assert!(turn < 2000, "seed {seed}: does not settle");
        let faults = turn < 300;
        if faults {
            if random.random_bool(0.4) {
                server.change(&mut random);
            }
            if random.random_bool(0.03) {
                server.forgotten = server.version;
            }
        }
        let input = if faults && random.random_bool(0.1) {
            server.stream = None;
            fault(&mut random)
        } else {
            match &next {
                Next::List(request) => server.list(request),
                Next::Watch(request) => match server.watch(request) {
                    Some(refusal) => refusal,
                    None => match server.read(&mut random, faults) {
                        Some(input) => input,
                        None => {
                            // Open, and nothing to read yet.
                            next = Next::Read;
                            continue;
                        }
                    },
                },
                Next::Read => match server.read(&mut random, faults) {
                    Some(input) => input,
                    None if faults => continue,
                    None => break,
                },
            }
        };
        let step = reflector.step(input);
        match step.effect {
            Some(Effect::Replace(objects)) => cache.replace(objects),
            Some(Effect::Upsert(object)) => cache.upsert(object),
            Some(Effect::Delete(key, last)) => cache.delete(&key, last),
            None => {}
        }
        next = step.next;
        // A subscriber at its own pace.
        while random.random_bool(0.5) {
            let Some(change) = changes.try_recv() else { break };
            follower.take(&change, seed);
        }
    }
    while let Some(change) = changes.try_recv() {
        follower.take(&change, seed);
    }
    let want: BTreeMap<String, u64> =
        server.objects.iter().map(|(name, o)| (name.clone(), version_of(o))).collect();
    let held: BTreeMap<String, u64> = cache
        .read(|inner| inner.objects().iter().map(|(key, o)| (key.name.clone(), version_of(o))).collect());
    assert_eq!(held, want, "seed {seed}: store");
    let seen: BTreeMap<String, u64> =
        follower.seen.iter().map(|(name, (version, _))| (name.clone(), *version)).collect();
    assert_eq!(seen, want, "seed {seed}: changes");
}

#[test]
fn whatever_the_server_does_the_store_ends_up_right() {
    for seed in 0..500 {
        simulate(seed);
    }
}

fn watch_version(next: &Next) -> Option<&str> {
    match next {
        Next::Watch(WatchRequest { from: WatchFrom::Version(version), .. }) => Some(version),
        _ => None,
    }
}

/// A reflector that watches from version 10, having listed.
fn watching() -> Reflector<ConfigMap> {
    let mut reflector = Reflector::new(|| 0.0);
    reflector.start();
    let step = reflector.step(Input::Failed(SourceError::from_status(422, String::new(), 0)));
    assert_eq!(step.next, Next::List(ListRequest { limit: Some(500), continue_token: None }));
    let page = Page { objects: vec![object("a", 9)], resource_version: "10".into(), continue_token: None };
    let step = reflector.step(Input::Page(page));
    assert!(matches!(step.effect, Some(Effect::Replace(objects)) if objects.len() == 1));
    assert_eq!(watch_version(&step.next), Some("10"));
    reflector
}

#[test]
fn a_lost_watch_is_resumed_from_the_last_event_or_bookmark() {
    let mut reflector = watching();
    reflector.step(Input::Event(Event::Modified(object("a", 12))));
    reflector
        .step(Input::Event(Event::Bookmark { resource_version: "15".into(), initial_events_end: false }));
    // A repetition does not turn back.
    let step = reflector.step(Input::Event(Event::Modified(object("a", 12))));
    assert!(step.effect.is_none());
    let step = reflector.step(Input::Failed(disconnected()));
    assert_eq!((watch_version(&step.next), step.when), (Some("15"), When::AfterOutage));
    let step = reflector.step(Input::Closed(Duration::from_secs(400)));
    assert_eq!((watch_version(&step.next), step.when), (Some("15"), When::Now));
}

#[test]
fn objects_that_change_at_one_version_are_all_taken() {
    let mut reflector = watching();
    for name in ["a", "b"] {
        let step = reflector.step(Input::Event(Event::Added(object(name, 12))));
        assert!(matches!(step.effect, Some(Effect::Upsert(_))), "{name}");
    }
    // There may be a third, which the connection did not live to tell.
    let step = reflector.step(Input::Failed(disconnected()));
    assert_eq!(watch_version(&step.next), Some("11"));
    for name in ["a", "b", "c"] {
        reflector.step(Input::Event(Event::Added(object(name, 12))));
    }
    reflector
        .step(Input::Event(Event::Bookmark { resource_version: "12".into(), initial_events_end: false }));
    let step = reflector.step(Input::Failed(disconnected()));
    assert_eq!(watch_version(&step.next), Some("12"));
    let step = reflector.step(Input::Event(Event::Added(object("a", 11))));
    assert!(step.effect.is_none());
}

#[test]
fn a_watch_that_ends_at_once_is_not_hammered() {
    let mut reflector = watching();
    let mut waits = Vec::new();
    for _ in 0..3 {
        match reflector.step(Input::Closed(Duration::ZERO)).when {
            When::After(wait) => waits.push(wait.as_millis()),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(waits, [800, 1600, 3200]);
}

#[test]
fn expired_versions_lead_to_the_whole_state_and_not_to_a_loop() {
    let mut reflector = watching();
    reflector.step(Input::Event(Event::Modified(object("a", 12))));
    let expired = || Input::Event(Event::Error(SourceError::Expired("too old".into())));
    let step = reflector.step(expired());
    assert_eq!(
        (step.next, step.when),
        (Next::List(ListRequest { limit: Some(500), continue_token: None }), When::Now)
    );
    let page = Page { objects: vec![], resource_version: "20".into(), continue_token: None };
    reflector.step(Input::Page(page));
    assert!(
        matches!(reflector.step(expired()).when, When::After(_)),
        "the second time without an event between"
    );
}

#[test]
fn an_expired_continue_token_leads_to_one_whole_list() {
    let mut reflector = watching();
    reflector.step(Input::Event(Event::Error(SourceError::Expired(String::new()))));
    let page = Page {
        objects: vec![object("a", 1)],
        resource_version: "20".into(),
        continue_token: Some("t".into()),
    };
    let step = reflector.step(Input::Page(page));
    assert_eq!(step.next, Next::List(ListRequest { limit: Some(500), continue_token: Some("t".into()) }));
    let step = reflector.step(Input::Failed(SourceError::Expired(String::new())));
    assert_eq!(step.next, Next::List(ListRequest { limit: None, continue_token: None }));
    let page = Page { objects: vec![object("b", 2)], resource_version: "21".into(), continue_token: None };
    match reflector.step(Input::Page(page)).effect {
        Some(Effect::Replace(objects)) => {
            assert_eq!(objects.len(), 1, "nothing of the first attempt is left")
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn refusals_that_are_not_about_initial_events_keep_them() {
    for (code, lists) in [(422, true), (400, true), (403, false), (404, false), (429, false), (500, false)] {
        let mut reflector = Reflector::<ConfigMap>::new(|| 0.0);
        reflector.start();
        let step = reflector.step(Input::Failed(SourceError::from_status(code, String::new(), 0)));
        assert_eq!(matches!(step.next, Next::List(_)), lists, "{code}");
        assert_eq!(step.when == When::Now, lists, "{code}");
    }
}

#[test]
fn a_server_that_says_when_to_come_again_is_heard() {
    for (seconds, want) in [(0, 800), (5, 5_000), (3_600, 30_000)] {
        let mut reflector = watching();
        let refusal = SourceError::from_status(429, String::new(), seconds);
        let step = reflector.step(Input::Event(Event::Error(refusal)));
        assert_eq!(step.when, When::After(Duration::from_millis(want)), "{seconds} s");
    }
}

#[test]
fn malformed_objects_move_the_version_and_can_be_deleted() {
    let mut reflector = watching();
    let step =
        reflector.step(Input::Event(Event::Malformed { resource_version: Some("13".into()), deleted: None }));
    assert!(step.effect.is_none());
    let deleted = Some(ObjectKey::new("ns", "a"));
    let step =
        reflector.step(Input::Event(Event::Malformed { resource_version: Some("14".into()), deleted }));
    assert!(matches!(step.effect, Some(Effect::Delete(..))));
    assert_eq!(watch_version(&reflector.step(Input::Failed(disconnected())).next), Some("13"));
}
