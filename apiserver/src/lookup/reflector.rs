//! Keeps a [`Sink`] equal to one resource in the store: a list, then every change in order; a fresh list when the watch ends.
//!
//! Upstream: client-go's reflector, which the API server's own authorizers and plugins use through the loopback client.

use std::sync::Arc;
use std::time::Duration;

use component_base::Shutdown;
use tokio::sync::watch;

use crate::registry::{Object, Resource};
use crate::selection::Selection;
use crate::storage::{EventType, ListQuery, StorageError};
use crate::store::Store;

/// Pauses between attempts when the store can't be read.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Receives a resource's objects. Calls come from one task, in order.
pub trait Sink: Send + Sync {
    /// These are all objects there are.
    fn replace(&self, objects: Vec<Arc<dyn Object>>);
    /// An object was made or changed.
    fn put(&self, object: Arc<dyn Object>);
    /// An object is gone; this was its last state.
    fn delete(&self, object: &dyn Object);
}

/// The object kind to follow.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// API group.
    pub group: &'static str,
    /// Version.
    pub version: &'static str,
    /// Plural name.
    pub plural: &'static str,
}

/// Starts following `kind`. The receiver turns true when the first list has been handed over.
pub fn start(
    store: Arc<Store>,
    kind: Kind,
    sink: Arc<dyn Sink>,
    shutdown: Shutdown,
) -> watch::Receiver<bool> {
    let (synced, receiver) = watch::channel(false);
    tokio::spawn(async move {
        shutdown.run_until_cancelled(Box::pin(follow(&store, kind, &*sink, &synced))).await;
    });
    receiver
}

async fn follow(store: &Store, kind: Kind, sink: &dyn Sink, synced: &watch::Sender<bool>) {
    let Some(resource) = store.resources().get(kind.group, kind.version, kind.plural) else {
        tracing::error!(group = kind.group, resource = kind.plural, "resource to follow is not served");
        return;
    };
    let mut pause = FIRST_PAUSE;
    loop {
        match list(store, resource, sink).await {
            Ok(revision) => {
                synced.send_replace(true);
                let outcome = changes(store, resource, sink, revision).await;
                if let Err(error) = outcome {
                    tracing::debug!(resource = kind.plural, %error, "watch ended, listing again");
                }
                pause = FIRST_PAUSE;
            }
            Err(error) => tracing::warn!(resource = kind.plural, %error, "cannot list"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn list(store: &Store, resource: &dyn Resource, sink: &dyn Sink) -> Result<i64, StorageError> {
    let prefix = store.prefix(resource.info(), "");
    let page = store.storage().list(&ListQuery::all(&prefix)).await?;
    let objects = page.items.iter().filter_map(|stored| decode(resource, &stored.value, stored.revision));
    sink.replace(objects.map(Arc::from).collect());
    Ok(page.revision)
}

async fn changes(
    store: &Store,
    resource: &dyn Resource,
    sink: &dyn Sink,
    revision: i64,
) -> Result<(), StorageError> {
    let interest = store.interest(resource.info(), "", Selection::everything());
    let interest = interest.map_err(|error| StorageError::Unavailable(error.to_string()))?;
    let mut watch = store.storage().watch(&interest, revision).await?;
    loop {
        let delivered = watch.next().await?;
        let Some(stored) = delivered.event.shown(delivered.kind) else { continue };
        let Some(object) = decode(resource, &stored.value, delivered.event.revision) else { continue };
        match delivered.kind {
            EventType::Added | EventType::Modified => sink.put(Arc::from(object)),
            EventType::Deleted => sink.delete(&*object),
        }
    }
}

/// One object that can't be read must not hide all others.
fn decode(resource: &dyn Resource, value: &[u8], revision: i64) -> Option<Box<dyn Object>> {
    match crate::store::decode(resource, value, revision) {
        Ok(object) => Some(object),
        Err(error) => {
            tracing::error!(resource = resource.info().plural, %error, "stored object is passed over");
            None
        }
    }
}
