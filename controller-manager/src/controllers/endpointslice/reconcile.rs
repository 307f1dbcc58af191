//! From the pods behind a Service and its slices to the writes that bring them together, moving as few endpoints as
//! possible. Pure. Upstream: `reconcileByAddressType` and `reconcileByPortMapping`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use apimachinery::meta;
use apimachinery::pod;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::endpoint;
use super::{MANAGED_BY, MANAGER, SERVICE_NAME};
use crate::services::{self, HEADLESS, LAST_CHANGE_TRIGGER_TIME};

/// One write.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Action {
    Create(Box<EndpointSlice>),
    Update(Box<EndpointSlice>),
    Delete(Box<EndpointSlice>),
}

/// Endpoints that share a family and ports, and so may share slices.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Group {
    pub(super) address_type: &'static str,
    pub(super) ports: Vec<EndpointPort>,
    /// By the identity of the endpoint.
    pub(super) endpoints: BTreeMap<String, Endpoint>,
}

/// All that should be told.
#[derive(Debug)]
pub(super) struct Desired {
    pub(super) groups: Vec<Group>,
    /// Nodes that pods are bound to and that do not exist (yet): those pods are left out and looked at again.
    pub(super) missing_nodes: Vec<String>,
}

/// The families that the Service has.
fn address_types(service: &Service) -> Vec<&'static str> {
    let spec = service.spec.as_ref();
    let families = spec.and_then(|spec| spec.ip_families.as_deref()).unwrap_or_default();
    if !families.is_empty() {
        return families.iter().map(|family| if family == "IPv6" { "IPv6" } else { "IPv4" }).collect();
    }
    match spec.and_then(|spec| spec.cluster_ip.as_deref()) {
        Some("None" | "") | None => vec!["IPv4", "IPv6"],
        Some(ip) if ip.contains(':') => vec!["IPv6"],
        Some(_) => vec!["IPv4"],
    }
}

/// What the Service's pods amount to. Every family has at least one group, if an empty one.
pub(super) fn desired(
    service: &Service,
    pods: &[Arc<Pod>],
    node: impl Fn(&str) -> Option<Arc<Node>>,
) -> Desired {
    let mut groups: Vec<Group> = Vec::new();
    let mut missing = BTreeSet::new();
    for address_type in address_types(service) {
        let first = groups.len();
        for pod in pods.iter().filter(|pod| services::may_be_endpoint(pod, true)) {
            let node_name = pod::node_name(pod);
            let node = node(node_name);
            if node.is_none() && !node_name.is_empty() && !services::publishes_not_ready(service) {
                missing.insert(node_name.to_owned());
                continue;
            }
            let Some(endpoint) = endpoint::endpoint(service, pod, node.as_deref(), address_type) else {
                continue;
            };
            let ports = endpoint::ports(service, pod);
            let position =
                groups[first..].iter().position(|group| group.ports == ports).map(|found| found + first);
            let position = position.unwrap_or_else(|| {
                groups.push(Group { address_type, ports, endpoints: BTreeMap::new() });
                groups.len() - 1
            });
            groups[position].endpoints.insert(identity(&endpoint), endpoint);
        }
        if groups.len() == first {
            // A slice without endpoints and ports tells that the Service is known.
            groups.push(Group { address_type, ports: Vec::new(), endpoints: BTreeMap::new() });
        }
    }
    Desired { groups, missing_nodes: missing.into_iter().collect() }
}

/// What stays the same while an endpoint's conditions change.
fn identity(endpoint: &Endpoint) -> String {
    let uid = endpoint.target_ref.as_ref().and_then(|target| target.uid.as_deref()).unwrap_or("");
    format!("{uid}/{}", endpoint.addresses.join(","))
}

/// The writes, in order.
pub(super) fn decide(
    service: &Service,
    existing: &[Arc<EndpointSlice>],
    groups: Vec<Group>,
    trigger_time: Option<Timestamp>,
    max_endpoints: usize,
) -> Vec<Action> {
    let mut plan = Plan {
        service,
        trigger_time,
        max_endpoints,
        create: Vec::new(),
        update: Vec::new(),
        delete: Vec::new(),
    };
    let mut left: Vec<&Arc<EndpointSlice>> = existing.iter().collect();
    for group in groups {
        let (own, others): (Vec<_>, Vec<_>) = left.into_iter().partition(|slice| {
            slice.address_type == group.address_type
                && slice.ports.as_deref().unwrap_or_default() == group.ports
        });
        left = others;
        plan.reconcile_group(group, own);
    }
    plan.delete.extend(left.into_iter().map(|slice| slice.as_ref().clone()));
    plan.into_actions()
}

struct Plan<'a> {
    service: &'a Service,
    trigger_time: Option<Timestamp>,
    max_endpoints: usize,
    create: Vec<EndpointSlice>,
    update: Vec<EndpointSlice>,
    delete: Vec<EndpointSlice>,
}

/// A slice being filled.
struct Filling {
    slice: EndpointSlice,
    endpoints: Vec<Endpoint>,
    changed: bool,
}

impl Plan<'_> {
    fn reconcile_group(&mut self, mut group: Group, existing: Vec<&Arc<EndpointSlice>>) {
        let wants_placeholder = group.endpoints.is_empty();
        let mut slices: Vec<Filling> = Vec::new();
        for slice in existing {
            let held = slice.endpoints.as_deref().unwrap_or_default();
            // Keep what is still wanted where it is, in its present state; each endpoint once.
            let endpoints: Vec<Endpoint> =
                held.iter().filter_map(|endpoint| group.endpoints.remove(&identity(endpoint))).collect();
            let keep_empty = wants_placeholder && slices.is_empty();
            if endpoints.is_empty() && !keep_empty {
                self.delete.push(slice.as_ref().clone());
                continue;
            }
            let changed = endpoints != held;
            slices.push(Filling { slice: slice.as_ref().clone(), endpoints, changed });
        }
        // Then those slices that are written anyway, then the fullest that has room, then new ones.
        for filling in slices.iter_mut().filter(|filling| filling.changed) {
            fill(filling, &mut group.endpoints, self.max_endpoints);
        }
        while !group.endpoints.is_empty() {
            let wanted = group.endpoints.len().min(self.max_endpoints);
            let fullest = slices
                .iter_mut()
                .filter(|filling| filling.endpoints.len() + wanted <= self.max_endpoints)
                .max_by_key(|filling| filling.endpoints.len());
            match fullest {
                Some(filling) => fill(filling, &mut group.endpoints, self.max_endpoints),
                None => {
                    let slice = self.new_slice(group.address_type, &group.ports);
                    let mut filling = Filling { slice, endpoints: Vec::new(), changed: true };
                    fill(&mut filling, &mut group.endpoints, self.max_endpoints);
                    slices.push(filling);
                }
            }
        }
        if slices.is_empty() {
            let slice = self.new_slice(group.address_type, &group.ports);
            slices.push(Filling { slice, endpoints: Vec::new(), changed: true });
        }
        for filling in slices {
            self.finish(filling);
        }
    }

    fn new_slice(&self, address_type: &str, ports: &[EndpointPort]) -> EndpointSlice {
        let name = meta::name_of(self.service);
        EndpointSlice {
            address_type: address_type.to_owned(),
            ports: (!ports.is_empty()).then(|| ports.to_vec()),
            endpoints: None,
            metadata: ObjectMeta {
                generate_name: Some(format!("{name}-")),
                namespace: self.service.metadata.namespace.clone(),
                owner_references: Some(vec![apimachinery::owner::new_controller_ref(self.service)]),
                ..ObjectMeta::default()
            },
        }
    }

    fn finish(&mut self, Filling { mut slice, endpoints, changed }: Filling) {
        let labels = labels(self.service);
        if !changed && slice.metadata.labels.as_ref() == Some(&labels) {
            return;
        }
        slice.metadata.labels = Some(labels);
        slice.endpoints = (!endpoints.is_empty()).then_some(endpoints);
        let mut annotations = slice.metadata.annotations.take().unwrap_or_default();
        match self.trigger_time {
            Some(time) => {
                annotations.insert(LAST_CHANGE_TRIGGER_TIME.to_owned(), services::format_time(time))
            }
            None => annotations.remove(LAST_CHANGE_TRIGGER_TIME),
        };
        slice.metadata.annotations = (!annotations.is_empty()).then_some(annotations);
        if slice.metadata.name.is_some() {
            self.update.push(slice);
        } else {
            self.create.push(slice);
        }
    }

    /// A slice to delete is turned into one to create where possible: one write for two, and no moment without either.
    fn into_actions(mut self) -> Vec<Action> {
        let mut create = Vec::new();
        for slice in self.create {
            match self.delete.iter().position(|old| old.address_type == slice.address_type) {
                Some(position) => {
                    let old = self.delete.swap_remove(position);
                    let metadata = ObjectMeta {
                        labels: slice.metadata.labels.clone(),
                        annotations: slice.metadata.annotations.clone(),
                        ..old.metadata
                    };
                    self.update.push(EndpointSlice { metadata, ..slice });
                }
                None => create.push(slice),
            }
        }
        if self.service.metadata.deletion_timestamp.is_some() {
            create.clear();
        }
        let create = create.into_iter().map(|slice| Action::Create(Box::new(slice)));
        let update = self.update.into_iter().map(|slice| Action::Update(Box::new(slice)));
        let delete = self.delete.into_iter().map(|slice| Action::Delete(Box::new(slice)));
        create.chain(update).chain(delete).collect()
    }
}

fn fill(filling: &mut Filling, endpoints: &mut BTreeMap<String, Endpoint>, max_endpoints: usize) {
    while filling.endpoints.len() < max_endpoints
        && let Some((_, endpoint)) = endpoints.pop_first()
    {
        filling.endpoints.push(endpoint);
        filling.changed = true;
    }
}

/// The Service's labels and the controller's own.
fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    if services::is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels.insert(SERVICE_NAME.to_owned(), meta::name_of(service).to_owned());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    labels
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

    use super::*;
    use crate::testing::{at, node, pod, service};

    struct World {
        service: Service,
        pods: Vec<Arc<Pod>>,
        slices: Vec<Arc<EndpointSlice>>,
        max: usize,
        made: usize,
        writes: usize,
    }

    impl World {
        fn new(pods: usize, max: usize) -> Self {
            let service = service("web", &[("http", 80, IntOrString::Int(8080))]);
            let mut world = Self { service, pods: Vec::new(), slices: Vec::new(), max, made: 0, writes: 0 };
            world.set_pods(0..pods);
            world
        }

        fn set_pods(&mut self, range: std::ops::Range<usize>) {
            self.pods = range
                .map(|i| {
                    Arc::new(
                        pod(&format!("p{i:04}"))
                            .on("n")
                            .ip(&format!("10.0.{}.{}", i / 250, i % 250))
                            .ready(at(1))
                            .build(),
                    )
                })
                .collect();
        }

        fn decide(&self) -> Vec<Action> {
            let groups =
                desired(&self.service, &self.pods, |name| (name == "n").then(|| Arc::new(node("n", "True"))))
                    .groups;
            decide(&self.service, &self.slices, groups, None, self.max)
        }

        fn apply(&mut self, action: Action) {
            self.writes += 1;
            match action {
                Action::Create(mut slice) => {
                    self.made += 1;
                    let name = format!("web-{}", self.made);
                    slice.metadata.name = Some(name);
                    self.slices.push(Arc::new(*slice));
                }
                Action::Update(slice) => {
                    let held = self
                        .slices
                        .iter_mut()
                        .find(|held| held.metadata.name == slice.metadata.name)
                        .unwrap();
                    *held = Arc::new(*slice);
                }
                Action::Delete(slice) => self.slices.retain(|held| held.metadata.name != slice.metadata.name),
            }
        }

        /// One write, then everything is decided anew, as after a crash.
        fn converge(&mut self) {
            self.writes = 0;
            for _ in 0..100 {
                let Some(action) = self.decide().into_iter().next() else {
                    self.check();
                    return;
                };
                self.apply(action);
            }
            panic!("does not converge");
        }

        fn check(&self) {
            let mut told: Vec<String> = self
                .slices
                .iter()
                .flat_map(|slice| slice.endpoints.iter().flatten())
                .filter_map(|endpoint| endpoint.target_ref.as_ref()?.name.clone())
                .collect();
            told.sort();
            let wanted: Vec<String> = self.pods.iter().filter_map(|pod| pod.metadata.name.clone()).collect();
            assert_eq!(told, wanted);
            assert!(self.sizes().iter().all(|size| *size <= self.max));
        }

        fn sizes(&self) -> Vec<usize> {
            self.slices.iter().map(|slice| slice.endpoints.as_ref().map_or(0, Vec::len)).collect()
        }
    }

    #[test]
    fn slices_are_filled_to_the_limit() {
        let mut world = World::new(250, 100);
        world.converge();
        assert_eq!(world.sizes(), [100, 100, 50]);
        let slice = &world.slices[0];
        assert_eq!(meta::label(&slice.metadata, MANAGED_BY), Some(MANAGER));
        assert_eq!(meta::label(&slice.metadata, SERVICE_NAME), Some("web"));
        assert_eq!(slice.metadata.owner_references.as_ref().unwrap()[0].kind, "Service");
    }

    #[test]
    fn one_more_pod_is_one_write() {
        let mut world = World::new(250, 100);
        world.converge();
        world.set_pods(0..251);
        world.converge();
        assert_eq!((world.writes, world.sizes()), (1, vec![100, 100, 51]));
        world.set_pods(1..251);
        world.converge();
        assert_eq!(world.writes, 1);
    }

    #[test]
    fn replaced_pods_reuse_the_room() {
        let mut world = World::new(100, 100);
        world.converge();
        world.set_pods(50..150);
        world.converge();
        assert_eq!((world.writes, world.sizes()), (1, vec![100]));
    }

    #[test]
    fn no_pods_leave_a_placeholder() {
        let mut world = World::new(0, 100);
        world.converge();
        assert_eq!(world.sizes(), [0]);
        world.set_pods(0..3);
        world.converge();
        assert_eq!((world.made, world.sizes()), (1, vec![3]), "the placeholder becomes the slice");
        world.set_pods(0..0);
        world.converge();
        assert_eq!((world.made, world.sizes()), (1, vec![0]));
    }

    #[test]
    fn a_changed_condition_is_an_update_in_place() {
        let mut world = World::new(3, 100);
        world.converge();
        world.pods[1] = Arc::new(pod("p0001").on("n").ip("10.0.0.1").phase("Running").build());
        world.converge();
        assert_eq!(world.writes, 1);
        let conditions = world.slices[0].endpoints.as_ref().unwrap()[1].conditions.clone().unwrap();
        assert_eq!(conditions.ready, Some(false));
    }

    #[test]
    fn duplicates_are_removed() {
        let mut world = World::new(3, 100);
        world.converge();
        let mut double = world.slices[0].as_ref().clone();
        double.metadata.name = Some("double".into());
        world.slices.push(Arc::new(double));
        world.converge();
        assert_eq!(world.sizes(), [3]);
    }

    #[test]
    fn dual_stack_makes_slices_of_both_families() {
        let mut world = World::new(0, 100);
        world.service.spec.as_mut().unwrap().ip_families = Some(vec!["IPv4".into(), "IPv6".into()]);
        world.converge();
        let types: Vec<_> = world.slices.iter().map(|slice| slice.address_type.as_str()).collect();
        assert_eq!(types, ["IPv4", "IPv6"]);
        world.service.spec.as_mut().unwrap().ip_families = Some(vec!["IPv6".into()]);
        world.converge();
        assert_eq!(world.slices.len(), 1);
    }

    #[test]
    fn labels_follow_the_service() {
        let mut world = World::new(2, 100);
        world.converge();
        world.service.metadata.labels = Some([("team".to_owned(), "a".to_owned())].into());
        world.service.spec.as_mut().unwrap().cluster_ip = Some("None".into());
        world.converge();
        assert_eq!(world.writes, 1);
        assert_eq!(meta::label(&world.slices[0].metadata, "team"), Some("a"));
        assert_eq!(meta::label(&world.slices[0].metadata, HEADLESS), Some(""));
    }

    #[test]
    fn different_target_ports_make_different_slices() {
        let mut world = World::new(0, 100);
        world.service = service("web", &[("http", 80, IntOrString::String("web".into()))]);
        let with_port = |name: &str, ip: &str, port: i32| {
            let containers =
                serde_json::json!([{"name": "c", "ports": [{"name": "web", "containerPort": port}]}]);
            let built = pod(name).on("n").ip(ip).ready(at(1));
            Arc::new(built.spec(|spec| spec.containers = serde_json::from_value(containers).unwrap()).build())
        };
        world.pods = vec![
            with_port("a", "10.0.0.1", 80),
            with_port("b", "10.0.0.2", 81),
            with_port("c", "10.0.0.3", 80),
        ];
        world.converge();
        assert_eq!(world.sizes(), [2, 1]);
    }

    #[test]
    fn pods_on_missing_nodes_wait() {
        let world = World::new(2, 100);
        let Desired { groups, missing_nodes } = desired(&world.service, &world.pods, |_| None);
        assert!(groups[0].endpoints.is_empty());
        assert_eq!(missing_nodes, ["n"]);
    }

    #[test]
    fn a_service_being_deleted_gets_no_new_slices() {
        let mut world = World::new(3, 100);
        world.service.metadata.deletion_timestamp = Some(crate::testing::time(1));
        assert!(world.decide().is_empty());
    }
}
