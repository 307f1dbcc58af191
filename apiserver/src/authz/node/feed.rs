//! Keeps the graph equal to the pods, volumes and attachments in the store.

use std::sync::Arc;

use component_base::Shutdown;
use k8s_openapi::api::core::v1::{PersistentVolume, Pod};
use k8s_openapi::api::storage::v1::VolumeAttachment;
use tokio::sync::watch;

use super::{Graph, NodeAuthorizer};
use crate::lookup::reflector::{self, Kind, Sink};
use crate::registry::Object;
use crate::store::Store;

struct Feed {
    node: Arc<NodeAuthorizer>,
    plural: &'static str,
}

fn put(graph: &mut Graph, object: &dyn Object) {
    if let Some(pod) = object.downcast_ref::<Pod>() {
        graph.put_pod(pod);
    } else if let Some(volume) = object.downcast_ref::<PersistentVolume>() {
        graph.put_volume(volume);
    } else if let Some(attachment) = object.downcast_ref::<VolumeAttachment>() {
        graph.put_attachment(attachment);
    }
}

impl Sink for Feed {
    fn replace(&self, objects: Vec<Arc<dyn Object>>) {
        self.node.update(|graph| {
            match self.plural {
                "pods" => graph.clear_pods(),
                "persistentvolumes" => graph.clear_volumes(),
                _ => graph.clear_attachments(),
            }
            objects.iter().for_each(|object| put(graph, &**object));
        });
    }

    fn put(&self, object: Arc<dyn Object>) {
        self.node.update(|graph| put(graph, &*object));
    }

    fn delete(&self, object: &dyn Object) {
        let meta = object.meta();
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let name = meta.name.as_deref().unwrap_or_default();
        self.node.update(|graph| match self.plural {
            "pods" => graph.delete_pod(namespace, name),
            "persistentvolumes" => graph.delete_volume(name),
            _ => graph.delete_attachment(name),
        });
    }
}

/// Follows the resources that are served; each receiver turns true when its first list is in.
pub fn start(
    node: &Arc<NodeAuthorizer>,
    store: &Arc<Store>,
    shutdown: &Shutdown,
) -> Vec<watch::Receiver<bool>> {
    let kinds = [
        Kind { group: "", version: "v1", plural: "pods" },
        Kind { group: "", version: "v1", plural: "persistentvolumes" },
        Kind { group: "storage.k8s.io", version: "v1", plural: "volumeattachments" },
    ];
    let served = |kind: &Kind| store.resources().get(kind.group, kind.version, kind.plural).is_some();
    kinds
        .into_iter()
        .filter(served)
        .map(|kind| {
            let feed = Arc::new(Feed { node: node.clone(), plural: kind.plural });
            reflector::start(store.clone(), kind, feed, shutdown.clone())
        })
        .collect()
}
