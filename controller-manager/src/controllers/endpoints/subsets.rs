//! Packs addresses and ports into as few subsets as say the same, in a canonical order, and cuts what is over capacity.
//! Pure. Upstream: `RepackSubsets` and `truncateEndpoints`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset};

/// Most addresses in one Endpoints object.
const CAPACITY: usize = 1_000;

/// One address on one port, or on none.
#[derive(Debug, Clone)]
pub(super) struct Flat {
    pub(super) address: EndpointAddress,
    pub(super) ready: bool,
    pub(super) port: Option<EndpointPort>,
}

/// What identifies an address, and orders it.
type AddressKey = (String, Option<String>);
/// Orders ports.
type PortKey = (Option<String>, i32, Option<String>);

/// Ports that have the same addresses share a subset.
pub(super) fn repack(flat: Vec<Flat>) -> Vec<EndpointSubset> {
    type Addresses = BTreeMap<AddressKey, (bool, EndpointAddress)>;
    let mut by_port: BTreeMap<Option<PortKey>, (Option<EndpointPort>, Addresses)> = BTreeMap::new();
    for Flat { address, ready, port } in flat {
        let key = port.as_ref().map(|port| (port.name.clone(), port.port, port.protocol.clone()));
        let uid = address.target_ref.as_ref().and_then(|target| target.uid.clone());
        let (_, addresses) = by_port.entry(key).or_insert_with(|| (port, Addresses::new()));
        // Ready only if ready in every mention.
        let entry = addresses.entry((address.ip.clone(), uid)).or_insert((true, address));
        entry.0 &= ready;
    }
    let mut subsets: Vec<(Addresses, Vec<EndpointPort>)> = Vec::new();
    for (port, addresses) in by_port.into_values() {
        match subsets.iter_mut().find(|(known, _)| *known == addresses) {
            Some((_, ports)) => ports.extend(port),
            None => subsets.push((addresses, port.into_iter().collect())),
        }
    }
    subsets
        .into_iter()
        .map(|(addresses, ports)| {
            let (ready, not_ready): (Vec<_>, Vec<_>) = addresses.into_values().partition(|(ready, _)| *ready);
            let list = |addresses: Vec<(bool, EndpointAddress)>| {
                let addresses: Vec<_> = addresses.into_iter().map(|(_, address)| address).collect();
                (!addresses.is_empty()).then_some(addresses)
            };
            EndpointSubset {
                addresses: list(ready),
                not_ready_addresses: list(not_ready),
                ports: (!ports.is_empty()).then_some(ports),
            }
        })
        .collect()
}

/// Cuts to [`CAPACITY`] addresses, ready ones first, each subset by its share; whether anything was cut.
pub(super) fn truncate(mut subsets: Vec<EndpointSubset>) -> (Vec<EndpointSubset>, bool) {
    let count = |addresses: &Option<Vec<EndpointAddress>>| addresses.as_ref().map_or(0, Vec::len);
    let ready: usize = subsets.iter().map(|subset| count(&subset.addresses)).sum();
    let not_ready: usize = subsets.iter().map(|subset| count(&subset.not_ready_addresses)).sum();
    if ready + not_ready <= CAPACITY {
        return (subsets, false);
    }
    let ready_room = ready.min(CAPACITY);
    let not_ready_room = not_ready.min(CAPACITY - ready_room);
    cut(&mut subsets, ready, ready_room, |subset| &mut subset.addresses);
    cut(&mut subsets, not_ready, not_ready_room, |subset| &mut subset.not_ready_addresses);
    subsets.retain(|subset| subset.addresses.is_some() || subset.not_ready_addresses.is_some());
    (subsets, true)
}

fn cut(
    subsets: &mut [EndpointSubset],
    total: usize,
    room: usize,
    addresses: impl Fn(&mut EndpointSubset) -> &mut Option<Vec<EndpointAddress>>,
) {
    if total <= room {
        return;
    }
    let shares: Vec<usize> = subsets
        .iter_mut()
        .map(|subset| addresses(subset).as_ref().map_or(0, Vec::len) * room / total)
        .collect();
    let mut left = room - shares.iter().sum::<usize>();
    for (subset, share) in subsets.iter_mut().zip(shares) {
        let list = addresses(subset);
        let Some(held) = list else { continue };
        // What rounding left over goes to the first that have more.
        let extra = left.min(held.len() - share);
        left -= extra;
        held.truncate(share + extra);
        if held.is_empty() {
            *list = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(ip: &str, port: i32, ready: bool) -> Flat {
        Flat {
            address: EndpointAddress { ip: ip.into(), ..EndpointAddress::default() },
            ready,
            port: Some(EndpointPort { port, ..EndpointPort::default() }),
        }
    }

    fn describe(subsets: &[EndpointSubset]) -> Vec<(usize, usize, Vec<i32>)> {
        let count = |addresses: &Option<Vec<EndpointAddress>>| addresses.as_ref().map_or(0, Vec::len);
        subsets
            .iter()
            .map(|subset| {
                let ports = subset.ports.iter().flatten().map(|port| port.port).collect();
                (count(&subset.addresses), count(&subset.not_ready_addresses), ports)
            })
            .collect()
    }

    #[test]
    fn repack_subsets() {
        for (name, flat, expected) in [
            ("nothing", vec![], vec![]),
            (
                "one address, two ports",
                vec![flat("1", 1, true), flat("1", 2, true)],
                vec![(1, 0, vec![1, 2])],
            ),
            ("two addresses, one port", vec![flat("1", 1, true), flat("2", 1, false)], vec![(1, 1, vec![1])]),
            (
                "different ports",
                vec![flat("1", 1, true), flat("2", 2, true)],
                vec![(1, 0, vec![1]), (1, 0, vec![2])],
            ),
            ("twice the same", vec![flat("1", 1, true), flat("1", 1, true)], vec![(1, 0, vec![1])]),
            ("not ready wins", vec![flat("1", 1, true), flat("1", 1, false)], vec![(0, 1, vec![1])]),
        ] {
            assert_eq!(describe(&repack(flat)), expected, "{name}");
        }
    }

    #[test]
    fn order_does_not_matter() {
        let forward = repack((0..9).map(|i| flat(&i.to_string(), 1, true)).collect());
        let backward = repack((0..9).rev().map(|i| flat(&i.to_string(), 1, true)).collect());
        assert_eq!(forward, backward);
    }

    #[test]
    fn truncation_keeps_ready_ones_first() {
        let many = |ready: usize, not_ready: usize| {
            let all = (0..ready + not_ready).map(|i| flat(&format!("{i:05}"), 1, i < ready)).collect();
            let (subsets, truncated) = truncate(repack(all));
            (describe(&subsets), truncated)
        };
        assert_eq!(many(600, 400), (vec![(600, 400, vec![1])], false));
        assert_eq!(many(600, 401), (vec![(600, 400, vec![1])], true));
        assert_eq!(many(1_500, 10), (vec![(1_000, 0, vec![1])], true));
    }

    #[test]
    fn truncation_is_shared() {
        let mut all: Vec<_> = (0..900).map(|i| flat(&format!("a{i:04}"), 1, true)).collect();
        all.extend((0..300).map(|i| flat(&format!("b{i:04}"), 2, true)));
        let (subsets, _) = truncate(repack(all));
        assert_eq!(describe(&subsets), [(750, 0, vec![1]), (250, 0, vec![2])]);
    }
}
