//! The networking.k8s.io group, v1.

pub mod ingress;
pub mod ingress_class;
pub mod ip_address;
pub mod network_policy;
pub mod service_cidr;

/// The group's name.
const GROUP: &str = "networking.k8s.io";
