//! Rollouts over a few nodes, with the controller cut off after every single write.

use std::sync::Arc;
use std::time::Duration;

use apimachinery::pod::is_available;
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetUpdateStrategy, RollingUpdateDaemonSet};
use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::plan::{self, Observed, Plan};
use super::{fit, pod as new_pod, status};
use crate::testing::{at, daemon_set, node, pod};

struct World {
    daemon_set: DaemonSet,
    nodes: Vec<Node>,
    pods: Vec<Pod>,
    hash: String,
    clock: i64,
    made: usize,
}

impl World {
    fn new(nodes: usize) -> Self {
        Self {
            daemon_set: daemon_set("ds"),
            nodes: (0..nodes).map(|i| node(&format!("n{i}"), "True")).collect(),
            pods: Vec::new(),
            hash: "v1".to_owned(),
            clock: 1_000,
            made: 0,
        }
    }

    fn strategy(mut self, max_surge: IntOrString, max_unavailable: IntOrString) -> Self {
        self.daemon_set.spec.as_mut().unwrap().update_strategy = Some(DaemonSetUpdateStrategy {
            type_: Some("RollingUpdate".to_owned()),
            rolling_update: Some(RollingUpdateDaemonSet {
                max_surge: Some(max_surge),
                max_unavailable: Some(max_unavailable),
            }),
        });
        self
    }

    fn observed(&self) -> Observed {
        Observed {
            daemon_set: Arc::new(self.daemon_set.clone()),
            nodes: self.nodes.iter().cloned().map(Arc::new).collect(),
            pods: self.pods.iter().cloned().map(Arc::new).collect(),
            hash: self.hash.clone(),
            now: at(self.clock),
        }
    }

    fn plan(&self) -> Plan {
        let observed = self.observed();
        let managed = plan::manage(&observed, |_| None);
        if managed.create_on.is_empty() && managed.delete.is_empty() && !plan::is_on_delete(&self.daemon_set)
        {
            plan::rolling_update(&observed)
        } else {
            managed
        }
    }

    fn create(&mut self, on: &str) {
        self.made += 1;
        let mut made = new_pod(&self.daemon_set, &self.hash);
        fit::pin(made.spec.as_mut().unwrap(), on);
        made.metadata.name = Some(format!("ds-{}", self.made));
        made.metadata.uid = made.metadata.name.clone();
        made.metadata.creation_timestamp = Some(crate::testing::time(self.clock));
        made.status.get_or_insert_default().phase = Some("Pending".to_owned());
        self.pods.push(made);
    }

    /// One write; false when there is none to make.
    fn step(&mut self) -> bool {
        self.clock += 1;
        let plan = self.plan();
        if let Some(node) = plan.create_on.first() {
            self.create(node);
        } else if let Some(gone) = plan.delete.first() {
            self.pods.retain(|pod| pod.metadata.uid != gone.metadata.uid);
        } else {
            return false;
        }
        true
    }

    /// The scheduler binds and the kubelet starts the oldest pod that is not ready yet.
    fn start_one(&mut self) {
        let (now, ready) = (self.clock, |pod: &&mut Pod| !apimachinery::pod::is_ready(pod));
        if let Some(waiting) = self.pods.iter_mut().find(ready) {
            let node = apimachinery::node_affinity::pinned_node_name(waiting).map(str::to_owned);
            waiting.spec.as_mut().unwrap().node_name = node;
            waiting.status = pod("ready").ready(at(now)).build().status;
        }
    }

    fn settle(&mut self, check: impl Fn(&Self)) {
        for _ in 0..300 {
            let wrote = self.step();
            check(self);
            if !wrote && self.pods.iter().all(apimachinery::pod::is_ready) {
                return;
            }
            self.start_one();
        }
        panic!("does not settle: {:?}", self.pods);
    }

    fn available(&self) -> usize {
        self.pods.iter().filter(|pod| is_available(pod, 0, at(self.clock))).count()
    }

    fn on_nodes(&self) -> Vec<(String, String)> {
        let mut found: Vec<_> = self
            .pods
            .iter()
            .map(|pod| {
                let hash = apimachinery::meta::label(&pod.metadata, plan::REVISION_HASH).unwrap_or("");
                (apimachinery::pod::node_name(pod).to_owned(), hash.to_owned())
            })
            .collect();
        found.sort();
        found
    }
}

fn expected(nodes: usize, hash: &str) -> Vec<(String, String)> {
    (0..nodes).map(|i| (format!("n{i}"), hash.to_owned())).collect()
}

#[test]
fn one_pod_on_each_node() {
    let mut world = World::new(5);
    world.settle(|_| {});
    assert_eq!(world.on_nodes(), expected(5, "v1"));
    world.nodes.push(node("n5", "False"));
    world.settle(|_| {});
    assert_eq!(world.on_nodes(), expected(6, "v1"));
    assert_eq!(world.made, 6);
}

#[test]
fn rolling_update_by_replacement_stays_within_max_unavailable() {
    for (unavailable, most) in
        [(IntOrString::Int(1), 1), (IntOrString::Int(3), 3), (IntOrString::String("40%".into()), 4)]
    {
        let mut world = World::new(8).strategy(IntOrString::Int(0), unavailable);
        world.settle(|_| {});
        world.hash = "v2".to_owned();
        world.settle(|world| assert!(world.available() + most >= 8, "{} available", world.available()));
        assert_eq!(world.on_nodes(), expected(8, "v2"));
    }
}

#[test]
fn rolling_update_by_surge_keeps_all_available() {
    let mut world = World::new(5).strategy(IntOrString::Int(2), IntOrString::Int(0));
    world.settle(|_| {});
    world.hash = "v2".to_owned();
    world.settle(|world| {
        assert!(world.available() >= 5);
        assert!(world.pods.len() <= 7);
    });
    assert_eq!(world.on_nodes(), expected(5, "v2"));
}

#[test]
fn broken_old_pods_are_replaced_first() {
    let mut world = World::new(3);
    world.settle(|_| {});
    world.pods[2].status = pod("p").phase("Running").build().status;
    world.hash = "v2".to_owned();
    let names: Vec<_> = world.plan().delete.iter().filter_map(|pod| pod.metadata.name.clone()).collect();
    assert_eq!(names, [world.pods[2].metadata.name.clone().unwrap()], "and no other beside it");
}

#[test]
fn on_delete_waits_for_somebody_to_delete() {
    let mut world = World::new(2);
    world.daemon_set.spec.as_mut().unwrap().update_strategy =
        Some(DaemonSetUpdateStrategy { type_: Some("OnDelete".to_owned()), rolling_update: None });
    world.settle(|_| {});
    world.hash = "v2".to_owned();
    world.settle(|_| {});
    assert_eq!(world.on_nodes(), expected(2, "v1"));
    world.pods.remove(0);
    world.settle(|_| {});
    assert_eq!(
        world
            .pods
            .iter()
            .filter(|pod| apimachinery::meta::label(&pod.metadata, plan::REVISION_HASH) == Some("v2"))
            .count(),
        1
    );
}

#[test]
fn nodes_that_become_unfit() {
    let mut world = World::new(2);
    world.settle(|_| {});
    let taint = |effect: &str| Taint { key: "mine".into(), effect: effect.into(), ..Taint::default() };
    world.nodes[0].spec.get_or_insert_default().taints = Some(vec![taint("NoSchedule")]);
    world.settle(|_| {});
    assert_eq!(world.on_nodes().len(), 2, "a running pod stays");
    let counts = plan::count(&world.observed());
    assert_eq!((counts.desired, counts.current, counts.misscheduled), (1, 1, 1));
    world.nodes[0].spec.get_or_insert_default().taints = Some(vec![taint("NoExecute")]);
    world.settle(|_| {});
    assert_eq!(world.on_nodes(), [("n1".to_owned(), "v1".to_owned())]);
}

#[test]
fn duplicates_keep_the_oldest() {
    let mut world = World::new(1);
    world.settle(|_| {});
    world.create("n0");
    let double = world.pods[1].metadata.name.clone();
    let names: Vec<_> = world.plan().delete.iter().map(|pod| pod.metadata.name.clone()).collect();
    assert_eq!(names, [double]);
}

#[test]
fn ended_pods_are_replaced_failed_ones_with_patience() {
    let mut world = World::new(1);
    world.settle(|_| {});
    world.pods[0].status.as_mut().unwrap().phase = Some("Failed".to_owned());
    let waiting = plan::manage(&world.observed(), |_| Some(Duration::from_secs(4)));
    assert_eq!((waiting.delete.len(), waiting.requeue_after), (0, Some(Duration::from_secs(4))));
    let plan = plan::manage(&world.observed(), |_| None);
    assert_eq!((plan.delete.len(), plan.ended.len()), (1, 1));
}

#[test]
fn pods_for_nodes_that_vanished_before_binding_are_deleted() {
    let mut world = World::new(1);
    world.create("gone");
    let plan = plan::manage(&world.observed(), |_| None);
    assert_eq!((plan.create_on.as_slice(), plan.delete.len()), (&["n0".to_owned()][..], 1));
}

#[test]
fn status_counts() {
    let mut world = World::new(3);
    world.settle(|_| {});
    world.hash = "v2".to_owned();
    let told = status(&world.daemon_set, plan::count(&world.observed()), true);
    assert_eq!((told.desired_number_scheduled, told.current_number_scheduled, told.number_ready), (3, 3, 3));
    assert_eq!(
        (told.number_available, told.number_unavailable, told.updated_number_scheduled),
        (Some(3), None, None)
    );
    assert_eq!(told.observed_generation, world.daemon_set.metadata.generation);
}
