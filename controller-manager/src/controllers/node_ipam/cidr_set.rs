//! A range of addresses cut into equal shares, and which of them are taken. Upstream: pkg/controller/nodeipam/ipam/cidrset.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// See the module.
#[derive(Debug)]
pub struct CidrSet {
    range: IpNet,
    share: u8,
    taken: Vec<bool>,
    next: usize,
}

impl CidrSet {
    /// `range` in shares of prefix length `share`, none taken. The configuration has checked that there are at most 2^16.
    pub fn new(range: IpNet, share: u8) -> Self {
        let bits = share.saturating_sub(range.prefix_len()).min(16);
        Self { range, share, taken: vec![false; 1 << bits], next: 0 }
    }

    /// Takes the next free share: round robin, so that a share just freed is not given out at once.
    pub fn allocate(&mut self) -> Option<IpNet> {
        let count = self.taken.len();
        let index = (0..count).map(|i| (self.next + i) % count).find(|index| !self.taken[*index])?;
        self.taken[index] = true;
        self.next = (index + 1) % count;
        self.share_at(index)
    }

    /// Takes every share that `cidr` touches; false when it lies outside the range.
    pub fn occupy(&mut self, cidr: IpNet) -> bool {
        self.mark(cidr, true)
    }

    /// Frees every share that `cidr` touches.
    pub fn release(&mut self, cidr: IpNet) {
        self.mark(cidr, false);
    }

    fn mark(&mut self, cidr: IpNet, taken: bool) -> bool {
        if !self.range.contains(&cidr.network()) && !cidr.contains(&self.range.network()) {
            return false;
        }
        let (Some(first), Some(last)) = (self.index_of(cidr.network()), self.index_of(cidr.broadcast()))
        else {
            return false;
        };
        self.taken[first..=last].fill(taken);
        true
    }

    /// The share that an address is in; addresses beyond the range count as its ends.
    fn index_of(&self, address: IpAddr) -> Option<usize> {
        let (address, start, width) = match (address, self.range.network()) {
            (IpAddr::V4(address), IpAddr::V4(start)) => {
                (u128::from(u32::from(address)), u128::from(u32::from(start)), 32)
            }
            (IpAddr::V6(address), IpAddr::V6(start)) => (u128::from(address), u128::from(start), 128),
            _ => return None,
        };
        let shift = u32::from(width - self.share);
        let index = address.saturating_sub(start).checked_shr(shift).unwrap_or(0);
        Some(usize::try_from(index).unwrap_or(usize::MAX).min(self.taken.len() - 1))
    }

    fn share_at(&self, index: usize) -> Option<IpNet> {
        let index = u128::try_from(index).ok()?;
        let address = match self.range.network() {
            IpAddr::V4(start) => {
                let offset = u32::try_from(index << u32::from(32 - self.share)).ok()?;
                IpAddr::V4(Ipv4Addr::from(u32::from(start).checked_add(offset)?))
            }
            IpAddr::V6(start) => {
                let offset = index << u32::from(128 - self.share);
                IpAddr::V6(Ipv6Addr::from(u128::from(start).checked_add(offset)?))
            }
        };
        IpNet::new(address, self.share).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn allocates_in_order_until_full() {
        let mut set = CidrSet::new(net("10.244.0.0/22"), 24);
        let all: Vec<_> = std::iter::from_fn(|| set.allocate()).map(|cidr| cidr.to_string()).collect();
        assert_eq!(all, ["10.244.0.0/24", "10.244.1.0/24", "10.244.2.0/24", "10.244.3.0/24"]);
        set.release(net("10.244.1.0/24"));
        assert_eq!(set.allocate(), Some(net("10.244.1.0/24")));
    }

    #[test]
    fn a_freed_share_is_not_given_out_at_once() {
        let mut set = CidrSet::new(net("10.244.0.0/16"), 24);
        let first = set.allocate().unwrap();
        set.release(first);
        assert_eq!(set.allocate(), Some(net("10.244.1.0/24")));
    }

    #[test]
    fn occupied_shares_are_skipped() {
        let mut set = CidrSet::new(net("10.0.0.0/16"), 24);
        assert!(set.occupy(net("10.0.0.0/23")), "a larger one takes all it covers");
        assert!(set.occupy(net("10.0.2.128/25")), "a smaller one takes the share it is in");
        assert!(!set.occupy(net("10.96.0.0/12")));
        assert_eq!(set.allocate(), Some(net("10.0.3.0/24")));
        assert!(set.occupy(net("10.0.0.0/8")));
        assert_eq!(set.allocate(), None);
    }

    #[test]
    fn ipv6() {
        let mut set = CidrSet::new(net("fd00:10:244::/56"), 64);
        set.occupy(net("fd00:10:244::/64"));
        assert_eq!(set.allocate(), Some(net("fd00:10:244:1::/64")));
        assert!(!set.occupy(net("10.0.0.0/8")));
    }
}
