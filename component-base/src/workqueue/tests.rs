//! The queue's rules, with the clock in hand where time matters.

use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::{Shutdown, metrics::Registry};

fn taken<T: Item>(state: &mut State<T>, now: Instant) -> Option<T> {
    match state.take(now) {
        Take::Item { item, .. } => Some(item),
        Take::Wait(_) | Take::ShutDown => None,
    }
}

#[test]
fn an_item_is_queued_once_and_never_worked_on_twice_at_a_time() {
    let now = Instant::now();
    let mut state = State::new(RateLimits::default());
    assert!(state.add("a", now));
    assert!(!state.add("a", now));
    assert_eq!(state.len(), 1);
    assert_eq!(taken(&mut state, now), Some("a"));
    assert!(state.add("a", now), "marked while in work");
    assert!(!state.add("a", now));
    assert_eq!(taken(&mut state, now), None);
    assert!(state.done(&"a", now).1, "queued again");
    assert_eq!(taken(&mut state, now), Some("a"));
    assert!(!state.done(&"a", now).1);
    assert_eq!(taken(&mut state, now), None);
}

#[test]
fn delayed_items_come_when_due_in_order_and_once() {
    let now = Instant::now();
    let after = |ms| now + Duration::from_millis(ms);
    let mut state = State::new(RateLimits::default());
    state.add_at("late", after(50));
    state.add_at("soon", after(10));
    state.add_at("late", after(90));
    state.add_at("soon", after(5));
    assert_eq!(state.take(now), Take::Wait(Some(after(5))));
    assert_eq!(taken(&mut state, after(6)), Some("soon"));
    state.done(&"soon", after(6));
    assert_eq!(state.take(after(20)), Take::Wait(Some(after(50))), "the outdated entry at 10 does not count");
    assert_eq!(taken(&mut state, after(50)), Some("late"));
    state.done(&"late", after(50));
    assert_eq!(state.take(after(200)), Take::Wait(None));
}

#[test]
fn failures_double_the_wait_and_the_bucket_bounds_the_sum() {
    let now = Instant::now();
    let mut state = State::new(RateLimits::default());
    let waits: Vec<u128> = (0..5).map(|_| state.failure_delay(&"a", now).as_millis()).collect();
    assert_eq!(waits, [5, 10, 20, 40, 80]);
    assert_eq!(state.failures(&"a"), 5);
    state.forget(&"a");
    assert_eq!(state.failures(&"a"), 0);
    assert_eq!(state.failure_delay(&"a", now).as_millis(), 5);
    for _ in 0..200 {
        state.failure_delay(&"a", now);
    }
    assert_eq!(state.failure_delay(&"a", now + Duration::from_secs(3600)).as_secs(), 1000, "the longest");
    let mut state = State::new(RateLimits::default());
    let waits: Vec<u128> = (0..102).map(|item| state.failure_delay(&item, now).as_millis()).collect();
    assert_eq!(waits[99], 5, "the burst");
    assert_eq!((waits[100], waits[101]), (100, 200), "then ten a second");
}

#[test]
fn shut_down_hands_out_what_is_queued_and_takes_nothing_more() {
    let now = Instant::now();
    let mut state = State::new(RateLimits::default());
    state.add("a", now);
    state.add_at("delayed", now);
    state.shut_down();
    assert!(!state.add("b", now));
    assert_eq!(taken(&mut state, now), Some("a"));
    assert_eq!(state.take(now), Take::ShutDown);
}

#[tokio::test]
async fn workers_retry_failures_and_survive_panics() {
    let registry = Registry::new();
    let queue = WorkQueue::named("test", &WorkqueueMetrics::register(&registry));
    let shutdown = Shutdown::new();
    let attempts = Arc::new(AtomicU32::new(0));
    let handler = {
        let (attempts, shutdown) = (Arc::clone(&attempts), shutdown.clone());
        move |item: &'static str| {
            let (attempts, shutdown) = (Arc::clone(&attempts), shutdown.clone());
            async move {
                match attempts.fetch_add(1, Ordering::SeqCst) {
                    0 => return Err(std::io::Error::other("first")),
                    1 => panic!("second"),
                    _ => shutdown.cancel(),
                }
                assert_eq!(item, "key");
                Ok(())
            }
        }
    };
    queue.add("key");
    queue.add("key");
    let work = run_workers(queue.clone(), 2, shutdown, handler);
    tokio::time::timeout(Duration::from_secs(10), work).await.unwrap();
    assert_eq!(attempts.load(Ordering::SeqCst), 3);
    assert_eq!(queue.num_requeues(&"key"), 0, "forgotten after success");
    let text = registry.encode();
    for line in [
        "workqueue_adds_total{name=\"test\"} 3",
        "workqueue_retries_total{name=\"test\"} 2",
        "workqueue_panics_total{name=\"test\"} 1",
        "workqueue_depth{name=\"test\"} 0",
        "workqueue_work_duration_seconds_count{name=\"test\"} 3",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\nin\n{text}");
    }
}

#[tokio::test]
async fn an_earlier_addition_wakes_a_worker_that_waits_for_a_later_one() {
    let queue = WorkQueue::new();
    queue.add_after("late", Duration::from_secs(3600));
    let waiting = tokio::spawn({
        let queue = queue.clone();
        async move { queue.get().await }
    });
    tokio::task::yield_now().await;
    queue.add_after("soon", Duration::from_millis(5));
    let item = tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap();
    assert_eq!(item, Some("soon"));
    queue.shut_down();
    assert_eq!(queue.get().await, None);
}
