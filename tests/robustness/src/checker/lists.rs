//! Lists: each is exactly the state at its resourceVersion, and the pages of one chain are one snapshot.

use super::{Context, Property, numbered};
use crate::history::{Freshness, Instant, Item, Key, List, Listed, Outcome, Record, Revision, Scope};
use std::collections::BTreeMap;

/// Pages that must be one snapshot.
#[derive(Debug)]
struct Snapshot<'a> {
    first: usize,
    list: &'a List,
    revision: Revision,
    items: Vec<&'a Item>,
    /// Whether the last page is there.
    whole: bool,
    after: Option<&'a (String, String)>,
}

pub(super) fn check(context: &mut Context<'_>) {
    let mut chains: BTreeMap<u64, Snapshot<'_>> = BTreeMap::new();
    for (line, record) in numbered(context.records) {
        let Record::List(list) = record else { continue };
        let listed = match &list.outcome {
            Outcome::Done(listed) => listed,
            Outcome::Refused { code, reason } => {
                let of = list.page.as_ref().and_then(|page| chains.get(&page.chain));
                let of = of.map(|snapshot| snapshot.revision);
                refused(context, line, list, of, *code, reason);
                continue;
            }
            Outcome::Unknown { .. } => continue,
        };
        let Some(page) = &list.page else {
            let snapshot = Snapshot::new(line, list, listed);
            fresh(context, line, list, listed);
            compare(context, &snapshot);
            continue;
        };
        match chains.get_mut(&page.chain) {
            Some(snapshot) if page.number > 0 && page.restarted_after.is_none() => {
                if listed.revision != snapshot.revision {
                    let first = snapshot.first;
                    let detail = format!(
                        "{}: page {} is at {}, the first at {}",
                        describe(list),
                        page.number,
                        listed.revision,
                        snapshot.revision
                    );
                    context.accuse(Property::NotASnapshot, &[line, first], detail);
                }
                snapshot.add(listed);
            }
            _ => {
                if page.number == 0 {
                    fresh(context, line, list, listed);
                }
                if let Some(done) = chains.insert(page.chain, Snapshot::new(line, list, listed)) {
                    compare(context, &done);
                }
            }
        }
    }
    for snapshot in chains.values() {
        compare(context, snapshot);
    }
}

impl<'a> Snapshot<'a> {
    fn new(first: usize, list: &'a List, listed: &'a Listed) -> Self {
        let after = list.page.as_ref().and_then(|page| page.restarted_after.as_ref());
        Self {
            first,
            list,
            revision: listed.revision,
            items: listed.items.iter().collect(),
            whole: !listed.more,
            after,
        }
    }

    fn add(&mut self, listed: &'a Listed) {
        self.items.extend(&listed.items);
        self.whole = !listed.more;
    }
}

fn describe(list: &List) -> String {
    let List { client, server, scope, freshness, .. } = list;
    format!("list of {scope:?}, {freshness:?} (client {client}, server {server})")
}

/// The order of etcd's keys.
fn place(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}

fn fresh(context: &mut Context<'_>, line: usize, list: &List, listed: &Listed) {
    let ceiling = context.timeline.ceiling(list.answer);
    if listed.revision >= ceiling.revision {
        let detail = format!(
            "{} is at {}; {} was only begun later",
            describe(list),
            listed.revision,
            ceiling.revision
        );
        context.accuse(Property::FutureRead, &[line, ceiling.line], detail);
    }
    if let Freshness::Exact(asked) = list.freshness
        && asked != listed.revision
    {
        let detail = format!("{} is at {}", describe(list), listed.revision);
        context.accuse(Property::WrongRevision, &[line], detail);
    }
    not_older(context, line, (&describe(list), &list.scope), listed.revision, (list.freshness, list.call));
}

/// Accuses a state at `revision` that is older than `freshness` allows for a request called at this instant.
pub(super) fn not_older(
    context: &mut Context<'_>,
    line: usize,
    (what, scope): (&str, &Scope),
    revision: Revision,
    (freshness, call): (Freshness, Instant),
) {
    match freshness {
        Freshness::Consistent => {
            let floor = context.timeline.floor(call);
            if let Some(missed) = context.truth.missed(scope, revision, floor.revision) {
                let detail = format!(
                    "{what} is at {revision} and misses {}; {} was known before its call",
                    missed.change.revision, floor.revision
                );
                context.accuse(Property::StaleRead, &[line, missed.line, floor.line], detail);
            }
        }
        Freshness::NotOlderThan(asked) if revision < asked => {
            context.accuse(Property::OlderThanAsked, &[line], format!("{what} is at {revision}"));
        }
        Freshness::NotOlderThan(_) | Freshness::Exact(_) | Freshness::Any => {}
    }
}

fn compare(context: &mut Context<'_>, snapshot: &Snapshot<'_>) {
    let list = snapshot.list;
    let wanted = context.truth.state(&list.scope, snapshot.revision);
    let last = snapshot.items.last().map(|item| place(&item.namespace, &item.name)).unwrap_or_default();
    let start = snapshot.after.map(|(namespace, name)| place(namespace, name)).unwrap_or_default();
    let mut wanted: BTreeMap<String, _> = wanted
        .into_iter()
        .map(|(key, version)| (place(&key.namespace, &key.name), version))
        .filter(|(place, _)| *place > start && (snapshot.whole || *place <= last))
        .collect();
    let mut problems = Vec::new();
    for item in &snapshot.items {
        let place = place(&item.namespace, &item.name);
        match wanted.remove(&place) {
            Some(version) if *version == item.version => {}
            Some(version) => problems.push(format!("{place} is {:?}, not {version:?}", item.version)),
            None => problems.push(format!("{place} ({}) does not belong there", item.version.revision)),
        }
    }
    problems
        .extend(wanted.iter().map(|(place, version)| format!("{place} ({}) is missing", version.revision)));
    if !problems.is_empty() {
        let detail = format!("{} at {}: {}", describe(list), snapshot.revision, problems.join("; "));
        context.accuse(Property::NotASnapshot, &[snapshot.first], detail);
    }
}

fn refused(
    context: &mut Context<'_>,
    line: usize,
    list: &List,
    chain: Option<Revision>,
    code: u16,
    reason: &str,
) {
    let asked = match list.freshness {
        Freshness::Exact(revision) => Some(revision),
        _ => chain,
    };
    match (code, asked) {
        (429, _) => {}
        (410, Some(asked)) => {
            let compacted = context.records.iter().any(|record| {
                matches!(record, Record::Compaction { call, revision } if *revision > asked && *call < list.answer)
            });
            if !compacted {
                let detail = format!("{}: {reason}; {asked} is not compacted", describe(list));
                context.accuse(Property::UnjustifiedGone, &[line], detail);
            }
        }
        _ => {
            let detail = format!("{} was refused: {code} {reason}", describe(list));
            context.accuse(Property::UnexplainedRefusal, &[line], detail);
        }
    }
}

/// The place of an item in a scope's resource.
pub(super) fn key_of(scope: &Scope, item: &Item) -> Key {
    Key { resource: scope.resource, namespace: item.namespace.clone(), name: item.name.clone() }
}
