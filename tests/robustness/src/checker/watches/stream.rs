//! One stream, followed event by event.

use super::{describe, short};
use crate::checker::lists::{key_of, not_older};
use crate::checker::truth::Entry;
use crate::checker::{Context, Property};
use crate::history::{EventType, Item, Key, Revision, Sent, Start, Version, WatchOpened};
use std::collections::BTreeMap;

/// See the module.
#[derive(Debug)]
pub(super) struct Stream<'a> {
    pub(super) line: usize,
    pub(super) opened: &'a WatchOpened,
    phase: Phase,
    /// Events that were passed over and may still come late: revision to the line that passed over it.
    skipped: BTreeMap<Revision, usize>,
    ended: bool,
}

#[derive(Debug)]
enum Phase {
    /// Initial events: the objects so far.
    Initial(BTreeMap<Key, Version>),
    /// Everything up to here was sent or accused.
    Following(Revision),
}

impl<'a> Stream<'a> {
    pub(super) fn new(line: usize, opened: &'a WatchOpened) -> Self {
        let phase = match opened.start {
            Start::After(revision) => Phase::Following(revision),
            Start::InitialEvents(_) => Phase::Initial(BTreeMap::new()),
        };
        Self { line, opened, phase, skipped: BTreeMap::new(), ended: false }
    }

    /// Up to where it told everything; `None` before the initial events are over.
    pub(super) fn position(&self) -> Option<Revision> {
        match self.phase {
            Phase::Initial(_) => None,
            Phase::Following(position) => Some(position),
        }
    }

    pub(super) fn receive(&mut self, context: &mut Context<'_>, line: usize, sent: &Sent) {
        if self.ended && !matches!(sent, Sent::End { .. }) {
            self.accuse(context, Property::AfterTheEnd, line, &short(sent));
            return;
        }
        match sent {
            Sent::Event { kind, item } => self.event(context, line, *kind, item),
            Sent::Bookmark { revision, initial_end } => self.bookmark(context, line, *revision, *initial_end),
            Sent::Error { .. } => self.ended = true,
            Sent::End { .. } => {}
        }
    }

    /// The stream is over: what it passed over did not come.
    pub(super) fn close(&self, context: &mut Context<'_>) {
        for (revision, line) in &self.skipped {
            self.accuse(context, Property::Gap, *line, &format!("went on without revision {revision}"));
        }
    }

    fn accuse(&self, context: &mut Context<'_>, property: Property, line: usize, what: &str) {
        let detail = format!("{}: {what}", describe(self.opened));
        context.accuse(property, &[line, self.line], detail);
    }

    fn event(&mut self, context: &mut Context<'_>, line: usize, kind: EventType, item: &Item) {
        let key = key_of(&self.opened.scope, item);
        let what = short(&Sent::Event { kind, item: item.clone() });
        let initial = matches!(self.phase, Phase::Initial(_));
        let Some(entry) = context.truth.change(&key, item.version.revision) else {
            self.accuse(context, Property::EventNotInTruth, line, &what);
            return;
        };
        match entry.event(&self.opened.scope) {
            // An initial event is the object as it is, however it became so.
            Some((wanted, version)) if wanted == kind || (initial && kind == EventType::Added) => {
                let mut shown = item.version.clone();
                if kind == EventType::Deleted {
                    // The object as it was, at the revision at which it went.
                    shown.revision = version.revision;
                }
                if shown != *version {
                    let detail = format!("{what}: {:?}, not {version:?}", item.version);
                    self.accuse(context, Property::WrongEventObject, line, &detail);
                }
            }
            other => {
                let wanted = other.map(|(wanted, _)| wanted);
                self.accuse(context, Property::WrongEventType, line, &format!("{what}, not {wanted:?}"));
            }
        }
        if let Phase::Initial(objects) = &mut self.phase {
            match kind {
                EventType::Deleted => objects.remove(&key),
                EventType::Added | EventType::Modified => objects.insert(key, item.version.clone()),
            };
            return;
        }
        self.advance(context, line, entry, &what);
    }

    /// Checks the event's place in the order.
    fn advance(&mut self, context: &mut Context<'_>, line: usize, entry: Entry<'_>, what: &str) {
        let Phase::Following(position) = self.phase else { return };
        let revision = entry.change.revision;
        if revision <= position {
            if self.skipped.remove(&revision).is_some() {
                self.accuse(context, Property::Reordered, line, &format!("{what} came after {position}"));
            } else {
                self.accuse(context, Property::Duplicate, line, &format!("{what} came after {position}"));
            }
            return;
        }
        for revision in self.owed(context, position, revision - 1) {
            self.skipped.insert(revision, line);
        }
        self.phase = Phase::Following(revision);
    }

    /// Revisions of events that belong on this stream, after one and up to another.
    fn owed(&self, context: &Context<'_>, after: Revision, up_to: Revision) -> Vec<Revision> {
        let changes = context.truth.after(after).iter().take_while(|entry| entry.change.revision <= up_to);
        let seen = changes.filter(|entry| entry.event(&self.opened.scope).is_some());
        seen.map(|entry| entry.change.revision).collect()
    }

    fn bookmark(&mut self, context: &mut Context<'_>, line: usize, revision: Revision, initial_end: bool) {
        match &self.phase {
            Phase::Initial(objects) => {
                if !initial_end {
                    return;
                }
                let objects = objects.clone();
                self.initial_end(context, line, revision, &objects);
                self.phase = Phase::Following(revision);
            }
            Phase::Following(position) => {
                let position = *position;
                if revision < position {
                    let detail = format!("bookmark {revision} after {position}");
                    self.accuse(context, Property::BookmarkBackwards, line, &detail);
                    return;
                }
                let mut owed = self.owed(context, position, revision);
                owed.extend(std::mem::take(&mut self.skipped).into_keys());
                if !owed.is_empty() {
                    let detail = format!("bookmark {revision} came without {owed:?}");
                    self.accuse(context, Property::BookmarkLies, line, &detail);
                }
                self.phase = Phase::Following(revision);
            }
        }
    }

    fn initial_end(
        &self,
        context: &mut Context<'_>,
        line: usize,
        revision: Revision,
        objects: &BTreeMap<Key, Version>,
    ) {
        let wanted = context.truth.state(&self.opened.scope, revision);
        let same = wanted.len() == objects.len()
            && wanted.iter().all(|(key, version)| objects.get(*key) == Some(*version));
        if !same {
            let shown = |objects: Vec<(&Key, &Version)>| -> Vec<String> {
                objects.into_iter().map(|(key, version)| format!("{key} at {}", version.revision)).collect()
            };
            let detail = format!(
                "initial events up to {revision} are {:?}, not {:?}",
                shown(objects.iter().collect()),
                shown(wanted.into_iter().collect())
            );
            self.accuse(context, Property::InitialEventsNotASnapshot, line, &detail);
        }
        if let Start::InitialEvents(freshness) = self.opened.start {
            let what = format!("initial state of {}", describe(self.opened));
            not_older(context, line, (&what, &self.opened.scope), revision, (freshness, self.opened.call));
        }
    }
}
