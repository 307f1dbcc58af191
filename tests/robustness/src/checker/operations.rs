//! Creates, updates, patches and deletes: acknowledged means stored, refused means not stored, once means once.

use super::truth::Entry;
use super::{Context, Property, numbered};
use crate::history::{Action, Key, Operation, Outcome, Record, Shown, Version};
use std::collections::{BTreeMap, HashMap};

pub(super) fn check(context: &mut Context<'_>) {
    let mut deletions: HashMap<&str, usize> = HashMap::new();
    for (line, record) in numbered(context.records) {
        let Record::Operation(operation) = record else { continue };
        if matches!(operation.action, Action::Get(_)) {
            continue;
        }
        effects(context, line, operation);
        match &operation.outcome {
            Outcome::Done(shown) if operation.action == Action::Delete => {
                let (Shown::Version(Version { uid, .. }) | Shown::Deleted { uid }) = shown;
                deleted(context, line, operation, uid);
                if let Some(other) = deletions.insert(uid, line) {
                    let detail = format!("{}: uid {uid} was deleted twice", describe(operation));
                    context.accuse(Property::AppliedTwice, &[line, other], detail);
                }
            }
            Outcome::Done(Shown::Version(version)) => acknowledged(context, line, operation, version),
            Outcome::Done(Shown::Deleted { .. }) => {
                let detail = format!("{} was answered as a deletion", describe(operation));
                context.accuse(Property::AcknowledgedElsewhere, &[line], detail);
            }
            Outcome::Refused { code, reason } => refused(context, line, operation, *code, reason),
            Outcome::Unknown { .. } => {}
        }
    }
    unclaimed(context);
}

/// A deletion carries no name of who did it, but somebody must have: if all who may have were refused, one was lied to.
fn unclaimed(context: &mut Context<'_>) {
    let mut by_key: BTreeMap<&Key, Vec<(usize, &Operation)>> = BTreeMap::new();
    for (line, record) in numbered(context.records) {
        if let Record::Operation(operation) = record
            && operation.action == Action::Delete
        {
            by_key.entry(&operation.key).or_default().push((line, operation));
        }
    }
    for entry in context.truth.deletions() {
        let (Some(deletes), Some(was)) = (by_key.get(&entry.change.key), entry.previous()) else { continue };
        let claims = |operation: &Operation| match &operation.outcome {
            Outcome::Done(Shown::Version(Version { uid, .. }) | Shown::Deleted { uid }) => *uid == was.uid,
            Outcome::Unknown { .. } => operation.call < entry.change.at,
            Outcome::Refused { .. } => false,
        };
        // Heard of the object before it was deleted: who was answered by then is no suspect.
        let before = entry.before.map_or(0, |before| before.at);
        let refused = |operation: &Operation| {
            matches!(operation.outcome, Outcome::Refused { .. })
                && operation.call < entry.change.at
                && operation.answer > before
        };
        let suspects: Vec<usize> =
            deletes.iter().filter(|(_, operation)| refused(operation)).map(|(line, _)| *line).collect();
        if !suspects.is_empty() && !deletes.iter().any(|(_, operation)| claims(operation)) {
            let revision = entry.change.revision;
            let detail = format!("{} was deleted at {revision}, and every delete refused", entry.change.key);
            let lines = [&suspects[..], &[entry.line]].concat();
            context.accuse(Property::RefusedButApplied, &lines, detail);
        }
    }
}

fn describe(operation: &Operation) -> String {
    let Operation { client, server, action, key, write, .. } = operation;
    let action = match action {
        Action::Create => "create".to_owned(),
        Action::Update { expected } => format!("update of revision {expected}"),
        Action::Patch => "patch".to_owned(),
        Action::Delete => "delete".to_owned(),
        Action::Get(freshness) => format!("get ({freshness:?})"),
    };
    let write = if write.is_empty() { String::new() } else { format!(" by write {write}") };
    format!("{action} of {key}{write} (client {client}, server {server})")
}

/// What the write did to etcd, whatever was answered.
fn effects(context: &mut Context<'_>, line: usize, operation: &Operation) {
    let entries: Vec<Entry<'_>> = context.truth.of_write(&operation.write).collect();
    let Some(entry) = entries.first() else { return };
    let what = describe(operation);
    if let Some(second) = entries.get(1) {
        let revisions = (entry.change.revision, second.change.revision);
        let detail = format!("{what} changed etcd at {} and again at {}", revisions.0, revisions.1);
        context.accuse(Property::AppliedTwice, &[line, entry.line, second.line], detail);
    }
    if let Outcome::Refused { code, reason } = &operation.outcome {
        let detail =
            format!("{what} was refused ({code} {reason}) and is revision {}", entry.change.revision);
        context.accuse(Property::RefusedButApplied, &[line, entry.line], detail);
    }
    let replaced = entry.previous().map(|version| version.revision);
    let allowed = match operation.action {
        Action::Create => replaced.is_none(),
        Action::Update { expected } => replaced == Some(expected),
        Action::Patch => replaced.is_some(),
        Action::Delete | Action::Get(_) => true,
    };
    if !allowed {
        let detail = format!("{what} replaced revision {replaced:?} at {}", entry.change.revision);
        context.accuse(Property::CompareAndSet, &[line, entry.line], detail);
    }
    lost_update(context, line, operation, *entry);
}

/// An object keeps, for each client, its last write. A write may change its own client's only.
fn lost_update(context: &mut Context<'_>, line: usize, operation: &Operation, entry: Entry<'_>) {
    let Some(before) = entry.before.filter(|before| before.version.is_some()) else { return };
    let own = format!("c{}", operation.client);
    let mut wanted = before.slots.clone();
    if let Some(written) = entry.change.slots.get(&own) {
        wanted.insert(own, written.clone());
    }
    if wanted != entry.change.slots {
        let what = describe(operation);
        let detail = format!("{what} made {:?} of {:?}", entry.change.slots, before.slots);
        context.accuse(Property::LostUpdate, &[line, entry.line], detail);
    }
}

fn acknowledged(context: &mut Context<'_>, line: usize, operation: &Operation, version: &Version) {
    let what = describe(operation);
    let revision = version.revision;
    match context.truth.change(&operation.key, revision) {
        Some(entry) => {
            let stored = entry.change.version.as_ref();
            if stored.is_none_or(|stored| stored.write != operation.write || stored != version) {
                let detail = format!("{what} answered {version:?}; etcd has {stored:?}");
                context.accuse(Property::AcknowledgedElsewhere, &[line, entry.line], detail);
            }
            order(context, line, operation, revision);
        }
        None => {
            let elsewhere = context.truth.of_write(&operation.write).next();
            match elsewhere {
                Some(entry) => {
                    let at = entry.change.revision;
                    let detail = format!("{what} was acknowledged at {revision} and is at {at}");
                    context.accuse(Property::AcknowledgedElsewhere, &[line, entry.line], detail);
                }
                None => {
                    let detail = format!("{what} was acknowledged at {revision}");
                    context.accuse(Property::LostAcknowledgedWrite, &[line], detail);
                }
            }
        }
    }
}

fn deleted(context: &mut Context<'_>, line: usize, operation: &Operation, uid: &str) {
    match context.truth.deletion(uid).filter(|entry| entry.change.key == operation.key) {
        Some(entry) => order(context, line, operation, entry.change.revision),
        None => {
            let detail = format!("{} was acknowledged for uid {uid}", describe(operation));
            context.accuse(Property::LostAcknowledgedWrite, &[line], detail);
        }
    }
}

fn order(context: &mut Context<'_>, line: usize, operation: &Operation, revision: i64) {
    let floor = context.timeline.floor(operation.call);
    if revision <= floor.revision {
        let what = describe(operation);
        let detail = format!("{what} is revision {revision}; {} was known before its call", floor.revision);
        context.accuse(Property::WriteOrder, &[line, floor.line], detail);
    }
}

/// A refusal is a read: it must be true at some moment between call and answer.
fn refused(context: &mut Context<'_>, line: usize, operation: &Operation, code: u16, reason: &str) {
    let floor = context.timeline.floor(operation.call);
    let last = context.timeline.ceiling(operation.answer).revision.saturating_sub(1);
    let explained = match (&operation.action, code) {
        // Too many requests: says nothing of the object.
        (_, 429) => true,
        (Action::Create, 409) => context.truth.ever(&operation.key, floor.revision, last, |at| at.is_some()),
        (Action::Update { expected }, 409) => {
            let moved = |at: Option<&Version>| at.is_none_or(|at| at.revision != *expected);
            context.truth.ever(&operation.key, floor.revision, last, moved)
        }
        // It lost to other writers more often than it tries.
        (Action::Patch | Action::Delete, 409) => true,
        (Action::Update { .. } | Action::Patch | Action::Delete, 404) => {
            context.truth.ever(&operation.key, floor.revision, last, |at| at.is_none())
        }
        _ => false,
    };
    if !explained {
        let what = describe(operation);
        let detail =
            format!("{what} was refused: {code} {reason}; {} was known before its call", floor.revision);
        context.accuse(Property::UnexplainedRefusal, &[line, floor.line], detail);
    }
}
