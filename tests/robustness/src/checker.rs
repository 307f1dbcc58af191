//! Judges a history: every operation, list and watch against the revisions that etcd itself told.
//!
//! Pure: records in, violations out. Each property is an error with a name, and what it accuses it shows by line.

mod backwards;
mod lists;
mod operations;
mod property;
mod reads;
mod timeline;
mod truth;
mod watches;

#[cfg(test)]
mod tests;

pub use property::{Property, Violation};

use crate::history::Record;
use timeline::Timeline;
use truth::Truth;

/// A history that cannot be judged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    #[error("etcd's own watch did not tell everything: it has no end")]
    NoTruth,
    #[error("line {line}: etcd's own watch told revision {revision} after {last}")]
    TruthOutOfOrder { line: usize, revision: i64, last: i64 },
}

/// What checks share.
struct Context<'a> {
    records: &'a [Record],
    truth: Truth<'a>,
    timeline: Timeline,
    violations: Vec<Violation>,
}

impl Context<'_> {
    fn accuse(&mut self, property: Property, lines: &[usize], detail: String) {
        self.violations.push(Violation { property, lines: lines.to_vec(), detail });
    }
}

/// Every violation in a history.
///
/// # Errors
/// The history has no usable truth.
pub fn check(records: &[Record]) -> Result<Vec<Violation>, CheckError> {
    let truth = Truth::new(records)?;
    let timeline = Timeline::new(records, &truth);
    let mut context = Context { records, truth, timeline, violations: Vec::new() };
    operations::check(&mut context);
    reads::check(&mut context);
    lists::check(&mut context);
    watches::check(&mut context);
    backwards::check(&mut context);
    Ok(context.violations)
}

/// Records with their line numbers.
fn numbered(records: &[Record]) -> impl Iterator<Item = (usize, &Record)> {
    records.iter().enumerate().map(|(index, record)| (index + 1, record))
}
