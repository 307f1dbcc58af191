//! Runs the cluster tests and reports as cargo's own runner does, with one difference: without a cluster every test is
//! reported as ignored, never as passed.

use crate::cluster::Cluster;
use anyhow::Result;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// A test of the whole on a real cluster.
pub type Test = fn(&Cluster) -> Result<()>;

/// The tests of a run.
#[derive(Debug, Default)]
pub struct Suite {
    together: Vec<(&'static str, Test)>,
    alone: Vec<(&'static str, Test)>,
}

impl Suite {
    /// A suite without tests.
    pub fn new() -> Suite {
        Suite::default()
    }

    /// Adds a test that runs beside others, in a namespace of its own.
    #[must_use]
    pub fn test(mut self, name: &'static str, test: Test) -> Suite {
        self.together.push((name, test));
        self
    }

    /// Adds a test that has the cluster for itself, after all the others.
    #[must_use]
    pub fn alone(mut self, name: &'static str, test: Test) -> Suite {
        self.alone.push((name, test));
        self
    }

    /// Runs the tests that the command line names, or all.
    pub fn run(self) -> ExitCode {
        let words: Vec<String> = std::env::args().skip(1).collect();
        let filters: Vec<&String> = words.iter().filter(|word| !word.starts_with('-')).collect();
        let wanted =
            |name: &str| filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()));
        let select = |list: Vec<(&'static str, Test)>| -> VecDeque<(&'static str, Test)> {
            list.into_iter().filter(|(name, _)| wanted(name)).collect()
        };
        let (together, alone) = (select(self.together), select(self.alone));
        let all = together.len() + alone.len();
        if words.iter().any(|word| word == "--list") {
            for (name, _) in together.iter().chain(&alone) {
                println!("{name}: test");
            }
            return ExitCode::SUCCESS;
        }
        println!("\nrunning {all} tests");
        let begun = Instant::now();
        let Some(cluster) = Cluster::from_env() else {
            for (name, _) in together.iter().chain(&alone) {
                println!(
                    "test {name} ... ignored, no cluster: `cargo xtask test --only cluster` brings one up"
                );
            }
            println!("\ntest result: ok. 0 passed; 0 failed; {all} ignored; 0 measured; 0 filtered out");
            return ExitCode::SUCCESS;
        };
        let failures = Mutex::new(Vec::new());
        for (queue, workers) in [(together, 3), (alone, 1)] {
            let queue = Mutex::new(queue);
            std::thread::scope(|scope| {
                for _ in 0..workers {
                    scope.spawn(|| work(&queue, &cluster, &failures));
                }
            });
        }
        let failures = failures.into_inner().unwrap_or_default();
        if !failures.is_empty() {
            println!("\nfailures:");
            for (name, why) in &failures {
                println!("\n---- {name} ----\n{why}");
            }
        }
        println!(
            "\ntest result: {}. {} passed; {} failed; 0 ignored; 0 measured; 0 filtered out; finished in {:.1}s",
            if failures.is_empty() { "ok" } else { "FAILED" },
            all - failures.len(),
            failures.len(),
            begun.elapsed().as_secs_f64()
        );
        if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(101) }
    }
}

fn work(
    queue: &Mutex<VecDeque<(&'static str, Test)>>,
    cluster: &Cluster,
    failures: &Mutex<Vec<(&'static str, String)>>,
) {
    loop {
        let Some((name, test)) = queue.lock().ok().and_then(|mut queue| queue.pop_front()) else { return };
        let begun = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(|| test(cluster)));
        let why = match result {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(format!("{error:#}")),
            Err(panic) => Some(
                panic
                    .downcast_ref::<String>()
                    .cloned()
                    .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
                    .unwrap_or_else(|| "panicked".to_owned()),
            ),
        };
        println!(
            "test {name} ... {} <{}>",
            if why.is_none() { "ok" } else { "FAILED" },
            seconds(begun.elapsed())
        );
        if let (Some(why), Ok(mut failures)) = (why, failures.lock()) {
            failures.push((name, why));
        }
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.1}s", time.as_secs_f64())
}
