//! Whole rollouts against a small world: the ReplicaSets and pod counts that an API server and a ReplicaSet controller
//! would show, with the controller cut off after every single write.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::rollout::{self, Action, Observed};
use super::{bounds, revision, status};
use crate::testing::{at, deployment, owned_replica_set, pod, rolling, time};

struct World {
    deployment: Deployment,
    sets: Vec<ReplicaSet>,
    old_pods: Vec<Pod>,
    clock: i64,
    events: Vec<String>,
}

impl World {
    fn new(mut deployment: Deployment) -> Self {
        deployment.spec.as_mut().unwrap().progress_deadline_seconds = Some(600);
        Self { deployment, sets: Vec::new(), old_pods: Vec::new(), clock: 0, events: Vec::new() }
    }

    fn decide(&self) -> Vec<Action> {
        let observed = Observed {
            deployment: Arc::new(self.deployment.clone()),
            sets: self.sets.iter().cloned().map(Arc::new).collect(),
            pods: self.old_pods.iter().cloned().map(Arc::new).collect(),
        };
        rollout::decide(&observed, at(self.clock))
    }

    fn apply(&mut self, action: Action) {
        self.clock += 1;
        match action {
            Action::CreateReplicaSet(set) => {
                assert!(
                    !self.sets.iter().any(|held| held.metadata.name == set.metadata.name),
                    "created twice"
                );
                let mut set = *set;
                set.metadata.uid.clone_from(&set.metadata.name);
                set.metadata.creation_timestamp = Some(time(self.clock));
                set.metadata.generation = Some(1);
                self.sets.push(set);
            }
            Action::UpdateReplicaSet(set) => {
                let held = self.sets.iter_mut().find(|held| held.metadata.name == set.metadata.name).unwrap();
                *held = *set;
            }
            Action::DeleteReplicaSet(set) => self.sets.retain(|held| held.metadata.name != set.metadata.name),
            Action::UpdateStatus(deployment) => self.deployment = *deployment,
            Action::Scaled(message) => self.events.push(message),
            Action::SelectingAll | Action::RequeueAfter(_) => {}
        }
    }

    /// What the ReplicaSet controller and the kubelets do: sizes follow specs; `ready` says which pods become available.
    fn pods_follow(&mut self, ready: impl Fn(&ReplicaSet) -> bool) {
        for set in &mut self.sets {
            let replicas = bounds::set_replicas(set);
            let available = if ready(set) { replicas } else { bounds::available_replicas(set).min(replicas) };
            let status = set.status.get_or_insert_default();
            status.replicas = replicas;
            status.ready_replicas = Some(available);
            status.available_replicas = Some(available);
            status.observed_generation = set.metadata.generation;
            status.terminating_replicas = Some(0);
        }
    }

    fn total(&self) -> i32 {
        self.sets.iter().map(bounds::set_replicas).sum()
    }

    fn available(&self) -> i32 {
        self.sets.iter().map(bounds::available_replicas).sum()
    }

    fn complete(&self) -> bool {
        self.deployment.status.as_ref().is_some_and(|status| status::is_complete(&self.deployment, status))
    }

    /// Applies one action, then forgets everything ("crash") and decides anew, until nothing is left to do.
    fn run_to_completion(&mut self, check: impl Fn(&Self)) {
        for _ in 0..500 {
            let action = self.decide().into_iter().find(|action| !matches!(action, Action::RequeueAfter(_)));
            match action {
                Some(action) => self.apply_until_write(action),
                None if self.complete() => return,
                None => {}
            }
            check(self);
            self.pods_follow(|_| true);
        }
        panic!("no convergence: {:?} {:?}", self.deployment.status, self.sets);
    }

    /// An event alone is no write: a real crash loses it, and the next pass must not need it. Here it is only skipped.
    fn apply_until_write(&mut self, action: Action) {
        self.apply(action);
    }

    fn set_image(&mut self, image: &str) {
        let spec = self.deployment.spec.as_mut().unwrap();
        spec.template.spec.as_mut().unwrap().containers[0].image = Some(image.to_owned());
        *self.deployment.metadata.generation.get_or_insert_default() += 1;
    }

    fn scale(&mut self, replicas: i32) {
        self.deployment.spec.as_mut().unwrap().replicas = Some(replicas);
        *self.deployment.metadata.generation.get_or_insert_default() += 1;
    }

    fn settle(&mut self) {
        for _ in 0..50 {
            let actions = self.decide();
            if actions.iter().all(|action| matches!(action, Action::RequeueAfter(_))) {
                return;
            }
            for action in actions {
                self.apply(action);
            }
        }
        panic!("does not settle");
    }

    fn sizes(&self) -> Vec<i32> {
        self.sets.iter().map(bounds::set_replicas).collect()
    }

    fn reason(&self, type_: &str) -> &str {
        let status = self.deployment.status.as_ref().unwrap();
        status::condition(status, type_).and_then(|condition| condition.reason.as_deref()).unwrap_or("")
    }
}

fn rolled_out(deployment: Deployment) -> World {
    let mut world = World::new(deployment);
    world.run_to_completion(|_| {});
    world
}

#[test]
fn a_new_deployment_makes_one_replica_set() {
    let world = rolled_out(deployment("web", 3));
    assert_eq!(world.sizes(), [3]);
    assert_eq!(revision::revision(&world.deployment.metadata), 1);
    assert_eq!(world.reason(status::PROGRESSING), status::reason::NEW_REPLICA_SET_AVAILABLE);
    let name = world.sets[0].metadata.name.clone().unwrap();
    let mut fresh = World::new(deployment("web", 3));
    fresh.settle();
    assert_eq!(fresh.events, [format!("Scaled up replica set {name} from 0 to 3")]);
}

#[test]
fn rolling_update_stays_within_bounds_through_crashes() {
    for (replicas, surge, unavailable) in [
        (10, "25%", "25%"),
        (3, "1", "0"),
        (3, "0", "1"),
        (5, "0", "0"),
        (1, "25%", "25%"),
        (7, "50%", "0"),
        (4, "100%", "100%"),
    ] {
        let mut world = rolled_out(rolling(deployment("web", replicas), surge, unavailable));
        world.set_image("v2");
        let most = replicas + bounds::max_surge(&world.deployment);
        let least = replicas - bounds::max_unavailable(&world.deployment);
        world.run_to_completion(|world| {
            assert!(world.total() <= most, "{surge}/{unavailable}: {} > {most}", world.total());
            let serving: i32 = world
                .sets
                .iter()
                .map(|set| bounds::available_replicas(set).min(bounds::set_replicas(set)))
                .sum();
            assert!(serving >= least, "{surge}/{unavailable}: {serving} < {least}");
        });
        assert_eq!(world.sizes(), [0, replicas]);
        assert_eq!(revision::revision(&world.deployment.metadata), 2);
        assert_eq!(world.available(), replicas);
    }
}

#[test]
fn a_broken_template_takes_no_more_than_allowed() {
    let mut world = rolled_out(rolling(deployment("web", 4), "25%", "25%"));
    world.set_image("broken");
    let old = world.sets[0].metadata.name.clone();
    for _ in 0..20 {
        world.settle();
        world.pods_follow(|set| set.metadata.name == old);
    }
    assert_eq!(world.sizes(), [3, 2], "one surging, one unavailable");
    world.clock += 700;
    world.settle();
    assert_eq!(world.reason(status::PROGRESSING), status::reason::PROGRESS_DEADLINE_EXCEEDED);
    world.set_image("v1");
    world.run_to_completion(|_| {});
    assert_eq!(world.sizes(), [4, 0], "a rollback goes on with the old replica set");
    assert_eq!(revision::revision(&world.deployment.metadata), 3);
}

#[test]
fn scaling_in_the_middle_of_a_rollout_is_proportional() {
    let mut world = rolled_out(rolling(deployment("web", 10), "30%", "20%"));
    world.set_image("v2");
    let old = world.sets[0].metadata.name.clone();
    for _ in 0..10 {
        world.settle();
        world.pods_follow(|set| set.metadata.name == old);
    }
    assert_eq!(world.sizes(), [8, 5]);
    world.scale(15);
    world.settle();
    assert_eq!(world.total(), 20, "15 and a surge of 30%");
    assert_eq!(world.sizes(), [12, 8]);
    world.run_to_completion(|_| {});
    assert_eq!(world.sizes(), [0, 15]);
}

#[test]
fn scaling_scales_the_one_replica_set() {
    let mut world = rolled_out(deployment("web", 3));
    let name = world.sets[0].metadata.name.clone().unwrap();
    world.events.clear();
    world.scale(5);
    world.settle();
    assert_eq!(world.events, [format!("Scaled up replica set {name} from 3 to 5")]);
    world.scale(0);
    world.settle();
    assert_eq!(world.sizes(), [0]);
    world.scale(2);
    world.run_to_completion(|_| {});
    assert_eq!(world.sizes(), [2]);
}

#[test]
fn a_paused_deployment_scales_and_does_not_roll() {
    let mut world = rolled_out(deployment("web", 3));
    world.deployment.spec.as_mut().unwrap().paused = Some(true);
    world.set_image("v2");
    world.settle();
    assert_eq!(world.sizes(), [3]);
    assert_eq!(
        world.reason(status::PROGRESSING),
        status::reason::NEW_REPLICA_SET_AVAILABLE.replace("NewReplicaSetAvailable", "DeploymentPaused")
    );
    world.scale(4);
    world.settle();
    assert_eq!(world.sizes(), [4]);
    world.deployment.spec.as_mut().unwrap().paused = None;
    world.run_to_completion(|_| {});
    assert_eq!(world.sizes(), [0, 4]);
}

#[test]
fn recreate_waits_for_the_last_old_pod() {
    let mut d = deployment("web", 3);
    d.spec.as_mut().unwrap().strategy.get_or_insert_default().type_ = Some("Recreate".into());
    let mut world = rolled_out(d);
    let old_uid = world.sets[0].metadata.uid.clone().unwrap();
    world.old_pods = vec![pod("last").owner("ReplicaSet", &old_uid).phase("Running").build()];
    world.set_image("v2");
    for _ in 0..5 {
        world.settle();
        world.pods_follow(|_| true);
    }
    assert_eq!(world.sizes(), [0], "the new replica set must wait");
    world.old_pods = vec![pod("last").owner("ReplicaSet", &old_uid).phase("Succeeded").build()];
    world.run_to_completion(|_| {});
    assert_eq!(world.sizes(), [0, 3]);
}

#[test]
fn history_is_cut_to_the_limit() {
    let mut d = deployment("web", 1);
    d.spec.as_mut().unwrap().revision_history_limit = Some(2);
    let mut world = rolled_out(d);
    for image in ["v2", "v3", "v4", "v5"] {
        world.set_image(image);
        world.run_to_completion(|_| {});
        world.settle();
    }
    let mut revisions: Vec<_> = world.sets.iter().map(|set| revision::revision(&set.metadata)).collect();
    revisions.sort_unstable();
    assert_eq!(revisions, [3, 4, 5]);
}

#[test]
fn an_empty_selector_is_refused() {
    let mut world = World::new(deployment("web", 3));
    world.deployment.spec.as_mut().unwrap().selector = LabelSelector::default();
    let actions = world.decide();
    assert_eq!(actions[0], Action::SelectingAll);
    assert_eq!(actions.len(), 2, "and the generation is acknowledged");
}

#[test]
fn a_deployment_being_deleted_only_reports() {
    let mut world = rolled_out(deployment("web", 3));
    world.deployment.metadata.deletion_timestamp = Some(time(9));
    world.set_image("v2");
    world.settle();
    assert_eq!(world.sizes(), [3]);
}

#[test]
fn adopted_replica_sets_of_the_same_template_do_not_duplicate() {
    let d = deployment("web", 3);
    let mut world = World::new(d.clone());
    world.sets.push(owned_replica_set(&d, "adopted", 3));
    world.run_to_completion(|_| {});
    assert_eq!(world.sets.len(), 1);
}
