//! The watch cache under a seeded simulation: two servers' caches over a model etcd, their clients, and what goes wrong
//! between them, in one thread without a clock. Every answer is checked against what really happened.
//!
//! What must hold: a consistent list is of no earlier moment than its question, every list is exactly the state at its
//! revision, a watch tells every event that it sees once and in order whichever server goes on with it, a bookmark
//! promises no more than has been told, 410 only comes where history is gone, and when the faults end everybody gets to
//! know the present state. Upstream: `etcd:tests/robustness`, `apiserver/pkg/storage/cacher`.
//!
//! `KEELSON_SEEDS=100000` runs more worlds than usual, `KEELSON_SEED=7` one of them; a failure says its seed.
//!
//! What nobody can tell from revisions alone is left out: an etcd that was restored from a backup without bumping its
//! revision and has come up to what a server or client has seen, or is beyond that from the start; and a watch that is cut in the middle of a revision,
//! from which no client can resume.

mod connection;
mod informer;
mod net;
mod read;
mod readers;
mod server;
mod truth;
mod view;
mod world;
mod writer;

use net::Counts;
use world::{Failure, run};

/// A mistake made on purpose, to see that it is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bug {
    DropsAnEvent,
    RepeatsAnEvent,
    ReopensLate,
    OverlooksCompaction,
    OverlooksARestore,
    LoadsAnotherRevision,
    AnswersWithoutWaiting,
    MarksAhead,
}

const BUGS: [Bug; 8] = [
    Bug::DropsAnEvent,
    Bug::RepeatsAnEvent,
    Bug::ReopensLate,
    Bug::OverlooksCompaction,
    Bug::OverlooksARestore,
    Bug::LoadsAnotherRevision,
    Bug::AnswersWithoutWaiting,
    Bug::MarksAhead,
];

/// What must have happened in the usual run, and how often at least, or it proves nothing.
const HAPPENINGS: [(&str, u64); 17] = [
    ("written", 5_000),
    ("event", 5_000),
    ("bookmark", 200),
    ("consistent read waited", 1_000),
    ("consistent read", 1_000),
    ("exact list from the cache", 500),
    ("exact list from etcd", 50),
    ("exact list expired", 50),
    ("further page", 200),
    ("informer has the state", 200),
    ("informer cut", 100),
    ("watch refused as too old", 20),
    ("watch ended by a load", 100),
    ("another history", 20),
    ("feed compacted", 50),
    ("restored, bumped", 20),
    ("server restarted", 50),
];

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

fn check(seed: u64) -> Counts {
    // Notes cost time, so a world that fails is lived again with them.
    match run(seed, None, false) {
        Ok((counts, _)) => counts,
        Err(_) => {
            let Err(Failure { error, trace }) = run(seed, None, true) else {
                panic!("seed {seed} failed and, lived again, did not");
            };
            let last = trace[trace.len().saturating_sub(60)..].join("\n");
            panic!("{last}\nKEELSON_SEED={seed}: {error:#}");
        }
    }
}

#[test]
fn no_fault_makes_an_answer_wrong() {
    let single = number("KEELSON_SEED");
    let seeds = match single {
        Some(seed) => seed..seed + 1,
        None => 0..number("KEELSON_SEEDS").unwrap_or(200),
    };
    let mut counts = Counts::new();
    for seed in seeds {
        for (what, count) in check(seed) {
            *counts.entry(what).or_default() += count;
        }
    }
    if std::env::var_os("KEELSON_COUNTS").is_some() {
        eprintln!("{counts:#?}");
    }
    for (what, least) in HAPPENINGS.iter().filter(|_| single.is_none()) {
        let count = counts.get(what).copied().unwrap_or(0);
        assert!(count >= *least, "{what}: {count} times only, the run proves nothing: {counts:#?}");
    }
}

#[test]
fn mistakes_are_found() {
    for bug in BUGS {
        let found =
            (0..200).find_map(|seed| run(seed, Some(bug), false).err().map(|failure| (seed, failure)));
        let (seed, failure) = found.unwrap_or_else(|| panic!("{bug:?} is not found"));
        eprintln!("{bug:?}: seed {seed}: {:#}", failure.error);
    }
}

#[test]
fn a_seed_makes_the_same_world() {
    for seed in [3, 4] {
        let trace = |seed| run(seed, None, true).map(|(_, trace)| trace).unwrap();
        assert_eq!(trace(seed), trace(seed));
    }
}
