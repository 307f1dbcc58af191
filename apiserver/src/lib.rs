//! kube-apiserver: the REST API over etcd, and the only process that talks to it.
//!
//! Request path: `server` (TLS, HTTP) → `pipeline` (authenticate, authorize) → `endpoints` (verbs) → `store` (what
//! every object needs) → `storage` (etcd). A kind is one file in `registry/` that answers hooks and does no IO.

pub mod admission;
pub mod allocation;
pub mod authn;
pub mod authz;
pub mod body;
pub mod bootstrap;
pub mod codec;
pub mod config;
pub mod discovery;
pub mod endpoints;
pub mod grpc;
pub mod health;
pub mod lookup;
pub mod metrics;
pub mod non_resource;
pub mod openapi;
pub mod pipeline;
pub mod registry;
pub mod request;
pub mod run;
pub mod selection;
pub mod server;
pub mod storage;
pub mod store;
pub mod table;

pub use run::run;
