//! Gets: what was shown was stored, and was so at a moment that the request allows.

use super::{Context, Property, numbered};
use crate::history::{Action, Freshness, Operation, Outcome, Record, Revision, Shown, Version};

pub(super) fn check(context: &mut Context<'_>) {
    for (line, record) in numbered(context.records) {
        let Record::Operation(operation) = record else { continue };
        let Action::Get(freshness) = operation.action else { continue };
        match &operation.outcome {
            Outcome::Done(Shown::Version(version)) => found(context, line, operation, freshness, version),
            Outcome::Done(Shown::Deleted { uid }) => {
                let detail = format!("{} was answered with a deletion of {uid}", describe(operation));
                context.accuse(Property::NeverWritten, &[line], detail);
            }
            Outcome::Refused { code: 404, .. } => absent(context, line, operation, freshness),
            Outcome::Refused { code: 429, .. } | Outcome::Unknown { .. } => {}
            Outcome::Refused { code, reason } => {
                let detail = format!("{} was refused: {code} {reason}", describe(operation));
                context.accuse(Property::UnexplainedRefusal, &[line], detail);
            }
        }
    }
}

fn describe(operation: &Operation) -> String {
    let Operation { client, server, action, key, .. } = operation;
    format!("{action:?} of {key} (client {client}, server {server})")
}

fn found(
    context: &mut Context<'_>,
    line: usize,
    operation: &Operation,
    freshness: Freshness,
    version: &Version,
) {
    let (key, revision) = (&operation.key, version.revision);
    let what = describe(operation);
    let entry = context.truth.change(key, revision);
    let stored = entry.and_then(|entry| entry.change.version.as_ref());
    if stored != Some(version) {
        let detail = format!("{what} showed {version:?}; etcd has {stored:?}");
        context.accuse(Property::NeverWritten, &[line], detail);
        return;
    }
    let ceiling = context.timeline.ceiling(operation.answer);
    if revision >= ceiling.revision {
        let detail = format!("{what} showed {revision}; {} was only begun later", ceiling.revision);
        context.accuse(Property::FutureRead, &[line, ceiling.line], detail);
    }
    let floor = context.timeline.floor(operation.call);
    let (oldest, property, witness) = match freshness {
        Freshness::Consistent => (floor.revision, Property::StaleRead, floor.line),
        Freshness::Any => return,
        Freshness::NotOlderThan(asked) | Freshness::Exact(asked) => (asked, Property::OlderThanAsked, line),
    };
    if let Some(next) = context.truth.next(key, revision).filter(|next| next.change.revision <= oldest) {
        let detail = format!(
            "{what} showed {revision}, replaced at {}; it must not be older than {oldest}",
            next.change.revision
        );
        context.accuse(property, &[line, next.line, witness], detail);
    }
}

fn absent(context: &mut Context<'_>, line: usize, operation: &Operation, freshness: Freshness) {
    let floor = context.timeline.floor(operation.call);
    let last: Revision = context.timeline.ceiling(operation.answer).revision.saturating_sub(1);
    let (oldest, property, witness) = match freshness {
        Freshness::Consistent => (floor.revision, Property::StaleRead, floor.line),
        Freshness::Any => return,
        Freshness::NotOlderThan(asked) | Freshness::Exact(asked) => (asked, Property::OlderThanAsked, line),
    };
    if !context.truth.ever(&operation.key, oldest, last, |at| at.is_none()) {
        let detail = format!("{} found nothing; it was there from {oldest} on", describe(operation));
        context.accuse(property, &[line, witness], detail);
    }
}
