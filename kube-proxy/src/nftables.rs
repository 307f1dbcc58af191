//! The nftables backend: names, a rule set as a value, its difference.

pub mod render;
pub mod ruleset;
pub mod skeleton;

use crate::service_map::Family;

/// The table that is ours in each family; nothing outside of it is ever touched.
pub const TABLE: &str = "kube-proxy";

impl Family {
    /// The table's family in nft's syntax.
    pub fn nft(self) -> &'static str {
        match self {
            Self::V4 => "ip",
            Self::V6 => "ip6",
        }
    }

    /// The type of an address in a set.
    fn address_type(self) -> &'static str {
        match self {
            Self::V4 => "ipv4_addr",
            Self::V6 => "ipv6_addr",
        }
    }
}
