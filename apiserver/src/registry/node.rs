//! The node.k8s.io group, v1.

pub mod runtime_class;
