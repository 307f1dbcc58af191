//! A daemon's view of one resource: a read-only [`Store`] and a stream of [`Changes`], kept current from the
//! apiserver.
//!
//! Answers to client-go's SharedIndexInformer and Reflector. One informer per resource and process, cloned to
//! whoever needs it; every reader shares the same `Arc` of an object. The rules are in `reflector` (a state machine
//! without IO), the transport behind `source::ListWatch`: our gRPC watch service where the server offers it, with one
//! stream for all informers of a [`Connection`], and Kubernetes' HTTP list and watch everywhere else.
//!
//! What is promised: the state is the newest the server has (never a list at resourceVersion 0); changes of one
//! object arrive in order; what vanished while the connection was lost arrives as [`Change::Deleted`]; an object
//! that cannot be decoded is logged, counted and left out, and stops nothing else.
//!
//! A slow subscriber costs at most one pending change per object: changes of the same object that it has not yet
//! received are merged (added then updated is added; updated twice is one update from the oldest seen to the
//! newest; added then deleted is nothing). Keys come in the order of their first unreceived change.

mod backoff;
#[cfg(test)]
mod behaviour;
mod cache;
mod changes;
mod connection;
mod decode;
mod driver;
mod grpc;
mod http;
mod reflector;
mod source;
mod store;
#[cfg(test)]
mod tests;
mod transport;

use std::{fmt, fmt::Debug, sync::Arc};

use apimachinery::meta::ObjectKey;
use k8s_openapi::{Metadata, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

pub use changes::{Change, Changes};
pub use connection::Connection;
pub use store::{IndexValues, Store};

use crate::Shutdown;
use cache::Cache;

/// The rules of an informer without its IO, for simulations that play the server and the clock. Hidden and no feature:
/// nothing but tests has a use for it, and a feature that one crate's tests ask for would be on in every build of the
/// workspace.
#[doc(hidden)]
pub mod sans_io {
    pub use super::reflector::{Effect, Input, Next, Reflector, Step, When};
    pub use super::source::{Event, ListRequest, Page, SourceError, WatchFrom, WatchRequest};
}

/// What can be held by an informer: every object type of k8s-openapi.
pub trait Object:
    Metadata<Ty = ObjectMeta> + DeserializeOwned + Clone + PartialEq + Debug + Send + Sync + 'static
{
}

impl<K> Object for K where
    K: Metadata<Ty = ObjectMeta> + DeserializeOwned + Clone + PartialEq + Debug + Send + Sync + 'static
{
}

/// Computes the values under which an object is found in an index.
pub(crate) type IndexFunction<K> = Box<dyn Fn(&K) -> Vec<String> + Send + Sync>;
/// Changes an object before it is held.
pub(crate) type Transform<K> = Box<dyn Fn(&mut K) + Send + Sync>;

/// Says which objects an informer holds and how.
pub struct InformerBuilder<K> {
    connection: Connection,
    query: source::Query,
    indexes: Vec<(&'static str, IndexFunction<K>)>,
    transform: Transform<K>,
}

impl<K> Debug for InformerBuilder<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InformerBuilder").field("query", &self.query).finish_non_exhaustive()
    }
}

impl<K: Object> InformerBuilder<K> {
    /// All objects of `K` in the cluster. A daemon makes one [`Connection`] and clones it for each of its informers.
    #[must_use]
    pub fn new(connection: impl Into<Connection>) -> Self {
        Self {
            connection: connection.into(),
            query: source::Query::of::<K>(),
            indexes: Vec::new(),
            transform: Box::new(|object| object.metadata_mut().managed_fields = None),
        }
    }

    /// Only objects in `namespace`.
    #[must_use]
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.query.namespace = Some(namespace.into());
        self
    }

    /// Only objects that match, in the server's syntax (`spec.nodeName=n1`).
    #[must_use]
    pub fn field_selector(mut self, selector: impl Into<String>) -> Self {
        self.query.field_selector = Some(selector.into());
        self
    }

    /// Only objects that match, in the server's syntax (`app=web,tier!=front`).
    #[must_use]
    pub fn label_selector(mut self, selector: impl Into<String>) -> Self {
        self.query.label_selector = Some(selector.into());
        self
    }

    /// Keeps an index for [`Store::by_index`]: the object is found under each value that `values` gives.
    #[must_use]
    pub fn index(
        mut self,
        name: &'static str,
        values: impl Fn(&K) -> Vec<String> + Send + Sync + 'static,
    ) -> Self {
        self.indexes.push((name, Box::new(values)));
        self
    }

    /// Changes every object before it is held, to drop what the daemon never reads. `metadata.managedFields` is
    /// dropped in any case.
    #[must_use]
    pub fn transform(mut self, transform: impl Fn(&mut K) + Send + Sync + 'static) -> Self {
        self.transform = Box::new(move |object| {
            object.metadata_mut().managed_fields = None;
            transform(object);
        });
        self
    }

    /// Starts listing and watching, until `shutdown`. Must be called inside a tokio runtime.
    #[must_use]
    pub fn start(self, shutdown: &Shutdown) -> Informer<K> {
        let source = Arc::new(transport::Transport::new(self.connection, self.query));
        start_with(source, self.indexes, self.transform, shutdown)
    }
}

/// Starts an informer over any transport.
pub(crate) fn start_with<K: Object>(
    source: Arc<dyn source::ListWatch<K>>,
    indexes: Vec<(&'static str, IndexFunction<K>)>,
    transform: Transform<K>,
    shutdown: &Shutdown,
) -> Informer<K> {
    let cache = Arc::new(Cache::new(indexes));
    let (synced, synced_receiver) = watch::channel(false);
    let driver = driver::Driver::new(source, Arc::clone(&cache), transform, synced);
    tokio::spawn(driver.run(shutdown.clone()));
    Informer { cache, synced: synced_receiver }
}

/// A running informer; clones share everything.
pub struct Informer<K> {
    cache: Arc<Cache<K>>,
    synced: watch::Receiver<bool>,
}

impl<K> Clone for Informer<K> {
    fn clone(&self) -> Self {
        Self { cache: Arc::clone(&self.cache), synced: self.synced.clone() }
    }
}

impl<K> Debug for Informer<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Informer").field("synced", &*self.synced.borrow()).finish_non_exhaustive()
    }
}

impl<K: Object> Informer<K> {
    /// The objects held.
    #[must_use]
    pub fn store(&self) -> Store<K> {
        Store::new(Arc::clone(&self.cache))
    }

    /// Every change from now on, after one [`Change::Added`] for each object held now.
    #[must_use]
    pub fn subscribe(&self) -> Changes<K> {
        self.cache.subscribe()
    }

    /// True once the store has held the whole state once.
    #[must_use]
    pub fn has_synced(&self) -> bool {
        *self.synced.borrow()
    }

    /// Waits until [`Self::has_synced`]; false when the informer was shut down before.
    pub async fn wait_synced(&self) -> bool {
        let mut synced = self.synced.clone();
        synced.wait_for(|synced| *synced).await.is_ok()
    }

    /// How many objects could not be decoded so far.
    #[must_use]
    pub fn malformed_objects(&self) -> u64 {
        self.cache.malformed()
    }
}

/// The key of an object, as the store files it.
pub(crate) fn key_of<K: Metadata<Ty = ObjectMeta>>(object: &K) -> ObjectKey {
    ObjectKey::of_meta(object.metadata())
}
