//! node-ipam-controller: gives each node its share of every `--cluster-cidr` in spec.podCIDRs. The nodes themselves are
//! the record of what is taken. Upstream: the RangeAllocator of pkg/controller/nodeipam.

pub mod cidr_set;

use std::collections::HashMap;
use std::sync::Arc;

use apimachinery::meta::{self, ObjectKey};
use component_base::events::{EventRecorder, EventType};
use component_base::informer::Store;
use component_base::workqueue::{self, WorkQueue};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use parking_lot::Mutex;
use serde_json::json;

use self::cidr_set::CidrSet;
use crate::api_error;
use crate::context::{Context, RunError};

/// Why a node has no CIDR yet; it is tried again.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    #[error("no CIDR is left in {0}")]
    Exhausted(IpNet),
    #[error("assign pod CIDRs")]
    Patch(#[source] Box<kube::Error>),
}

/// What is taken, and by whom.
#[derive(Debug)]
pub struct Allocations {
    sets: Vec<(IpNet, CidrSet)>,
    by_node: HashMap<String, Vec<IpNet>>,
}

impl Allocations {
    /// Nothing taken but what overlaps `reserved`.
    pub fn new(ranges: &[(IpNet, u8)], reserved: &[IpNet]) -> Self {
        let sets = ranges.iter().map(|(range, share)| {
            let mut set = CidrSet::new(*range, *share);
            for cidr in reserved {
                set.occupy(*cidr);
            }
            (*range, set)
        });
        Self { sets: sets.collect(), by_node: HashMap::new() }
    }

    /// A node has these CIDRs.
    pub fn occupy(&mut self, node: &str, cidrs: &[IpNet]) {
        if self.by_node.get(node).is_some_and(|known| known == cidrs) {
            return;
        }
        self.release(node);
        for cidr in cidrs {
            let inside = self.sets.iter_mut().any(|(_, set)| set.occupy(*cidr));
            if !inside {
                tracing::warn!(node, %cidr, "pod CIDR of node is outside of every cluster CIDR");
            }
        }
        self.by_node.insert(node.to_owned(), cidrs.to_vec());
    }

    /// One CIDR of each range for the node; the same ones when asked again.
    pub fn allocate(&mut self, node: &str) -> Result<Vec<IpNet>, SyncError> {
        if let Some(known) = self.by_node.get(node) {
            return Ok(known.clone());
        }
        let mut cidrs = Vec::with_capacity(self.sets.len());
        let mut exhausted = None;
        for (range, set) in &mut self.sets {
            match set.allocate() {
                Some(cidr) => cidrs.push(cidr),
                None => exhausted = Some(*range),
            }
        }
        self.by_node.insert(node.to_owned(), cidrs.clone());
        match exhausted {
            Some(range) => {
                self.release(node);
                Err(SyncError::Exhausted(range))
            }
            None => Ok(cidrs),
        }
    }

    /// The node is gone.
    pub fn release(&mut self, node: &str) {
        for cidr in self.by_node.remove(node).unwrap_or_default() {
            for (_, set) in &mut self.sets {
                set.release(cidr);
            }
        }
    }
}

/// The CIDRs that a node has.
pub fn pod_cidrs(node: &Node) -> Vec<IpNet> {
    let Some(spec) = node.spec.as_ref() else { return Vec::new() };
    let all = spec.pod_cidrs.as_deref().unwrap_or_default();
    let texts: Vec<&str> = if all.is_empty() {
        spec.pod_cidr.as_deref().into_iter().collect()
    } else {
        all.iter().map(String::as_str).collect()
    };
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

struct NodeIpam {
    client: Client,
    recorder: EventRecorder,
    nodes: Store<Node>,
    allocations: Mutex<Allocations>,
}

/// Runs until shutdown.
pub async fn run(context: Context) -> Result<(), RunError> {
    let client = context.client("node-controller");
    let nodes = context.informers.nodes();
    if !context.wait_synced(&nodes).await {
        return Ok(());
    }
    let reserved: Vec<IpNet> = context.config.service_cluster_ip_range.clone();
    let mut allocations = Allocations::new(&context.config.node_cidrs, &reserved);
    // All that is taken must be known before anything is given out.
    for node in nodes.store().list() {
        let cidrs = pod_cidrs(&node);
        if !cidrs.is_empty() {
            allocations.occupy(meta::name_of(node.as_ref()), &cidrs);
        }
    }
    let queue: WorkQueue<String> = context.queue("cidrallocator_node");
    context.on_change(&nodes, {
        let queue = queue.clone();
        move |change| {
            let unchanged = change
                .old()
                .zip(change.new())
                .is_some_and(|(old, new)| pod_cidrs(old) == pod_cidrs(new) && !pod_cidrs(new).is_empty());
            if !unchanged {
                queue.add(change.key().name);
            }
        }
    });
    let controller = Arc::new(NodeIpam {
        recorder: context.recorder(&client, "cidrAllocator"),
        client,
        nodes: nodes.store(),
        allocations: Mutex::new(allocations),
    });
    workqueue::run_workers(queue, 1, context.shutdown.clone(), move |name| {
        let controller = Arc::clone(&controller);
        async move { controller.sync(&name).await }
    })
    .await;
    Ok(())
}

impl NodeIpam {
    async fn sync(&self, name: &str) -> Result<(), SyncError> {
        let Some(node) = self.nodes.get(&ObjectKey::cluster(name)) else {
            self.allocations.lock().release(name);
            return Ok(());
        };
        let cidrs = pod_cidrs(&node);
        if !cidrs.is_empty() {
            self.allocations.lock().occupy(name, &cidrs);
            return Ok(());
        }
        let allocated = self.allocations.lock().allocate(name);
        let cidrs = allocated.inspect_err(|_| self.tell(&node, "CIDRNotAvailable"))?;
        let texts: Vec<String> = cidrs.iter().map(ToString::to_string).collect();
        let patch = json!({
            "metadata": {"uid": node.metadata.uid},
            "spec": {"podCIDR": texts.first(), "podCIDRs": texts},
        });
        let api = Api::<Node>::all(self.client.clone());
        match api.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await {
            Ok(_) => Ok(()),
            Err(error) if api_error::is_not_found(&error) || api_error::is_conflict(&error) => {
                self.allocations.lock().release(name);
                Ok(())
            }
            Err(error) => {
                // Kept for the next try: the write may have arrived.
                self.tell(&node, "CIDRAssignmentFailed");
                Err(SyncError::Patch(Box::new(error)))
            }
        }
    }

    fn tell(&self, node: &Node, status: &str) {
        let message = format!("Node {} status is now: {status}", meta::name_of(node));
        self.recorder.event(node, EventType::Normal, status, message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn texts(cidrs: &[IpNet]) -> Vec<String> {
        cidrs.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_node_has_its_own_and_keeps_it() {
        let mut allocations = Allocations::new(&[(net("10.244.0.0/16"), 24), (net("fd00::/48"), 64)], &[]);
        let a = allocations.allocate("a").unwrap();
        assert_eq!(texts(&a), ["10.244.0.0/24", "fd00::/64"]);
        assert_eq!(allocations.allocate("a").unwrap(), a, "a retry gets the same");
        assert_eq!(texts(&allocations.allocate("b").unwrap()), ["10.244.1.0/24", "fd00:0:0:1::/64"]);
    }

    #[test]
    fn what_nodes_have_is_taken_after_a_restart() {
        let mut allocations = Allocations::new(&[(net("10.244.0.0/16"), 24)], &[]);
        allocations.occupy("a", &[net("10.244.0.0/24")]);
        assert_eq!(texts(&allocations.allocate("b").unwrap()), ["10.244.1.0/24"]);
    }

    #[test]
    fn services_and_exhaustion() {
        let mut allocations = Allocations::new(&[(net("10.0.0.0/22"), 24)], &[net("10.0.0.0/23")]);
        assert_eq!(texts(&allocations.allocate("a").unwrap()), ["10.0.2.0/24"]);
        allocations.allocate("b").unwrap();
        assert!(matches!(allocations.allocate("c"), Err(SyncError::Exhausted(_))));
        allocations.release("a");
        assert_eq!(texts(&allocations.allocate("c").unwrap()), ["10.0.2.0/24"]);
    }

    #[test]
    fn old_nodes_have_one_cidr() {
        let mut node = Node::default();
        assert!(pod_cidrs(&node).is_empty());
        node.spec.get_or_insert_default().pod_cidr = Some("10.244.3.0/24".into());
        assert_eq!(texts(&pod_cidrs(&node)), ["10.244.3.0/24"]);
    }
}
