//! Gets that show the past, the future, or nothing that was.

use super::breaks;
use super::history::{History, refused};
use crate::checker::Property;
use crate::history::{Action, Freshness, Version};

/// Two writes, the second acknowledged at 40; and another key written later, begun at 200.
fn two() -> (History, Version, Version) {
    let mut history = History::new();
    let first = history.change(10, "a", "c1-1", "dark");
    let second = history.change(11, "a", "c1-2", "dark");
    let later = history.change(12, "b", "c1-3", "dark");
    history.wrote((10, 20), Action::Create, "a", &first);
    history.wrote((30, 40), Action::Patch, "a", &second);
    history.wrote((200, 210), Action::Create, "b", &later);
    (history, first, second)
}

#[test]
fn good_reads_break_nothing() {
    let (mut history, first, second) = two();
    history.got((50, 60), Freshness::Consistent, "a", &second);
    // Called before the second write was acknowledged.
    history.got((35, 60), Freshness::Consistent, "a", &first);
    history.got((50, 60), Freshness::Any, "a", &first);
    history.got((50, 60), Freshness::NotOlderThan(10), "a", &first);
    history.operation((50, 60), Action::Get(Freshness::Consistent), "b", "", refused(404));
    history.operation((50, 60), Action::Get(Freshness::Any), "a", "", refused(404));
    breaks(&history.end(), &[]);
}

#[test]
fn older_than_an_acknowledged_write() {
    let (mut history, first, _) = two();
    history.got((50, 60), Freshness::Consistent, "a", &first);
    breaks(&history.end(), &[Property::StaleRead]);

    let (mut history, _, _) = two();
    history.operation((50, 60), Action::Get(Freshness::Consistent), "a", "", refused(404));
    breaks(&history.end(), &[Property::StaleRead]);
}

#[test]
fn older_than_what_another_client_read() {
    let mut history = History::new();
    let first = history.change(10, "a", "c1-1", "dark");
    let second = history.change(11, "a", "c1-2", "dark");
    history.got((10, 20), Freshness::Any, "a", &second);
    history.got((30, 40), Freshness::Consistent, "a", &first);
    breaks(&history.end(), &[Property::StaleRead]);
}

#[test]
fn older_than_asked() {
    let (mut history, first, _) = two();
    history.got((50, 60), Freshness::NotOlderThan(11), "a", &first);
    breaks(&history.end(), &[Property::OlderThanAsked]);

    let (mut history, _, _) = two();
    history.operation((50, 60), Action::Get(Freshness::NotOlderThan(11)), "a", "", refused(404));
    breaks(&history.end(), &[Property::OlderThanAsked]);
}

#[test]
fn what_was_only_written_later() {
    let mut history = History::new();
    let first = history.change(10, "a", "c1-1", "dark");
    history.got((10, 20), Freshness::Any, "a", &first);
    history.wrote((30, 40), Action::Create, "a", &first);
    // The read also makes the write seem late: its revision was known before it was called.
    breaks(&history.end(), &[Property::WriteOrder, Property::FutureRead]);
}

#[test]
fn what_was_never_written() {
    let (mut history, first, _) = two();
    let invented = Version { fingerprint: 1, ..first.clone() };
    history.got((50, 60), Freshness::Any, "a", &invented);
    breaks(&history.end(), &[Property::NeverWritten]);

    let (mut history, _, _) = two();
    let invented = Version { revision: 9, ..first };
    history.got((50, 60), Freshness::Any, "a", &invented);
    breaks(&history.end(), &[Property::NeverWritten]);
}

#[test]
fn refusals_of_reads() {
    let (mut history, _, _) = two();
    history.operation((50, 60), Action::Get(Freshness::Any), "a", "", refused(403));
    breaks(&history.end(), &[Property::UnexplainedRefusal]);
}
