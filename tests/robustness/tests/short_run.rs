//! Every kind of fault once, in half a minute.

use robustness::report::{self, Report};
use robustness::run::{self, Options};
use robustness::{checker, history};
use std::time::Duration;

/// Kinds of faults in `robustness::faults::Fault`.
const KINDS: usize = 16;
/// So little that a loaded machine of two cores gives it, and so much that there is something to see.
const MIN_RATE: f64 = 20.0;

#[test]
fn promises_hold_while_things_break() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        apiserver: crate::apiserver(),
        seed: 1,
        servers: 2,
        etcd_members: 3,
        clients: 6,
        calm: Duration::from_secs(3),
        faults: Duration::from_secs(12),
        pace: (200, 800),
        only: Vec::new(),
        history: dir.path().join("history.jsonl"),
    };
    let setup = crate::alone(Box::pin(run::run(&options))).unwrap();
    let records = history::read(&options.history).unwrap();
    let report = Report::of(&records);
    let violations = checker::check(&records).unwrap();
    println!("{report}{}", report::violations(&violations));
    if !violations.is_empty() {
        setup.copy_logs(dir.path()).unwrap();
        panic!("violations; history and logs are in {}", dir.keep().display());
    }
    assert_eq!(report.fault_kinds(), KINDS, "not every kind of fault was done");
    assert!(report.calm_rate() > MIN_RATE, "{:.0} requests a second prove nothing", report.calm_rate());
}
