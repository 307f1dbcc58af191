//! endpoints-controller: for each Service with a selector an Endpoints object of the same name. Deprecated in favour of
//! EndpointSlices, still read by old clients. Upstream: pkg/controller/endpoint.

mod subsets;

use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::meta::{self, ObjectKey};
use apimachinery::pod;
use component_base::events::{EventRecorder, EventType};
use component_base::informer::{Change, Store};
use component_base::workqueue::{self, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, Endpoints, Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};

use self::subsets::Flat;
use crate::api_error;
use crate::context::{Context, RunError};
use crate::services::{self, HEADLESS, LAST_CHANGE_TRIGGER_TIME, TriggerTimes};

const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const TRUNCATED: &str = "truncated";
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";

/// Why a sync did not finish; it is retried.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    #[error("delete endpoints of a service that is gone")]
    Delete(#[source] Box<kube::Error>),
    #[error("create endpoints")]
    Create(#[source] Box<kube::Error>),
    #[error("update endpoints")]
    Update(#[source] Box<kube::Error>),
}

/// The Endpoints object that the Service should have; none when `current` is as it should be.
pub fn decide(
    service: &Service,
    pods: &[Arc<Pod>],
    current: Option<&Endpoints>,
    trigger_time: Option<Timestamp>,
) -> Option<Endpoints> {
    let (subsets, truncated) = subsets::truncate(subsets::repack(flatten(service, pods)));
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    if services::is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    } else {
        labels.remove(HEADLESS);
    }
    let subsets = (!subsets.is_empty()).then_some(subsets);
    if let Some(current) = current {
        let marked = annotation(current, OVER_CAPACITY) == Some(TRUNCATED);
        let held = current.subsets.as_ref().filter(|subsets| !subsets.is_empty());
        if held == subsets.as_ref()
            && current.metadata.labels.as_ref() == Some(&labels)
            && marked == truncated
        {
            return None;
        }
    }
    let mut endpoints = current.cloned().unwrap_or_else(|| Endpoints {
        metadata: ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            ..ObjectMeta::default()
        },
        subsets: None,
    });
    endpoints.subsets = subsets;
    endpoints.metadata.labels = Some(labels);
    let annotations = endpoints.metadata.annotations.get_or_insert_default();
    set_or_remove(annotations, LAST_CHANGE_TRIGGER_TIME, trigger_time.map(services::format_time));
    set_or_remove(annotations, OVER_CAPACITY, truncated.then(|| TRUNCATED.to_owned()));
    if annotations.is_empty() {
        endpoints.metadata.annotations = None;
    }
    Some(endpoints)
}

fn annotation<'a>(endpoints: &'a Endpoints, key: &str) -> Option<&'a str> {
    meta::annotation(&endpoints.metadata, key)
}

fn set_or_remove(annotations: &mut BTreeMap<String, String>, key: &str, value: Option<String>) {
    match value {
        Some(value) => annotations.insert(key.to_owned(), value),
        None => annotations.remove(key),
    };
}

/// Each address with each of its ports.
fn flatten(service: &Service, pods: &[Arc<Pod>]) -> Vec<Flat> {
    let publish_not_ready = services::publishes_not_ready(service);
    let ports = services::ports(service);
    let mut flat = Vec::new();
    for pod in pods.iter().filter(|pod| services::may_be_endpoint(pod, publish_not_ready)) {
        let Some(address) = address(service, pod) else { continue };
        let ready = publish_not_ready || pod::is_ready(pod);
        if ports.is_empty() && services::is_headless(service) {
            flat.push(Flat { address: address.clone(), ready, port: None });
        }
        for port in ports {
            let Some(number) = services::target_port(pod, port) else { continue };
            let port = EndpointPort {
                name: port.name.clone().filter(|name| !name.is_empty()),
                port: number,
                protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
                app_protocol: port.app_protocol.clone(),
            };
            flat.push(Flat { address: address.clone(), ready, port: Some(port) });
        }
    }
    flat
}

/// The pod's address in the Service's first family.
fn address(service: &Service, pod: &Pod) -> Option<EndpointAddress> {
    let families = service.spec.as_ref().and_then(|spec| spec.ip_families.as_ref());
    let ipv6 = families.and_then(|families| families.first()).map(|family| family == "IPv6");
    let ips = services::pod_ips(pod);
    let ip = match ipv6 {
        Some(ipv6) => ips.into_iter().find(|ip| ip.contains(':') == ipv6)?,
        None => ips.into_iter().next()?,
    };
    Some(EndpointAddress {
        ip: ip.to_owned(),
        node_name: Some(pod::node_name(pod).to_owned()).filter(|name| !name.is_empty()),
        hostname: services::hostname(pod, service),
        target_ref: Some(services::target_ref(pod)),
    })
}

struct EndpointsController {
    client: Client,
    recorder: EventRecorder,
    services: Store<Service>,
    pods: Store<Pod>,
    endpoints: Store<Endpoints>,
    trigger_times: TriggerTimes,
    queue: WorkQueue<ObjectKey>,
}

/// Runs until shutdown.
pub async fn run(context: Context) -> Result<(), RunError> {
    let client = context.client("endpoint-controller");
    let services = context.informers.services();
    let pods = context.informers.pods();
    let endpoints = context.informers.endpoints();
    let queue: WorkQueue<ObjectKey> = context.queue("endpoint");
    let batch_period = context.config.endpoint_updates_batch_period;
    context.on_change(&services, {
        let queue = queue.clone();
        move |change| queue.add(change.key())
    });
    context.on_change(&pods, {
        let (queue, services) = (queue.clone(), services.store());
        move |change| pod_changed(&change, &services, |key| queue.add_after(key, batch_period))
    });
    context.on_change(&endpoints, {
        let queue = queue.clone();
        // Also what an earlier leader left behind: an Endpoints object without its Service.
        move |change| queue.add(change.key())
    });
    if !(context.wait_synced(&services).await
        && context.wait_synced(&pods).await
        && context.wait_synced(&endpoints).await)
    {
        return Ok(());
    }
    let controller = Arc::new(EndpointsController {
        recorder: context.recorder(&client, "endpoint-controller"),
        client,
        services: services.store(),
        pods: pods.store(),
        endpoints: endpoints.store(),
        trigger_times: TriggerTimes::default(),
        queue: queue.clone(),
    });
    let workers = context.config.concurrent_endpoint_syncs;
    workqueue::run_workers(queue, workers, context.shutdown.clone(), move |key| {
        let controller = Arc::clone(&controller);
        async move { api_error::retry_conflict(controller.sync(&key).await, &controller.queue, key) }
    })
    .await;
    Ok(())
}

/// Queues the Services that a change of a pod concerns: those that select it now or did before.
pub fn pod_changed(change: &Change<Pod>, services: &Store<Service>, mut add: impl FnMut(ObjectKey)) {
    let pod = change.object();
    let namespace = meta::namespace_of(pod.as_ref());
    if let Change::Updated { old, new } = change {
        if !services::endpoint_changed(old, new) {
            return;
        }
        if old.metadata.labels != new.metadata.labels {
            services::services_of(services, namespace, old.metadata.labels.as_ref())
                .into_iter()
                .for_each(&mut add);
        }
    }
    services::services_of(services, namespace, pod.metadata.labels.as_ref()).into_iter().for_each(add);
}

impl EndpointsController {
    async fn sync(&self, key: &ObjectKey) -> Result<(), SyncError> {
        let current = self.endpoints.get(key);
        let api = Api::<Endpoints>::namespaced(self.client.clone(), &key.namespace);
        let Some(service) = self.services.get(key) else {
            self.trigger_times.forget(key);
            return match current {
                Some(endpoints) if is_own(&endpoints) => {
                    match api.delete(&key.name, &DeleteParams::default()).await {
                        Ok(_) => Ok(()),
                        Err(error) if api_error::is_not_found(&error) => Ok(()),
                        Err(error) => Err(SyncError::Delete(Box::new(error))),
                    }
                }
                _ => Ok(()),
            };
        };
        let Some(selector) = services::selector(&service) else { return Ok(()) };
        let pods = services::selected(&self.pods, &key.namespace, &selector);
        let trigger_time = self.trigger_times.compute(&service, &pods);
        let Some(endpoints) = decide(&service, &pods, current.as_deref(), trigger_time) else {
            return Ok(());
        };
        if current.is_none() {
            self.create(&api, key, &service, &endpoints).await
        } else {
            match api.replace(&key.name, &PostParams::default(), &endpoints).await {
                Ok(_) => Ok(()),
                Err(error) if api_error::is_conflict(&error) => Err(SyncError::Update(Box::new(error))),
                Err(error) => {
                    let message = format!("Failed to update endpoint {key}: {}", api_error::message(&error));
                    self.recorder.event(
                        service.as_ref(),
                        EventType::Warning,
                        "FailedToUpdateEndpoint",
                        message,
                    );
                    Err(SyncError::Update(Box::new(error)))
                }
            }
        }
    }

    async fn create(
        &self,
        api: &Api<Endpoints>,
        key: &ObjectKey,
        service: &Service,
        endpoints: &Endpoints,
    ) -> Result<(), SyncError> {
        match api.create(&PostParams::default(), endpoints).await {
            Ok(_) => Ok(()),
            // The namespace is going, or the cache was behind and the object's own event comes.
            Err(error)
                if api_error::is_namespace_terminating(&error) || api_error::is_already_exists(&error) =>
            {
                Ok(())
            }
            Err(error) => {
                let message =
                    format!("Failed to create endpoint for service {key}: {}", api_error::message(&error));
                self.recorder.event(service, EventType::Warning, "FailedToCreateEndpoint", message);
                Err(SyncError::Create(Box::new(error)))
            }
        }
    }
}

/// Whether this controller (of this or an earlier version) made the object, as opposed to a person or another program
/// that keeps Endpoints without a Service (leader election locks of old, for one).
fn is_own(endpoints: &Endpoints) -> bool {
    meta::label(&endpoints.metadata, MANAGED_BY) == Some(MANAGER)
        || annotation(endpoints, LAST_CHANGE_TRIGGER_TIME).is_some()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

    use super::*;
    use crate::testing::{PodBuilder, at, pod, service};

    fn endpoint(name: &str, ip: &str) -> PodBuilder {
        pod(name).on("node").ip(ip)
    }

    fn pods(pods: Vec<PodBuilder>) -> Vec<Arc<Pod>> {
        pods.into_iter().map(|pod| Arc::new(pod.build())).collect()
    }

    fn web() -> Service {
        service("web", &[("http", 80, IntOrString::Int(8080)), ("metrics", 9100, IntOrString::Int(9100))])
    }

    #[test]
    fn ready_and_not_ready_addresses() {
        let pods = pods(vec![
            endpoint("b", "10.0.0.2").ready(at(1)),
            endpoint("a", "10.0.0.1").ready(at(1)),
            endpoint("c", "10.0.0.3").phase("Running"),
            endpoint("d", "10.0.0.4").phase("Succeeded"),
            endpoint("e", "10.0.0.5").ready(at(1)).deleting(at(2)),
        ]);
        let made = decide(&web(), &pods, None, Some(at(7))).unwrap();
        let subsets = made.subsets.as_ref().unwrap();
        assert_eq!(subsets.len(), 1);
        let ips = |addresses: &Option<Vec<EndpointAddress>>| {
            addresses.iter().flatten().map(|address| address.ip.clone()).collect::<Vec<_>>()
        };
        assert_eq!(ips(&subsets[0].addresses), ["10.0.0.1", "10.0.0.2"]);
        assert_eq!(ips(&subsets[0].not_ready_addresses), ["10.0.0.3"]);
        assert_eq!(subsets[0].ports.as_ref().unwrap().len(), 2);
        assert_eq!(annotation(&made, LAST_CHANGE_TRIGGER_TIME), Some("1970-01-01T00:00:07Z"));
        assert_eq!(meta::label(&made.metadata, MANAGED_BY), Some(MANAGER));
        assert_eq!(decide(&web(), &pods, Some(&made), None), None, "nothing to do twice");
    }

    #[test]
    fn publish_not_ready_addresses_counts_all_as_ready() {
        let mut svc = web();
        svc.spec.as_mut().unwrap().publish_not_ready_addresses = Some(true);
        let pods =
            pods(vec![endpoint("a", "10.0.0.1").phase("Running"), endpoint("b", "10.0.0.2").deleting(at(1))]);
        let made = decide(&svc, &pods, None, None).unwrap();
        assert_eq!(made.subsets.unwrap()[0].addresses.as_ref().unwrap().len(), 2);
    }

    #[test]
    fn headless_without_ports() {
        let mut svc = service("web", &[]);
        svc.spec.as_mut().unwrap().cluster_ip = Some("None".into());
        let made = decide(&svc, &pods(vec![endpoint("a", "10.0.0.1").ready(at(1))]), None, None).unwrap();
        assert_eq!(meta::label(&made.metadata, HEADLESS), Some(""));
        let subset = &made.subsets.unwrap()[0];
        assert_eq!((subset.addresses.as_ref().unwrap().len(), &subset.ports), (1, &None));
    }

    #[test]
    fn the_first_family_decides() {
        let mut svc = web();
        svc.spec.as_mut().unwrap().ip_families = Some(vec!["IPv6".into()]);
        let mut dual = endpoint("a", "10.0.0.1").ready(at(1)).build();
        dual.status
            .as_mut()
            .unwrap()
            .pod_ips
            .as_mut()
            .unwrap()
            .push(k8s_openapi::api::core::v1::PodIP { ip: "fd00::1".into() });
        let made = decide(&svc, &[Arc::new(dual)], None, None).unwrap();
        assert_eq!(made.subsets.unwrap()[0].addresses.as_ref().unwrap()[0].ip, "fd00::1");
    }

    #[test]
    fn no_pods_make_an_empty_object() {
        let made = decide(&web(), &[], None, None).unwrap();
        assert_eq!(made.subsets, None);
        assert_eq!(decide(&web(), &[], Some(&made), None), None);
    }

    #[test]
    fn labels_follow_the_service() {
        let mut svc = web();
        let made = decide(&svc, &[], None, None).unwrap();
        svc.metadata.labels = Some([("team".to_owned(), "a".to_owned())].into());
        let updated = decide(&svc, &[], Some(&made), None).unwrap();
        assert_eq!(meta::label(&updated.metadata, "team"), Some("a"));
    }

    #[test]
    fn foreign_endpoints_are_not_deleted() {
        let mut foreign = Endpoints::default();
        assert!(!is_own(&foreign));
        foreign.metadata.labels = Some([(MANAGED_BY.to_owned(), MANAGER.to_owned())].into());
        assert!(is_own(&foreign));
    }
}
