//! One shared informer per resource and process, started when the first controller asks for it, with the indexes that
//! controllers need. All use the controller manager's own identity.

use std::sync::{Arc, OnceLock};

use apimachinery::owner;
use component_base::Shutdown;
use component_base::informer::{Connection, Informer, InformerBuilder, Object, Store};
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Namespace, Node, Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;

/// Index: uid of the managing owner, or [`orphans`] of the namespace.
pub const CONTROLLER_UID: &str = "controllerUID";
/// Index of pods: the node they are bound to (`""` when unbound).
pub const NODE_NAME: &str = "spec.nodeName";
/// Index of EndpointSlices: `namespace/service`.
pub const SERVICE: &str = "service";

/// Name of the ConfigMap with the cluster's certificate authority.
pub const ROOT_CA_CONFIG_MAP: &str = "kube-root-ca.crt";
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// The shared informers.
pub struct Informers {
    connection: Connection,
    shutdown: Shutdown,
    pods: OnceLock<Informer<Pod>>,
    nodes: OnceLock<Informer<Node>>,
    namespaces: OnceLock<Informer<Namespace>>,
    service_accounts: OnceLock<Informer<ServiceAccount>>,
    root_ca_config_maps: OnceLock<Informer<ConfigMap>>,
    services: OnceLock<Informer<Service>>,
    endpoints: OnceLock<Informer<Endpoints>>,
    endpoint_slices: OnceLock<Informer<EndpointSlice>>,
    leases: OnceLock<Informer<Lease>>,
    deployments: OnceLock<Informer<Deployment>>,
    replica_sets: OnceLock<Informer<ReplicaSet>>,
    daemon_sets: OnceLock<Informer<DaemonSet>>,
    controller_revisions: OnceLock<Informer<ControllerRevision>>,
}

impl std::fmt::Debug for Informers {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Informers").finish_non_exhaustive()
    }
}

impl Informers {
    /// Nothing is started yet.
    pub fn new(client: Client, shutdown: Shutdown) -> Self {
        Self {
            connection: Connection::new(client),
            shutdown,
            pods: OnceLock::new(),
            nodes: OnceLock::new(),
            namespaces: OnceLock::new(),
            service_accounts: OnceLock::new(),
            root_ca_config_maps: OnceLock::new(),
            services: OnceLock::new(),
            endpoints: OnceLock::new(),
            endpoint_slices: OnceLock::new(),
            leases: OnceLock::new(),
            deployments: OnceLock::new(),
            replica_sets: OnceLock::new(),
            daemon_sets: OnceLock::new(),
            controller_revisions: OnceLock::new(),
        }
    }

    fn shared<K: Object>(
        &self,
        cell: &OnceLock<Informer<K>>,
        build: impl FnOnce(InformerBuilder<K>) -> InformerBuilder<K>,
    ) -> Informer<K> {
        cell.get_or_init(|| build(InformerBuilder::new(self.connection.clone())).start(&self.shutdown))
            .clone()
    }

    /// Pods, without the parts of their spec that no controller reads.
    pub fn pods(&self) -> Informer<Pod> {
        self.shared(&self.pods, |builder| {
            builder
                .index(CONTROLLER_UID, |pod| vec![controller_index(&pod.metadata)])
                .index(NODE_NAME, |pod| vec![apimachinery::pod::node_name(pod).to_owned()])
                .transform(trim_pod)
        })
    }

    /// Nodes.
    pub fn nodes(&self) -> Informer<Node> {
        self.shared(&self.nodes, |builder| {
            builder.transform(|node| {
                if let Some(status) = node.status.as_mut() {
                    status.images = None;
                }
            })
        })
    }

    /// Namespaces.
    pub fn namespaces(&self) -> Informer<Namespace> {
        self.shared(&self.namespaces, |builder| builder)
    }

    /// ServiceAccounts.
    pub fn service_accounts(&self) -> Informer<ServiceAccount> {
        self.shared(&self.service_accounts, |builder| builder)
    }

    /// The ConfigMaps called `kube-root-ca.crt` and no others.
    pub fn root_ca_config_maps(&self) -> Informer<ConfigMap> {
        let selector = format!("metadata.name={ROOT_CA_CONFIG_MAP}");
        self.shared(&self.root_ca_config_maps, |builder| builder.field_selector(selector))
    }

    /// Services.
    pub fn services(&self) -> Informer<Service> {
        self.shared(&self.services, |builder| builder)
    }

    /// Endpoints.
    pub fn endpoints(&self) -> Informer<Endpoints> {
        self.shared(&self.endpoints, |builder| builder)
    }

    /// EndpointSlices by Service.
    pub fn endpoint_slices(&self) -> Informer<EndpointSlice> {
        self.shared(&self.endpoint_slices, |builder| {
            builder.index(SERVICE, |slice| {
                let service =
                    slice.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME_LABEL));
                let namespace = slice.metadata.namespace.as_deref().unwrap_or("");
                service.map(|service| format!("{namespace}/{service}")).into_iter().collect()
            })
        })
    }

    /// Leases of nodes.
    pub fn node_leases(&self) -> Informer<Lease> {
        self.shared(&self.leases, |builder| builder.namespace("kube-node-lease"))
    }

    /// Deployments.
    pub fn deployments(&self) -> Informer<Deployment> {
        self.shared(&self.deployments, |builder| builder)
    }

    /// ReplicaSets by controller.
    pub fn replica_sets(&self) -> Informer<ReplicaSet> {
        self.shared(&self.replica_sets, |builder| {
            builder.index(CONTROLLER_UID, |set| vec![controller_index(&set.metadata)])
        })
    }

    /// DaemonSets.
    pub fn daemon_sets(&self) -> Informer<DaemonSet> {
        self.shared(&self.daemon_sets, |builder| builder)
    }

    /// ControllerRevisions by controller.
    pub fn controller_revisions(&self) -> Informer<ControllerRevision> {
        self.shared(&self.controller_revisions, |builder| {
            builder.index(CONTROLLER_UID, |revision| vec![controller_index(&revision.metadata)])
        })
    }
}

/// Value of [`CONTROLLER_UID`] under which the namespace's objects without a controller are found.
pub fn orphans(namespace: &str) -> String {
    format!("orphans/{namespace}")
}

fn controller_index(metadata: &ObjectMeta) -> String {
    match owner::controller_of(metadata) {
        Some(reference) => reference.uid.clone(),
        None => orphans(metadata.namespace.as_deref().unwrap_or("")),
    }
}

/// What `controller` owns or may adopt: the candidates of a claim, without looking at the rest of the namespace.
pub fn owned_and_orphans<K: Object>(store: &Store<K>, controller: &ObjectMeta) -> Vec<Arc<K>> {
    let mut found = store.by_index(CONTROLLER_UID, controller.uid.as_deref().unwrap_or(""));
    found.extend(store.by_index(CONTROLLER_UID, &orphans(controller.namespace.as_deref().unwrap_or(""))));
    found
}

/// Controllers never write a cached pod back, so what none of them reads need not be held.
fn trim_pod(pod: &mut Pod) {
    if let Some(annotations) = pod.metadata.annotations.as_mut() {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
    let Some(spec) = pod.spec.as_mut() else { return };
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        container.env = None;
        container.env_from = None;
        container.command = None;
        container.args = None;
        container.volume_mounts = None;
        container.liveness_probe = None;
        container.readiness_probe = None;
        container.startup_probe = None;
        container.lifecycle = None;
        container.security_context = None;
    }
    spec.volumes = None;
}
