//! endpointslice-controller: for each Service with a selector, EndpointSlices of at most `--max-endpoints-per-slice`
//! endpoints for each address family. Slices go with their Service through the garbage collector. Upstream:
//! pkg/controller/endpointslice and staging/src/k8s.io/endpointslice.

mod endpoint;
mod reconcile;
mod tracker;

use std::collections::BTreeSet;
use std::sync::Arc;

use apimachinery::meta::{self, ObjectKey};
use component_base::error_chain::Chain;
use component_base::events::{EventRecorder, EventType};
use component_base::informer::{Change, Store};
use component_base::workqueue::{self, WorkQueue};
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, Client};

use self::reconcile::{Action, Desired};
use self::tracker::Tracker;
use super::endpoints::pod_changed;
use crate::api_error;
use crate::context::{Context, RunError};
use crate::informers::{self, SERVICE};
use crate::services::{self, TriggerTimes};

/// Which Service a slice is of.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Who keeps a slice.
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// This controller, in that label.
pub const MANAGER: &str = "endpointslice-controller.k8s.io";
const ZONE: &str = "topology.kubernetes.io/zone";

/// Why a sync did not finish; it is retried.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    #[error("{action} endpoint slice")]
    Write { action: &'static str, source: Box<kube::Error> },
    #[error("pods run on nodes that do not exist: {}", .0.join(", "))]
    MissingNodes(Vec<String>),
}

struct EndpointSliceController {
    client: Client,
    recorder: EventRecorder,
    services: Store<Service>,
    pods: Store<Pod>,
    nodes: Store<Node>,
    slices: Store<EndpointSlice>,
    trigger_times: TriggerTimes,
    tracker: Tracker,
    queue: WorkQueue<ObjectKey>,
    max_endpoints: usize,
}

/// Runs until shutdown.
pub async fn run(context: Context) -> Result<(), RunError> {
    let client = context.client("endpointslice-controller");
    let services = context.informers.services();
    let pods = context.informers.pods();
    let nodes = context.informers.nodes();
    let slices = context.informers.endpoint_slices();
    let queue: WorkQueue<ObjectKey> = context.queue("endpoint_slice");
    let batch_period = context.config.endpointslice_updates_batch_period;
    context.on_change(&services, {
        let queue = queue.clone();
        move |change| queue.add(change.key())
    });
    context.on_change(&pods, {
        let (queue, services) = (queue.clone(), services.store());
        move |change| pod_changed(&change, &services, |key| queue.add_after(key, batch_period))
    });
    context.on_change(&nodes, {
        let (queue, services, pods) = (queue.clone(), services.store(), pods.store());
        move |change| node_changed(&change, &pods, &services, |key| queue.add(key))
    });
    context.on_change(&slices, {
        let queue = queue.clone();
        move |change| {
            if let Some(key) = service_of(change.object()) {
                queue.add(key);
            }
        }
    });
    if !(context.wait_synced(&services).await
        && context.wait_synced(&pods).await
        && context.wait_synced(&nodes).await
        && context.wait_synced(&slices).await)
    {
        return Ok(());
    }
    let controller = Arc::new(EndpointSliceController {
        recorder: context.recorder(&client, "endpoint-slice-controller"),
        client,
        services: services.store(),
        pods: pods.store(),
        nodes: nodes.store(),
        slices: slices.store(),
        trigger_times: TriggerTimes::default(),
        tracker: Tracker::default(),
        queue: queue.clone(),
        max_endpoints: context.config.max_endpoints_per_slice,
    });
    let workers = context.config.concurrent_service_endpoint_syncs;
    workqueue::run_workers(queue, workers, context.shutdown.clone(), move |key| {
        let controller = Arc::clone(&controller);
        async move { api_error::retry_conflict(controller.sync(&key).await, &controller.queue, key) }
    })
    .await;
    Ok(())
}

/// The Service of a slice that this controller keeps.
fn service_of(slice: &EndpointSlice) -> Option<ObjectKey> {
    if meta::label(&slice.metadata, MANAGED_BY) != Some(MANAGER) {
        return None;
    }
    let service = meta::label(&slice.metadata, SERVICE_NAME)?;
    Some(ObjectKey::new(meta::namespace_of(slice), service))
}

/// A node's zone is part of the endpoints on it.
fn node_changed(
    change: &Change<Node>,
    pods: &Store<Pod>,
    services: &Store<Service>,
    mut add: impl FnMut(ObjectKey),
) {
    let zone = |node: &Node| meta::label(&node.metadata, ZONE).map(str::to_owned);
    if let Change::Updated { old, new } = change
        && zone(old) == zone(new)
    {
        return;
    }
    let node = change.object();
    let keys: BTreeSet<String> = pods
        .by_index(informers::NODE_NAME, meta::name_of(node.as_ref()))
        .iter()
        .flat_map(|pod| {
            services::services_of(services, meta::namespace_of(pod.as_ref()), pod.metadata.labels.as_ref())
        })
        .map(|key| key.to_string())
        .collect();
    keys.iter().filter_map(|key| ObjectKey::parse(key)).for_each(&mut add);
}

impl EndpointSliceController {
    async fn sync(&self, key: &ObjectKey) -> Result<(), SyncError> {
        let Some(service) = self.services.get(key) else {
            self.trigger_times.forget(key);
            self.tracker.forget(key);
            return Ok(());
        };
        let Some(selector) = services::selector(&service) else { return Ok(()) };
        if !self.tracker.is_caught_up(key, &self.slices) {
            self.queue.add_after(key.clone(), tracker::RECHECK);
            return Ok(());
        }
        let pods = services::selected(&self.pods, &key.namespace, &selector);
        let existing: Vec<Arc<EndpointSlice>> = self
            .slices
            .by_index(SERVICE, &key.to_string())
            .into_iter()
            .filter(|slice| service_of(slice).is_some() && slice.metadata.deletion_timestamp.is_none())
            .collect();
        let trigger_time = self.trigger_times.compute(&service, &pods);
        let Desired { groups, missing_nodes } =
            reconcile::desired(&service, &pods, |name| self.nodes.get(&ObjectKey::cluster(name)));
        let actions = reconcile::decide(&service, &existing, groups, trigger_time, self.max_endpoints);
        for action in actions {
            if let Err(error) = self.act(key, action).await {
                if !api_error::is_caused_by_conflict(&error) {
                    let message =
                        format!("Error updating Endpoint Slices for Service {key}: {}", Chain(&error));
                    self.recorder.event(
                        service.as_ref(),
                        EventType::Warning,
                        "FailedToUpdateEndpointSlices",
                        message,
                    );
                }
                return Err(error);
            }
        }
        if missing_nodes.is_empty() { Ok(()) } else { Err(SyncError::MissingNodes(missing_nodes)) }
    }

    async fn act(&self, key: &ObjectKey, action: Action) -> Result<(), SyncError> {
        let api = Api::<EndpointSlice>::namespaced(self.client.clone(), &key.namespace);
        let failed = |action| move |source| SyncError::Write { action, source: Box::new(source) };
        match action {
            Action::Create(slice) => match api.create(&PostParams::default(), &slice).await {
                Ok(created) => self.tracker.written(key, &created),
                Err(error) if api_error::is_namespace_terminating(&error) => {}
                Err(error) => return Err(failed("create")(error)),
            },
            Action::Update(slice) => {
                let name = meta::name_of(slice.as_ref());
                let updated =
                    api.replace(name, &PostParams::default(), &slice).await.map_err(failed("update"))?;
                self.tracker.written(key, &updated);
            }
            Action::Delete(slice) => {
                let parameters = DeleteParams::default()
                    .preconditions(Preconditions { uid: slice.metadata.uid.clone(), resource_version: None });
                match api.delete(meta::name_of(slice.as_ref()), &parameters).await {
                    Ok(_) => self.tracker.deleted(key, &slice),
                    Err(error) if api_error::is_not_found(&error) || api_error::is_conflict(&error) => {}
                    Err(error) => return Err(failed("delete")(error)),
                }
            }
        }
        Ok(())
    }
}
