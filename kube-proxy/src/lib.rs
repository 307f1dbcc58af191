//! kube-proxy watches Services, EndpointSlices and its own Node, and keeps nftables rules that lead
//! connections to Service addresses to ready endpoints.
//!
//! Deciding and acting are apart: [`service_map`] turns objects into the ports to serve, [`nftables::render`]
//! turns each port into a piece of a rule set, [`nftables::ruleset`] computes the difference between what is
//! wanted and what the kernel was given, and only the crate `nft` and [`conntrack`] touch the kernel.
//! [`proxier`] is the loop around them. Upstream: `pkg/proxy/nftables`.

pub mod config;
pub mod conntrack;
pub mod health;
pub mod nftables;
pub mod proxier;
pub mod service_map;

pub use proxier::run;
