//! Lists that are no snapshot, or one of the wrong revision.

use super::breaks;
use super::history::{History, dark, listed, refused, scope};
use crate::checker::Property;
use crate::history::{Action, Freshness, Outcome, Page, Record, Selector, Version};

/// `a` at 10 and 12, `b` at 11, `c` at 13 in the other shade. Acknowledged by 80.
fn three() -> (History, [Version; 4]) {
    let mut history = History::new();
    let a = history.change(10, "a", "c1-1", "dark");
    let b = history.change(11, "b", "c1-2", "dark");
    let second = history.change(12, "a", "c1-3", "dark");
    let c = history.change(13, "c", "c1-4", "light");
    history.wrote((10, 20), Action::Create, "a", &a);
    history.wrote((30, 40), Action::Create, "b", &b);
    history.wrote((50, 60), Action::Patch, "a", &second);
    history.wrote((70, 80), Action::Create, "c", &c);
    (history, [a, b, second, c])
}

fn page(number: u32) -> Option<Page> {
    Some(Page { chain: 1, number, restarted_after: None })
}

#[test]
fn good_lists_break_nothing() {
    let (mut history, [a, b, second, c]) = three();
    history.listed((90, 95), Freshness::Consistent, 13, &[("a", &second), ("b", &b), ("c", &c)]);
    history.listed((90, 95), Freshness::Any, 11, &[("a", &a), ("b", &b)]);
    history.listed((90, 95), Freshness::Exact(12), 12, &[("a", &second), ("b", &b)]);
    history.listed((90, 95), Freshness::NotOlderThan(12), 12, &[("a", &second), ("b", &b)]);
    let selected = listed(13, &[("a", &second), ("b", &b)], false);
    history.list((90, 95), Freshness::Consistent, None, dark(), selected);
    // What it misses its selector does not see.
    let selected = listed(12, &[("a", &second), ("b", &b)], false);
    history.list((90, 95), Freshness::Consistent, None, dark(), selected);
    let all = scope(Selector::Everything);
    let first = listed(13, &[("a", &second)], true);
    history.list((90, 95), Freshness::Consistent, page(0), all.clone(), first);
    history.list((96, 97), Freshness::Consistent, page(1), all, listed(13, &[("b", &b), ("c", &c)], false));
    breaks(&history.end(), &[]);
}

#[test]
fn a_state_that_never_was() {
    for items in [
        // Missing.
        vec![("a", 2), ("b", 1)],
        // Of another revision.
        vec![("a", 0), ("b", 1), ("c", 3)],
        // Twice.
        vec![("a", 2), ("b", 1), ("b", 1), ("c", 3)],
    ] {
        let (mut history, versions) = three();
        let items: Vec<_> = items.into_iter().map(|(name, index)| (name, &versions[index])).collect();
        history.listed((90, 95), Freshness::Any, 13, &items);
        breaks(&history.end(), &[Property::NotASnapshot]);
    }
    let (mut history, [_, b, second, c]) = three();
    let unselected = listed(13, &[("a", &second), ("b", &b), ("c", &c)], false);
    history.list((90, 95), Freshness::Any, None, dark(), unselected);
    breaks(&history.end(), &[Property::NotASnapshot]);
}

#[test]
fn pages_of_two_states() {
    let (mut history, [a, b, second, _]) = three();
    let all = scope(Selector::Everything);
    history.list((45, 46), Freshness::Consistent, page(0), all.clone(), listed(11, &[("a", &a)], true));
    history.list((90, 95), Freshness::Consistent, page(1), all.clone(), listed(12, &[("b", &b)], false));
    breaks(&history.end(), &[Property::NotASnapshot]);

    // A page left out.
    let (mut history, [_, _, _, c]) = three();
    history.list((90, 95), Freshness::Consistent, page(0), all.clone(), listed(13, &[("a", &second)], true));
    history.list((90, 95), Freshness::Consistent, page(1), all.clone(), listed(13, &[("c", &c)], false));
    breaks(&history.end(), &[Property::NotASnapshot]);

    // After a compaction the rest is another snapshot, but one.
    for (rest, wanted) in
        [(vec![("b", &b), ("c", &c)], vec![]), (vec![("b", &b)], vec![Property::NotASnapshot])]
    {
        let (mut history, _) = three();
        history.record(Record::Compaction { call: 85, revision: 13 });
        history.list((45, 46), Freshness::Consistent, page(0), all.clone(), listed(11, &[("a", &a)], true));
        history.list((90, 91), Freshness::Consistent, page(1), all.clone(), refused(410));
        let restarted = Some(Page { chain: 1, number: 2, restarted_after: Some(("n".into(), "a".into())) });
        history.list((92, 93), Freshness::Consistent, restarted, all.clone(), listed(13, &rest, false));
        breaks(&history.end(), &wanted);
    }
}

#[test]
fn lists_of_the_wrong_time() {
    let (mut history, [a, b, _, _]) = three();
    history.listed((90, 95), Freshness::Consistent, 11, &[("a", &a), ("b", &b)]);
    breaks(&history.end(), &[Property::StaleRead]);

    let (mut history, [a, b, _, _]) = three();
    history.listed((90, 95), Freshness::NotOlderThan(12), 11, &[("a", &a), ("b", &b)]);
    breaks(&history.end(), &[Property::OlderThanAsked]);

    let (mut history, [a, b, _, _]) = three();
    history.listed((90, 95), Freshness::Exact(12), 11, &[("a", &a), ("b", &b)]);
    breaks(&history.end(), &[Property::WrongRevision]);

    let (mut history, [_, b, second, _]) = three();
    // Answered before the write of 12 was begun.
    history.listed((41, 45), Freshness::Any, 12, &[("a", &second), ("b", &b)]);
    let found = super::check(&history.end()).unwrap();
    assert!(found.iter().any(|violation| violation.property == Property::FutureRead), "{found:?}");
}

#[test]
fn refusals_of_lists() {
    let all = || scope(Selector::Everything);
    for (compacted, wanted) in [(13, vec![]), (12, vec![Property::UnjustifiedGone])] {
        let (mut history, _) = three();
        history.record(Record::Compaction { call: 85, revision: compacted });
        history.list((90, 95), Freshness::Exact(12), None, all(), refused(410));
        breaks(&history.end(), &wanted);
    }
    let (mut history, _) = three();
    history.list((90, 95), Freshness::Consistent, None, all(), refused(410));
    history.list((90, 95), Freshness::Consistent, None, all(), refused(429));
    let unknown = Outcome::Unknown { code: Some(504), reason: String::new() };
    history.list((90, 95), Freshness::Consistent, None, all(), unknown);
    breaks(&history.end(), &[Property::UnexplainedRefusal]);
}
