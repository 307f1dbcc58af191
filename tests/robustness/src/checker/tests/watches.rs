//! Watches that leave out, repeat, reorder, invent, mislabel or lie.

use super::breaks;
use super::history::{History, dark, scope};
use crate::checker::Property;
use crate::history::EventType::{Added, Deleted, Modified};
use crate::history::{Freshness, Record, Selector, Sent, Start, Version};

/// `a` is made at 10, changed at 11, light from 12 on, dark again at 13, gone at 14; `b` is made at 15.
fn life() -> (History, [Version; 5]) {
    let mut history = History::new();
    let made = history.change(10, "a", "c1-1", "dark");
    let changed = history.change(11, "a", "c1-2", "dark");
    let light = history.change(12, "a", "c1-3", "light");
    let dark = history.change(13, "a", "c1-4", "dark");
    history.removal(14, "a");
    let other = history.change(15, "b", "c1-5", "light");
    (history, [made, changed, light, dark, other])
}

/// The version as it was, at the revision at which it went.
fn at(version: &Version, revision: i64) -> Version {
    Version { revision, ..version.clone() }
}

fn all() -> crate::history::Scope {
    scope(Selector::Everything)
}

fn settled(history: &mut History) {
    history.record(Record::Settled { at: 900_000, revision: 15 });
}

#[test]
fn good_watches_break_nothing() {
    let (mut history, [made, changed, light, dark_again, other]) = life();
    history.watch(Start::After(9), all());
    history.event(Added, "a", &made);
    history.event(Modified, "a", &changed);
    history.bookmark(11, false);
    history.event(Modified, "a", &light);
    history.event(Modified, "a", &dark_again);
    history.event(Deleted, "a", &at(&dark_again, 14));
    history.event(Added, "b", &other);
    history.bookmark(20, false);
    history.received(Sent::End { why: "end of stream".to_owned() });
    settled(&mut history);
    breaks(&history.end(), &[]);

    let (mut history, [_, changed, _, dark_again, _]) = life();
    history.watch(Start::After(10), dark());
    history.event(Modified, "a", &changed);
    // Out of sight: what was seen last, at the revision of the change.
    history.event(Deleted, "a", &at(&changed, 12));
    history.event(Added, "a", &dark_again);
    history.event(Deleted, "a", &at(&dark_again, 14));
    settled(&mut history);
    breaks(&history.end(), &[]);

    let (mut history, [_, changed, light, dark_again, other]) = life();
    history.watch(Start::InitialEvents(Freshness::Consistent), all());
    history.event(Added, "a", &changed);
    // It may go on while the initial events are not over.
    history.event(Modified, "a", &light);
    history.bookmark(12, true);
    history.event(Modified, "a", &dark_again);
    history.event(Deleted, "a", &at(&dark_again, 14));
    history.event(Added, "b", &other);
    settled(&mut history);
    breaks(&history.end(), &[]);
}

#[test]
fn left_out() {
    let (mut history, [made, _, light, ..]) = life();
    history.watch(Start::After(9), all());
    history.event(Added, "a", &made);
    history.event(Modified, "a", &light);
    breaks(&history.end(), &[Property::Gap]);
}

#[test]
fn sent_again() {
    let (mut history, [made, changed, ..]) = life();
    history.watch(Start::After(9), all());
    history.event(Added, "a", &made);
    history.event(Modified, "a", &changed);
    history.event(Modified, "a", &changed);
    breaks(&history.end(), &[Property::Duplicate]);

    // From before the start.
    let (mut history, [_, changed, ..]) = life();
    history.watch(Start::After(11), all());
    history.event(Modified, "a", &changed);
    breaks(&history.end(), &[Property::Duplicate]);
}

#[test]
fn sent_late() {
    let (mut history, [made, changed, light, ..]) = life();
    history.watch(Start::After(9), all());
    history.event(Added, "a", &made);
    history.event(Modified, "a", &light);
    history.event(Modified, "a", &changed);
    breaks(&history.end(), &[Property::Reordered]);
}

#[test]
fn never_happened() {
    let (mut history, [made, ..]) = life();
    history.watch(Start::After(9), all());
    history.event(Added, "c", &made);
    breaks(&history.end(), &[Property::EventNotInTruth]);
}

#[test]
fn mislabelled() {
    let (mut history, [made, changed, ..]) = life();
    history.watch(Start::After(9), all());
    history.event(Added, "a", &made);
    history.event(Added, "a", &changed);
    breaks(&history.end(), &[Property::WrongEventType]);

    // Into sight is ADDED.
    let (mut history, [.., dark_again, _]) = life();
    history.watch(Start::After(12), dark());
    history.event(Modified, "a", &dark_again);
    breaks(&history.end(), &[Property::WrongEventType]);

    // Out of sight is DELETED.
    let (mut history, [_, _, light, ..]) = life();
    history.watch(Start::After(11), dark());
    history.event(Modified, "a", &light);
    breaks(&history.end(), &[Property::WrongEventType]);

    // Not to be seen at all.
    let (mut history, [.., other]) = life();
    history.watch(Start::After(14), dark());
    history.event(Added, "b", &other);
    breaks(&history.end(), &[Property::WrongEventType]);
}

#[test]
fn another_object() {
    let (mut history, [made, _, light, ..]) = life();
    history.watch(Start::After(10), all());
    history.event(Modified, "a", &at(&made, 11));
    breaks(&history.end(), &[Property::WrongEventObject]);

    // Out of sight with the object as it is now.
    let (mut history, _) = life();
    history.watch(Start::After(11), dark());
    history.event(Deleted, "a", &light);
    breaks(&history.end(), &[Property::WrongEventObject]);
}

#[test]
fn bookmarks_that_lie() {
    let (mut history, [made, changed, ..]) = life();
    history.watch(Start::After(9), all());
    history.event(Added, "a", &made);
    history.bookmark(11, false);
    breaks(&history.end(), &[Property::BookmarkLies]);

    let (mut history, _) = life();
    history.watch(Start::After(9), all());
    history.event(Added, "a", &made);
    history.event(Modified, "a", &changed);
    history.bookmark(10, false);
    breaks(&history.end(), &[Property::BookmarkBackwards]);
}

#[test]
fn initial_events_that_are_no_state() {
    let (mut history, [made, ..]) = life();
    history.watch(Start::InitialEvents(Freshness::Any), all());
    history.event(Added, "a", &made);
    history.bookmark(12, true);
    breaks(&history.end(), &[Property::InitialEventsNotASnapshot]);

    let (mut history, _) = life();
    history.watch(Start::InitialEvents(Freshness::Any), all());
    history.bookmark(11, true);
    breaks(&history.end(), &[Property::InitialEventsNotASnapshot]);
}

#[test]
fn initial_events_that_are_old() {
    for (freshness, wanted) in [
        (Freshness::Any, vec![]),
        (Freshness::Consistent, vec![Property::StaleRead]),
        (Freshness::NotOlderThan(12), vec![Property::OlderThanAsked]),
    ] {
        let (mut history, [made, changed, ..]) = life();
        // Known before the watch was called.
        history.got((1, 2), Freshness::Any, "a", &changed);
        history.watch(Start::InitialEvents(freshness), all());
        history.event(Added, "a", &made);
        history.bookmark(10, true);
        breaks(&history.end(), &wanted);
    }
}

#[test]
fn after_its_error() {
    let (mut history, [made, ..]) = life();
    history.watch(Start::After(9), all());
    history.received(Sent::Error { code: 410, reason: String::new() });
    history.event(Added, "a", &made);
    breaks(&history.end(), &[Property::AfterTheEnd]);
}

#[test]
fn never_told() {
    let (mut history, [made, ..]) = life();
    history.watch(Start::After(9), all());
    history.event(Added, "a", &made);
    settled(&mut history);
    breaks(&history.end(), &[Property::StalledWatch]);

    let (mut history, _) = life();
    history.watch(Start::InitialEvents(Freshness::Any), all());
    settled(&mut history);
    breaks(&history.end(), &[Property::StalledWatch]);
}
