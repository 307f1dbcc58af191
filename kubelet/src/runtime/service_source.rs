//! The services that containers learn of through their environment: one informer for the node. Upstream's concept:
//! the kubelet's service lister and `getServiceEnvVarMap`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use component_base::Shutdown;
use component_base::informer::{Connection, Informer, InformerBuilder};
use k8s_openapi::api::core::v1::{Pod, Service};
use tokio_util::sync::DropGuard;

use crate::container_env::services;

/// How long a pod's start waits for the first list of services before it fails and is tried again.
const SYNC_PATIENCE: Duration = Duration::from_secs(5);

/// A static pod carries this annotation, with its source.
const CONFIG_SOURCE: &str = "kubernetes.io/config.source";

/// Services that have not been listed yet.
#[derive(Debug, thiserror::Error)]
#[error("services have not yet been read at least once, cannot construct envvars")]
pub(super) struct NotSynced;

/// Where service variables come from; without an apiserver there are none.
#[derive(Debug, Clone)]
pub(super) struct ServiceSource(Option<Arc<Watched>>);

#[derive(Debug)]
struct Watched {
    informer: Informer<Service>,
    _stop: DropGuard,
}

impl ServiceSource {
    /// Starts watching, when there is an apiserver. Stops when the last clone is dropped.
    #[must_use]
    pub(super) fn start(connection: Option<Connection>) -> Self {
        Self(connection.map(|connection| {
            let shutdown = Shutdown::new();
            // Only names, addresses and ports matter here.
            let informer = InformerBuilder::<Service>::new(connection)
                .transform(|service| {
                    service.metadata.managed_fields = None;
                    service.metadata.annotations = None;
                    service.status = None;
                })
                .start(&shutdown);
            Arc::new(Watched { informer, _stop: shutdown.drop_guard() })
        }))
    }

    /// The variables a pod gets. A static pod starts without waiting: the apiserver may be what it is.
    pub(super) async fn variables(&self, pod: &Pod) -> Result<BTreeMap<String, String>, NotSynced> {
        let Some(watched) = &self.0 else { return Ok(BTreeMap::new()) };
        let source = pod.metadata.annotations.as_ref().and_then(|a| a.get(CONFIG_SOURCE));
        let is_static = source.is_some_and(|source| source != "api");
        if !is_static && !watched.informer.has_synced() {
            let synced = tokio::time::timeout(SYNC_PATIENCE, watched.informer.wait_synced()).await;
            if !matches!(synced, Ok(true)) {
                return Err(NotSynced);
            }
        }
        let all = watched.informer.store().list();
        Ok(services::variables(pod, all.iter().map(Arc::as_ref)))
    }
}
