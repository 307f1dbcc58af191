//! The Service `kubernetes` in `default`, by which pods reach the API server, and the ServiceCIDR of the same name.
//!
//! Its endpoints are `service_endpoints.rs`. Upstream: `pkg/controlplane/controller/{kubernetesservice,defaultservicecidr}`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use apimachinery::status::ApiError;
use ipnet::IpNet;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::networking::v1::{ServiceCIDR, ServiceCIDRSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::storage::{Commit, Freshness, Write};
use crate::store::{Store, api_error};

/// Port of the Service.
const PORT: i32 = 443;

/// What the Service says.
#[derive(Debug, Clone)]
pub struct KubernetesService {
    /// `--service-cluster-ip-range`; the Service has its first address.
    pub range: IpNet,
    /// The API server's own port.
    pub target_port: u16,
}

impl KubernetesService {
    /// The Service's address.
    pub fn address(&self) -> Option<IpAddr> {
        self.range.hosts().next()
    }

    /// The Service.
    pub fn object(&self) -> Service {
        let address = self.address().map(|address| address.to_string());
        let labels = [("provider", "kubernetes"), ("component", "apiserver")];
        let labels: BTreeMap<String, String> =
            labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        Service {
            metadata: ObjectMeta {
                name: Some("kubernetes".to_owned()),
                namespace: Some("default".to_owned()),
                labels: Some(labels),
                ..ObjectMeta::default()
            },
            spec: Some(ServiceSpec {
                cluster_ip: address.clone(),
                cluster_ips: address.map(|address| vec![address]),
                ports: Some(vec![ServicePort {
                    name: Some("https".to_owned()),
                    port: PORT,
                    protocol: Some("TCP".to_owned()),
                    target_port: Some(IntOrString::Int(self.target_port.into())),
                    ..ServicePort::default()
                }]),
                session_affinity: Some("None".to_owned()),
                type_: Some("ClusterIP".to_owned()),
                ..ServiceSpec::default()
            }),
            status: None,
        }
    }

    /// Writes the default ServiceCIDR if there is none. The resource itself is not served yet, so it goes straight to its key.
    pub(super) async fn ensure_range(&self, store: &Store) -> Result<(), ApiError> {
        let key = store.storage().key("servicecidrs/kubernetes");
        if store.storage().get(&key, Freshness::Consistent).await.map_err(api_error)?.0.is_some() {
            return Ok(());
        }
        let value = serde_json::to_vec(&self.service_cidr()).map_err(ApiError::internal)?;
        let write = Write::Put { value: value.into(), ttl_seconds: None, selectable: None };
        // Losing against another API server is as good as winning.
        store
            .storage()
            .commit(&Commit { key: &key, expected: 0, write, side: &[] })
            .await
            .map_err(api_error)?;
        Ok(())
    }

    fn service_cidr(&self) -> ServiceCIDR {
        ServiceCIDR {
            metadata: ObjectMeta {
                name: Some("kubernetes".to_owned()),
                uid: Some(uuid::Uuid::new_v4().to_string()),
                creation_timestamp: Some(Time(Timestamp::now())),
                ..ObjectMeta::default()
            },
            spec: Some(ServiceCIDRSpec { cidrs: Some(vec![self.range.to_string()]) }),
            status: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_has_the_first_address() {
        let service = KubernetesService { range: "10.96.0.0/12".parse().unwrap(), target_port: 6443 };
        let spec = service.object().spec.unwrap();
        assert_eq!(spec.cluster_ip.as_deref(), Some("10.96.0.1"));
        assert_eq!(spec.ports.unwrap()[0].target_port, Some(IntOrString::Int(6443)));
    }
}
