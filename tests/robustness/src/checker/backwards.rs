//! Reads with resourceVersion=0: any state will do, but on one server never one older than before, and in the end the last.

use super::timeline::Seen;
use super::{Context, Property, numbered};
use crate::history::{
    Action, Freshness, Instant, List, Operation, Outcome, Record, Resource, Revision, Sent, Shown,
};
use std::collections::BTreeMap;

/// What a server has shown of a resource. Other kinds of reads say nothing of its cache.
type Shows = BTreeMap<(usize, Resource), Seen>;

pub(super) fn check(context: &mut Context<'_>) {
    let shows = shows(context);
    for (line, record) in numbered(context.records) {
        match record {
            Record::Operation(operation) if operation.action == Action::Get(Freshness::Any) => {
                got(context, &shows, line, operation);
            }
            Record::List(list) if list.freshness == Freshness::Any => listed(context, &shows, line, list),
            _ => {}
        }
    }
    caught_up(context);
}

fn shows(context: &Context<'_>) -> Shows {
    let mut shows = Shows::new();
    let mut streams = BTreeMap::new();
    for (line, record) in numbered(context.records) {
        let (place, at, revision) = match record {
            Record::WatchOpened(opened) => {
                streams.insert(opened.stream, (opened.server, opened.scope.resource));
                continue;
            }
            Record::Received(received) => match (&received.sent, streams.get(&received.stream)) {
                (Sent::Event { item, .. }, Some(place)) => (*place, received.at, item.version.revision),
                _ => continue,
            },
            Record::Operation(operation) => match (&operation.action, &operation.outcome) {
                (Action::Get(Freshness::Any), Outcome::Done(Shown::Version(version))) => {
                    ((operation.server, operation.key.resource), operation.answer, version.revision)
                }
                _ => continue,
            },
            Record::List(list) => match (list.freshness, &list.outcome) {
                (Freshness::Any, Outcome::Done(listed)) => {
                    ((list.server, list.scope.resource), list.answer, listed.revision)
                }
                _ => continue,
            },
            _ => continue,
        };
        if revision <= context.truth.head {
            shows.entry(place).or_default().see(at, revision, line);
        }
    }
    shows.values_mut().for_each(Seen::sort);
    shows
}

fn got(context: &mut Context<'_>, shows: &Shows, line: usize, operation: &Operation) {
    let Some(seen) = shows.get(&(operation.server, operation.key.resource)) else { return };
    let floor = seen.floor(operation.call);
    let old = match &operation.outcome {
        Outcome::Done(Shown::Version(version)) => {
            let next = context.truth.next(&operation.key, version.revision);
            next.is_some_and(|next| next.change.revision <= floor.revision)
        }
        Outcome::Refused { code: 404, .. } => {
            !context.truth.ever(&operation.key, floor.revision, Revision::MAX, |at| at.is_none())
        }
        _ => false,
    };
    if old {
        let Operation { client, server, key, .. } = operation;
        let detail = format!(
            "get of {key} (client {client}, server {server}) is older than {}, which it had shown",
            floor.revision
        );
        context.accuse(Property::WentBack, &[line, floor.line], detail);
    }
}

fn listed(context: &mut Context<'_>, shows: &Shows, line: usize, list: &List) {
    let Outcome::Done(listed) = &list.outcome else { return };
    let Some(seen) = shows.get(&(list.server, list.scope.resource)) else { return };
    let floor = seen.floor(list.call);
    if let Some(missed) = context.truth.missed(&list.scope, listed.revision, floor.revision) {
        let List { client, server, scope, .. } = list;
        let detail = format!(
            "list of {scope:?} (client {client}, server {server}) is at {} and misses {}; it had shown {}",
            listed.revision, missed.change.revision, floor.revision
        );
        context.accuse(Property::WentBack, &[line, missed.line, floor.line], detail);
    }
}

/// After faults and writes are over, each server shows the last state in the end.
fn caught_up(context: &mut Context<'_>) {
    let mut servers = 0;
    let mut settled: Option<(usize, Instant, Revision)> = None;
    let mut best: BTreeMap<(usize, Resource), Revision> = BTreeMap::new();
    for (line, record) in numbered(context.records) {
        match record {
            Record::Run { servers: count, .. } => servers = *count,
            Record::Settled { at, revision } => settled = Some((line, *at, *revision)),
            Record::List(list) if list.freshness == Freshness::Any => {
                if let (Outcome::Done(listed), Some((_, at, _))) = (&list.outcome, settled)
                    && list.call >= at
                {
                    let best = best.entry((list.server, list.scope.resource)).or_default();
                    *best = listed.revision.max(*best);
                }
            }
            _ => {}
        }
    }
    let Some((line, _, revision)) = settled else { return };
    for server in 0..servers {
        for resource in Resource::ALL {
            let shown = best.get(&(server, resource)).copied().unwrap_or(0);
            if shown < revision {
                let detail =
                    format!("server {server} shows {} at {shown}, not at {revision}", resource.plural());
                context.accuse(Property::StaleCache, &[line], detail);
            }
        }
    }
}
