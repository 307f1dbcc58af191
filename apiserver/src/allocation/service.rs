//! Cluster IPs, IP families and node ports of Services.
//!
//! A cluster IP is taken by creating its IPAddress object, node ports by rewriting the one RangeAllocation, both in the
//! Service's own transaction; so two servers never hand out the same, and nothing leaks. Single-stack only.
//! Upstream: `pkg/registry/core/service/{storage/alloc.go,ipallocator,portallocator}`.

use std::net::IpAddr;
use std::sync::Arc;

use apimachinery::status::ApiError;
use apimachinery::validation::{Error, ErrorList, Path};
use futures::future::BoxFuture;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Service, ServiceSpec};

use super::{Allocator, Change, SideWrite};
use crate::registry::ResourceInfo;
use crate::request::RequestContext;
use crate::store::Store;

mod cluster_ip;
mod families;
mod node_port;
mod port_bitmap;

/// The allocator of Services.
#[derive(Debug)]
pub struct ServiceAllocator {
    store: Arc<Store>,
    range: IpNet,
    ports: (u16, u16),
}

impl ServiceAllocator {
    /// Gives out addresses of `range` and ports from the first to the last of `ports`.
    pub fn new(store: Arc<Store>, range: IpNet, ports: (u16, u16)) -> Self {
        Self { store, range, ports }
    }

    async fn change(&self, ctx: &RequestContext, change: Change<'_>) -> Result<Vec<SideWrite>, ApiError> {
        let mut writes = Vec::new();
        match change {
            Change::Create { new } => {
                let Some(service) = new.downcast_mut::<Service>() else { return Ok(writes) };
                families::set(service, self.range.addr().is_ipv6())
                    .map_err(|errors| invalid(service, errors))?;
                if needs_cluster_ip(service.spec.as_ref()) {
                    writes.push(self.take_ip(ctx, service).await?);
                }
                self.ports(service, None, &mut writes).await?;
            }
            Change::Update { new, old } => {
                let (Some(old), Some(new)) = (old.downcast_ref::<Service>(), new.downcast_mut::<Service>())
                else {
                    return Ok(writes);
                };
                families::set(new, self.range.addr().is_ipv6()).map_err(|errors| invalid(new, errors))?;
                let had = own_ip(old.spec.as_ref());
                match (had, needs_cluster_ip(new.spec.as_ref())) {
                    (None, true) => writes.push(self.take_ip(ctx, new).await?),
                    (Some(ip), false) => writes.extend(cluster_ip::release(&self.store, ip).await?),
                    _ => {}
                }
                self.ports(new, Some(old), &mut writes).await?;
            }
            Change::Delete { old } => {
                let Some(old) = old.downcast_ref::<Service>() else { return Ok(writes) };
                if let Some(ip) = own_ip(old.spec.as_ref()) {
                    writes.extend(cluster_ip::release(&self.store, ip).await?);
                }
                let released = node_port::of(old.spec.as_ref());
                if !released.is_empty() {
                    let mut bitmap = node_port::load(&self.store, self.ports).await?;
                    released.iter().for_each(|port| bitmap.release(*port));
                    writes.push(bitmap.write()?);
                }
            }
        }
        Ok(writes)
    }

    async fn take_ip(&self, ctx: &RequestContext, service: &mut Service) -> Result<SideWrite, ApiError> {
        let asked = asked_ip(service.spec.as_ref());
        let taken = cluster_ip::take(&self.store, self.range, ctx, service, asked.as_deref()).await?;
        let (ip, write) = taken.map_err(|error| invalid(service, vec![error]))?;
        let spec = service.spec.get_or_insert_default();
        spec.cluster_ip = Some(ip.to_string());
        spec.cluster_ips = Some(vec![ip.to_string()]);
        Ok(write)
    }

    async fn ports(
        &self,
        new: &mut Service,
        old: Option<&Service>,
        writes: &mut Vec<SideWrite>,
    ) -> Result<(), ApiError> {
        let held = node_port::of(old.and_then(|old| old.spec.as_ref()));
        if held == node_port::of(new.spec.as_ref()) && !node_port::wanting(new.spec.as_ref()) {
            return Ok(());
        }
        let mut bitmap = node_port::load(&self.store, self.ports).await?;
        node_port::assign(new, &held, &mut bitmap).map_err(|failure| match failure {
            node_port::Failure::Invalid(error) => invalid(new, vec![error]),
            node_port::Failure::Full => ApiError::internal("failed to allocate a nodePort: range is full"),
        })?;
        if bitmap.changed() {
            writes.push(bitmap.write()?);
        }
        Ok(())
    }
}

fn invalid(service: &Service, errors: ErrorList) -> ApiError {
    ApiError::invalid("", "Service", service.metadata.name.as_deref().unwrap_or_default(), &errors)
}

fn service_type(spec: Option<&ServiceSpec>) -> &str {
    spec.and_then(|spec| spec.type_.as_deref()).unwrap_or("ClusterIP")
}

fn asked_ip(spec: Option<&ServiceSpec>) -> Option<String> {
    let spec = spec?;
    let first = spec.cluster_ips.iter().flatten().next();
    spec.cluster_ip.as_ref().or(first).filter(|ip| !ip.is_empty()).cloned()
}

fn needs_cluster_ip(spec: Option<&ServiceSpec>) -> bool {
    service_type(spec) != "ExternalName" && asked_ip(spec).as_deref() != Some("None")
}

/// The address that a stored Service holds.
fn own_ip(spec: Option<&ServiceSpec>) -> Option<IpAddr> {
    if needs_cluster_ip(spec) { asked_ip(spec)?.parse().ok() } else { None }
}

/// `spec.clusterIPs`, where problems with an address are reported.
fn cluster_ips_error(ip: &str, problem: &str) -> Error {
    let problem = format!("failed to allocate IP {ip}: {problem}");
    Error::invalid(&Path::new("spec").child("clusterIPs"), serde_json::json!([ip]), problem)
}

impl Allocator for ServiceAllocator {
    fn handles(&self, resource: &ResourceInfo) -> bool {
        resource.group.is_empty() && resource.plural == "services"
    }

    fn allocate<'a>(
        &'a self,
        ctx: &'a RequestContext,
        change: Change<'a>,
    ) -> BoxFuture<'a, Result<Vec<SideWrite>, ApiError>> {
        Box::pin(self.change(ctx, change))
    }
}
