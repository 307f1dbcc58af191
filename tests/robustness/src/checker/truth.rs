//! What etcd held at every revision.

use super::{CheckError, numbered};
use crate::history::{Change, EventType, Key, Record, Revision, Scope, Version};
use std::collections::{BTreeMap, HashMap};

/// All changes, in the order of revisions.
#[derive(Debug)]
pub(super) struct Truth<'a> {
    changes: Vec<Entry<'a>>,
    /// Indexes in `changes`.
    by_key: BTreeMap<&'a Key, Vec<usize>>,
    by_write: HashMap<&'a str, Vec<usize>>,
    by_deleted_uid: HashMap<&'a str, usize>,
    pub(super) head: Revision,
}

/// A change, with the one before it of the same key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry<'a> {
    pub(super) line: usize,
    pub(super) change: &'a Change,
    pub(super) before: Option<&'a Change>,
}

impl<'a> Entry<'a> {
    /// The state that it replaced.
    pub(super) fn previous(&self) -> Option<&'a Version> {
        self.before?.version.as_ref()
    }

    /// What a watch of this scope must send for it: a type, and the object it shows.
    pub(super) fn event(&self, scope: &Scope) -> Option<(EventType, &'a Version)> {
        if !scope.covers(&self.change.key) {
            return None;
        }
        let seen = |version: &&Version| scope.selects(&version.shade);
        match (self.previous().filter(seen), self.change.version.as_ref().filter(seen)) {
            (None, Some(now)) => Some((EventType::Added, now)),
            (Some(_), Some(now)) => Some((EventType::Modified, now)),
            (Some(was), None) => Some((EventType::Deleted, was)),
            (None, None) => None,
        }
    }
}

impl<'a> Truth<'a> {
    pub(super) fn new(records: &'a [Record]) -> Result<Self, CheckError> {
        let mut truth = Self {
            changes: Vec::new(),
            by_key: BTreeMap::new(),
            by_write: HashMap::new(),
            by_deleted_uid: HashMap::new(),
            head: -1,
        };
        for (line, record) in numbered(records) {
            match record {
                Record::Change(change) => truth.add(line, change)?,
                Record::TruthEnd { revision } => truth.head = *revision,
                _ => {}
            }
        }
        if truth.head < 0 { Err(CheckError::NoTruth) } else { Ok(truth) }
    }

    fn add(&mut self, line: usize, change: &'a Change) -> Result<(), CheckError> {
        let last = self.changes.last().map_or(0, |entry| entry.change.revision);
        let history = self.by_key.entry(&change.key).or_default();
        let before = history.last().map(|index| self.changes[*index].change);
        if change.revision < last || before.is_some_and(|before| before.revision >= change.revision) {
            return Err(CheckError::TruthOutOfOrder { line, revision: change.revision, last });
        }
        let index = self.changes.len();
        history.push(index);
        match &change.version {
            Some(version) if !version.write.is_empty() => {
                self.by_write.entry(&version.write).or_default().push(index);
            }
            Some(_) => {}
            None => {
                if let Some(was) = before.and_then(|before| before.version.as_ref()) {
                    self.by_deleted_uid.insert(&was.uid, index);
                }
            }
        }
        self.changes.push(Entry { line, change, before });
        Ok(())
    }

    /// The change of this key at exactly this revision.
    pub(super) fn change(&self, key: &Key, revision: Revision) -> Option<Entry<'a>> {
        let history = self.by_key.get(key)?;
        let found = history.binary_search_by_key(&revision, |index| self.changes[*index].change.revision);
        found.ok().map(|place| self.changes[history[place]])
    }

    /// The first change of this key after this revision.
    pub(super) fn next(&self, key: &Key, revision: Revision) -> Option<Entry<'a>> {
        let history = self.by_key.get(key)?;
        let place = history.partition_point(|index| self.changes[*index].change.revision <= revision);
        history.get(place).map(|index| self.changes[*index])
    }

    /// The object at this revision.
    pub(super) fn at(&self, key: &Key, revision: Revision) -> Option<&'a Version> {
        let history = self.by_key.get(key)?;
        let place = history.partition_point(|index| self.changes[*index].change.revision <= revision);
        self.changes[history[place.checked_sub(1)?]].change.version.as_ref()
    }

    /// Whether the object, or its absence, was so at some revision of `from..=to`.
    pub(super) fn ever(
        &self,
        key: &Key,
        from: Revision,
        to: Revision,
        so: impl Fn(Option<&Version>) -> bool,
    ) -> bool {
        let mut at = from;
        loop {
            if so(self.at(key, at)) {
                return true;
            }
            match self.next(key, at) {
                Some(entry) if entry.change.revision <= to => at = entry.change.revision,
                _ => return false,
            }
        }
    }

    /// The changes that carry this write's identity.
    pub(super) fn of_write(&self, write: &str) -> impl Iterator<Item = Entry<'a>> {
        self.by_write.get(write).into_iter().flatten().map(|index| self.changes[*index])
    }

    /// The deletion of the object with this uid.
    pub(super) fn deletion(&self, uid: &str) -> Option<Entry<'a>> {
        self.by_deleted_uid.get(uid).map(|index| self.changes[*index])
    }

    /// All deletions.
    pub(super) fn deletions(&self) -> Vec<Entry<'a>> {
        self.by_deleted_uid.values().map(|index| self.changes[*index]).collect()
    }

    /// What a list of this scope shows at this revision.
    pub(super) fn state(&self, scope: &Scope, revision: Revision) -> BTreeMap<&'a Key, &'a Version> {
        self.by_key
            .keys()
            .filter(|key| scope.covers(key))
            .filter_map(|key| Some((*key, self.at(key, revision)?)))
            .filter(|(_, version)| scope.selects(&version.shade))
            .collect()
    }

    /// Changes with `after` < revision.
    pub(super) fn after(&self, after: Revision) -> &[Entry<'a>] {
        &self.changes[self.changes.partition_point(|entry| entry.change.revision <= after)..]
    }

    /// The first change that a reader of this scope at `revision` does not know though `floor` was known.
    pub(super) fn missed(&self, scope: &Scope, revision: Revision, floor: Revision) -> Option<Entry<'a>> {
        let changes = self.after(revision).iter().take_while(|entry| entry.change.revision <= floor);
        changes.copied().find(|entry| entry.event(scope).is_some())
    }
}
