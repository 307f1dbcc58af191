//! This node towards the cluster: its object, its status, its lease, and what it learns back (podCIDR).
//!
//! Upstream's concept: `pkg/kubelet/kubelet_node_status.go`, `pkg/kubelet/nodestatus`, component-helpers' node lease.

use std::sync::Arc;

use component_base::Shutdown;
use component_base::informer::{Change, Connection, InformerBuilder};
use k8s_openapi::api::core::v1::{Node, ObjectReference};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::admission::NodeView;
use crate::config::NodeConfig;
use crate::events::{EventType, Recorder};
use crate::mirror_pods::{self, MirrorPods};
use crate::runtime::Runtime;
use crate::runtime_state::RuntimeState;

mod capacity;
mod lease;
mod machine;
mod pressure;
mod registration;
mod status;
mod status_loop;

/// Builds and starts the node's tasks.
#[derive(Debug, Clone)]
pub struct NodeOwner {
    /// Names, labels, frequencies.
    pub config: NodeConfig,
    /// For images and the podCIDR.
    pub runtime: Runtime,
    /// Makes the node ready or not.
    pub runtime_state: RuntimeState,
    /// NodeReady, Starting…
    pub recorder: Recorder,
    /// What pods are measured against.
    pub view: NodeView,
    /// Mirror pods belong to the node's object.
    pub mirrors: MirrorPods,
}

impl NodeOwner {
    /// Measures what pods may use: needed with and without an apiserver.
    pub fn measure(&self) {
        match capacity::Capacity::measure(&self.config) {
            Ok(capacity) => self.view.set_allocatable(capacity.allocatable),
            Err(error) => tracing::error!(%error, "failed to measure the node's capacity"),
        }
    }

    /// Registers the node, then keeps its status and lease.
    pub fn start(self, connection: &Connection, tracker: &TaskTracker, shutdown: &Shutdown) {
        let (registered, node_uid) = watch::channel(None);
        let client = connection.client();
        tracker.spawn(lease::run(client.clone(), self.config.clone(), node_uid.clone(), shutdown.clone()));
        tracker.spawn(self.clone().follow_object(connection.clone(), registered, shutdown.clone()));
        tracker.spawn(status_loop::run(self, client.clone(), shutdown.clone()));
    }

    /// What events about the node refer to; upstream uses the node's name as uid here, and people query for it.
    fn reference(&self) -> ObjectReference {
        ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(self.config.name.clone()),
            uid: Some(self.config.name.clone()),
            ..ObjectReference::default()
        }
    }

    fn event(&self, type_: EventType, reason: &str, message: &str) {
        self.recorder.reference(self.reference(), type_, reason, message);
    }

    /// Watches the node's own object: its uid, labels and podCIDR.
    async fn follow_object(
        self,
        connection: Connection,
        uid: watch::Sender<Option<String>>,
        shutdown: Shutdown,
    ) {
        let informer = InformerBuilder::<Node>::new(connection)
            .field_selector(format!("metadata.name={}", self.config.name))
            .transform(|node: &mut Node| node.metadata.managed_fields = None)
            .start(&shutdown);
        let mut changes = informer.subscribe();
        let mut pod_cidr = String::new();
        loop {
            let change = tokio::select! {
                () = shutdown.cancelled() => return,
                change = changes.recv() => change,
            };
            let node = match change {
                Some(Change::Added(node) | Change::Updated { new: node, .. }) => node,
                Some(Change::Deleted(_)) => continue,
                None => return,
            };
            uid.send_if_modified(|held| {
                let changed = *held != node.metadata.uid;
                held.clone_from(&node.metadata.uid);
                changed
            });
            self.mirrors.set_owner(mirror_pods::node_owner(&node));
            self.update_pod_cidr(&node, &mut pod_cidr).await;
            self.view.set_node(Arc::clone(&node));
        }
    }

    async fn update_pod_cidr(&self, node: &Node, current: &mut String) {
        let spec = node.spec.as_ref();
        let cidrs = spec.and_then(|s| s.pod_cidrs.clone()).unwrap_or_default();
        let wanted = if cidrs.is_empty() {
            spec.and_then(|s| s.pod_cidr.clone()).unwrap_or_default()
        } else {
            cidrs.join(",")
        };
        if wanted.is_empty() || wanted == *current {
            return;
        }
        match self.runtime.set_pod_cidr(&wanted).await {
            Ok(()) => {
                tracing::info!(pod_cidr = %wanted, "updated the runtime's pod CIDR");
                *current = wanted;
            }
            Err(error) => {
                tracing::error!(pod_cidr = %wanted, %error, "failed to update the runtime's pod CIDR")
            }
        }
    }
}
