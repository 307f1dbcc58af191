//! A pod with what the filters need, computed once when the pod is first seen.

use std::sync::Arc;

use apimachinery::meta::{self, ObjectKey};
use apimachinery::pod;
use k8s_openapi::api::core::v1::{Pod, Toleration};

use crate::resource::Resource;

/// A port of the host that a pod claims.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// Address, `0.0.0.0` for all.
    pub ip: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// Number.
    pub port: i32,
}

impl HostPort {
    /// Whether two claims can't stand together.
    pub fn conflicts(&self, other: &Self) -> bool {
        let any = |ip: &str| ip == "0.0.0.0";
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || any(&self.ip) || any(&other.ip))
    }
}

/// A pod and what scheduling reads of it.
#[derive(Clone, Debug)]
pub struct PodInfo {
    /// The object.
    pub pod: Arc<Pod>,
    /// Namespace and name.
    pub key: ObjectKey,
    /// Uid.
    pub uid: String,
    /// `spec.priority`.
    pub priority: i32,
    /// Requests of the pod.
    pub request: Resource,
    /// Requests as scoring counts them.
    pub non_zero_request: Resource,
    /// Claimed host ports.
    pub host_ports: Vec<HostPort>,
}

impl PodInfo {
    /// Reads a pod.
    pub fn new(object: Arc<Pod>) -> Self {
        let request = Resource::from_list(&pod::requests(&object));
        let spec = object.spec.as_ref();
        let containers = spec.map_or(0, |s| s.containers.len());
        let sidecars = spec.iter().flat_map(|s| s.init_containers.iter().flatten());
        let sidecars = sidecars.filter(|c| apimachinery::resources::is_sidecar(c));
        let host_ports = spec
            .iter()
            .flat_map(|s| &s.containers)
            .chain(sidecars)
            .flat_map(|c| c.ports.iter().flatten())
            .filter_map(|p| {
                let ip = p.host_ip.as_deref().filter(|ip| !ip.is_empty()).unwrap_or("0.0.0.0").to_owned();
                let protocol = p.protocol.as_deref().unwrap_or("TCP").to_owned();
                let port = p.host_port.filter(|port| *port > 0)?;
                Some(HostPort { ip, protocol, port })
            })
            .collect();
        Self {
            key: meta::key_of(&*object),
            uid: meta::uid_of(&*object).to_owned(),
            priority: spec.and_then(|s| s.priority).unwrap_or(0),
            non_zero_request: request.or_defaults(containers),
            request,
            host_ports,
            pod: object,
        }
    }

    /// The pod's tolerations.
    pub fn tolerations(&self) -> &[Toleration] {
        self.pod.spec.as_ref().and_then(|s| s.tolerations.as_deref()).unwrap_or_default()
    }

    /// The name of the node that the pod is bound to, or `""`.
    pub fn node_name(&self) -> &str {
        pod::node_name(&self.pod)
    }
}
