//! The scheduling queue: which pod is tried next, and when one that failed is tried again.
//!
//! Four places: *active* (by priority, then age), *backoff* (waiting out a delay), *unschedulable* (waiting
//! for an event that helps, or five minutes), *gated* (kept out by a PreEnqueue plugin). Time is passed in and
//! nothing here waits. Upstream: `pkg/scheduler/backend/queue`.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::framework::{ClusterEvent, Framework};
use crate::pod_info::PodInfo;

/// How long a pod stays unschedulable without any event that helps.
const MAX_UNSCHEDULABLE: Duration = Duration::from_secs(300);

/// A pod in the queue, with its history.
#[derive(Clone, Debug)]
pub struct QueuedPod {
    /// The pod.
    pub pod: Arc<PodInfo>,
    /// How often it was tried.
    pub attempts: u32,
    /// When it first came.
    pub added: Instant,
    /// The plugins that rejected it at the last try.
    pub rejected_by: BTreeSet<&'static str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Active,
    Backoff,
    Unschedulable,
    Gated,
    InFlight,
}

#[derive(Debug)]
struct Entry {
    queued: QueuedPod,
    place: Place,
    /// Position in the index of the place.
    active: Option<ActiveKey>,
    /// End of the delay, or of the stay.
    until: Option<(Instant, String)>,
    /// While in flight: an event came that could help, so a failure leads to backoff at once.
    helped: bool,
}

type ActiveKey = (Reverse<i32>, Instant, u64);

/// How many pods wait in each place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lengths {
    /// Ready to be tried.
    pub active: usize,
    /// Waiting out a delay.
    pub backoff: usize,
    /// Waiting for an event.
    pub unschedulable: usize,
    /// Kept out.
    pub gated: usize,
}

/// The queue.
#[derive(Debug)]
pub struct SchedulingQueue {
    entries: HashMap<String, Entry>,
    active: BTreeMap<ActiveKey, String>,
    timers: BTreeSet<(Instant, String)>,
    sequence: u64,
    initial_backoff: Duration,
    max_backoff: Duration,
}

impl SchedulingQueue {
    /// An empty queue whose delays go from `initial_backoff` to `max_backoff`.
    pub fn new(initial_backoff: Duration, max_backoff: Duration) -> Self {
        Self {
            entries: HashMap::new(),
            active: BTreeMap::new(),
            timers: BTreeSet::new(),
            sequence: 0,
            initial_backoff,
            max_backoff,
        }
    }

    fn unindex(&mut self, uid: &str) {
        if let Some(entry) = self.entries.get_mut(uid) {
            if let Some(key) = entry.active.take() {
                self.active.remove(&key);
            }
            if let Some(timer) = entry.until.take() {
                self.timers.remove(&timer);
            }
        }
    }

    fn move_to(&mut self, uid: &str, place: Place, until: Option<Instant>) {
        self.unindex(uid);
        let Some(entry) = self.entries.get_mut(uid) else { return };
        entry.place = place;
        entry.helped = false;
        if place == Place::Active {
            self.sequence += 1;
            let key = (Reverse(entry.queued.pod.priority), entry.queued.added, self.sequence);
            entry.active = Some(key);
            self.active.insert(key, uid.to_owned());
        }
        if let Some(until) = until {
            entry.until = Some((until, uid.to_owned()));
            self.timers.insert((until, uid.to_owned()));
        }
    }

    fn backoff(&self, attempts: u32) -> Duration {
        let factor = 1u32.checked_shl(attempts.saturating_sub(1)).unwrap_or(u32::MAX);
        self.initial_backoff.saturating_mul(factor).min(self.max_backoff)
    }

    /// A pod without a node was added, or seen again after a restart.
    pub fn add(&mut self, pod: Arc<PodInfo>, framework: &Framework, now: Instant) {
        let uid = pod.uid.clone();
        if self.entries.contains_key(&uid) {
            return self.update(pod, framework, now);
        }
        let gated = framework.pre_enqueue(&pod).is_err();
        let queued = QueuedPod { pod, attempts: 0, added: now, rejected_by: BTreeSet::new() };
        let entry = Entry { queued, place: Place::Gated, active: None, until: None, helped: false };
        self.entries.insert(uid.clone(), entry);
        self.move_to(&uid, if gated { Place::Gated } else { Place::Active }, None);
    }

    /// A waiting pod was changed.
    pub fn update(&mut self, pod: Arc<PodInfo>, framework: &Framework, now: Instant) {
        let Some(entry) = self.entries.get_mut(&pod.uid) else { return self.add(pod, framework, now) };
        let old = std::mem::replace(&mut entry.queued.pod, Arc::clone(&pod));
        let place = entry.place;
        let event = ClusterEvent::PodUpdated { old: &old.pod, new: &pod.pod };
        let helped = framework.may_help(&entry.queued.rejected_by, &pod, &event);
        match place {
            Place::Gated if framework.pre_enqueue(&pod).is_ok() => {
                self.move_to(&pod.uid, Place::Active, None)
            }
            Place::Active => self.move_to(&pod.uid, Place::Active, None),
            Place::Unschedulable if helped => self.requeue(&pod.uid, now),
            Place::InFlight => entry.helped |= helped,
            Place::Gated | Place::Backoff | Place::Unschedulable => {}
        }
    }

    /// A pod is gone or has a node.
    pub fn remove(&mut self, uid: &str) {
        self.unindex(uid);
        self.entries.remove(uid);
    }

    /// The next pod to try; it is in flight until [`Self::done`] or [`Self::failed`].
    pub fn pop(&mut self) -> Option<QueuedPod> {
        let (_, uid) = self.active.first_key_value()?;
        let uid = uid.clone();
        self.move_to(&uid, Place::InFlight, None);
        let entry = self.entries.get_mut(&uid)?;
        entry.queued.attempts += 1;
        Some(entry.queued.clone())
    }

    /// A pod in flight was bound.
    pub fn done(&mut self, uid: &str) {
        self.remove(uid);
    }

    /// A pod in flight could not be scheduled or bound. `rejected_by` is empty after an error of ours.
    pub fn failed(&mut self, uid: &str, rejected_by: BTreeSet<&'static str>, now: Instant) {
        let Some(entry) = self.entries.get_mut(uid) else { return };
        let retry_soon = entry.helped || rejected_by.is_empty();
        entry.queued.rejected_by = rejected_by;
        if retry_soon {
            let until = now + self.backoff(self.entries[uid].queued.attempts);
            self.move_to(uid, Place::Backoff, Some(until));
        } else {
            self.move_to(uid, Place::Unschedulable, Some(now + MAX_UNSCHEDULABLE));
            // The delay after a try counts from the try, whatever wakes the pod.
            if let Some(entry) = self.entries.get_mut(uid) {
                entry.queued.added = entry.queued.added.min(now);
            }
        }
    }

    fn requeue(&mut self, uid: &str, now: Instant) {
        let Some(entry) = self.entries.get(uid) else { return };
        // The pod went unschedulable at `until - MAX_UNSCHEDULABLE`; its delay began then.
        let failed_at = entry.until.as_ref().and_then(|(until, _)| until.checked_sub(MAX_UNSCHEDULABLE));
        let until = failed_at.unwrap_or(now) + self.backoff(entry.queued.attempts);
        if until <= now {
            self.move_to(uid, Place::Active, None);
        } else {
            self.move_to(uid, Place::Backoff, Some(until));
        }
    }

    /// Something in the cluster changed: wakes the pods that it could help.
    pub fn on_event(&mut self, framework: &Framework, event: &ClusterEvent<'_>, now: Instant) {
        let mut wake = Vec::new();
        for (uid, entry) in &mut self.entries {
            match entry.place {
                Place::Unschedulable => {
                    if framework.may_help(&entry.queued.rejected_by, &entry.queued.pod, event) {
                        wake.push(uid.clone());
                    }
                }
                // What rejects it is not known yet.
                Place::InFlight => entry.helped = true,
                Place::Active | Place::Backoff | Place::Gated => {}
            }
        }
        for uid in wake {
            self.requeue(&uid, now);
        }
    }

    /// Moves pods whose time has come. Returns when the next one's will.
    pub fn flush(&mut self, now: Instant) -> Option<Instant> {
        while let Some((until, uid)) = self.timers.first().cloned() {
            if until > now {
                return Some(until);
            }
            self.move_to(&uid, Place::Active, None);
        }
        None
    }

    /// Whether the queue knows the pod.
    pub fn contains(&self, uid: &str) -> bool {
        self.entries.contains_key(uid)
    }

    /// How many pods wait where.
    pub fn lengths(&self) -> Lengths {
        let mut lengths = Lengths::default();
        for entry in self.entries.values() {
            match entry.place {
                Place::Active => lengths.active += 1,
                Place::Backoff => lengths.backoff += 1,
                Place::Unschedulable => lengths.unschedulable += 1,
                Place::Gated => lengths.gated += 1,
                Place::InFlight => {}
            }
        }
        lengths
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins;
    use serde_json::json;

    const S: fn(u64) -> Duration = Duration::from_secs;

    fn pod(name: &str, priority: i32, gates: &[&str]) -> Arc<PodInfo> {
        let gates: Vec<_> = gates.iter().map(|g| json!({"name": g})).collect();
        let value = json!({
            "metadata": {"namespace": "ns", "name": name, "uid": name},
            "spec": {"priority": priority, "schedulingGates": gates, "containers": [{"name": "c"}]}
        });
        Arc::new(PodInfo::new(Arc::new(serde_json::from_value(value).expect("valid"))))
    }

    fn queue() -> (SchedulingQueue, Framework, Instant) {
        (SchedulingQueue::new(S(1), S(10)), plugins::for_tests(), Instant::now())
    }

    fn names(queue: &mut SchedulingQueue) -> Vec<String> {
        std::iter::from_fn(|| queue.pop()).map(|q| q.pod.uid.clone()).collect()
    }

    #[test]
    fn priority_then_age() {
        let (mut queue, framework, now) = queue();
        queue.add(pod("low", 0, &[]), &framework, now);
        queue.add(pod("high", 9, &[]), &framework, now + S(2));
        queue.add(pod("later", 0, &[]), &framework, now + S(1));
        assert_eq!(names(&mut queue), ["high", "low", "later"]);
    }

    #[test]
    fn gated_pods_wait_for_their_gates() {
        let (mut queue, framework, now) = queue();
        queue.add(pod("a", 0, &["x"]), &framework, now);
        assert!(queue.pop().is_none());
        assert_eq!(queue.lengths().gated, 1);
        queue.update(pod("a", 0, &[]), &framework, now);
        assert_eq!(names(&mut queue), ["a"]);
    }

    #[test]
    fn rejected_pods_wait_for_an_event_that_helps() {
        let (mut queue, framework, now) = queue();
        queue.add(pod("a", 0, &[]), &framework, now);
        queue.pop();
        queue.failed("a", ["NodeResourcesFit"].into(), now);
        assert_eq!(queue.flush(now + S(60)), Some(now + S(300)));
        let gone = pod("gone", 0, &[]);
        queue.on_event(&framework, &ClusterEvent::AssignedPodDeleted(&gone.pod), now + S(2));
        assert_eq!(names(&mut queue), ["a"], "the delay of one second is over");
        queue.failed("a", ["NodeUnschedulable"].into(), now + S(3));
        queue.on_event(&framework, &ClusterEvent::AssignedPodDeleted(&gone.pod), now + S(4));
        assert_eq!(queue.lengths().unschedulable, 1, "a pod's going does not make a node schedulable");
        assert_eq!(queue.flush(now + S(303)), None);
        assert_eq!(names(&mut queue), ["a"], "five minutes are over");
    }

    #[test]
    fn delays_double_and_errors_retry() {
        let (mut queue, framework, now) = queue();
        queue.add(pod("a", 0, &[]), &framework, now);
        for delay in [1, 2, 4, 8, 10, 10] {
            queue.pop().expect("active");
            queue.failed("a", BTreeSet::new(), now);
            assert_eq!(queue.flush(now), Some(now + S(delay)));
            assert_eq!(queue.flush(now + S(delay)), None);
        }
    }

    #[test]
    fn an_event_during_the_try_is_not_missed() {
        let (mut queue, framework, now) = queue();
        queue.add(pod("a", 0, &[]), &framework, now);
        queue.pop();
        let gone = pod("gone", 0, &[]);
        queue.on_event(&framework, &ClusterEvent::AssignedPodDeleted(&gone.pod), now);
        queue.failed("a", ["NodeResourcesFit"].into(), now);
        assert_eq!(queue.lengths().backoff, 1);
        queue.remove("a");
        assert_eq!(queue.flush(now + S(99)), None);
        assert!(queue.pop().is_none() && !queue.contains("a"));
    }
}
