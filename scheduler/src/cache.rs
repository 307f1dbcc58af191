//! What the scheduler knows of nodes and of pods on them, its own decisions included.
//!
//! A pod that was given a node is *assumed* there until the watch confirms it; so the next decision counts it
//! although the API server has not told us yet. Snapshots are incremental: a node that did not change since
//! the last one is shared, not copied. Upstream: `pkg/scheduler/backend/cache`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use apimachinery::pod;
use k8s_openapi::api::core::v1::{Node, Pod};

use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;

/// The nodes at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Nodes whose object is known, in a stable order.
    pub nodes: Vec<Arc<NodeInfo>>,
    by_name: HashMap<String, usize>,
    /// How many nodes have an image, by image name.
    pub image_nodes: HashMap<String, usize>,
}

impl Snapshot {
    /// The node of a name.
    pub fn get(&self, name: &str) -> Option<&Arc<NodeInfo>> {
        self.nodes.get(*self.by_name.get(name)?)
    }
}

/// Nodes by name, and where each pod is.
#[derive(Debug, Default)]
pub struct Cache {
    nodes: HashMap<String, NodeInfo>,
    /// Node of each known pod, by uid.
    pods: HashMap<String, Location>,
    generation: u64,
    snapshot: Snapshot,
    /// Nodes that changed since the snapshot was taken.
    dirty: HashSet<String>,
    /// The set of nodes or their images changed: the snapshot's order and tables are made anew.
    rebuild: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Location {
    node: String,
    assumed: bool,
}

impl Cache {
    fn change(&mut self, name: &str, change: impl FnOnce(&mut NodeInfo)) {
        self.generation += 1;
        let info = self.nodes.entry(name.to_owned()).or_default();
        change(info);
        info.generation = self.generation;
        if !self.dirty.contains(name) {
            self.dirty.insert(name.to_owned());
        }
    }

    /// Takes over a node's new version.
    pub fn set_node(&mut self, node: Arc<Node>) {
        let name = node.metadata.name.clone().unwrap_or_default();
        let old = self.nodes.get(&name);
        let known = old.is_some_and(|n| n.node.is_some());
        let images = old.map(|n| Arc::clone(&n.images)).unwrap_or_default();
        self.change(&name, |info| info.set_node(node));
        if !known || self.nodes.get(&name).is_some_and(|n| n.images != images) {
            self.rebuild = true;
        }
    }

    /// Forgets a node; pods on it stay known until they go themselves.
    pub fn remove_node(&mut self, name: &str) {
        self.rebuild = true;
        if self.nodes.get(name).is_some_and(|n| n.pods.is_empty()) {
            self.nodes.remove(name);
        } else {
            self.change(name, |info| info.node = None);
        }
    }

    /// Counts `pod` on `node` before the API server knows.
    pub fn assume(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.place(pod, node, true);
    }

    /// Takes an assumed pod back: binding failed. A pod that the watch confirmed stays.
    pub fn forget(&mut self, uid: &str) {
        if self.pods.get(uid).is_some_and(|l| l.assumed) {
            self.take_out(uid);
        }
    }

    /// A pod that the API server says is on a node: added or updated.
    pub fn set_pod(&mut self, object: &Arc<Pod>) {
        let info = Arc::new(PodInfo::new(Arc::clone(object)));
        let node = pod::node_name(object).to_owned();
        self.place(info, &node, false);
    }

    /// A pod that is gone or has ended.
    pub fn remove_pod(&mut self, uid: &str) {
        self.take_out(uid);
    }

    /// Whether a pod is counted on a node, assumed or known to be there.
    pub fn is_placed(&self, uid: &str) -> bool {
        self.pods.contains_key(uid)
    }

    fn place(&mut self, pod: Arc<PodInfo>, node: &str, assumed: bool) {
        if self.pods.get(&pod.uid).is_some_and(|l| l.node != node) {
            self.take_out(&pod.uid);
        }
        self.pods.insert(pod.uid.clone(), Location { node: node.to_owned(), assumed });
        self.change(node, |info| info.add_pod(pod));
    }

    fn take_out(&mut self, uid: &str) {
        let Some(location) = self.pods.remove(uid) else { return };
        self.change(&location.node, |info| {
            info.remove_pod(uid);
        });
        if self.nodes.get(&location.node).is_some_and(|n| n.node.is_none() && n.pods.is_empty()) {
            self.nodes.remove(&location.node);
        }
    }

    /// How many nodes have an object.
    pub fn node_count(&self) -> usize {
        self.nodes.values().filter(|n| n.node.is_some()).count()
    }

    /// Brings the snapshot up to date and gives it.
    pub fn snapshot(&mut self) -> &Snapshot {
        if self.rebuild {
            self.rebuild_snapshot();
        }
        for name in self.dirty.drain() {
            let slot = self.snapshot.by_name.get(&name).and_then(|i| self.snapshot.nodes.get_mut(*i));
            if let (Some(slot), Some(info)) = (slot, self.nodes.get(&name))
                && slot.generation != info.generation
            {
                *slot = Arc::new(info.clone());
            }
        }
        &self.snapshot
    }

    fn rebuild_snapshot(&mut self) {
        let mut nodes: Vec<Arc<NodeInfo>> = Vec::with_capacity(self.nodes.len());
        let mut image_nodes: HashMap<String, usize> = HashMap::new();
        let mut known: Vec<(&String, &NodeInfo)> =
            self.nodes.iter().filter(|(_, n)| n.node.is_some()).collect();
        known.sort_unstable_by_key(|(name, _)| *name);
        for (name, info) in known {
            let shared = self.snapshot.get(name).filter(|old| old.generation == info.generation);
            nodes.push(shared.map_or_else(|| Arc::new(info.clone()), Arc::clone));
            for image in info.images.keys() {
                *image_nodes.entry(image.clone()).or_default() += 1;
            }
        }
        let by_name = nodes.iter().enumerate().map(|(i, n)| (n.name().to_owned(), i)).collect();
        self.snapshot = Snapshot { nodes, by_name, image_nodes };
        self.rebuild = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};
    use serde_json::json;

    fn node(name: &str, cpu: u32) -> Arc<Node> {
        let value = json!({"metadata": {"name": name}, "status": {"allocatable": {"cpu": cpu.to_string(), "pods": "110"}}});
        Arc::new(serde_json::from_value(value).expect("valid"))
    }

    fn bound(uid: u32, node: &str) -> Arc<Pod> {
        let value = json!({
            "metadata": {"namespace": "ns", "name": format!("p{uid}"), "uid": uid.to_string()},
            "spec": {"nodeName": node, "containers": [{"name": "c", "resources": {"requests": {"cpu": "100m"}}}]}
        });
        Arc::new(serde_json::from_value(value).expect("valid"))
    }

    /// The state as comparable text, from an incremental or a full snapshot.
    fn text(snapshot: &Snapshot) -> String {
        let line = |n: &Arc<NodeInfo>| {
            let mut pods: Vec<&String> = n.pods.keys().collect();
            pods.sort();
            format!("{} {:?} {:?} {pods:?}\n", n.name(), n.allocatable, n.requested)
        };
        snapshot.nodes.iter().map(line).collect()
    }

    #[test]
    fn incremental_snapshot_equals_a_full_one() {
        for seed in 0..50 {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut cache = Cache::default();
            for _ in 0..200 {
                let name = format!("n{}", rng.random_range(0..8));
                let uid = rng.random_range(0..30);
                match rng.random_range(0..7) {
                    0 | 1 => cache.set_node(node(&name, rng.random_range(1..9))),
                    2 => cache.remove_node(&name),
                    3 => cache.set_pod(&bound(uid, &name)),
                    4 => cache.remove_pod(&uid.to_string()),
                    5 => cache.assume(Arc::new(PodInfo::new(bound(uid, ""))), &name),
                    _ => cache.forget(&uid.to_string()),
                }
                if rng.random_bool(0.3) {
                    let incremental = text(cache.snapshot());
                    cache.rebuild_snapshot();
                    assert_eq!(incremental, text(&cache.snapshot), "seed {seed}");
                }
            }
        }
    }

    #[test]
    fn assumed_pods_count_until_forgotten_and_confirmed_ones_stay() {
        let mut cache = Cache::default();
        cache.set_node(node("n", 4));
        cache.assume(Arc::new(PodInfo::new(bound(1, ""))), "n");
        assert_eq!(cache.snapshot().nodes[0].requested.milli_cpu, 100);
        cache.set_pod(&bound(1, "n"));
        cache.forget("1");
        assert_eq!(cache.snapshot().nodes[0].requested.milli_cpu, 100);
        cache.remove_pod("1");
        assert_eq!(cache.snapshot().nodes[0].requested.milli_cpu, 0);
    }
}
