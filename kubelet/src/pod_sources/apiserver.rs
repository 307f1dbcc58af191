//! Pods that the scheduler bound to this node, from the apiserver. Upstream's concept: `pkg/kubelet/config/apiserver.go`.

use std::sync::Arc;

use component_base::informer::{Change, Connection, Informer, InformerBuilder};
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::SourceUpdate;
use crate::pod::{API_SOURCE, CONFIG_SOURCE_ANNOTATION};

/// Watches the pods of `node_name`.
pub async fn run(
    connection: Connection,
    node_name: String,
    updates: mpsc::UnboundedSender<SourceUpdate>,
    shutdown: CancellationToken,
) {
    let informer: Informer<Pod> = InformerBuilder::<Pod>::new(connection)
        .field_selector(format!("spec.nodeName={node_name}"))
        .transform(|pod: &mut Pod| {
            // Nobody on the node reads it and it can be half of the object.
            pod.metadata.managed_fields = None;
        })
        .start(&shutdown);
    let mut changes = informer.subscribe();
    let mut synced = false;
    loop {
        let change = tokio::select! {
            () = shutdown.cancelled() => return,
            synced_now = informer.wait_synced(), if !synced => {
                if !synced_now {
                    return;
                }
                // The changes so far come first: the sync loop must know all pods before it calls others orphans.
                while let Some(change) = changes.try_recv() {
                    if updates.send(translate(change)).is_err() {
                        return;
                    }
                }
                synced = true;
                if updates.send(SourceUpdate::ApiSynced).is_err() {
                    return;
                }
                continue;
            }
            change = changes.recv() => change,
        };
        let Some(change) = change else { return };
        if updates.send(translate(change)).is_err() {
            return;
        }
    }
}

fn translate(change: Change<Pod>) -> SourceUpdate {
    match change {
        Change::Added(pod) | Change::Updated { new: pod, .. } => SourceUpdate::ApiUpsert(annotate(&pod)),
        Change::Deleted(pod) => SourceUpdate::ApiRemoved(annotate(&pod)),
    }
}

/// The kubelet's own copy says where it came from.
fn annotate(pod: &Arc<Pod>) -> Arc<Pod> {
    let mut pod = Pod::clone(pod);
    let annotations = pod.metadata.annotations.get_or_insert_default();
    let mirror = annotations.contains_key(crate::pod::CONFIG_MIRROR_ANNOTATION);
    if !mirror {
        annotations.insert(CONFIG_SOURCE_ANNOTATION.to_owned(), API_SOURCE.to_owned());
    }
    Arc::new(pod)
}
