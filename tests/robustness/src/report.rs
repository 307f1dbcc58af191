//! What a history contains, in figures: a run without enough in it proves nothing.

use crate::checker::{Property, Violation};
use crate::history::{Action, Freshness, Instant, Outcome, Record, Sent, Start};
use std::collections::BTreeMap;
use std::fmt;

/// How many cases of one property are shown.
const SHOWN: usize = 5;

/// Counts of a history.
#[derive(Debug, Default)]
pub struct Report {
    /// By what was asked, then by how it ended.
    requests: BTreeMap<String, BTreeMap<String, usize>>,
    /// By what was received on watches.
    watches: BTreeMap<String, usize>,
    /// By kind; those that could not be done apart.
    faults: BTreeMap<String, usize>,
    changes: usize,
    calm: (usize, Option<Instant>, Option<Instant>),
}

impl Report {
    pub fn of(records: &[Record]) -> Report {
        let mut report = Report::default();
        for record in records {
            report.add(record);
        }
        report
    }

    /// Answered requests for each second before the first fault.
    pub fn calm_rate(&self) -> f64 {
        let (count, first, over) = self.calm;
        let (Some(first), Some(over)) = (first, over) else { return 0.0 };
        let micros = u32::try_from(over.saturating_sub(first).max(1)).unwrap_or(u32::MAX);
        f64::from(u32::try_from(count).unwrap_or(u32::MAX)) * 1e6 / f64::from(micros)
    }

    /// How many kinds of faults were really done.
    pub fn fault_kinds(&self) -> usize {
        self.faults.keys().filter(|kind| !kind.ends_with(NOT_DONE)).count()
    }

    fn add(&mut self, record: &Record) {
        match record {
            Record::Operation(operation) => {
                let kind = match operation.action {
                    Action::Create => "create".to_owned(),
                    Action::Update { .. } => "update".to_owned(),
                    Action::Patch => "patch".to_owned(),
                    Action::Delete => "delete".to_owned(),
                    Action::Get(freshness) => format!("get {}", name(freshness)),
                };
                self.request(kind, operation.call, &operation.outcome);
            }
            Record::List(list) => {
                let paged = if list.page.is_some() { "in pages" } else { name(list.freshness) };
                self.request(format!("list {paged}"), list.call, &list.outcome);
            }
            Record::WatchOpened(opened) => {
                let over = if opened.grpc { " over gRPC" } else { "" };
                let kind = match opened.start {
                    Start::After(_) => format!("opened{over} after a revision"),
                    Start::InitialEvents(freshness) => {
                        format!("opened{over} with initial events {}", name(freshness))
                    }
                };
                *self.watches.entry(kind).or_default() += 1;
            }
            Record::Received(received) => {
                let kind = match &received.sent {
                    Sent::Event { .. } => "events".to_owned(),
                    Sent::Bookmark { .. } => "bookmarks".to_owned(),
                    Sent::Error { code, .. } => format!("ended by error {code}"),
                    Sent::End { why } => format!("ended: {why}"),
                };
                *self.watches.entry(kind).or_default() += 1;
            }
            Record::Change(_) => self.changes += 1,
            Record::Fault(fault) => {
                let kind = if fault.done { fault.kind.clone() } else { format!("{}{NOT_DONE}", fault.kind) };
                *self.faults.entry(kind).or_default() += 1;
            }
            Record::CalmOver { at } => self.calm.2 = Some(*at),
            Record::Run { .. }
            | Record::Compaction { .. }
            | Record::Settled { .. }
            | Record::TruthEnd { .. } => {}
        }
    }

    fn request<T>(&mut self, kind: String, call: Instant, outcome: &Outcome<T>) {
        let ended = match outcome {
            Outcome::Done(_) => "ok".to_owned(),
            Outcome::Refused { code, .. } => format!("refused {code}"),
            Outcome::Unknown { code: Some(code), .. } => format!("unknown {code}"),
            Outcome::Unknown { code: None, .. } => "unknown".to_owned(),
        };
        *self.requests.entry(kind).or_default().entry(ended).or_default() += 1;
        let (count, first, over) = &mut self.calm;
        if over.is_none() && !matches!(outcome, Outcome::Unknown { .. }) {
            *count += 1;
            first.get_or_insert(call);
        }
    }
}

/// Marks faults that could not be done.
const NOT_DONE: &str = ", not done";

fn name(freshness: Freshness) -> &'static str {
    match freshness {
        Freshness::Consistent => "consistent",
        Freshness::Any => "resourceVersion=0",
        Freshness::NotOlderThan(_) => "not older than",
        Freshness::Exact(_) => "exact",
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kind, ends) in &self.requests {
            let ends: Vec<String> = ends.iter().map(|(end, count)| format!("{count} {end}")).collect();
            writeln!(f, "{kind:<24} {}", ends.join(", "))?;
        }
        for (kind, count) in &self.watches {
            writeln!(f, "watches: {kind:<40} {count}")?;
        }
        for (kind, count) in &self.faults {
            writeln!(f, "fault: {kind:<42} {count}")?;
        }
        writeln!(f, "changes in etcd: {}", self.changes)?;
        writeln!(f, "answered before the first fault: {:.0}/s", self.calm_rate())
    }
}

/// Violations by name, with some of each.
pub fn violations(violations: &[Violation]) -> String {
    let mut by_property: BTreeMap<Property, Vec<&Violation>> = BTreeMap::new();
    for violation in violations {
        by_property.entry(violation.property).or_default().push(violation);
    }
    let mut text = format!("violations: {}\n", violations.len());
    for (property, cases) in by_property {
        text.push_str(&format!("{property}: {}\n", cases.len()));
        for case in cases.iter().take(SHOWN) {
            text.push_str(&format!("  {} (lines {:?})\n", case.detail, case.lines));
        }
    }
    text
}
