//! The events.k8s.io group, v1.

pub mod event;
