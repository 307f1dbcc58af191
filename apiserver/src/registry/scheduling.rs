//! The scheduling.k8s.io group, v1.

pub mod priority_class;
