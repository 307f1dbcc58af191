//! One cluster IP: taken by an IPAddress object under its name, given back by deleting that.
//!
//! Addresses for those who ask for none come from the upper part of the range, so that the lower part stays free for
//! addresses that people choose (KEP-3070). Upstream: `registry/core/service/ipallocator`.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use apimachinery::status::ApiError;
use apimachinery::validation::Error;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::{IPAddress, IPAddressSpec, ParentReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use rand::Rng as _;

use super::cluster_ips_error;
use crate::allocation::SideWrite;
use crate::request::RequestContext;
use crate::storage::{Freshness, ListQuery, Stored};
use crate::store::{Store, api_error};

/// Random choices before all taken addresses are looked at.
const GUESSES: usize = 8;

fn key(ip: IpAddr) -> String {
    format!("ipaddresses/{ip}")
}

/// Chooses an address, `asked` if it is given; the inner error is the client's.
pub(super) async fn take(
    store: &Store,
    range: IpNet,
    ctx: &RequestContext,
    service: &Service,
    asked: Option<&str>,
) -> Result<Result<(IpAddr, SideWrite), Error>, ApiError> {
    let bounds = Bounds::new(range);
    let ip = match asked {
        Some(asked) => {
            let Ok(ip) = asked.parse::<IpAddr>() else {
                return Ok(Err(cluster_ips_error(asked, "the provided IP is not a valid IP")));
            };
            if !bounds.contains(ip) {
                let problem = format!(
                    "the provided IP ({ip}) is not in the valid range. The range of valid IPs is {range}"
                );
                return Ok(Err(cluster_ips_error(asked, &problem)));
            }
            if is_taken(store, ip).await? {
                return Ok(Err(cluster_ips_error(asked, "provided IP is already allocated")));
            }
            ip
        }
        None => match next_free(store, &bounds).await? {
            Some(ip) => ip,
            None => return Err(ApiError::internal("failed to allocate a serviceIP: range is full")),
        },
    };
    let value = serde_json::to_vec(&object(ctx, service, ip)).map_err(ApiError::internal)?;
    Ok(Ok((ip, SideWrite { key: key(ip), expected_revision: 0, value: Some(value.into()) })))
}

/// What gives an address back; nothing if it is not held.
pub(super) async fn release(store: &Store, ip: IpAddr) -> Result<Option<SideWrite>, ApiError> {
    let (stored, _) = read(store, &key(ip)).await?;
    Ok(stored.map(|stored| SideWrite { key: key(ip), expected_revision: stored.revision, value: None }))
}

async fn read(store: &Store, key: &str) -> Result<(Option<Arc<Stored>>, i64), ApiError> {
    store.storage().get(&store.storage().key(key), Freshness::Consistent).await.map_err(api_error)
}

async fn is_taken(store: &Store, ip: IpAddr) -> Result<bool, ApiError> {
    let (stored, _) = read(store, &key(ip)).await?;
    Ok(stored.is_some())
}

async fn next_free(store: &Store, bounds: &Bounds) -> Result<Option<IpAddr>, ApiError> {
    for _ in 0..GUESSES {
        let Some(ip) = bounds.upper().random() else { break };
        if !is_taken(store, ip).await? {
            return Ok(Some(ip));
        }
    }
    let prefix = store.storage().key("ipaddresses/");
    let page = store.storage().list(&ListQuery::all(&prefix)).await.map_err(api_error)?;
    let taken: HashSet<IpAddr> = page.items.iter().filter_map(|stored| stored.name().parse().ok()).collect();
    Ok(bounds.upper().first_free(&taken).or_else(|| bounds.lower().first_free(&taken)))
}

fn object(ctx: &RequestContext, service: &Service, ip: IpAddr) -> IPAddress {
    let family = if ip.is_ipv6() { "IPv6" } else { "IPv4" };
    let labels = [
        ("ipaddress.kubernetes.io/ip-family", family),
        ("ipaddress.kubernetes.io/managed-by", "ipallocator.k8s.io"),
    ];
    let labels: BTreeMap<String, String> =
        labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    IPAddress {
        metadata: ObjectMeta {
            name: Some(ip.to_string()),
            uid: Some(uuid::Uuid::new_v4().to_string()),
            creation_timestamp: Some(Time(ctx.now)),
            labels: Some(labels),
            ..ObjectMeta::default()
        },
        spec: IPAddressSpec {
            parent_ref: ParentReference {
                group: Some(String::new()),
                resource: "services".to_owned(),
                namespace: service.metadata.namespace.clone(),
                name: service.metadata.name.clone().unwrap_or_default(),
            },
        },
    }
}

/// The usable addresses of a range, as numbers: without the network's own and, for IPv4, the broadcast address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bounds {
    first: u128,
    last: u128,
    ipv6: bool,
}

impl Bounds {
    fn new(range: IpNet) -> Self {
        let (network, broadcast) = (number(range.network()), number(range.broadcast()));
        let ipv6 = range.addr().is_ipv6();
        Self { first: network + 1, last: if ipv6 { broadcast } else { broadcast - 1 }, ipv6 }
    }

    fn contains(&self, ip: IpAddr) -> bool {
        ip.is_ipv6() == self.ipv6 && (self.first..=self.last).contains(&number(ip))
    }

    /// How many of the lowest addresses are kept for people's own choice: a sixteenth, between 16 and 256.
    fn reserved(&self) -> u128 {
        let size = (self.last + 1).saturating_sub(self.first);
        if size < 16 { 0 } else { (size / 16).clamp(16, 256).min(size) }
    }

    fn lower(&self) -> Self {
        Self { last: self.first + self.reserved() - u128::from(self.reserved() > 0), ..*self }
    }

    fn upper(&self) -> Self {
        Self { first: self.first + self.reserved(), ..*self }
    }

    fn random(&self) -> Option<IpAddr> {
        (self.first <= self.last).then(|| self.address(rand::rng().random_range(self.first..=self.last)))
    }

    fn first_free(&self, taken: &HashSet<IpAddr>) -> Option<IpAddr> {
        (self.first..=self.last).map(|number| self.address(number)).find(|ip| !taken.contains(ip))
    }

    fn address(&self, number: u128) -> IpAddr {
        match u32::try_from(number) {
            Ok(number) if !self.ipv6 => IpAddr::V4(Ipv4Addr::from(number)),
            _ => IpAddr::V6(Ipv6Addr::from(number)),
        }
    }
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => u128::from(ip),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(range: &str) -> Bounds {
        Bounds::new(range.parse().unwrap())
    }

    #[test]
    fn network_and_broadcast_are_not_usable() {
        let bounds = bounds("10.96.0.0/24");
        for (ip, usable) in [
            ("10.96.0.0", false),
            ("10.96.0.1", true),
            ("10.96.0.254", true),
            ("10.96.0.255", false),
            ("10.97.0.1", false),
            ("fd00::1", false),
        ] {
            assert_eq!(bounds.contains(ip.parse().unwrap()), usable, "{ip}");
        }
    }

    #[test]
    fn the_lowest_addresses_are_for_people() {
        for (range, reserved) in
            [("10.0.0.0/28", 0), ("10.0.0.0/24", 16), ("10.0.0.0/20", 255), ("10.96.0.0/12", 256)]
        {
            let bounds = bounds(range);
            assert_eq!(bounds.reserved(), reserved, "{range}");
            for _ in 0..100 {
                let ip = bounds.upper().random().unwrap();
                assert!(bounds.contains(ip) && number(ip) >= bounds.first + reserved, "{range} {ip}");
            }
        }
    }

    #[test]
    fn the_last_free_address_is_found_and_then_none() {
        let bounds = bounds("10.0.0.0/29");
        let mut taken = HashSet::new();
        let mut found = Vec::new();
        while let Some(ip) = bounds.upper().first_free(&taken) {
            taken.insert(ip);
            found.push(ip);
        }
        assert_eq!(found.len(), 6);
    }
}
