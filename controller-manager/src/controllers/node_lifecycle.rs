//! node-lifecycle-controller: declares silent nodes unknown, taints nodes by their conditions (and so starts evictions,
//! at each zone's rate), and marks the pods of unreachable nodes not ready. It deletes no pods: that is
//! taint-eviction-controller's. Upstream: pkg/controller/nodelifecycle.

pub mod health;
pub mod taints;
pub mod zones;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use apimachinery::meta::{self, ObjectKey};
use apimachinery::{node, pod};
use component_base::error_chain::Chain;
use component_base::events::{EventRecorder, EventType};
use component_base::informer::{Change, Store};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod, Taint};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;

use self::health::{GracePeriods, Health};
use self::taints::Eviction;
use self::zones::{Limiter, Rates, State};
use crate::api_error;
use crate::context::{Context, RunError};
use crate::informers;

/// The namespace of node leases.
const LEASE_NAMESPACE: &str = "kube-node-lease";

struct NodeLifecycle {
    client: Client,
    recorder: EventRecorder,
    nodes: Store<Node>,
    leases: Store<Lease>,
    pods: Store<Pod>,
    grace: GracePeriods,
    rates: Rates,
    known: HashMap<String, Health>,
    limiter: Limiter,
    all_down: bool,
}

/// Runs until shutdown.
pub async fn run(context: Context) -> Result<(), RunError> {
    let client = context.client("node-controller");
    let nodes = context.informers.nodes();
    let leases = context.informers.node_leases();
    let pods = context.informers.pods();
    if !(context.wait_synced(&nodes).await
        && context.wait_synced(&leases).await
        && context.wait_synced(&pods).await)
    {
        return Ok(());
    }
    let config = &context.config;
    let mut controller = NodeLifecycle {
        recorder: context.recorder(&client, "node-controller"),
        client,
        nodes: nodes.store(),
        leases: leases.store(),
        pods: pods.store(),
        grace: GracePeriods {
            running: config.node_monitor_grace_period,
            startup: config.node_startup_grace_period,
        },
        rates: Rates {
            normal: config.node_eviction_rate,
            secondary: config.secondary_node_eviction_rate,
            unhealthy_threshold: config.unhealthy_zone_threshold,
            large_cluster: config.large_cluster_size_threshold,
        },
        known: HashMap::new(),
        limiter: Limiter::default(),
        all_down: false,
    };
    // Taints follow conditions at once; silence is looked for periodically.
    let changed = Arc::new(Notify::new());
    context.on_change(&nodes, {
        let changed = Arc::clone(&changed);
        move |change| {
            if is_news(&change) {
                changed.notify_one();
            }
        }
    });
    let mut period = tokio::time::interval(config.node_monitor_period);
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = context.shutdown.cancelled() => return Ok(()),
            _ = period.tick() => {}
            () = changed.notified() => {}
        }
        tokio::select! {
            () = context.shutdown.cancelled() => return Ok(()),
            () = controller.monitor(Timestamp::now()) => {}
        }
    }
}

/// Heartbeats alone are no reason to look at every node.
fn is_news(change: &Change<Node>) -> bool {
    let Change::Updated { old, new } = change else { return true };
    let view = |node: &Node| {
        let conditions: Vec<(String, String)> = node
            .status
            .iter()
            .flat_map(|status| status.conditions.iter().flatten())
            .map(|condition| (condition.type_.clone(), condition.status.clone()))
            .collect();
        (conditions, node.spec.clone(), node.metadata.labels.clone())
    };
    view(old) != view(new)
}

impl NodeLifecycle {
    async fn monitor(&mut self, now: Timestamp) {
        let nodes = self.nodes.list();
        self.note_arrivals(&nodes, now);
        let mut current = Vec::with_capacity(nodes.len());
        for node in nodes {
            current.push(self.check_silence(node, now).await);
        }
        let evictions = self.judge_zones(&current, now);
        for (node, eviction) in current.iter().zip(evictions) {
            if let Some(taints) = taints::decide(node, eviction, now) {
                self.write_taints(node, &taints).await;
            }
        }
        for node in &current {
            self.mark_pods(node, now).await;
        }
    }

    fn note_arrivals(&mut self, nodes: &[Arc<Node>], now: Timestamp) {
        let names: HashSet<&str> = nodes.iter().map(|node| meta::name_of(node.as_ref())).collect();
        let gone: Vec<String> =
            self.known.keys().filter(|name| !names.contains(name.as_str())).cloned().collect();
        for name in gone {
            self.known.remove(&name);
            let node = Node {
                metadata: kube::core::ObjectMeta { name: Some(name.clone()), ..Default::default() },
                ..Node::default()
            };
            self.tell(
                &node,
                "RemovingNode",
                format!("Node {name} event: Removing Node {name} from Controller"),
            );
        }
        for node in nodes {
            let name = meta::name_of(node.as_ref());
            let lease = self.lease(name);
            match self.known.get_mut(name) {
                Some(health) => health.observe(node, lease.as_deref(), now),
                None => {
                    self.known.insert(name.to_owned(), Health::first(node, lease.as_deref(), now));
                    self.tell(
                        node,
                        "RegisteredNode",
                        format!("Node {name} event: Registered Node {name} in Controller"),
                    );
                }
            }
        }
    }

    fn lease(&self, node: &str) -> Option<Arc<Lease>> {
        self.leases.get(&ObjectKey::new(LEASE_NAMESPACE, node))
    }

    fn tell(&self, node: &Node, reason: &str, message: String) {
        self.recorder.event(node, EventType::Normal, reason, message);
    }

    /// Declares the node unknown if it is silent for too long; the node as it is then.
    async fn check_silence(&mut self, node: Arc<Node>, now: Timestamp) -> Arc<Node> {
        let name = meta::name_of(node.as_ref()).to_owned();
        let overdue =
            self.known.get(&name).map(|health| health.overdue(&node, self.grace, now)).unwrap_or_default();
        if overdue.is_empty() {
            return node;
        }
        let was_ready = node::is_ready(&node);
        match self.write_conditions(&node, &overdue).await {
            Ok(updated) => {
                if was_ready {
                    self.tell(&node, "NodeNotReady", format!("Node {name} status is now: NodeNotReady"));
                }
                Arc::new(updated)
            }
            Err(error) => {
                // A conflict means that the node has just spoken; anything else is tried again at the next look.
                if !api_error::is_conflict(&error) && !api_error::is_not_found(&error) {
                    tracing::error!(node = %name, error = %Chain(&error), "failed to update node status");
                }
                node
            }
        }
    }

    /// The resourceVersion keeps this from overwriting what the kubelet writes in the same moment.
    async fn write_conditions(&self, node: &Node, conditions: &[NodeCondition]) -> Result<Node, kube::Error> {
        let patch = json!({
            "metadata": {"resourceVersion": node.metadata.resource_version},
            "status": {"conditions": conditions},
        });
        let api = Api::<Node>::all(self.client.clone());
        api.patch_status(meta::name_of(node), &PatchParams::default(), &Patch::Strategic(patch)).await
    }

    /// What may be done about the pods of each node, in order.
    fn judge_zones(&mut self, nodes: &[Arc<Node>], now: Timestamp) -> Vec<Eviction> {
        let mut zones: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        for node in nodes {
            let counts = zones.entry(zones::zone_of(node)).or_default();
            if node::is_ready(node) {
                counts.0 += 1;
            } else {
                counts.1 += 1;
            }
        }
        let states: BTreeMap<&str, (State, usize)> = zones
            .iter()
            .map(|(zone, &(ready, not_ready))| {
                (zone.as_str(), (zones::state(ready, not_ready, self.rates), ready + not_ready))
            })
            .collect();
        let all_down =
            !states.is_empty() && states.values().all(|(state, _)| *state == State::FullDisruption);
        if all_down != self.all_down {
            self.all_down = all_down;
            if all_down {
                tracing::warn!("every zone is down, evictions stop");
            } else {
                tracing::info!("not every zone is down any more, evictions go on");
                // What looked silent may have been us: everybody gets the grace period anew.
                self.known.values_mut().for_each(|health| health.pardon(now));
            }
        }
        nodes
            .iter()
            .map(|node| {
                if all_down {
                    return Eviction::Cancelled;
                }
                if taints::eviction_key(node).is_none() || taints::is_evicting(node) {
                    return Eviction::Allowed;
                }
                let zone = zones::zone_of(node);
                let rate = states
                    .get(zone.as_str())
                    .map_or(0.0, |(state, size)| zones::rate(*state, *size, self.rates));
                if self.limiter.allow(&zone, rate, now) { Eviction::Allowed } else { Eviction::Deferred }
            })
            .collect()
    }

    async fn write_taints(&self, node: &Node, taints: &[Taint]) {
        let name = meta::name_of(node);
        let patch = json!({
            "metadata": {"resourceVersion": node.metadata.resource_version},
            "spec": {"taints": (!taints.is_empty()).then_some(taints)},
        });
        let api = Api::<Node>::all(self.client.clone());
        match api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(_) => {}
            // The node's next version brings this controller back here.
            Err(error) if api_error::is_conflict(&error) || api_error::is_not_found(&error) => {}
            Err(error) => {
                tracing::error!(node = name, error = %Chain(&error), "failed to update node taints")
            }
        }
    }

    /// Pods of a node that is not heard of are not ready, or Services would go on sending to them. The kubelet is silent,
    /// so nobody contradicts; what fails is done at the next look.
    async fn mark_pods(&self, node: &Node, now: Timestamp) {
        if node::condition(node, "Ready").is_none_or(|ready| ready.status != "Unknown") {
            return;
        }
        for pod in self.pods.by_index(informers::NODE_NAME, meta::name_of(node)) {
            if !pod::is_ready(&pod) {
                continue;
            }
            match self.mark_not_ready(&pod, now).await {
                Ok(()) => {
                    self.recorder.event(
                        pod.as_ref(),
                        EventType::Warning,
                        "NodeNotReady",
                        "Node is not ready",
                    );
                }
                Err(error) if api_error::is_not_found(&error) || api_error::is_conflict(&error) => {}
                Err(error) => {
                    tracing::error!(pod = %meta::key_of(pod.as_ref()), error = %Chain(&error), "failed to mark pod not ready");
                }
            }
        }
    }

    async fn mark_not_ready(&self, pod: &Pod, now: Timestamp) -> Result<(), kube::Error> {
        let patch = json!({
            "metadata": {"uid": pod.metadata.uid},
            "status": {"conditions": [{
                "type": "Ready",
                "status": "False",
                "lastTransitionTime": k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now),
            }]},
        });
        let api = Api::<Pod>::namespaced(self.client.clone(), meta::namespace_of(pod));
        api.patch_status(meta::name_of(pod), &PatchParams::default(), &Patch::Strategic(patch))
            .await
            .map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{node, time};

    #[test]
    fn heartbeats_are_no_news() {
        let old = Arc::new(node("n", "True"));
        let mut beat = old.as_ref().clone();
        beat.status.as_mut().unwrap().conditions.as_mut().unwrap()[0].last_heartbeat_time = Some(time(5));
        let change = |new: Node| Change::Updated { old: Arc::clone(&old), new: Arc::new(new) };
        assert!(!is_news(&change(beat)));
        assert!(is_news(&change(node("n", "False"))));
        let mut cordoned = old.as_ref().clone();
        cordoned.spec.get_or_insert_default().unschedulable = Some(true);
        assert!(is_news(&change(cordoned)));
    }
}
