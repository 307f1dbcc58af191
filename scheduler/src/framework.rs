//! The scheduling framework: what a plugin is, where it is asked, what it may answer.
//!
//! One trait for each extension point, as upstream's `k8s.io/kube-scheduler/framework`. Plugins hold no state
//! between pods; what one step computes for a later one goes into the [`CycleState`]. PostFilter (preemption),
//! Permit and PreBind get their traits with the first plugin that needs them.

use std::any::Any;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Node, Pod};

use crate::cache::Snapshot;
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;

/// The highest score that a plugin gives a node.
pub const MAX_NODE_SCORE: i64 = 100;

/// Why a pod can't go somewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// For people, one text for each reason.
    pub reasons: Vec<String>,
    /// True when no change to pods on the node could help (`UnschedulableAndUnresolvable`).
    pub unresolvable: bool,
    /// The plugin that says so.
    pub plugin: &'static str,
}

impl Rejection {
    /// A rejection that other pods' going could resolve.
    pub fn unschedulable(plugin: &'static str, reason: impl Into<String>) -> Self {
        Self { reasons: vec![reason.into()], unresolvable: false, plugin }
    }

    /// A rejection that only a change of the node or the pod could resolve.
    pub fn unresolvable(plugin: &'static str, reason: impl Into<String>) -> Self {
        Self { reasons: vec![reason.into()], unresolvable: true, plugin }
    }
}

/// What a PreFilter plugin found out about the pod as a whole.
#[derive(Debug, Default)]
pub enum PreFilterResult {
    /// All nodes are to be looked at.
    #[default]
    AllNodes,
    /// Only these nodes can be right.
    Nodes(BTreeSet<String>),
    /// The plugin's Filter has nothing to say about this pod.
    Skip,
}

/// What steps of one scheduling cycle leave for later ones, by plugin.
#[derive(Default)]
pub struct CycleState {
    data: HashMap<&'static str, Box<dyn Any + Send + Sync>>,
    skip_filter: BTreeSet<&'static str>,
    skip_score: BTreeSet<&'static str>,
}

impl std::fmt::Debug for CycleState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CycleState").field("plugins", &self.data.keys()).finish_non_exhaustive()
    }
}

impl CycleState {
    /// Keeps `value` for `plugin`.
    pub fn write<T: Any + Send + Sync>(&mut self, plugin: &'static str, value: T) {
        self.data.insert(plugin, Box::new(value));
    }

    /// What `plugin` kept.
    pub fn read<T: Any>(&self, plugin: &'static str) -> Option<&T> {
        self.data.get(plugin)?.downcast_ref()
    }

    /// Leaves `plugin` out of Filter.
    pub fn skip_filter(&mut self, plugin: &'static str) {
        self.skip_filter.insert(plugin);
    }

    /// Leaves `plugin` out of Score.
    pub fn skip_score(&mut self, plugin: &'static str) {
        self.skip_score.insert(plugin);
    }

    /// Whether `plugin` is left out of Filter.
    pub fn skips_filter(&self, plugin: &'static str) -> bool {
        self.skip_filter.contains(plugin)
    }

    /// Whether `plugin` is left out of Score.
    pub fn skips_score(&self, plugin: &'static str) -> bool {
        self.skip_score.contains(plugin)
    }
}

/// A change in the cluster that may make a pod schedulable.
#[derive(Clone, Copy, Debug)]
pub enum ClusterEvent<'a> {
    /// A node came.
    NodeAdded(&'a Node),
    /// A node changed.
    NodeUpdated {
        /// Before.
        old: &'a Node,
        /// After.
        new: &'a Node,
    },
    /// A pod left a node: it was deleted or ended.
    AssignedPodDeleted(&'a Pod),
    /// A pod on a node changed (scaled down, relabelled).
    AssignedPodUpdated {
        /// Before.
        old: &'a Pod,
        /// After.
        new: &'a Pod,
    },
    /// The waiting pod itself was changed.
    PodUpdated {
        /// Before.
        old: &'a Pod,
        /// After.
        new: &'a Pod,
    },
}

/// What every plugin has.
pub trait Plugin: Send + Sync {
    /// Upstream's name of the plugin.
    fn name(&self) -> &'static str;

    /// Queueing hint (KEP-4247): could `event` make a pod schedulable that this plugin rejected?
    fn may_help(&self, pod: &PodInfo, event: &ClusterEvent<'_>) -> bool;
}

/// Decides whether a pod may enter the active queue at all.
pub trait PreEnqueue: Plugin {
    /// # Errors
    /// The reason to keep the pod waiting.
    fn pre_enqueue(&self, pod: &PodInfo) -> Result<(), Rejection>;
}

/// Looks at the pod before any node is looked at.
pub trait PreFilter: Plugin {
    /// # Errors
    /// The reason why no node can be right.
    fn pre_filter(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
    ) -> Result<PreFilterResult, Rejection>;
}

/// Says whether a node can run the pod.
pub trait Filter: Plugin {
    /// # Errors
    /// The reasons why not.
    fn filter(&self, state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection>;
}

/// Ranks the nodes that can run the pod.
pub trait Score: Plugin {
    /// Computes once what all nodes' scores need; may call [`CycleState::skip_score`].
    fn pre_score(&self, state: &mut CycleState, pod: &PodInfo, snapshot: &Snapshot) {
        let _ = (state, pod, snapshot);
    }

    /// A node's raw score.
    fn score(&self, state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> i64;

    /// Brings the raw scores of all nodes into 0..=[`MAX_NODE_SCORE`].
    fn normalize(&self, scores: &mut [i64]) {
        let _ = scores;
    }
}

/// Sends a decision to the API server.
pub trait Bind: Plugin {
    /// Binds the pod to the node.
    fn bind(&self, pod: Arc<PodInfo>, node: String) -> BoxFuture<'static, Result<(), kube::Error>>;
}

/// Brings scores into 0..=100 in proportion to the highest; `reverse` makes the highest the lowest.
pub fn default_normalize(scores: &mut [i64], reverse: bool) {
    let highest = scores.iter().copied().max().unwrap_or(0);
    for score in scores {
        let scaled = if highest == 0 { 0 } else { MAX_NODE_SCORE * *score / highest };
        *score = if reverse { MAX_NODE_SCORE - scaled } else { scaled };
    }
}

/// The plugins of one profile, by extension point.
#[derive(Default)]
pub struct Framework {
    /// Before the queue.
    pub pre_enqueue: Vec<Arc<dyn PreEnqueue>>,
    /// Before nodes are looked at.
    pub pre_filter: Vec<Arc<dyn PreFilter>>,
    /// Node by node, in order; the first rejection counts.
    pub filter: Vec<Arc<dyn Filter>>,
    /// With the weight of each.
    pub score: Vec<(Arc<dyn Score>, i64)>,
    /// The first one binds.
    pub bind: Vec<Arc<dyn Bind>>,
    /// All plugins, for their hints.
    pub all: Vec<Arc<dyn Plugin>>,
}

impl std::fmt::Debug for Framework {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.all.iter().map(|p| p.name())).finish()
    }
}

impl Framework {
    /// Adds a plugin to the list of all, for its hints.
    pub fn register(&mut self, plugin: Arc<dyn Plugin>) {
        self.all.push(plugin);
    }

    /// Whether `event` could help a pod that `plugins` rejected.
    pub fn may_help(
        &self,
        plugins: &BTreeSet<&'static str>,
        pod: &PodInfo,
        event: &ClusterEvent<'_>,
    ) -> bool {
        // A pod that no plugin rejected failed for an error of ours: any event is worth a try.
        plugins.is_empty()
            || self.all.iter().filter(|p| plugins.contains(p.name())).any(|p| p.may_help(pod, event))
    }

    /// Asks every PreEnqueue plugin.
    ///
    /// # Errors
    /// The first reason to keep the pod out of the active queue.
    pub fn pre_enqueue(&self, pod: &PodInfo) -> Result<(), Rejection> {
        self.pre_enqueue.iter().try_for_each(|p| p.pre_enqueue(pod))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_scaled_to_the_highest() {
        let mut scores = [0, 5, 10];
        default_normalize(&mut scores, false);
        assert_eq!(scores, [0, 50, 100]);
        let mut scores = [0, 5, 10];
        default_normalize(&mut scores, true);
        assert_eq!(scores, [100, 50, 0]);
        let mut scores = [0, 0];
        default_normalize(&mut scores, true);
        assert_eq!(scores, [100, 100]);
    }
}
