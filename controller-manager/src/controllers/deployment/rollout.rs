//! One pass over a deployment: from what the cache shows, the writes to make, in order. Pure: the steps change working
//! copies of the ReplicaSets and of the deployment, and [`decide`] returns what differs from the observed objects. Cut
//! off after any write, the next pass goes on from there. Upstream: `syncDeployment` and what it calls.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::status::{self, reason};
use super::{bounds, recreate, revision, rolling, scale};

/// What one pass sees.
#[derive(Debug)]
pub struct Observed {
    /// The deployment.
    pub deployment: Arc<Deployment>,
    /// The ReplicaSets that it controls.
    pub sets: Vec<Arc<ReplicaSet>>,
    /// The pods that those control.
    pub pods: Vec<Arc<Pod>>,
}

/// A write or a word to say.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Create the new ReplicaSet. Should the name be taken by another template, raise the collision count instead.
    CreateReplicaSet(Box<ReplicaSet>),
    /// Update a ReplicaSet, whose resourceVersion guards against lost updates.
    UpdateReplicaSet(Box<ReplicaSet>),
    /// Delete an old ReplicaSet.
    DeleteReplicaSet(Box<ReplicaSet>),
    /// Update status (and annotations, which go through the status endpoint too).
    UpdateStatus(Box<Deployment>),
    /// A Normal `ScalingReplicaSet` event.
    Scaled(String),
    /// A Warning `SelectingAll` event.
    SelectingAll,
    /// Look again after this time.
    RequeueAfter(Duration),
}

/// A ReplicaSet on its way through one pass.
#[derive(Debug)]
pub struct WorkingSet {
    observed: Option<Arc<ReplicaSet>>,
    /// As it shall be.
    pub current: ReplicaSet,
    events: Vec<String>,
}

/// The state that the steps of one pass work on.
#[derive(Debug)]
pub struct Rollout {
    /// Working copy: conditions and annotations change.
    pub deployment: Deployment,
    /// All ReplicaSets; the new one among them.
    pub sets: Vec<WorkingSet>,
    /// Index of the new ReplicaSet.
    pub new: Option<usize>,
    /// Pods of all ReplicaSets.
    pub pods: Vec<Arc<Pod>>,
    /// The time of this pass.
    pub now: Timestamp,
    deleted: Vec<ReplicaSet>,
}

/// The writes of one pass, in order.
pub fn decide(observed: &Observed, now: Timestamp) -> Vec<Action> {
    let deployment = observed.deployment.as_ref();
    let spec = deployment.spec.clone().unwrap_or_default();
    if spec.selector == LabelSelector::default() {
        let mut actions = vec![Action::SelectingAll];
        let mut updated = deployment.clone();
        let status = updated.status.get_or_insert_default();
        if status.observed_generation.unwrap_or(0) < deployment.metadata.generation.unwrap_or(0) {
            status.observed_generation = deployment.metadata.generation;
            actions.push(Action::UpdateStatus(Box::new(updated)));
        }
        return actions;
    }

    let mut rollout = Rollout::new(observed, now);
    let status = if deployment.metadata.deletion_timestamp.is_some() {
        rollout.find_new();
        rollout.status()
    } else {
        if let Some(condition) = status::paused_condition(deployment, now) {
            status::set_condition(rollout.deployment.status.get_or_insert_default(), condition);
        }
        let paused = status::is_paused(deployment);
        if paused || scale::is_scaling_event(&rollout) {
            rollout.sync_new(false);
            scale::scale(&mut rollout);
            if paused {
                rollout.clean_up();
            }
            rollout.status()
        } else {
            let stepped = if bounds::is_recreate(deployment) {
                recreate::step(&mut rollout)
            } else {
                rolling::step(&mut rollout)
            };
            if !stepped && is_complete(deployment) {
                rollout.clean_up();
            }
            rollout.rollout_status()
        }
    };
    rollout.into_actions(deployment, status)
}

/// By the status of the last pass, so that history is cut only when completion has been recorded.
fn is_complete(deployment: &Deployment) -> bool {
    deployment.status.as_ref().is_some_and(|current| status::is_complete(deployment, current))
}

impl Rollout {
    fn new(observed: &Observed, now: Timestamp) -> Self {
        let sets = observed
            .sets
            .iter()
            .map(|set| WorkingSet {
                observed: Some(Arc::clone(set)),
                current: set.as_ref().clone(),
                events: Vec::new(),
            })
            .collect();
        let mut rollout = Self {
            deployment: observed.deployment.as_ref().clone(),
            sets,
            new: None,
            pods: observed.pods.clone(),
            now,
            deleted: Vec::new(),
        };
        rollout.sets.sort_by(|a, b| revision::by_creation(&a.current, &b.current));
        rollout
    }

    /// The oldest ReplicaSet that runs the deployment's template is the new one.
    pub fn find_new(&mut self) {
        self.new = self.sets.iter().position(|set| revision::runs_template(&self.deployment, &set.current));
    }

    /// The new ReplicaSet.
    pub fn new_set(&self) -> Option<&ReplicaSet> {
        self.new.map(|new| &self.sets[new].current)
    }

    /// Indexes of the others, oldest first.
    pub fn old(&self) -> Vec<usize> {
        (0..self.sets.len()).filter(|index| Some(*index) != self.new).collect()
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &ReplicaSet> + Clone {
        self.sets.iter().map(|set| &set.current)
    }

    /// Pods that all ReplicaSets together ask for.
    pub fn total_replicas(&self) -> i32 {
        self.all().map(bounds::set_replicas).sum()
    }

    /// Finds the new ReplicaSet and brings its annotations, and the deployment's revision, up to date; makes it when it
    /// is missing and `create` is set.
    pub fn sync_new(&mut self, create: bool) {
        self.find_new();
        let highest_old =
            self.old().iter().map(|&old| revision::revision(&self.sets[old].current.metadata)).max();
        let next = highest_old.unwrap_or(0) + 1;
        match self.new {
            Some(new) => self.update_new(new, next),
            None if create => self.create_new(next),
            None => {}
        }
    }

    fn update_new(&mut self, new: usize, next: i64) {
        let set = &mut self.sets[new].current;
        revision::annotate_new(&self.deployment, set, next, true);
        let min_ready_seconds = self.deployment.spec.as_ref().and_then(|spec| spec.min_ready_seconds);
        if let Some(spec) = set.spec.as_mut()
            && spec.min_ready_seconds.unwrap_or(0) != min_ready_seconds.unwrap_or(0)
        {
            spec.min_ready_seconds = min_ready_seconds;
        }
        let name = set.metadata.name.clone().unwrap_or_default();
        let current = set.metadata.annotations.as_ref().and_then(|a| a.get(revision::REVISION)).cloned();
        if let Some(current) = current {
            revision::set_revision(&mut self.deployment, &current);
        }
        let known =
            self.deployment.status.as_ref().and_then(|s| status::condition(s, status::PROGRESSING)).is_some();
        if status::has_progress_deadline(&self.deployment) && !known {
            self.set_progressing(reason::FOUND_NEW_REPLICA_SET, format!("Found new replica set \"{name}\""));
        }
    }

    fn create_new(&mut self, next: i64) {
        let mut set = revision::new_replica_set(&self.deployment);
        let name = set.metadata.name.clone().unwrap_or_default();
        let replicas = bounds::new_set_replicas(&self.deployment, self.total_replicas(), 0);
        if let Some(spec) = set.spec.as_mut() {
            spec.replicas = Some(replicas);
        }
        revision::annotate_new(&self.deployment, &mut set, next, false);
        revision::set_revision(&mut self.deployment, &next.to_string());
        if status::has_progress_deadline(&self.deployment) {
            self.set_progressing(
                reason::NEW_REPLICA_SET_CREATED,
                format!("Created new replica set \"{name}\""),
            );
        }
        let mut events = Vec::new();
        if replicas > 0 {
            events.push(format!("Scaled up replica set {name} from 0 to {replicas}"));
        }
        self.new = Some(self.sets.len());
        self.sets.push(WorkingSet { observed: None, current: set, events });
    }

    fn set_progressing(&mut self, reason: &str, message: String) {
        let condition = status::new_condition(status::PROGRESSING, "True", reason, message, self.now);
        status::set_condition(self.deployment.status.get_or_insert_default(), condition);
    }

    /// Scales one ReplicaSet and refreshes its replica annotations; whether the size changed.
    pub fn scale_to(&mut self, index: usize, replicas: i32) -> bool {
        let working = &mut self.sets[index];
        let before = bounds::set_replicas(&working.current);
        revision::set_replicas_annotations(&self.deployment, &mut working.current);
        if before == replicas {
            return false;
        }
        if let Some(spec) = working.current.spec.as_mut() {
            spec.replicas = Some(replicas);
        }
        let direction = if replicas > before { "up" } else { "down" };
        let name = working.current.metadata.name.as_deref().unwrap_or("");
        working.events.push(format!("Scaled {direction} replica set {name} from {before} to {replicas}"));
        true
    }

    fn clean_up(&mut self) {
        let old = self.old();
        let sets = old.iter().map(|&index| &self.sets[index].current);
        self.deleted = revision::to_clean_up(&self.deployment, sets).into_iter().cloned().collect();
    }

    fn status(&self) -> k8s_openapi::api::apps::v1::DeploymentStatus {
        status::calculate(&self.deployment, self.all(), self.new_set(), self.now)
    }

    fn rollout_status(&self) -> k8s_openapi::api::apps::v1::DeploymentStatus {
        status::calculate_rollout(&self.deployment, self.all(), self.new_set(), self.now)
    }

    fn into_actions(
        mut self,
        observed: &Deployment,
        status: k8s_openapi::api::apps::v1::DeploymentStatus,
    ) -> Vec<Action> {
        let mut actions = Vec::new();
        for set in self.sets {
            match set.observed {
                None => actions.push(Action::CreateReplicaSet(Box::new(set.current))),
                Some(before) if *before != set.current => {
                    actions.push(Action::UpdateReplicaSet(Box::new(set.current)));
                }
                Some(_) => {}
            }
            actions.extend(set.events.into_iter().map(Action::Scaled));
        }
        actions.extend(self.deleted.into_iter().map(|set| Action::DeleteReplicaSet(Box::new(set))));
        let changed = observed.status.as_ref() != Some(&status)
            || observed.metadata.annotations != self.deployment.metadata.annotations;
        let requeue = status::next_deadline_check(&self.deployment, &status, self.now);
        if changed {
            self.deployment.status = Some(status);
            actions.push(Action::UpdateStatus(Box::new(self.deployment)));
        }
        actions.extend(requeue.map(Action::RequeueAfter));
        actions
    }
}
