//! What the Endpoints and the EndpointSlice controllers share: which pods stand behind a Service, on which ports, and
//! when that last changed. Pure. Upstream: staging/src/k8s.io/endpointslice and pkg/controller/util/endpoint.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use apimachinery::labels::Selector;
use apimachinery::meta::{self, ObjectKey};
use apimachinery::pod;
use component_base::informer::Store;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use parking_lot::Mutex;

/// When what an Endpoints or EndpointSlice object tells last changed.
pub const LAST_CHANGE_TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";
/// Marks the endpoints of a Service without a cluster IP.
pub const HEADLESS: &str = "service.kubernetes.io/headless";

/// The Service's selector; none when somebody else keeps its endpoints.
pub fn selector(service: &Service) -> Option<Selector> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    // An empty selector is no selector: it would match everything.
    spec.selector.as_ref().filter(|selector| !selector.is_empty()).map(Selector::from_set)
}

/// Whether the Service is reached at its pods' addresses only.
pub fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None")
}

/// Whether unready pods are to be told of as if they were ready.
pub fn publishes_not_ready(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses).unwrap_or(false)
}

/// The ports of the Service.
pub fn ports(service: &Service) -> &[ServicePort] {
    service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default()
}

/// Whether a pod can be an endpoint at all.
pub fn may_be_endpoint(pod: &Pod, include_terminating: bool) -> bool {
    !pod::is_terminal(pod)
        && !pod_ips(pod).is_empty()
        && (include_terminating || pod.metadata.deletion_timestamp.is_none())
}

/// The pod's addresses, of all families.
pub fn pod_ips(pod: &Pod) -> Vec<&str> {
    let Some(status) = pod.status.as_ref() else { return Vec::new() };
    let ips: Vec<&str> = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str()).collect();
    if ips.is_empty() { status.pod_ip.as_deref().into_iter().collect() } else { ips }
}

/// The number of the port that the Service's port leads to in this pod, when the pod has it.
pub fn target_port(pod: &Pod, port: &ServicePort) -> Option<i32> {
    match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) if name.is_empty() => Some(port.port),
        Some(IntOrString::String(name)) => {
            pod::named_port(pod, name, port.protocol.as_deref().unwrap_or("TCP"))
        }
    }
}

/// The pod's own DNS name below the Service's, when it asks for one.
pub fn hostname(pod: &Pod, service: &Service) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let hostname = spec.hostname.as_deref().filter(|hostname| !hostname.is_empty())?;
    let below = spec.subdomain.as_deref() == service.metadata.name.as_deref();
    (below && pod.metadata.namespace == service.metadata.namespace).then(|| hostname.to_owned())
}

/// The reference by which an endpoint names its pod.
pub fn target_ref(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".to_owned()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

/// The pods that a selector selects in a namespace.
pub fn selected(pods: &Store<Pod>, namespace: &str, selector: &Selector) -> Vec<Arc<Pod>> {
    let mut pods = pods.list_namespace(namespace);
    pods.retain(|pod| selector.matches_opt(pod.metadata.labels.as_ref()));
    pods
}

/// Keys of the Services that select a pod with these labels.
pub fn services_of(
    services: &Store<Service>,
    namespace: &str,
    labels: Option<&BTreeMap<String, String>>,
) -> Vec<ObjectKey> {
    let services = services.list_namespace(namespace);
    let selecting =
        services.iter().filter(|service| selector(service).is_some_and(|s| s.matches_opt(labels)));
    selecting.map(|service| meta::key_of(service.as_ref())).collect()
}

/// Whether the difference between two versions of a pod can be seen in endpoints.
pub fn endpoint_changed(old: &Pod, new: &Pod) -> bool {
    let view = |pod: &Pod| {
        let spec = pod.spec.as_ref();
        (
            pod.metadata.deletion_timestamp.is_some(),
            pod::is_terminal(pod),
            pod::is_ready(pod),
            pod_ips(pod).into_iter().map(str::to_owned).collect::<Vec<_>>(),
            pod::node_name(pod).to_owned(),
            spec.and_then(|spec| spec.hostname.clone()),
            spec.and_then(|spec| spec.subdomain.clone()),
        )
    };
    old.metadata.labels != new.metadata.labels
        || old.metadata.uid != new.metadata.uid
        || view(old) != view(new)
}

/// Finds out which change of a pod or Service made the present state: the time since when clients wait for it.
#[derive(Debug, Default)]
pub struct TriggerTimes {
    by_service: Mutex<HashMap<ObjectKey, Seen>>,
}

#[derive(Debug, Default)]
struct Seen {
    service: Option<Timestamp>,
    pods: HashMap<String, Timestamp>,
}

impl TriggerTimes {
    /// The earliest change that was not told of before; none when there is none.
    pub fn compute(&self, service: &Service, pods: &[Arc<Pod>]) -> Option<Timestamp> {
        let mut by_service = self.by_service.lock();
        let key = meta::key_of(service);
        let known = by_service.contains_key(&key);
        let seen = by_service.entry(key).or_default();
        let mut earliest: Option<Timestamp> = None;
        let mut changed =
            |time: Timestamp| earliest = Some(earliest.map_or(time, |earliest| earliest.min(time)));
        let mut now_pods = HashMap::with_capacity(pods.len());
        for pod in pods {
            let Some(time) = pod_trigger_time(pod) else { continue };
            let uid = meta::uid_of(pod.as_ref()).to_owned();
            if seen.pods.get(&uid).is_none_or(|before| time > *before) {
                changed(time);
            }
            now_pods.insert(uid, time);
        }
        let created = service.metadata.creation_timestamp.as_ref().map(|time| time.0);
        if let Some(created) = created
            && (!known || seen.service.is_none_or(|before| created > before))
        {
            changed(created);
        }
        *seen = Seen { service: created, pods: now_pods };
        earliest
    }

    /// Forgets a Service that is gone.
    pub fn forget(&self, service: &ObjectKey) {
        self.by_service.lock().remove(service);
    }
}

fn pod_trigger_time(pod: &Pod) -> Option<Timestamp> {
    pod::condition(pod, "Ready").and_then(|ready| ready.last_transition_time.as_ref()).map(|time| time.0)
}

/// An annotation's form of a time (RFC 3339 with nanoseconds where there are any).
pub fn format_time(time: Timestamp) -> String {
    time.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{at, pod, service, time};

    #[test]
    fn which_services_select() {
        assert!(selector(&service("web", &[("http", 80, IntOrString::Int(8080))])).is_some());
        let mut without = service("web", &[]);
        without.spec.as_mut().unwrap().selector = None;
        assert!(selector(&without).is_none());
        without.spec.as_mut().unwrap().selector = Some(BTreeMap::new());
        assert!(selector(&without).is_none());
        let mut external = service("web", &[]);
        external.spec.as_mut().unwrap().type_ = Some("ExternalName".into());
        assert!(selector(&external).is_none());
    }

    #[test]
    fn which_pods_may_be_endpoints() {
        let up = || pod("p").ip("10.0.0.1").phase("Running");
        assert!(may_be_endpoint(&up().build(), false));
        assert!(!may_be_endpoint(&pod("p").build(), true), "no address");
        assert!(!may_be_endpoint(&up().phase("Succeeded").build(), true));
        assert!(!may_be_endpoint(&up().deleting(at(1)).build(), false));
        assert!(may_be_endpoint(&up().deleting(at(1)).build(), true));
    }

    #[test]
    fn target_ports() {
        let named = pod("p")
            .spec(|spec| {
                spec.containers = serde_json::from_value(serde_json::json!([
                    {"name": "c", "ports": [{"name": "web", "containerPort": 8081, "protocol": "TCP"}]}
                ]))
                .unwrap();
            })
            .build();
        let target =
            |target: IntOrString| target_port(&named, &ports(&service("s", &[("http", 80, target)]))[0]);
        assert_eq!(target(IntOrString::Int(9090)), Some(9090));
        assert_eq!(target(IntOrString::Int(0)), Some(80));
        assert_eq!(target(IntOrString::String("web".into())), Some(8081));
        assert_eq!(target(IntOrString::String("missing".into())), None);
    }

    #[test]
    fn hostnames_need_the_services_subdomain() {
        let named = |subdomain: &str| {
            let subdomain = subdomain.to_owned();
            pod("p").spec(|spec| {
                spec.hostname = Some("db-0".into());
                spec.subdomain = Some(subdomain);
            })
        };
        assert_eq!(hostname(&named("web").build(), &service("web", &[])).as_deref(), Some("db-0"));
        assert_eq!(hostname(&named("other").build(), &service("web", &[])), None);
    }

    #[test]
    fn trigger_time_is_the_earliest_new_change() {
        let times = TriggerTimes::default();
        let mut svc = service("web", &[]);
        svc.metadata.creation_timestamp = Some(time(10));
        let first = Arc::new(pod("a").ready(at(20)).build());
        assert_eq!(times.compute(&svc, &[Arc::clone(&first)]), Some(at(10)));
        assert_eq!(times.compute(&svc, &[Arc::clone(&first)]), None);
        let second = Arc::new(pod("b").ready(at(30)).build());
        assert_eq!(times.compute(&svc, &[Arc::clone(&first), Arc::clone(&second)]), Some(at(30)));
        times.forget(&meta::key_of(&svc));
        assert_eq!(times.compute(&svc, &[first, second]), Some(at(10)));
    }
}
