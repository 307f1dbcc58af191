//! Values handed out by the server that must be committed together with the object that gets them: service IPs
//! (IPAddress objects) and node ports. An [`Allocator`] chooses them; the store commits its [`SideWrite`]s in the
//! object's own etcd transaction, so that neither is ever left without the other.
//!
//! Upstream does this in two steps with a repair loop (`core/service/storage/alloc.go`); one transaction needs none.

use apimachinery::status::ApiError;
use bytes::Bytes;
use futures::future::BoxFuture;

use crate::registry::{Object, ResourceInfo};
use crate::request::RequestContext;

pub mod service;

/// A key written in the same transaction as the object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SideWrite {
    /// Key below `--etcd-prefix`, e.g. `ipaddresses/10.96.0.10`.
    pub key: String,
    /// The modification revision the key must have for the transaction to succeed; 0: it must not exist.
    pub expected_revision: i64,
    /// The new value; `None` deletes the key.
    pub value: Option<Bytes>,
}

/// The write that is about to happen.
#[derive(Debug)]
pub enum Change<'a> {
    Create { new: &'a mut dyn Object },
    Update { new: &'a mut dyn Object, old: &'a dyn Object },
    Delete { old: &'a dyn Object },
}

/// Allocates for one or more resources. Called after prepare hooks and before validation, again whenever the
/// transaction lost a race for one of its side writes (so it must choose anew from fresh state), and on dry runs,
/// where nothing is committed.
pub trait Allocator: Send + Sync {
    fn handles(&self, resource: &ResourceInfo) -> bool;

    /// Fills allocated fields into the new object and returns what must be committed with it.
    fn allocate<'a>(
        &'a self,
        ctx: &'a RequestContext,
        change: Change<'a>,
    ) -> BoxFuture<'a, Result<Vec<SideWrite>, ApiError>>;
}
