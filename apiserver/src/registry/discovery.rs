//! The discovery.k8s.io group, v1.

pub mod endpoint_slice;
