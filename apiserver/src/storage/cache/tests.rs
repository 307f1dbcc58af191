//! The caches against a plain model: a log of all changes, from which every answer can be worked out.

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::registry::all::all;
use crate::storage::event::EventType;
use crate::storage::{Delivered, Watch};

const PODS: &str = "/registry/pods/";

/// A pod's key, node and label.
type Pod = (String, String, String);

fn json((key, node, label): &Pod) -> Bytes {
    let (namespace, name) = (crate::storage::namespace_of_key(key), crate::storage::name_of_key(key));
    Bytes::from(format!(
        r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"{name}","namespace":"{namespace}","labels":{{"l":"{label}"}}}},"spec":{{"nodeName":"{node}","containers":[]}}}}"#
    ))
}

/// What a watch is of.
#[derive(Debug, Clone)]
struct View {
    prefix: String,
    labels: &'static str,
    fields: &'static str,
}

impl View {
    fn random(random: &mut SmallRng) -> Self {
        let pick = |random: &mut SmallRng, from: &[&'static str]| from[random.random_range(0..from.len())];
        Self {
            prefix: pick(random, &[PODS, "/registry/pods/a/", "/registry/pods/b/"]).to_owned(),
            labels: pick(random, &["", "", "l=0", "l!=1", "l in (1,2)", "!l"]),
            fields: pick(
                random,
                &[
                    "",
                    "",
                    "spec.nodeName=n1",
                    "spec.nodeName!=n1",
                    "metadata.name=p1",
                    "spec.nodeName=n2,metadata.name=p2",
                ],
            ),
        }
    }

    fn selection(&self, resources: &Resources) -> Selection {
        let resource = resources.get("", "v1", "pods").unwrap();
        Selection::of(resource, Some(self.labels), Some(self.fields)).unwrap()
    }

    fn sees(&self, (key, node, label): &Pod) -> bool {
        let name = crate::storage::name_of_key(key);
        let labels = match self.labels {
            "l=0" => label == "0",
            "l!=1" => label != "1",
            "l in (1,2)" => label == "1" || label == "2",
            "!l" => false,
            _ => true,
        };
        let fields = match self.fields {
            "spec.nodeName=n1" => node == "n1",
            "spec.nodeName!=n1" => node != "n1",
            "metadata.name=p1" => name == "p1",
            "spec.nodeName=n2,metadata.name=p2" => node == "n2" && name == "p2",
            _ => true,
        };
        key.starts_with(&self.prefix) && labels && fields
    }
}

/// Pods by key, with the revision of their last change.
type State = BTreeMap<String, (Pod, i64)>;

/// What a watch told: revision, type and key of each event.
type Told = Vec<(i64, EventType, String)>;

/// The model: what happened, and the state after each revision.
#[derive(Default)]
struct Log {
    changes: Vec<(i64, String, Option<Pod>, Option<Pod>)>,
    states: Vec<(i64, State)>,
}

impl Log {
    fn state_at(&self, revision: i64) -> State {
        let after = self.states.partition_point(|(at, _)| *at <= revision);
        after.checked_sub(1).map(|at| self.states[at].1.clone()).unwrap_or_default()
    }

    fn seen(&self, view: &View, after: i64) -> Told {
        let later = self.changes.iter().filter(|(revision, ..)| *revision > after);
        let seen = later.filter_map(|(revision, key, old, new)| {
            let sees = |pod: &Option<Pod>| pod.as_ref().is_some_and(|pod| view.sees(pod));
            Some((*revision, EventType::classify(sees(old), sees(new))?, key.clone()))
        });
        seen.collect()
    }
}

fn drain(watch: &mut CachedWatch) -> Told {
    let mut told = Vec::new();
    loop {
        // Ready at once or not at all: nothing else runs.
        let next = futures::FutureExt::now_or_never(Box::pin(watch.next()));
        let Some(delivered) = next else { return told };
        let Delivered { kind, event } = delivered.unwrap();
        told.push((event.revision, kind, event.key().to_owned()));
    }
}

struct Program {
    random: SmallRng,
    resources: Resources,
    caches: Caches,
    log: Log,
    state: State,
    revision: i64,
}

impl Program {
    fn new(seed: u64) -> Self {
        let resources = Resources::new(all());
        let caches = Caches::new(&resources, "/registry");
        caches.load(Vec::new(), 1);
        let random = SmallRng::seed_from_u64(seed);
        Self { random, resources, caches, log: Log::default(), state: BTreeMap::new(), revision: 1 }
    }

    /// A few revisions of changes, some of them of other resources and of keys that are nobody's.
    fn step(&mut self) {
        let mut changes = Vec::new();
        for _ in 0..self.random.random_range(1..6) {
            self.revision += 1;
            let mut keys = BTreeSet::new();
            for _ in 0..self.random.random_range(0..4) {
                let namespace = ["a", "b"][self.random.random_range(0..2)];
                keys.insert(format!("{PODS}{namespace}/p{}", self.random.random_range(0..8)));
            }
            for key in keys {
                changes.extend(self.change(key));
            }
            self.log.states.push((self.revision, self.state.clone()));
            let other = if self.random.random_bool(0.5) { "/registry/configmaps/a/c" } else { "elsewhere" };
            changes.push(Change {
                key: other.to_owned(),
                value: Some(json(&Pod::default())),
                revision: self.revision,
            });
        }
        self.caches.apply(changes);
    }

    fn change(&mut self, key: String) -> Option<Change> {
        let old = self.state.get(&key).map(|(pod, _)| pod.clone());
        let new = self.random.random_bool(0.7).then(|| {
            let node = format!("n{}", self.random.random_range(0..4));
            (key.clone(), node, self.random.random_range(0..3).to_string())
        });
        match &new {
            Some(pod) => drop(self.state.insert(key.clone(), (pod.clone(), self.revision))),
            None if old.is_none() => return None,
            None => drop(self.state.remove(&key)),
        }
        self.log.changes.push((self.revision, key.clone(), old, new.clone()));
        Some(Change { key, value: new.as_ref().map(json), revision: self.revision })
    }

    fn check_snapshot(&mut self) {
        let view = View::random(&mut self.random);
        let revision = self.random.random_range(1..=self.revision);
        let snapshot = self.caches.snapshot_at(PODS, revision).unwrap().expect("the history is short");
        let state = self.log.state_at(revision);
        let wanted: Vec<(String, i64)> = state
            .iter()
            .filter(|(_, (pod, _))| view.sees(pod))
            .map(|(key, (_, revision))| (key.clone(), *revision))
            .collect();
        let selection = view.selection(&self.resources);
        let start_after = wanted.get(self.random.random_range(0..4)).map(|(key, _)| key.clone());
        let found: Vec<(String, i64)> = snapshot
            .scan(&view.prefix, start_after.as_deref(), &selection)
            .map(|stored| (stored.key.to_string(), stored.revision))
            .collect();
        let skipped = wanted.iter().take_while(|(key, _)| Some(key) <= start_after.as_ref()).count();
        assert_eq!(found, wanted[skipped..], "{view:?} at {revision} after {start_after:?}");
        if let Some(after) = &start_after {
            let left = state.keys().filter(|key| key.starts_with(&view.prefix) && *key > after).count();
            assert_eq!(snapshot.count_after(&view.prefix, after), left);
        }
    }
}

#[test]
fn watches_and_lists_tell_what_happened() {
    for seed in 0..60 {
        let mut program = Program::new(seed);
        let mut watches: Vec<(View, i64, CachedWatch, Told)> = Vec::new();
        for _ in 0..60 {
            program.step();
            if program.random.random_bool(0.4) {
                let view = View::random(&mut program.random);
                let after = program.random.random_range(1..=program.revision + 3);
                let selection = view.selection(&program.resources);
                let watch = program.caches.watch(&view.prefix, &selection, after).unwrap().unwrap();
                watches.push((view, after, watch, Vec::new()));
            }
            program.check_snapshot();
            for (_, _, watch, told) in &mut watches {
                // Some read now, some later: a place in the group must do for both.
                if program.random.random_bool(0.5) {
                    told.extend(drain(watch));
                    let reached = program.caches.revision();
                    assert!(watch.revision() >= reached, "all has been told up to {reached}");
                }
            }
            if watches.len() > 6 {
                watches.swap_remove(0);
            }
        }
        for (view, after, mut watch, mut told) in watches {
            told.extend(drain(&mut watch));
            assert_eq!(told, program.log.seen(&view, after), "seed {seed}: {view:?} after {after}");
        }
    }
}

#[test]
fn a_load_ends_watches_and_starts_a_new_history() {
    let mut program = Program::new(1);
    program.step();
    let everything = Selection::everything();
    let mut watch = program.caches.watch(PODS, &everything, program.revision).unwrap().unwrap();
    let pod: Pod = (format!("{PODS}a/p1"), "n1".to_owned(), "0".to_owned());
    program.caches.load(vec![Stored::new(pod.0.as_str(), json(&pod), 40)], 50);
    let ended = futures::FutureExt::now_or_never(Box::pin(watch.next()));
    assert!(matches!(ended, Some(Err(StorageError::TooSlow { .. }))), "{ended:?}");
    assert_eq!(program.caches.revision(), 50);
    assert_eq!(program.caches.get(&pod.0).map(|stored| stored.revision), Some(40));
    assert!(matches!(
        program.caches.watch(PODS, &everything, 49),
        Some(Err(StorageError::TooOld { asked: 49, oldest: 50 }))
    ));
    assert!(program.caches.watch(PODS, &everything, 50).unwrap().is_ok());
    assert!(program.caches.snapshot_at(PODS, 49).unwrap().is_none());
    assert!(program.caches.watch("/registry/unknown/", &everything, 50).is_none());
}

#[test]
fn who_falls_behind_the_history_is_told_so_and_costs_nothing() {
    let program = Program::new(2);
    let big = "x".repeat(1 << 20);
    let change = |revision: i64| Change {
        key: "/registry/configmaps/a/c".to_owned(),
        value: Some(Bytes::from(format!(r#"{{"metadata":{{"name":"c"}},"data":{{"k":"{big}"}}}}"#))),
        revision,
    };
    let everything = Selection::everything();
    let open = || program.caches.watch("/registry/configmaps/", &everything, 1).unwrap().unwrap();
    let (mut quick, slow) = (open(), open());
    for revision in 2..40 {
        program.caches.apply(vec![change(revision)]);
        assert_eq!(drain(&mut quick).len(), 1);
    }
    let mut slow = Watch::Cached(slow);
    let ended = futures::FutureExt::now_or_never(Box::pin(slow.next()));
    assert!(matches!(ended, Some(Err(StorageError::TooSlow { told: 1, .. }))), "{ended:?}");
}

#[test]
fn compaction_refuses_lists_of_the_past() {
    let mut program = Program::new(3);
    for _ in 0..5 {
        program.step();
    }
    let now = program.revision + 1;
    let compacted = Change { key: COMPACT_REV_KEY.to_owned(), value: Some(Bytes::from("4")), revision: now };
    program.caches.apply(vec![compacted]);
    assert!(matches!(program.caches.snapshot_at(PODS, 3), Err(StorageError::Compacted)));
    assert!(program.caches.snapshot_at(PODS, 4).unwrap().is_some());
    assert_eq!(program.caches.revision(), now);
}

#[test]
fn what_was_compacted_in_a_lost_history_means_nothing() {
    let program = Program::new(4);
    let change = |key: &str, value: &str, revision: i64| Change {
        key: key.to_owned(),
        value: Some(Bytes::from(value.to_owned())),
        revision,
    };
    program.caches.apply(vec![change(COMPACT_REV_KEY, "90", 100)]);
    // A backup of before is restored.
    program.caches.load(Vec::new(), 50);
    program.caches.apply(vec![change("/registry/configmaps/a/c", r#"{"metadata":{"name":"c"}}"#, 51)]);
    assert!(program.caches.snapshot_at(PODS, 51).unwrap().is_some());
    assert!(program.caches.snapshot_at(PODS, 49).unwrap().is_none());
}

#[test]
fn a_watch_names_no_revision_that_it_has_told_in_part() {
    let program = Program::new(5);
    let change = |name: &str, revision: i64| Change {
        key: format!("/registry/configmaps/a/{name}"),
        value: Some(Bytes::from(format!(r#"{{"metadata":{{"name":"{name}"}}}}"#))),
        revision,
    };
    let everything = Selection::everything();
    let mut watch = program.caches.watch("/registry/configmaps/", &everything, 1).unwrap().unwrap();
    program.caches.apply(vec![change("a", 10), change("b", 10), change("c", 11), change("d", 11)]);
    let told: Vec<(i64, i64)> = (0..4)
        .map(|_| {
            let next = futures::FutureExt::now_or_never(Box::pin(watch.next())).unwrap().unwrap();
            (next.event.revision, watch.revision())
        })
        .collect();
    assert_eq!(told, [(10, 1), (10, 10), (11, 10), (11, 11)]);
}
