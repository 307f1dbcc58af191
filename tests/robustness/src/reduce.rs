//! Makes a case of a violation: the part of a history that shows it, small enough to be kept for ever. The checker must
//! go on seeing it (`cases/`).

use crate::checker::{Violation, check};
use crate::history::{Key, Outcome, Record, Revision, Scope, Sent, Shown, Start};
use std::collections::{BTreeMap, BTreeSet};

/// What a case is about.
#[derive(Debug, Default)]
struct Subject {
    /// Indexes of records that show it.
    records: BTreeSet<usize>,
    streams: BTreeSet<u64>,
    chains: BTreeSet<u64>,
    keys: BTreeSet<Key>,
    scopes: Vec<Scope>,
    /// Revisions that they mention.
    revisions: BTreeSet<Revision>,
}

/// The records that show a violation, if they do so alone.
pub fn reduce(records: &[Record], violation: &Violation) -> Option<Vec<Record>> {
    let mut subject = Subject::default();
    let last = violation.lines.iter().max()? - 1;
    for line in &violation.lines {
        // Of a time before all knowledge: line 0.
        if let Some(index) = line.checked_sub(1) {
            subject.take(index, records.get(index)?);
        }
    }
    for (index, record) in records.iter().enumerate() {
        let related = match record {
            Record::WatchOpened(opened) => subject.streams.contains(&opened.stream),
            Record::Received(received) => index <= last && subject.streams.contains(&received.stream),
            Record::List(list) => list.page.as_ref().is_some_and(|page| subject.chains.contains(&page.chain)),
            Record::Compaction { .. } => !subject.chains.is_empty(),
            Record::Run { .. } | Record::TruthEnd { .. } => true,
            _ => false,
        };
        if related {
            subject.take(index, record);
        }
    }
    subject.truth(records);
    let case: Vec<Record> = subject.records.iter().map(|index| records[*index].clone()).collect();
    let seen = check(&case).ok()?;
    seen.iter().all(|seen| seen.property == violation.property).then_some(case).filter(|_| !seen.is_empty())
}

impl Subject {
    fn take(&mut self, index: usize, record: &Record) {
        self.records.insert(index);
        match record {
            Record::Operation(operation) => {
                self.keys.insert(operation.key.clone());
                if let Outcome::Done(Shown::Version(version)) = &operation.outcome {
                    self.revisions.insert(version.revision);
                }
            }
            Record::List(list) => {
                self.scopes.push(list.scope.clone());
                self.chains.extend(list.page.as_ref().map(|page| page.chain));
                if let Outcome::Done(listed) = &list.outcome {
                    self.revisions.insert(listed.revision);
                    self.revisions.extend(listed.items.iter().map(|item| item.version.revision));
                }
            }
            Record::WatchOpened(opened) => {
                self.streams.insert(opened.stream);
                self.scopes.push(opened.scope.clone());
                if let Start::After(revision) = opened.start {
                    self.revisions.insert(revision);
                }
            }
            Record::Received(received) => {
                self.streams.insert(received.stream);
                match &received.sent {
                    Sent::Event { item, .. } => self.revisions.insert(item.version.revision),
                    Sent::Bookmark { revision, .. } => self.revisions.insert(*revision),
                    Sent::Error { .. } | Sent::End { .. } => false,
                };
            }
            Record::Change(change) => {
                self.keys.insert(change.key.clone());
                self.revisions.insert(change.revision);
            }
            Record::Settled { revision, .. } => {
                self.revisions.insert(*revision);
            }
            Record::Run { .. }
            | Record::Fault(_)
            | Record::Compaction { .. }
            | Record::CalmOver { .. }
            | Record::TruthEnd { .. } => {}
        }
    }

    /// Takes what etcd told of the objects between the revisions mentioned, and one change before and one after.
    fn truth(&mut self, records: &[Record]) {
        let (first, last) = (self.revisions.first().copied(), self.revisions.last().copied());
        let (Some(first), Some(last)) = (first, last) else { return };
        let mut before: BTreeMap<&Key, usize> = BTreeMap::new();
        let mut after: BTreeSet<&Key> = BTreeSet::new();
        for (index, record) in records.iter().enumerate() {
            let Record::Change(change) = record else { continue };
            let key = &change.key;
            if !self.keys.contains(key) && !self.scopes.iter().any(|scope| scope.covers(key)) {
                continue;
            }
            if change.revision < first {
                before.insert(key, index);
            } else if change.revision <= last || after.insert(key) {
                self.records.insert(index);
            }
        }
        self.records.extend(before.into_values());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history;
    use std::path::Path;

    /// Each file is named for what it breaks: `gap.what-it-was.jsonl`.
    #[test]
    fn found_bugs_are_still_seen() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
        let mut count = 0;
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if !name.ends_with(".jsonl") {
                continue;
            }
            let records = history::read(&path).unwrap();
            let violations = check(&records).unwrap();
            assert!(!violations.is_empty(), "{name} is not seen any more");
            for violation in violations {
                assert_eq!(Some(&*violation.property.to_string()), name.split('.').next(), "{name}");
                assert!(reduce(&records, &violation).is_some(), "{name} cannot be made smaller");
            }
            count += 1;
        }
        assert!(count > 0, "there are cases");
    }
}
