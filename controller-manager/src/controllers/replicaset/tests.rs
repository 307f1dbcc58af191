//! The controller against a small world whose cache may lag behind: cut off after every write, shown stale caches, it must
//! end with as many pods as wanted and never make more.

use std::sync::Arc;

use apimachinery::meta::{self, ObjectKey};
use component_base::informer::Store;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;

use super::{BURST_REPLICAS, Scale, decide, ranking, replicas};
use crate::expectations::{Expectations, Outcome};
use crate::testing::{at, pod, replica_set};

struct World {
    replica_set: ReplicaSet,
    /// What the server has.
    pods: Vec<Pod>,
    /// What the controller sees.
    cache: Vec<Pod>,
    expectations: Expectations,
    made: usize,
    most: usize,
}

impl World {
    fn new(wanted: i32) -> Self {
        Self {
            replica_set: replica_set("web", wanted),
            pods: Vec::new(),
            cache: Vec::new(),
            expectations: Expectations::default(),
            made: 0,
            most: 0,
        }
    }

    fn key(&self) -> ObjectKey {
        meta::key_of(&self.replica_set)
    }

    fn catch_up(&mut self) {
        self.cache = self.pods.clone();
    }

    /// One sync that is cut off after `writes` writes; how many were made.
    fn sync(&mut self, writes: usize) -> usize {
        if self.expectations.check(&self.key(), &Store::from_objects(self.cache.clone()))
            != Outcome::Satisfied
        {
            return 0;
        }
        let active: Vec<Arc<Pod>> =
            self.cache.iter().filter(|pod| ranking::is_active(pod)).cloned().map(Arc::new).collect();
        match decide(&self.replica_set, &active, &active, at(1)) {
            Scale::Nothing => 0,
            Scale::Create(count) => {
                let count = count.min(writes);
                for _ in 0..count {
                    self.made += 1;
                    let created = pod(&format!("web-{}", self.made)).build();
                    self.expectations.created(&self.key(), &created);
                    self.pods.push(created);
                }
                self.most = self.most.max(self.pods.len());
                count
            }
            Scale::Delete(gone) => {
                let gone = &gone[..gone.len().min(writes)];
                for pod in gone {
                    self.expectations.deleted(&self.key(), pod);
                    self.pods.retain(|held| held.metadata.uid != pod.metadata.uid);
                }
                gone.len()
            }
        }
    }

    fn settled(&self) -> bool {
        i32::try_from(self.pods.len()).is_ok_and(|count| count == replicas(&self.replica_set))
    }
}

#[test]
fn a_stale_cache_makes_no_duplicates() {
    for (first, then) in [(5, 0), (0, 5), (7, 3), (1, 1), (600, 20)] {
        let mut world = World::new(first);
        for wanted in [first, then] {
            world.replica_set.spec.as_mut().unwrap().replicas = Some(wanted);
            for round in 0..50 {
                // The cache moves only every third round, and then shows everything.
                if round % 3 == 0 {
                    world.catch_up();
                }
                world.sync(usize::MAX);
            }
            assert!(world.settled(), "{wanted} wanted, {} there", world.pods.len());
        }
        assert!(world.most <= usize::try_from(first.max(then)).unwrap(), "{} at most", world.most);
    }
}

#[test]
fn a_crash_after_each_write_still_converges() {
    let mut world = World::new(6);
    for _ in 0..6 {
        assert_eq!(world.sync(1), 1);
        // The process starts anew: what it expected is forgotten, and it lists before it acts.
        world.expectations = Expectations::default();
        world.catch_up();
    }
    assert_eq!(world.sync(1), 0);
    assert!(world.settled());
    world.replica_set.spec.as_mut().unwrap().replicas = Some(2);
    for _ in 0..4 {
        assert_eq!(world.sync(1), 1);
        world.expectations = Expectations::default();
        world.catch_up();
    }
    assert!(world.settled());
    assert_eq!(world.sync(1), 0);
}

#[test]
fn lost_and_finished_pods_are_replaced() {
    let mut world = World::new(3);
    world.sync(usize::MAX);
    world.catch_up();
    assert_eq!(world.sync(usize::MAX), 0);
    world.pods[0].status.as_mut().unwrap().phase = Some("Failed".to_owned());
    world.pods.remove(1);
    world.catch_up();
    assert_eq!(world.sync(usize::MAX), 2);
}

fn pods(count: usize) -> Vec<Arc<Pod>> {
    (0..count).map(|i| Arc::new(pod(&format!("p{i}")).build())).collect()
}

#[test]
fn decides_by_count() {
    let check = |wanted, have: usize, expected: Result<Scale, usize>| {
        let pods = pods(have);
        match (decide(&replica_set("web", wanted), &pods, &pods, at(1)), expected) {
            (Scale::Delete(pods), Err(count)) => assert_eq!(pods.len(), count),
            (got, expected) => assert_eq!(Ok(got), expected, "wanted {wanted} have {have}"),
        }
    };
    check(3, 3, Ok(Scale::Nothing));
    check(3, 0, Ok(Scale::Create(3)));
    check(3, 2, Ok(Scale::Create(1)));
    check(1_000, 0, Ok(Scale::Create(BURST_REPLICAS)));
    check(1, 3, Err(2));
    check(0, 700, Err(BURST_REPLICAS));
}

#[test]
fn unset_replicas_mean_one() {
    let mut rs = replica_set("web", 3);
    rs.spec.as_mut().unwrap().replicas = None;
    assert_eq!(decide(&rs, &[], &[], at(1)), Scale::Create(1));
}
