//! Writes that were lost, doubled, misplaced or done against a refusal.

use super::breaks;
use super::history::{History, refused};
use crate::checker::Property;
use crate::history::{Action, Outcome, Shown, Version};

#[test]
fn good_writes_break_nothing() {
    let mut history = History::new();
    let created = history.change(10, "a", "c1-1", "dark");
    let updated = history.change(11, "a", "c2-1", "dark");
    let patched = history.change(12, "a", "c1-2", "light");
    let uid = history.removal(13, "a");
    history.wrote((10, 20), Action::Create, "a", &created);
    history.wrote((30, 40), Action::Update { expected: 10 }, "a", &updated);
    // At the same time: either order is right.
    history.wrote((35, 45), Action::Patch, "a", &patched);
    history.operation((35, 45), Action::Create, "a", "c3-1", refused(409));
    history.operation((35, 45), Action::Update { expected: 10 }, "a", "c3-2", refused(409));
    history.operation((50, 60), Action::Delete, "a", "", Outcome::Done(Shown::Deleted { uid }));
    history.operation((55, 70), Action::Patch, "a", "c3-3", refused(404));
    history.operation(
        (80, 90),
        Action::Patch,
        "a",
        "c3-4",
        Outcome::Unknown { code: None, reason: "".into() },
    );
    breaks(&history.end(), &[]);
}

#[test]
fn acknowledged_and_not_there() {
    let mut history = History::new();
    let created = history.change(10, "a", "c1-1", "dark");
    let lost = Version { revision: 11, write: "c1-2".to_owned(), ..created };
    history.wrote((10, 20), Action::Patch, "a", &lost);
    breaks(&history.end(), &[Property::LostAcknowledgedWrite]);

    let mut history = History::new();
    history.change(10, "a", "c1-1", "dark");
    let uid = "a-10".to_owned();
    history.operation((10, 20), Action::Delete, "a", "", Outcome::Done(Shown::Deleted { uid }));
    breaks(&history.end(), &[Property::LostAcknowledgedWrite]);
}

#[test]
fn acknowledged_with_another_value_or_revision() {
    let mut history = History::new();
    let mut created = history.change(10, "a", "c1-1", "dark");
    created.fingerprint += 1;
    history.wrote((10, 20), Action::Create, "a", &created);
    breaks(&history.end(), &[Property::AcknowledgedElsewhere]);

    let mut history = History::new();
    let mut created = history.change(10, "a", "c1-1", "dark");
    created.revision = 9;
    history.wrote((10, 20), Action::Create, "a", &created);
    breaks(&history.end(), &[Property::AcknowledgedElsewhere]);

    let mut history = History::new();
    history.change(10, "a", "c1-1", "dark");
    let other = history.change(11, "a", "c2-1", "dark");
    let claimed = Version { write: "c1-2".to_owned(), ..other };
    history.wrote((10, 20), Action::Patch, "a", &claimed);
    breaks(&history.end(), &[Property::AcknowledgedElsewhere]);
}

#[test]
fn done_twice() {
    let mut history = History::new();
    let first = history.change(10, "a", "c1-1", "dark");
    let second = history.change(11, "a", "c2-1", "dark");
    history.change(12, "a", "c2-1", "dark");
    history.wrote((10, 20), Action::Create, "a", &first);
    history.wrote((30, 40), Action::Patch, "a", &second);
    breaks(&history.end(), &[Property::AppliedTwice]);

    let mut history = History::new();
    history.change(10, "a", "c1-1", "dark");
    let uid = history.removal(11, "a");
    for _ in 0..2 {
        let deleted = Shown::Deleted { uid: uid.clone() };
        history.operation((10, 20), Action::Delete, "a", "", Outcome::Done(deleted));
    }
    breaks(&history.end(), &[Property::AppliedTwice]);
}

#[test]
fn refused_and_done() {
    let mut history = History::new();
    history.change(10, "a", "c1-1", "dark");
    history.change(11, "a", "c2-1", "dark");
    history.operation((10, 20), Action::Patch, "a", "c2-1", refused(409));
    breaks(&history.end(), &[Property::RefusedButApplied]);

    // A deletion names nobody, but there is nobody else.
    let unknown = Outcome::Unknown { code: Some(503), reason: String::new() };
    for (other, wanted) in [(refused(404), vec![Property::RefusedButApplied]), (unknown, vec![])] {
        let mut history = History::new();
        history.change(10, "a", "c1-1", "dark");
        history.removal(11, "a");
        history.operation((10, 1_000_010), Action::Delete, "a", "", refused(404));
        history.operation((10, 1_000_010), Action::Delete, "a", "", other);
        breaks(&history.end(), &wanted);
    }
}

#[test]
fn revisions_against_time() {
    let mut history = History::new();
    let first = history.change(10, "a", "c1-1", "dark");
    let second = history.change(11, "b", "c2-1", "dark");
    // The second was acknowledged before the first was begun.
    history.wrote((10, 20), Action::Create, "b", &second);
    history.wrote((30, 40), Action::Create, "a", &first);
    breaks(&history.end(), &[Property::WriteOrder]);
}

#[test]
fn over_what_it_must_not_replace() {
    let mut history = History::new();
    history.change(10, "a", "c1-1", "dark");
    let second = history.change(11, "a", "c2-1", "dark");
    history.wrote((10, 20), Action::Create, "a", &second);
    breaks(&history.end(), &[Property::CompareAndSet]);

    let mut history = History::new();
    history.change(10, "a", "c1-1", "dark");
    history.change(11, "a", "c1-2", "dark");
    let second = history.change(12, "a", "c2-1", "dark");
    // Even if nobody was told.
    let nobody = Outcome::Unknown { code: Some(503), reason: String::new() };
    history.operation((10, 20), Action::Update { expected: 10 }, "a", &second.write, nobody);
    breaks(&history.end(), &[Property::CompareAndSet]);

    // A patch makes nothing.
    let mut history = History::new();
    let created = history.change(10, "a", "c1-1", "dark");
    history.wrote((10, 20), Action::Patch, "a", &created);
    breaks(&history.end(), &[Property::CompareAndSet]);
}

#[test]
fn a_patch_that_undoes_another_write() {
    let mut history = History::new();
    history.change(10, "a", "c1-1", "dark");
    let patched = history.change(11, "a", "c2-1", "dark");
    history.forget("c1");
    history.wrote((10, 20), Action::Patch, "a", &patched);
    breaks(&history.end(), &[Property::LostUpdate]);
}

#[test]
fn refusals_that_nothing_explains() {
    let there = |code: u16, action: Action| {
        let mut history = History::new();
        let created = history.change(10, "a", "c1-1", "dark");
        history.wrote((10, 20), Action::Create, "a", &created);
        history.operation((30, 40), action, "a", "c2-1", refused(code));
        history.end()
    };
    let gone = |code: u16, action: Action| {
        let mut history = History::new();
        history.change(10, "a", "c1-1", "dark");
        let uid = history.removal(11, "a");
        history.operation((10, 20), Action::Delete, "a", "", Outcome::Done(Shown::Deleted { uid }));
        history.operation((30, 40), action, "a", "c2-1", refused(code));
        history.end()
    };
    let unexplained = &[Property::UnexplainedRefusal];
    breaks(&there(409, Action::Create), &[]);
    breaks(&there(404, Action::Patch), unexplained);
    breaks(&there(404, Action::Delete), unexplained);
    breaks(&there(409, Action::Update { expected: 10 }), unexplained);
    breaks(&there(403, Action::Create), unexplained);
    breaks(&there(429, Action::Create), &[]);
    breaks(&gone(409, Action::Create), unexplained);
    breaks(&gone(404, Action::Patch), &[]);
}
