//! The coordination.k8s.io group, v1.

pub mod lease;
