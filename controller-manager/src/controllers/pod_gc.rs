//! pod-garbage-collector-controller: removes finished pods above a threshold, pods of nodes that do not exist, pods that
//! were deleted before they ever had a node, and terminating pods of nodes taken out of service. Upstream:
//! pkg/controller/podgc.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use apimachinery::meta::{self, ObjectKey};
use apimachinery::{node, pod};
use component_base::error_chain::Chain;
use component_base::informer::Store;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{Api, Client};
use tokio::time::MissedTickBehavior;

use crate::context::{Context, RunError};
use crate::disruption::{self, DisruptionError};

const PERIOD: Duration = Duration::from_secs(20);
/// How long a node must have been missing before its pods are.
const QUARANTINE: Duration = Duration::from_secs(40);
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// Why a pod is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Finished, and one of too many.
    Terminated,
    /// Being deleted, on a node that is out of service.
    OutOfService,
    /// Bound to a node that does not exist.
    Orphaned,
    /// Deleted before it was bound.
    UnscheduledTerminating,
}

/// The pods to remove. `gone` are the nodes known not to exist.
pub fn decide<'a>(
    pods: &'a [std::sync::Arc<Pod>],
    node: impl Fn(&str) -> Option<std::sync::Arc<Node>>,
    gone: &HashSet<String>,
    threshold: usize,
) -> Vec<(&'a Pod, Reason)> {
    let mut removed = Vec::new();
    if threshold > 0 {
        let mut finished: Vec<&Pod> =
            pods.iter().map(AsRef::as_ref).filter(|pod| pod::is_terminal(pod)).collect();
        let excess = finished.len().saturating_sub(threshold);
        let age = |pod: &Pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
        finished.sort_by(|a, b| age(a).cmp(&age(b)).then_with(|| a.metadata.name.cmp(&b.metadata.name)));
        removed.extend(finished.into_iter().take(excess).map(|pod| (pod, Reason::Terminated)));
    }
    for pod in pods {
        let (name, deleting) = (pod::node_name(pod), pod.metadata.deletion_timestamp.is_some());
        if name.is_empty() {
            if deleting {
                removed.push((pod.as_ref(), Reason::UnscheduledTerminating));
            }
        } else if gone.contains(name) {
            removed.push((pod.as_ref(), Reason::Orphaned));
        } else if deleting && node(name).is_some_and(|node| is_out_of_service(&node)) {
            removed.push((pod.as_ref(), Reason::OutOfService));
        }
    }
    removed
}

fn is_out_of_service(node: &Node) -> bool {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    !node::is_ready(node) && taints.iter().any(|taint| taint.key == OUT_OF_SERVICE)
}

/// Nodes that pods name and that are missing from the cache, with the time since when.
#[derive(Debug, Default)]
pub struct Quarantine {
    missing: HashMap<String, Timestamp>,
}

impl Quarantine {
    /// Takes note of what is missing now; the names that have been missing for long enough to ask the server about.
    pub fn observe(&mut self, missing: HashSet<String>, now: Timestamp) -> Vec<String> {
        self.missing.retain(|name, _| missing.contains(name));
        for name in missing {
            self.missing.entry(name).or_insert(now);
        }
        let long_ago = |since: &Timestamp| {
            u128::try_from(now.as_millisecond() - since.as_millisecond()).unwrap_or(0)
                >= QUARANTINE.as_millis()
        };
        let mut due: Vec<String> =
            self.missing.iter().filter(|(_, since)| long_ago(since)).map(|(name, _)| name.clone()).collect();
        due.sort();
        due
    }
}

struct PodGc {
    client: Client,
    pods: Store<Pod>,
    nodes: Store<Node>,
    threshold: usize,
    quarantine: Quarantine,
}

/// Runs until shutdown.
pub async fn run(context: Context) -> Result<(), RunError> {
    let client = context.client("pod-garbage-collector");
    let pods = context.informers.pods();
    let nodes = context.informers.nodes();
    if !(context.wait_synced(&pods).await && context.wait_synced(&nodes).await) {
        return Ok(());
    }
    let mut controller = PodGc {
        client,
        pods: pods.store(),
        nodes: nodes.store(),
        threshold: context.config.terminated_pod_gc_threshold,
        quarantine: Quarantine::default(),
    };
    let mut period = tokio::time::interval(PERIOD);
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = context.shutdown.cancelled() => return Ok(()),
            _ = period.tick() => {}
        }
        tokio::select! {
            () = context.shutdown.cancelled() => return Ok(()),
            () = controller.collect(Timestamp::now()) => {}
        }
    }
}

impl PodGc {
    async fn collect(&mut self, now: Timestamp) {
        let pods = self.pods.list();
        let node = |name: &str| self.nodes.get(&ObjectKey::cluster(name));
        let missing: HashSet<String> = pods
            .iter()
            .map(|pod| pod::node_name(pod))
            .filter(|name| !name.is_empty() && node(name).is_none())
            .map(str::to_owned)
            .collect();
        let mut gone = HashSet::new();
        for name in self.quarantine.observe(missing, now) {
            // The cache may be behind: only the server can say that a node does not exist.
            match Api::<Node>::all(self.client.clone()).get_opt(&name).await {
                Ok(None) => {
                    gone.insert(name);
                }
                Ok(Some(_)) => {}
                Err(error) => {
                    tracing::error!(node = %name, error = %Chain(&error), "failed to look for a node")
                }
            }
        }
        for (pod, reason) in
            decide(&pods, |name| self.nodes.get(&ObjectKey::cluster(name)), &gone, self.threshold)
        {
            tracing::info!(pod = %meta::key_of(pod), ?reason, "removing pod");
            if let Err(error) = self.remove(pod, reason).await {
                tracing::error!(pod = %meta::key_of(pod), error = %Chain(&error), "failed to remove pod");
            }
        }
    }

    async fn remove(&self, pod: &Pod, reason: Reason) -> Result<(), DisruptionError> {
        if !pod::is_terminal(pod) {
            if reason == Reason::Orphaned {
                let condition = disruption::target("DeletionByPodGC", "PodGC: node no longer exists");
                disruption::mark(&self.client, pod, &condition, Some("Failed")).await?;
            } else {
                disruption::fail(&self.client, pod).await?;
            }
        }
        // Nobody is there to end it gracefully.
        disruption::delete(&self.client, pod, Some(0)).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::api::core::v1::Taint;

    use super::*;
    use crate::testing::{at, node as test_node, pod};

    fn removed(pods: Vec<Pod>, nodes: &[Node], gone: &[&str], threshold: usize) -> Vec<(String, Reason)> {
        let pods: Vec<_> = pods.into_iter().map(Arc::new).collect();
        let gone = gone.iter().map(|name| (*name).to_owned()).collect();
        let node = |name: &str| {
            nodes.iter().find(|n| n.metadata.name.as_deref() == Some(name)).cloned().map(Arc::new)
        };
        decide(&pods, node, &gone, threshold)
            .into_iter()
            .map(|(pod, reason)| (pod.metadata.name.clone().unwrap(), reason))
            .collect()
    }

    #[test]
    fn oldest_finished_pods_go_first() {
        let pods = vec![
            pod("old").on("n").phase("Succeeded").created(at(1)).build(),
            pod("older").on("n").phase("Failed").created(at(0)).build(),
            pod("new").on("n").phase("Failed").created(at(2)).build(),
            pod("running").on("n").phase("Running").created(at(0)).build(),
        ];
        assert_eq!(removed(pods.clone(), &[], &[], 2), [("older".to_owned(), Reason::Terminated)]);
        assert_eq!(removed(pods.clone(), &[], &[], 3), []);
        assert_eq!(removed(pods, &[], &[], 0), [], "zero switches it off");
    }

    #[test]
    fn orphans_and_unscheduled() {
        let pods = vec![
            pod("orphan").on("gone").build(),
            pod("fine").on("n").build(),
            pod("never-bound").deleting(at(1)).build(),
            pod("pending").build(),
        ];
        let expected = [
            ("orphan".to_owned(), Reason::Orphaned),
            ("never-bound".to_owned(), Reason::UnscheduledTerminating),
        ];
        assert_eq!(removed(pods, &[test_node("n", "True")], &["gone"], 100), expected);
    }

    #[test]
    fn out_of_service() {
        let out = |ready: &str| {
            let mut node = test_node("n", ready);
            node.spec.get_or_insert_default().taints = Some(vec![Taint {
                key: OUT_OF_SERVICE.into(),
                effect: "NoExecute".into(),
                ..Taint::default()
            }]);
            node
        };
        let pods = || vec![pod("going").on("n").deleting(at(1)).build(), pod("staying").on("n").build()];
        assert_eq!(removed(pods(), &[out("Unknown")], &[], 0), [("going".to_owned(), Reason::OutOfService)]);
        assert_eq!(removed(pods(), &[out("True")], &[], 0), []);
        assert_eq!(removed(pods(), &[test_node("n", "Unknown")], &[], 0), []);
    }

    #[test]
    fn missing_nodes_are_quarantined() {
        let missing = || HashSet::from(["a".to_owned()]);
        let mut quarantine = Quarantine::default();
        assert!(quarantine.observe(missing(), at(0)).is_empty());
        assert!(quarantine.observe(missing(), at(39)).is_empty());
        assert_eq!(quarantine.observe(missing(), at(40)), ["a"]);
        assert!(quarantine.observe(HashSet::new(), at(41)).is_empty());
        assert!(quarantine.observe(missing(), at(60)).is_empty(), "back and missing again: from the start");
    }
}
