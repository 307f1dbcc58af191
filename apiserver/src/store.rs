//! The generic store: what creating, updating and deleting mean for every object, whatever its kind.
//!
//! Resource strategies, admission plugins and allocators are called from here in one fixed order; etcd is reached
//! through [`Storage`] only. Upstream: `apiserver/pkg/registry/generic/registry/store.go` and `registry/rest`.

use std::cell::RefCell;
use std::fmt;
use std::sync::{Arc, OnceLock};

use apimachinery::status::ApiError;
use bytes::Bytes;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::admission::Chain;
use crate::allocation::Allocator;
use crate::registry::resources::Resources;
use crate::registry::{KubeObject, Object, Resource, ResourceInfo};
use crate::selection::{Selection, selectable_of};
use crate::storage::{Freshness, Interest, ListQuery, Page, Storage, StorageError, Stored, Write, encoded};

mod create;
mod delete;
mod metadata;
mod update;

pub use delete::Deleted;
pub use update::{NewObject, UpdateRequest};

/// The room that an encoder keeps from one object to the next, in bytes.
const MAX_SCRATCH: usize = 64 << 10;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// An object as it is now stored: decoded, and as bytes ready for the wire.
#[derive(Debug)]
pub struct Saved {
    pub object: Box<dyn Object>,
    /// The served JSON, with resourceVersion.
    pub json: Bytes,
    pub revision: i64,
    /// Whether this write made the object.
    pub created: bool,
}

/// The state of an object that a write starts from.
struct Current {
    stored: Option<Arc<Stored>>,
    /// Whether etcd itself has told it since the request came.
    fresh: bool,
}

/// What writes pass through besides the strategy.
#[derive(Default)]
struct Hooks {
    admission: Chain,
    allocators: Vec<Box<dyn Allocator>>,
}

/// The store of all resources. Shared by endpoints, admission plugins and the server's own controllers.
pub struct Store {
    storage: Storage,
    resources: Resources,
    hooks: OnceLock<Hooks>,
    event_ttl_seconds: i64,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("storage", &self.storage).finish_non_exhaustive()
    }
}

/// The object that a path names.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    pub resource: &'a dyn Resource,
    /// Empty for cluster-scoped resources.
    pub namespace: &'a str,
    /// Empty on create.
    pub name: &'a str,
}

impl<'a> Target<'a> {
    pub fn info(&self) -> &'a ResourceInfo {
        self.resource.info()
    }

    pub fn not_found(&self) -> ApiError {
        ApiError::not_found(self.info().group, self.info().plural, self.name)
    }

    pub(crate) fn conflict(&self, problem: &str) -> ApiError {
        ApiError::conflict(self.info().group, self.info().plural, self.name, problem)
    }
}

impl Store {
    pub fn new(storage: Storage, resources: Resources, event_ttl_seconds: i64) -> Arc<Self> {
        Arc::new(Self { storage, resources, hooks: OnceLock::new(), event_ttl_seconds })
    }

    /// Installs admission and allocators, which themselves read through the store. Called once, before serving.
    ///
    /// # Panics
    /// If called twice: a mistake of the wiring.
    pub fn set_hooks(&self, admission: Chain, allocators: Vec<Box<dyn Allocator>>) {
        assert!(self.hooks.set(Hooks { admission, allocators }).is_ok(), "hooks are set once");
    }

    /// The admission chain, for endpoints whose object the store does not handle (bindings, evictions, tokens…).
    pub fn admission(&self) -> &Chain {
        &self.hooks().admission
    }

    fn hooks(&self) -> &Hooks {
        self.hooks.get_or_init(Hooks::default)
    }

    fn allocators(&self, info: &ResourceInfo) -> impl Iterator<Item = &dyn Allocator> {
        self.hooks()
            .allocators
            .iter()
            .map(|allocator| &**allocator)
            .filter(move |allocator| allocator.handles(info))
    }

    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    pub fn resources(&self) -> &Resources {
        &self.resources
    }

    /// The key of one object.
    pub fn key(&self, info: &ResourceInfo, namespace: &str, name: &str) -> String {
        if info.namespaced {
            self.storage.key(&format!("{}/{namespace}/{name}", info.storage_prefix))
        } else {
            self.storage.key(&format!("{}/{name}", info.storage_prefix))
        }
    }

    /// The key prefix of a resource, in one namespace or in all (`""`).
    pub fn prefix(&self, info: &ResourceInfo, namespace: &str) -> String {
        if info.namespaced && !namespace.is_empty() {
            self.storage.key(&format!("{}/{namespace}/", info.storage_prefix))
        } else {
            self.storage.key(&format!("{}/", info.storage_prefix))
        }
    }

    /// One stored object, as of now; 404 if there is none.
    pub async fn get_stored(&self, target: Target<'_>) -> Result<Arc<Stored>, ApiError> {
        let key = self.key(target.info(), target.namespace, target.name);
        let (stored, _) = self.storage.get(&key, Freshness::Consistent).await.map_err(api_error)?;
        stored.ok_or_else(|| target.not_found())
    }

    /// One object, decoded.
    pub async fn get(&self, target: Target<'_>) -> Result<Box<dyn Object>, ApiError> {
        let stored = self.get_stored(target).await?;
        decode(target.resource, &stored.value, stored.revision)
    }

    /// One object of a known type: for admission plugins, allocators and controllers in this process.
    pub async fn get_as<K: KubeObject>(&self, namespace: &str, name: &str) -> Result<K, ApiError> {
        let resource = self.resources.of::<K>()?;
        let stored = self.get_stored(Target { resource, namespace, name }).await?;
        decode_as(resource, &stored)
    }

    /// All objects of a known type, in one namespace or in all (`""`), consistently.
    pub async fn list_as<K: KubeObject>(&self, namespace: &str) -> Result<(Vec<K>, i64), ApiError> {
        let resource = self.resources.of::<K>()?;
        let page = self.list_all(resource.info(), namespace).await?;
        let items = page.items.iter().map(|stored| decode_as(resource, stored)).collect::<Result<_, _>>()?;
        Ok((items, page.revision))
    }

    /// All stored objects of a resource, in one namespace or in all (`""`), as of now, in key order.
    pub async fn list_all(&self, info: &ResourceInfo, namespace: &str) -> Result<Page, ApiError> {
        let prefix = self.prefix(info, namespace);
        self.storage.list(&ListQuery::all(&prefix)).await.map_err(api_error)
    }

    /// What a watch of a resource, in one namespace or in all (`""`), shows.
    pub fn interest(
        &self,
        info: &ResourceInfo,
        namespace: &str,
        selection: Selection,
    ) -> Result<Interest, ApiError> {
        let resource = self.resources.shared_of(info)?;
        Ok(Interest { prefix: self.prefix(info, namespace), resource, selection })
    }

    fn saved(
        &self,
        resource: &dyn Resource,
        mut object: Box<dyn Object>,
        stored: &Bytes,
        revision: i64,
        created: bool,
    ) -> Result<Saved, ApiError> {
        object.meta_mut().resource_version = Some(revision.to_string());
        let json = served_json(resource, &*object, stored, revision)?;
        Ok(Saved { object, json, revision, created })
    }

    /// The bytes to store; leaves resourceVersion unset.
    fn encode(resource: &dyn Resource, object: &mut dyn Object) -> Result<Bytes, ApiError> {
        let meta: &mut ObjectMeta = object.meta_mut();
        meta.resource_version = None;
        meta.self_link = None;
        // The cache keeps these bytes: without the room that the encoder grew for.
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.clear();
            scratch.shrink_to(MAX_SCRATCH);
            resource.encode_stored(object, scratch).map_err(ApiError::internal)?;
            Ok(Bytes::copy_from_slice(scratch))
        })
    }

    /// The write of an object that has been encoded to `value`.
    fn put(&self, resource: &dyn Resource, object: &dyn Object, value: &Bytes) -> Write {
        let info = resource.info();
        // The cache keeps what selectors need in the terms of the stored kind.
        let selectable = (!info.converted).then(|| selectable_of(resource, object));
        let ttl_seconds = info.expires.then_some(self.event_ttl_seconds);
        Write::Put { value: value.clone(), ttl_seconds, selectable }
    }

    /// The state that a write starts from: the cache's, unless it is found out to be old.
    async fn current(&self, key: &str) -> Result<Current, ApiError> {
        let (stored, _) = self.storage.get(key, Freshness::Any).await.map_err(api_error)?;
        Ok(Current { stored, fresh: !self.storage.is_cached(key) })
    }

    /// Whether `current` is what etcd has; if not, it becomes that. A write that fails, or would change nothing, must not
    /// do so because the cache was behind.
    async fn confirm(&self, key: &str, current: &mut Current) -> Result<bool, ApiError> {
        if current.fresh {
            return Ok(true);
        }
        let (stored, _) = self.storage.get(key, Freshness::Consistent).await.map_err(api_error)?;
        let revision = |stored: &Option<Arc<Stored>>| stored.as_ref().map(|stored| stored.revision);
        let same = revision(&stored) == revision(&current.stored);
        *current = Current { stored, fresh: true };
        Ok(same)
    }
}

fn served_json(
    resource: &dyn Resource,
    object: &dyn Object,
    stored: &Bytes,
    revision: i64,
) -> Result<Bytes, ApiError> {
    if resource.info().converted {
        return object.to_json().map(Bytes::from).map_err(ApiError::internal);
    }
    Ok(encoded::with_revision(stored, revision))
}

/// Decodes stored bytes and sets the revision.
pub fn decode(resource: &dyn Resource, value: &[u8], revision: i64) -> Result<Box<dyn Object>, ApiError> {
    let mut object = resource.decode_stored(value).map_err(|error| {
        ApiError::internal(format!(
            "unable to decode a stored object of {}: {error}",
            resource.info().qualified()
        ))
    })?;
    object.meta_mut().resource_version = Some(revision.to_string());
    Ok(object)
}

fn decode_as<K: KubeObject>(resource: &dyn Resource, stored: &Stored) -> Result<K, ApiError> {
    let mut object = decode(resource, &stored.value, stored.revision)?;
    match object.downcast_mut::<K>() {
        Some(object) => Ok(object.clone()),
        None => Err(ApiError::internal("a resource decoded another type than its own")),
    }
}

/// What a client sees of a failure of storage.
pub fn api_error(error: StorageError) -> ApiError {
    match error {
        StorageError::Compacted => ApiError::expired("The resourceVersion for the provided list is too old."),
        error @ (StorageError::TooOld { .. } | StorageError::TooSlow { .. }) => {
            ApiError::expired(error.to_string())
        }
        StorageError::FutureRevision { asked, current } => {
            ApiError::too_large_resource_version(asked.unsigned_abs(), current.unsigned_abs(), 1)
        }
        error if error.is_unavailable() => ApiError::service_unavailable(error.to_string()),
        error => ApiError::internal(error),
    }
}
