//! A server whose cache goes back in time, or stands still.

use super::breaks;
use super::history::{History, refused};
use crate::checker::Property;
use crate::history::EventType::Modified;
use crate::history::{Action, Freshness, Record, Resource, Scope, Selector, Start, Version};

/// `a` at 10 and 11, then `b` at 12. Nobody was told yet.
fn two() -> (History, [Version; 3]) {
    let mut history = History::new();
    let first = history.change(10, "a", "c1-1", "dark");
    let second = history.change(11, "a", "c1-2", "dark");
    let other = history.change(12, "b", "c1-3", "dark");
    (history, [first, second, other])
}

#[test]
fn forward_is_good() {
    let (mut history, [first, second, _]) = two();
    history.operation((10, 20), Action::Get(Freshness::Any), "a", "", refused(404));
    history.got((10, 20), Freshness::Any, "a", &first);
    history.got((15, 30), Freshness::Any, "a", &second);
    // Called before the other was answered.
    history.listed((25, 40), Freshness::Any, 10, &[("a", &first)]);
    // Another resource's revision says nothing of what this scope shows.
    history.listed((50, 60), Freshness::Any, 11, &[("a", &second)]);
    breaks(&history.end(), &[]);
}

#[test]
fn backward_is_not() {
    let (mut history, [first, second, _]) = two();
    history.got((10, 20), Freshness::Any, "a", &second);
    history.got((30, 40), Freshness::Any, "a", &first);
    breaks(&history.end(), &[Property::WentBack]);

    let (mut history, [first, second, _]) = two();
    history.got((10, 20), Freshness::Any, "a", &second);
    history.listed((30, 40), Freshness::Any, 10, &[("a", &first)]);
    breaks(&history.end(), &[Property::WentBack]);

    let (mut history, [_, second, _]) = two();
    history.got((10, 20), Freshness::Any, "a", &second);
    history.operation((30, 40), Action::Get(Freshness::Any), "a", "", refused(404));
    breaks(&history.end(), &[Property::WentBack]);

    let (mut history, [first, second, _]) = two();
    let scope = super::history::scope(Selector::Everything);
    history.watch(Start::After(10), scope);
    history.event(Modified, "a", &second);
    history.got((600_000, 600_001), Freshness::Any, "a", &first);
    breaks(&history.end(), &[Property::WentBack]);
}

#[test]
fn in_the_end_everything_is_shown() {
    for (revision, wanted) in [(12, vec![]), (11, vec![Property::StaleCache])] {
        let (mut history, [_, second, other]) = two();
        history.record(Record::Run { seed: 1, servers: 1, etcd_members: 1 });
        history.record(Record::Settled { at: 100, revision: 12 });
        let items = [("a", &second), ("b", &other)];
        let items = if revision == 12 { &items[..] } else { &items[..1] };
        history.listed((110, 120), Freshness::Any, revision, items);
        let pods = Scope { resource: Resource::Pods, namespace: None, selector: Selector::Everything };
        let nothing = super::history::listed(12, &[], false);
        history.list((110, 120), Freshness::Any, None, pods, nothing);
        breaks(&history.end(), &wanted);
    }
}
