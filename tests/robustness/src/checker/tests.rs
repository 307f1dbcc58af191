//! Hand-made histories: a good one that breaks nothing, and for each property one that breaks it.

mod backwards;
mod history;
mod lists;
mod operations;
mod reads;
mod watches;

use super::{CheckError, Property, check};
use crate::history::Record;
use history::History;

/// Checks that a history breaks exactly these properties.
#[track_caller]
fn breaks(records: &[Record], wanted: &[Property]) {
    let violations = check(records).unwrap();
    let mut found: Vec<Property> = violations.iter().map(|violation| violation.property).collect();
    found.dedup();
    let told: Vec<String> = violations.iter().map(ToString::to_string).collect();
    assert_eq!(found, wanted, "{told:#?}");
    for violation in &violations {
        assert!(violation.lines.iter().all(|line| *line <= records.len()), "{violation}");
    }
}

#[test]
fn without_truth_nothing_is_judged() {
    assert_eq!(check(&[]).unwrap_err(), CheckError::NoTruth);
    let mut history = History::new();
    history.change(20, "a", "c1-1", "dark");
    history.change(10, "a", "c1-2", "dark");
    let error = check(&history.end()).unwrap_err();
    assert!(matches!(error, CheckError::TruthOutOfOrder { revision: 10, .. }), "{error}");
}
