//! A node with the sum of what its pods claim.
//!
//! Upstream: `pkg/scheduler/framework.NodeInfo`.

use std::collections::HashMap;
use std::sync::Arc;

use apimachinery::resources::parse_list;
use k8s_openapi::api::core::v1::{Node, Taint};

use crate::pod_info::PodInfo;
use crate::resource::Resource;

/// A node as filters and scores see it. Cloned only when it changed since the last snapshot.
#[derive(Clone, Debug, Default)]
pub struct NodeInfo {
    /// The object; `None` while only pods on it are known.
    pub node: Option<Arc<Node>>,
    /// Pods on the node, assumed ones among them, by uid.
    pub pods: HashMap<String, Arc<PodInfo>>,
    /// What pods may use.
    pub allocatable: Resource,
    /// What pods request.
    pub requested: Resource,
    /// What pods request, with defaults where they say nothing.
    pub non_zero_requested: Resource,
    /// Sizes in bytes of the images on the node, by each of their names.
    pub images: Arc<HashMap<String, i64>>,
    /// Counts changes.
    pub generation: u64,
}

impl NodeInfo {
    /// The node's name, or `""` while the object is not known.
    pub fn name(&self) -> &str {
        self.node.as_ref().and_then(|n| n.metadata.name.as_deref()).unwrap_or_default()
    }

    /// The node's taints.
    pub fn taints(&self) -> &[Taint] {
        self.node.as_ref().and_then(|n| n.spec.as_ref()).and_then(|s| s.taints.as_deref()).unwrap_or_default()
    }

    /// Takes over a new version of the object.
    pub fn set_node(&mut self, node: Arc<Node>) {
        let status = node.status.as_ref();
        self.allocatable = Resource::from_list(&parse_list(status.and_then(|s| s.allocatable.as_ref())));
        let mut images = HashMap::new();
        for image in status.and_then(|s| s.images.as_deref()).unwrap_or_default() {
            for name in image.names.iter().flatten() {
                images.insert(name.clone(), image.size_bytes.unwrap_or(0));
            }
        }
        self.images = Arc::new(images);
        self.node = Some(node);
    }

    /// Counts a pod in; one that is there already is replaced.
    pub fn add_pod(&mut self, pod: Arc<PodInfo>) {
        self.remove_pod(&pod.uid);
        self.requested.add(&pod.request, 1);
        self.non_zero_requested.add(&pod.non_zero_request, 1);
        self.pods.insert(pod.uid.clone(), pod);
    }

    /// Counts a pod out. Returns whether it was there.
    pub fn remove_pod(&mut self, uid: &str) -> bool {
        let Some(pod) = self.pods.remove(uid) else { return false };
        self.requested.add(&pod.request, -1);
        self.non_zero_requested.add(&pod.non_zero_request, -1);
        true
    }
}
