//! One decision: which node for this pod, given a snapshot. No IO, randomness passed in.
//!
//! Upstream: `pkg/scheduler/schedule_one.go` (findNodesThatFitPod, prioritizeNodes, selectHost).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rand::Rng;

use crate::cache::Snapshot;
use crate::framework::{CycleState, Framework, PreFilterResult, Rejection};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;

/// Below this many nodes, all are looked at.
const MIN_FEASIBLE_NODES: usize = 100;

/// How many nodes were looked at, and where the next pod starts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rotation {
    /// Index of the node that the next decision starts from: spreads the looking over the cluster.
    pub next_start: usize,
}

/// Why no node will do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FitError {
    /// Nodes in the cluster.
    pub all_nodes: usize,
    /// How many nodes each reason holds for.
    pub reasons: BTreeMap<String, usize>,
    /// What a PreFilter plugin said about all nodes.
    pub pre_filter_message: String,
    /// The plugins whose rejections count.
    pub rejected_by: BTreeSet<&'static str>,
}

impl FitError {
    fn reject(&mut self, rejection: &Rejection) {
        self.rejected_by.insert(rejection.plugin);
        for reason in &rejection.reasons {
            *self.reasons.entry(reason.clone()).or_default() += 1;
        }
    }
}

impl std::fmt::Display for FitError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.all_nodes == 0 && self.pre_filter_message.is_empty() {
            return f.write_str("no nodes available to schedule pods");
        }
        write!(f, "0/{} nodes are available:", self.all_nodes)?;
        if !self.pre_filter_message.is_empty() {
            return write!(f, " {}.", self.pre_filter_message);
        }
        // Upstream sorts the finished texts, numbers and all.
        let mut texts: Vec<String> =
            self.reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        texts.sort();
        write!(f, " {}.", texts.join(", "))
    }
}

/// How many feasible nodes are enough: all in small clusters, 5 to 50 % of large ones.
pub fn enough_nodes(nodes: usize, percentage: u32) -> usize {
    if nodes < MIN_FEASIBLE_NODES {
        return nodes;
    }
    let percentage = match usize::try_from(percentage).unwrap_or(100) {
        0 => 50usize.saturating_sub(nodes / 125).max(5),
        given => given.min(100),
    };
    (nodes * percentage / 100).max(MIN_FEASIBLE_NODES)
}

/// Chooses a node.
///
/// # Errors
/// No node will do; the error says why, node by node.
pub fn schedule(
    framework: &Framework,
    snapshot: &Snapshot,
    pod: &PodInfo,
    percentage: u32,
    rotation: &mut Rotation,
    rng: &mut impl Rng,
) -> Result<String, FitError> {
    let mut error = FitError { all_nodes: snapshot.nodes.len(), ..FitError::default() };
    if snapshot.nodes.is_empty() {
        return Err(error);
    }
    let mut state = CycleState::default();
    let only = match pre_filter(framework, snapshot, pod, &mut state) {
        Ok(only) => only,
        Err(rejection) => {
            error.rejected_by.insert(rejection.plugin);
            error.pre_filter_message = rejection.reasons.join(", ");
            return Err(error);
        }
    };
    let feasible = match only {
        Some(names) => {
            // The others are not worth a look, and the message says the same of each.
            let named: Vec<_> = names.iter().filter_map(|n| snapshot.get(n)).collect();
            let others = snapshot.nodes.len() - named.len();
            if others > 0 {
                let text = "node(s) didn't satisfy plugin(s) [NodeAffinity]".to_owned();
                error.reasons.insert(text, others);
                error.rejected_by.insert(crate::plugins::node_affinity::NAME);
            }
            named.into_iter().filter(|n| fits(framework, &state, pod, n, &mut error)).collect()
        }
        None => feasible_nodes(framework, snapshot, pod, &state, percentage, rotation, &mut error),
    };
    match feasible.as_slice() {
        [] => Err(error),
        [one] => Ok(one.name().to_owned()),
        many => Ok(best(framework, snapshot, pod, &mut state, many, rng)),
    }
}

fn pre_filter(
    framework: &Framework,
    snapshot: &Snapshot,
    pod: &PodInfo,
    state: &mut CycleState,
) -> Result<Option<BTreeSet<String>>, Rejection> {
    let mut only: Option<BTreeSet<String>> = None;
    for plugin in &framework.pre_filter {
        if let PreFilterResult::Nodes(names) = plugin.pre_filter(state, pod, snapshot)? {
            only = Some(match only {
                Some(before) => before.intersection(&names).cloned().collect(),
                None => names,
            });
        }
    }
    Ok(only)
}

fn fits(
    framework: &Framework,
    state: &CycleState,
    pod: &PodInfo,
    node: &NodeInfo,
    error: &mut FitError,
) -> bool {
    for plugin in framework.filter.iter().filter(|p| !state.skips_filter(p.name())) {
        if let Err(rejection) = plugin.filter(state, pod, node) {
            error.reject(&rejection);
            return false;
        }
    }
    true
}

fn feasible_nodes<'a>(
    framework: &Framework,
    snapshot: &'a Snapshot,
    pod: &PodInfo,
    state: &CycleState,
    percentage: u32,
    rotation: &mut Rotation,
    error: &mut FitError,
) -> Vec<&'a Arc<NodeInfo>> {
    let total = snapshot.nodes.len();
    let enough = enough_nodes(total, percentage);
    let mut feasible = Vec::new();
    let mut looked_at = 0;
    for offset in 0..total {
        let node = &snapshot.nodes[(rotation.next_start + offset) % total];
        looked_at += 1;
        if fits(framework, state, pod, node, error) {
            feasible.push(node);
            if feasible.len() >= enough {
                break;
            }
        }
    }
    rotation.next_start = (rotation.next_start + looked_at) % total;
    feasible
}

fn best(
    framework: &Framework,
    snapshot: &Snapshot,
    pod: &PodInfo,
    state: &mut CycleState,
    nodes: &[&Arc<NodeInfo>],
    rng: &mut impl Rng,
) -> String {
    let mut totals = vec![0i64; nodes.len()];
    let mut scores = vec![0i64; nodes.len()];
    for (plugin, weight) in &framework.score {
        plugin.pre_score(state, pod, snapshot);
        if state.skips_score(plugin.name()) {
            continue;
        }
        for (score, node) in scores.iter_mut().zip(nodes) {
            *score = plugin.score(state, pod, node);
        }
        plugin.normalize(&mut scores);
        for (total, score) in totals.iter_mut().zip(&scores) {
            *total += score * weight;
        }
    }
    // Among the best, each is as likely as the others.
    let mut chosen = 0;
    let mut ties = 1;
    for (index, total) in totals.iter().enumerate().skip(1) {
        if *total > totals[chosen] {
            (chosen, ties) = (index, 1);
        } else if *total == totals[chosen] {
            ties += 1;
            if rng.random_range(0..ties) == 0 {
                chosen = index;
            }
        }
    }
    nodes[chosen].name().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Cache;
    use crate::plugins;
    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use serde_json::{Value, json};

    fn cluster(nodes: &[Value]) -> Cache {
        let mut cache = Cache::default();
        for node in nodes {
            cache.set_node(Arc::new(serde_json::from_value(node.clone()).expect("a node")));
        }
        cache
    }

    fn node(name: &str, cpu: &str, taints: Value) -> Value {
        json!({
            "metadata": {"name": name}, "spec": {"taints": taints},
            "status": {"allocatable": {"cpu": cpu, "memory": "4Gi", "pods": "10"}}
        })
    }

    fn choose(cache: &mut Cache, pod: &PodInfo) -> Result<String, String> {
        let mut rng = StdRng::seed_from_u64(1);
        let framework = plugins::for_tests();
        schedule(&framework, cache.snapshot(), pod, 0, &mut Rotation::default(), &mut rng)
            .map_err(|e| e.to_string())
    }

    fn requesting(cpu: &str) -> PodInfo {
        plugins::testing::pod(json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}))
    }

    #[test]
    fn message_counts_reasons_as_upstream() {
        let taint = json!([{"key": "k", "value": "v", "effect": "NoSchedule"}]);
        let mut cache =
            cluster(&[node("a", "1", taint), node("b", "1", json!([])), node("c", "2", json!([]))]);
        assert_eq!(
            choose(&mut cache, &requesting("3")),
            Err("0/3 nodes are available: 1 node(s) had untolerated taint {k: v}, 2 Insufficient cpu."
                .to_owned())
        );
        assert_eq!(choose(&mut cache, &requesting("2")), Ok("c".to_owned()));
        assert_eq!(
            choose(&mut Cache::default(), &requesting("1")),
            Err("no nodes available to schedule pods".to_owned())
        );
    }

    #[test]
    fn the_emptiest_node_wins() {
        let mut cache = cluster(&[node("a", "4", json!([])), node("b", "4", json!([]))]);
        let placed = PodInfo { uid: "x".into(), ..requesting("1") };
        cache.assume(Arc::new(placed), "a");
        assert_eq!(choose(&mut cache, &requesting("1")), Ok("b".to_owned()));
    }

    #[test]
    fn large_clusters_are_sampled() {
        for (nodes, percentage, want) in [
            (10, 0, 10),
            (99, 0, 99),
            (100, 0, 100),
            (1000, 0, 420),
            (5000, 0, 500),
            (6000, 0, 300),
            (1000, 70, 700),
            (100, 5, 100),
        ] {
            assert_eq!(enough_nodes(nodes, percentage), want, "{nodes} {percentage}");
        }
    }

    #[test]
    fn nodes_are_never_over_committed() {
        let mut rng = StdRng::seed_from_u64(7);
        let nodes: Vec<Value> = (0..20).map(|i| node(&format!("n{i}"), "4", json!([]))).collect();
        let mut cache = cluster(&nodes);
        let framework = plugins::for_tests();
        let mut rotation = Rotation::default();
        let mut refused = 0;
        for i in 0..300 {
            let pod = PodInfo { uid: format!("p{i}"), ..requesting(["250m", "500m", "1"][i % 3]) };
            match schedule(&framework, cache.snapshot(), &pod, 0, &mut rotation, &mut rng) {
                Ok(name) => cache.assume(Arc::new(pod), &name),
                Err(_) => refused += 1,
            }
            // Some bindings fail, and those pods are taken back.
            if rng.random_bool(0.2) {
                cache.forget(&format!("p{}", rng.random_range(0..=i)));
            }
            for node in &cache.snapshot().nodes {
                assert!(node.requested.milli_cpu <= 4000 && node.pods.len() <= 10, "{}", node.name());
            }
        }
        assert!(refused > 0, "the load must fill the cluster for this to mean anything");
    }
}
