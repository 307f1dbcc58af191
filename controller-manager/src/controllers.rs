//! One file per controller.

pub mod deployment;
pub mod endpoints;
pub mod endpointslice;
pub mod namespace;
pub mod replicaset;
pub mod root_ca_publisher;
pub mod serviceaccount;
