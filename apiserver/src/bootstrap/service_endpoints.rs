//! The endpoints of the Service `kubernetes`: the API servers that renew their key below `masterleases/` in etcd.
//!
//! Each server writes its address with a time to live, reads all of them, and makes Endpoints and EndpointSlice say so; a
//! server that dies falls out with its lease. Upstream: `pkg/controlplane/reconcilers/lease.go`.

use std::collections::BTreeMap;
use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use apimachinery::status::ApiError;
use component_base::Shutdown;
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints};
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointPort as SlicePort, EndpointSlice,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::registry::{KubeObject, Object, UpdateKind};
use crate::request::RequestContext;
use crate::storage::{Commit, Committed, Freshness, ListQuery, Write};
use crate::store::{Store, Target, UpdateRequest, api_error};

const LEASE_SECONDS: i64 = 15;
const INTERVAL: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(1);
const NAME: &str = "kubernetes";
const NAMESPACE: &str = "default";

/// Keeps this server's address among the endpoints.
#[derive(Debug)]
pub struct ServiceEndpoints {
    store: Arc<Store>,
    address: IpAddr,
    port: u16,
}

/// The address that others reach this server by: the one given, or else the one that leads out of this machine.
pub fn advertised(advertise: Option<IpAddr>, bind: IpAddr) -> Option<IpAddr> {
    if let Some(address) = advertise {
        return Some(address);
    }
    if !bind.is_unspecified() && !bind.is_loopback() {
        return Some(bind);
    }
    // Connecting a datagram socket sends nothing; it only asks the kernel which source address it would use.
    let socket = UdpSocket::bind(if bind.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" }).ok()?;
    socket.connect(if bind.is_ipv6() { "[2001:db8::1]:9" } else { "192.0.2.1:9" }).ok()?;
    socket
        .local_addr()
        .ok()
        .map(|address| address.ip())
        .filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
}

impl ServiceEndpoints {
    /// For the server that is reached at `address` and `port`.
    pub fn new(store: Arc<Store>, address: IpAddr, port: u16) -> Self {
        Self { store, address, port }
    }

    /// Runs until shutdown, then takes the address out.
    pub async fn run(self, shutdown: Shutdown) {
        loop {
            let pause = match self.reconcile().await {
                Ok(()) => INTERVAL,
                Err(error) => {
                    tracing::warn!(%error, "cannot keep the endpoints of the service kubernetes");
                    RETRY
                }
            };
            if shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                break;
            }
        }
        if let Err(error) = self.leave().await {
            tracing::warn!(%error, "cannot leave the endpoints of the service kubernetes");
        }
    }

    fn key(&self) -> String {
        self.store.storage().key(&format!("masterleases/{}", self.address))
    }

    async fn reconcile(&self) -> Result<(), ApiError> {
        let mut lease = endpoints(&[self.address], self.port);
        lease.metadata = ObjectMeta { name: Some(self.address.to_string()), ..ObjectMeta::default() };
        let value = serde_json::to_vec(&lease).map_err(ApiError::internal)?;
        let key = self.key();
        let (current, _) = self.store.storage().get(&key, Freshness::Consistent).await.map_err(api_error)?;
        let write = Write::Put { value: value.into(), ttl_seconds: Some(LEASE_SECONDS), selectable: None };
        let expected = current.map_or(0, |stored| stored.revision);
        let commit = Commit { key: &key, expected, write, side: &[] };
        match self.store.storage().commit(&commit).await.map_err(api_error)? {
            Committed::At(_) => {}
            // The lease ran out between the two requests: the next round writes it.
            Committed::Conflict(_) | Committed::SideConflict => {
                return Err(ApiError::conflict(
                    "",
                    "masterleases",
                    &self.address.to_string(),
                    "the lease has just expired",
                ));
            }
        }
        self.publish(&self.servers().await?).await
    }

    async fn leave(&self) -> Result<(), ApiError> {
        let key = self.key();
        if let (Some(stored), _) =
            self.store.storage().get(&key, Freshness::Consistent).await.map_err(api_error)?
        {
            let commit = Commit { key: &key, expected: stored.revision, write: Write::Delete, side: &[] };
            self.store.storage().commit(&commit).await.map_err(api_error)?;
        }
        let servers = self.servers().await?;
        // The last server leaves its address in place, as upstream: an empty list would help nobody.
        if servers.is_empty() { Ok(()) } else { self.publish(&servers).await }
    }

    async fn servers(&self) -> Result<Vec<IpAddr>, ApiError> {
        let prefix = self.store.storage().key("masterleases/");
        let page = self.store.storage().list(&ListQuery::all(&prefix)).await.map_err(api_error)?;
        let mut servers: Vec<IpAddr> =
            page.items.iter().filter_map(|stored| stored.name().parse().ok()).collect();
        servers.sort();
        Ok(servers)
    }

    async fn publish(&self, servers: &[IpAddr]) -> Result<(), ApiError> {
        let wanted = endpoints(servers, self.port);
        self.put(wanted, |current: &Endpoints, wanted| current.subsets == wanted.subsets).await?;
        let wanted = endpoint_slice(servers, self.port);
        self.put(wanted, |current: &EndpointSlice, wanted| {
            current.endpoints == wanted.endpoints && current.ports == wanted.ports
        })
        .await
    }

    /// Creates or replaces an object of this file, unless `same`.
    async fn put<T: KubeObject>(
        &self,
        wanted: T,
        same: impl Fn(&T, &T) -> bool + Send + Sync,
    ) -> Result<(), ApiError> {
        let ctx = RequestContext::loopback();
        let resource = self.store.resources().of::<T>()?;
        let target = Target { resource, namespace: NAMESPACE, name: NAME };
        let mut change = |current: &dyn Object| -> Result<Box<dyn Object>, ApiError> {
            let current = current.downcast_ref::<T>().ok_or_else(|| ApiError::internal("unexpected type"))?;
            if same(current, &wanted) {
                return Ok(Box::new(current.clone()));
            }
            let mut new = wanted.clone();
            *new.metadata_mut() = current.metadata().clone();
            for (key, value) in wanted.metadata().labels.iter().flatten() {
                new.metadata_mut().labels.get_or_insert_default().insert(key.clone(), value.clone());
            }
            Ok(Box::new(new))
        };
        let request = UpdateRequest::new(UpdateKind::Main, false);
        match self.store.update(&ctx, target, request, &mut change).await {
            Err(error) if error.code() == 404 => {
                let target = Target { name: "", ..target };
                self.store.create(&ctx, target, Box::new(wanted.clone()), false).await.map(drop)
            }
            other => other.map(drop),
        }
    }
}

fn meta(labels: &[(&str, &str)]) -> ObjectMeta {
    let labels: BTreeMap<String, String> =
        labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    ObjectMeta {
        name: Some(NAME.to_owned()),
        namespace: Some(NAMESPACE.to_owned()),
        labels: Some(labels),
        ..ObjectMeta::default()
    }
}

fn endpoints(servers: &[IpAddr], port: u16) -> Endpoints {
    let address = |ip: &IpAddr| EndpointAddress { ip: ip.to_string(), ..EndpointAddress::default() };
    let port = EndpointPort {
        name: Some("https".to_owned()),
        port: port.into(),
        protocol: Some("TCP".to_owned()),
        app_protocol: None,
    };
    let subset = EndpointSubset {
        addresses: Some(servers.iter().map(address).collect()),
        ports: Some(vec![port]),
        not_ready_addresses: None,
    };
    // The EndpointSlice is written here too, so the mirroring controller must not make another.
    Endpoints {
        metadata: meta(&[("endpointslice.kubernetes.io/skip-mirror", "true")]),
        subsets: Some(vec![subset]),
    }
}

fn endpoint_slice(servers: &[IpAddr], port: u16) -> EndpointSlice {
    let endpoint = |ip: &IpAddr| Endpoint {
        addresses: vec![ip.to_string()],
        conditions: Some(EndpointConditions { ready: Some(true), ..EndpointConditions::default() }),
        ..Endpoint::default()
    };
    let family = if servers.first().is_some_and(IpAddr::is_ipv6) { "IPv6" } else { "IPv4" };
    EndpointSlice {
        metadata: meta(&[("kubernetes.io/service-name", NAME)]),
        address_type: family.to_owned(),
        endpoints: Some(servers.iter().map(endpoint).collect()),
        ports: Some(vec![SlicePort {
            name: Some("https".to_owned()),
            port: Some(port.into()),
            protocol: Some("TCP".to_owned()),
            app_protocol: None,
        }]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_given_address_wins_then_the_bound_one() {
        let ip = |text: &str| -> IpAddr { text.parse().unwrap() };
        assert_eq!(advertised(Some(ip("10.0.0.1")), ip("10.0.0.2")), Some(ip("10.0.0.1")));
        assert_eq!(advertised(None, ip("10.0.0.2")), Some(ip("10.0.0.2")));
        assert!(advertised(None, ip("127.0.0.1")).is_none_or(|address| !address.is_loopback()));
    }

    #[test]
    fn all_servers_are_endpoints() {
        let servers: Vec<IpAddr> = vec!["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()];
        let subset = endpoints(&servers, 6443).subsets.unwrap().remove(0);
        assert_eq!(subset.addresses.unwrap().len(), 2);
        let slice = endpoint_slice(&servers, 6443);
        assert_eq!((slice.endpoints.unwrap().len(), slice.address_type.as_str()), (2, "IPv4"));
    }
}
