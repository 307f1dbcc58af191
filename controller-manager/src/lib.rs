//! kube-controller-manager: the controllers that move a cluster from what is to what was asked for.
//!
//! [`run`] wires: clients, one shared informer per resource, health and metrics, leader election, and then every enabled
//! controller of the table in [`descriptor`]. A controller is `controllers/<name>.rs`; what it decides is pure, what it
//! does is a thin shell around that.

pub mod api_error;
pub mod claim;
pub mod client_builder;
pub mod config;
pub mod context;
pub mod controllers;
pub mod descriptor;
pub mod discovery;
pub mod disruption;
pub mod expectations;
pub mod informers;
pub mod pod_control;
pub mod services;
pub mod start;
#[cfg(test)]
mod testing;

pub use start::run;
