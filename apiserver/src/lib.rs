//! kube-apiserver: the REST API over etcd, and the only process that talks to it.
//!
//! Request path: `server` (TLS, HTTP) → `pipeline` (authenticate, authorize) → `endpoints` (verbs) → `store` (what
//! every object needs) → `storage` (etcd). A kind is one file in `registry/` that answers hooks and does no IO.

pub mod admission;
pub mod allocation;
pub mod authn;
pub mod authz;
pub mod body;
pub mod codec;
pub mod endpoints;
pub mod lookup;
pub mod registry;
pub mod request;
pub mod server;
pub mod storage;
pub mod store;
pub mod table;
