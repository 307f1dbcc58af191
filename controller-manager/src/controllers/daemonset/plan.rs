//! Which pods of a DaemonSet to create and delete: one on every node where it belongs ([`manage`]), and then a rolling
//! update within maxUnavailable or maxSurge ([`rolling_update`]). Pure. Upstream: pkg/controller/daemon.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use apimachinery::{intstr, meta, node_affinity, pod};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, RollingUpdateDaemonSet};
use k8s_openapi::api::core::v1::{Node, Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::fit::{self, Fit};

/// Label with the revision that a pod was made from.
pub const REVISION_HASH: &str = "controller-revision-hash";
const DEFAULT_MAX_UNAVAILABLE: IntOrString = IntOrString::Int(1);

/// What one pass sees.
#[derive(Debug)]
pub struct Observed {
    /// The DaemonSet.
    pub daemon_set: Arc<DaemonSet>,
    /// All nodes.
    pub nodes: Vec<Arc<Node>>,
    /// The pods it controls.
    pub pods: Vec<Arc<Pod>>,
    /// The revision of its template.
    pub hash: String,
    /// Now.
    pub now: Timestamp,
}

/// A pod that ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Failed,
    Succeeded,
}

/// What to do.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Plan {
    /// Nodes that get a pod.
    pub create_on: Vec<String>,
    /// Pods to delete.
    pub delete: Vec<Arc<Pod>>,
    /// Deleted ones that had ended, to be told of.
    pub ended: Vec<(Arc<Pod>, Ended)>,
    /// A failed pod is left until then.
    pub requeue_after: Option<Duration>,
}

/// Pods by the node that they are on or meant for.
type ByNode<'a> = BTreeMap<&'a str, Vec<&'a Arc<Pod>>>;

impl Observed {
    fn by_node(&self) -> ByNode<'_> {
        let mut by_node = ByNode::new();
        for pod in &self.pods {
            // What has ended and is being deleted is as good as gone.
            if pod::is_terminal(pod) && pod.metadata.deletion_timestamp.is_some() {
                continue;
            }
            if let Some(node) = target_node(pod) {
                by_node.entry(node).or_default().push(pod);
            }
        }
        for pods in by_node.values_mut() {
            pods.sort_by(|a, b| by_binding_and_age(a, b));
        }
        by_node
    }

    fn fits(&self) -> BTreeMap<&str, Fit> {
        let template: PodTemplateSpec = fit::tolerating_template(&self.daemon_set);
        self.nodes.iter().map(|node| (meta::name_of(node.as_ref()), fit::fit(&template, node))).collect()
    }

    fn is_updated(&self, pod: &Pod) -> bool {
        meta::label(&pod.metadata, REVISION_HASH) == Some(self.hash.as_str())
    }

    fn is_available(&self, pod: &Pod) -> bool {
        pod::is_available(pod, min_ready_seconds(&self.daemon_set), self.now)
    }
}

/// The node that a pod is on, or the only one that it may be bound to.
fn target_node(pod: &Pod) -> Option<&str> {
    match pod::node_name(pod) {
        "" => node_affinity::pinned_node_name(pod),
        name => Some(name),
    }
}

/// `spec.minReadySeconds`.
pub fn min_ready_seconds(daemon_set: &DaemonSet) -> i32 {
    daemon_set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0)
}

/// Bound before unbound, older before younger, by name among equals.
fn by_binding_and_age(a: &Pod, b: &Pod) -> std::cmp::Ordering {
    let created = |pod: &Pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    pod::node_name(a)
        .is_empty()
        .cmp(&pod::node_name(b).is_empty())
        .then_with(|| created(a).cmp(&created(b)))
        .then_with(|| a.metadata.name.cmp(&b.metadata.name))
}

/// One pod where one belongs, none elsewhere. `wait` says for how long a failed pod of a node is still left alone.
pub fn manage(observed: &Observed, mut wait: impl FnMut(&str) -> Option<Duration>) -> Plan {
    let mut plan = Plan::default();
    let by_node = observed.by_node();
    let fits = observed.fits();
    for (node, fit) in &fits {
        let pods = by_node.get(node).map(Vec::as_slice).unwrap_or_default();
        if fit.should_run && pods.is_empty() {
            plan.create_on.push((*node).to_owned());
        } else if fit.should_continue {
            keep_right_ones(observed, node, *fit, pods, &mut plan, &mut wait);
        } else {
            plan.delete.extend(pods.iter().filter(|pod| !pod::is_deleting(pod)).map(|pod| Arc::clone(pod)));
        }
    }
    // Meant for a node that is gone, and never bound: nobody else would remove them.
    for (node, pods) in &by_node {
        if !fits.contains_key(node) {
            let unbound = pods.iter().filter(|pod| pod::node_name(pod).is_empty() && !pod::is_deleting(pod));
            plan.delete.extend(unbound.map(|pod| Arc::clone(pod)));
        }
    }
    plan
}

fn keep_right_ones(
    observed: &Observed,
    node: &str,
    fit: Fit,
    pods: &[&Arc<Pod>],
    plan: &mut Plan,
    wait: &mut impl FnMut(&str) -> Option<Duration>,
) {
    let mut running: Vec<&Arc<Pod>> = Vec::new();
    for pod in pods.iter().filter(|pod| !pod::is_deleting(pod)) {
        match pod::phase(pod) {
            "Failed" => match wait(node) {
                Some(delay) => {
                    plan.requeue_after = Some(plan.requeue_after.map_or(delay, |other| other.min(delay)))
                }
                None => {
                    plan.ended.push((Arc::clone(pod), Ended::Failed));
                    plan.delete.push(Arc::clone(pod));
                }
            },
            "Succeeded" => {
                plan.ended.push((Arc::clone(pod), Ended::Succeeded));
                plan.delete.push(Arc::clone(pod));
            }
            _ => running.push(pod),
        }
    }
    if !allows_surge(&observed.daemon_set) {
        plan.delete.extend(running.into_iter().skip(1).map(Arc::clone));
        return;
    }
    if running.len() <= 1 {
        if running.is_empty() && fit.should_run {
            plan.create_on.push(node.to_owned());
        }
        return;
    }
    // Two are right while the new one is not available and the old one still is.
    let (new, old): (Vec<_>, Vec<_>) = running.into_iter().partition(|pod| observed.is_updated(pod));
    plan.delete.extend(new.iter().skip(1).chain(old.iter().skip(1)).map(|pod| Arc::clone(pod)));
    if let (Some(new), Some(old)) = (new.first(), old.first())
        && (!pod::is_ready(old) || observed.is_available(new))
    {
        plan.delete.push(Arc::clone(old));
    }
}

/// The next step of an update by template.
pub fn rolling_update(observed: &Observed) -> Plan {
    let mut by_node = observed.by_node();
    let fits = observed.fits();
    let mut desired = 0;
    for (node, fit) in &fits {
        if fit.should_run {
            desired += 1;
            // A node whose pod is missing is unavailable.
            by_node.entry(node).or_default();
        }
    }
    let (max_surge, max_unavailable) = limits(&observed.daemon_set, desired);
    if max_surge == 0 {
        replace(observed, &by_node, max_unavailable)
    } else {
        surge(observed, &by_node, &fits, max_surge)
    }
}

/// A node's pod of the current revision, and its pod of another.
type NewAndOld<'a> = (Option<&'a Arc<Pod>>, Option<&'a Arc<Pod>>);

/// The node's pod of the current revision and its pod of another; none when there are several of one sort.
fn new_and_old<'a>(observed: &Observed, pods: &[&'a Arc<Pod>]) -> Option<NewAndOld<'a>> {
    let (mut new, mut old) = (None, None);
    for pod in pods.iter().filter(|pod| !pod::is_deleting(pod)) {
        let place = if observed.is_updated(pod) { &mut new } else { &mut old };
        if place.replace(*pod).is_some() {
            return None;
        }
    }
    Some((new, old))
}

/// Old pods are deleted; [`manage`] makes the new ones.
fn replace(observed: &Observed, by_node: &ByNode<'_>, max_unavailable: usize) -> Plan {
    let mut unavailable = 0;
    let mut broken = Vec::new();
    let mut candidates = Vec::new();
    for pods in by_node.values() {
        match new_and_old(observed, pods) {
            Some((Some(new), None)) => unavailable += usize::from(!observed.is_available(new)),
            Some((None, Some(old))) if !observed.is_available(old) => {
                // It serves nobody, so replacing it costs nothing; it counts as unavailable all the same.
                unavailable += 1;
                broken.push(Arc::clone(old));
            }
            Some((None, Some(old))) => candidates.push(Arc::clone(old)),
            // Being created or cleaned up.
            _ => unavailable += 1,
        }
    }
    let room = max_unavailable.saturating_sub(unavailable);
    broken.extend(candidates.into_iter().take(room));
    Plan { delete: broken, ..Plan::default() }
}

/// New pods are made beside the old ones, which go when the new ones are available.
fn surge(observed: &Observed, by_node: &ByNode<'_>, fits: &BTreeMap<&str, Fit>, max_surge: usize) -> Plan {
    let mut plan = Plan::default();
    let mut surging = 0;
    let mut candidates = Vec::new();
    for (node, pods) in by_node {
        let should_run = fits.get(node).is_some_and(|fit| fit.should_run);
        match new_and_old(observed, pods) {
            None => surging += 1,
            Some((_, None)) => {}
            Some((None, Some(_))) if !should_run => {}
            Some((None, Some(old))) if !observed.is_available(old) => plan.create_on.push((*node).to_owned()),
            Some((None, Some(_))) => candidates.push((*node).to_owned()),
            Some((Some(new), Some(_))) if !observed.is_available(new) => surging += 1,
            Some((Some(_), Some(old))) => plan.delete.push(Arc::clone(old)),
        }
    }
    let room = max_surge.saturating_sub(surging);
    plan.create_on.extend(candidates.into_iter().take(room));
    plan
}

fn rolling(daemon_set: &DaemonSet) -> Option<&RollingUpdateDaemonSet> {
    daemon_set.spec.as_ref()?.update_strategy.as_ref()?.rolling_update.as_ref()
}

/// Whether pods are to be replaced only when somebody deletes them.
pub fn is_on_delete(daemon_set: &DaemonSet) -> bool {
    let strategy = daemon_set.spec.as_ref().and_then(|spec| spec.update_strategy.as_ref());
    strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete")
}

fn allows_surge(daemon_set: &DaemonSet) -> bool {
    limits(daemon_set, 1).0 > 0
}

/// maxSurge and maxUnavailable for so many nodes; both zero could never progress, so then one may be unavailable.
fn limits(daemon_set: &DaemonSet, desired: i32) -> (usize, usize) {
    if is_on_delete(daemon_set) {
        return (0, 0);
    }
    let rolling = rolling(daemon_set);
    let scaled = |value: &IntOrString| {
        usize::try_from(intstr::scaled_value(value, desired, true).unwrap_or(0)).unwrap_or(0)
    };
    let surge = rolling.and_then(|rolling| rolling.max_surge.as_ref()).map_or(0, scaled);
    let unavailable =
        rolling.and_then(|rolling| rolling.max_unavailable.as_ref()).unwrap_or(&DEFAULT_MAX_UNAVAILABLE);
    let unavailable = scaled(unavailable);
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

/// Counts for the status.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    pub desired: i32,
    pub current: i32,
    pub misscheduled: i32,
    pub ready: i32,
    pub available: i32,
    pub updated: i32,
}

/// Counts nodes by the state of their pods.
pub fn count(observed: &Observed) -> Counts {
    let by_node = observed.by_node();
    let mut counts = Counts::default();
    for (node, fit) in observed.fits() {
        let pods = by_node.get(node).map(Vec::as_slice).unwrap_or_default();
        match pods.first() {
            Some(oldest) if fit.should_run => {
                counts.current += 1;
                counts.ready += i32::from(pod::is_ready(oldest));
                counts.available += i32::from(observed.is_available(oldest));
                counts.updated += i32::from(observed.is_updated(oldest));
            }
            Some(_) => counts.misscheduled += 1,
            None => {}
        }
        counts.desired += i32::from(fit.should_run);
    }
    counts
}

/// Revisions that pods still run.
pub fn live_hashes(pods: &[Arc<Pod>]) -> HashSet<&str> {
    pods.iter().filter_map(|pod| meta::label(&pod.metadata, REVISION_HASH)).collect()
}
