//! The generic store: what creating, updating and deleting mean for every object, whatever its kind.
//!
//! Resource strategies, admission plugins and allocators are called from here in one fixed order; etcd is reached
//! through [`Storage`] only. Upstream: `apiserver/pkg/registry/generic/registry/store.go` and `registry/rest`.

use std::fmt;
use std::sync::{Arc, OnceLock};

use apimachinery::status::ApiError;
use bytes::Bytes;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::admission::Chain;
use crate::allocation::Allocator;
use crate::registry::resources::Resources;
use crate::registry::{KubeObject, Object, Resource, ResourceInfo};
use crate::storage::{Freshness, ListQuery, Page, Storage, StorageError, Stored, encoded};

mod create;
mod delete;
mod metadata;
mod update;

pub use delete::Deleted;
pub use update::{NewObject, UpdateRequest};

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

    /// One stored object; 404 if there is none.
    pub async fn get_stored(&self, target: Target<'_>) -> Result<Stored, ApiError> {
        let key = self.key(target.info(), target.namespace, target.name);
        let (stored, _) = self.storage.get(&key).await.map_err(api_error)?;
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
        let page = self.list_page(resource.info(), namespace, None, Freshness::Consistent, 0).await?;
        let items = page.items.iter().map(|stored| decode_as(resource, stored)).collect::<Result<_, _>>()?;
        Ok((items, page.revision))
    }

    /// One page of a resource, in key order.
    pub async fn list_page(
        &self,
        info: &ResourceInfo,
        namespace: &str,
        start_after: Option<&str>,
        freshness: Freshness,
        limit: usize,
    ) -> Result<Page, ApiError> {
        let prefix = self.prefix(info, namespace);
        let query = ListQuery { prefix: &prefix, start_after, freshness, limit };
        self.storage.list(&query).await.map_err(api_error)
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
        resource.encode_stored(object).map(Bytes::from).map_err(ApiError::internal)
    }

    fn ttl(&self, info: &ResourceInfo) -> Option<i64> {
        info.expires.then_some(self.event_ttl_seconds)
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
        StorageError::FutureRevision { asked, current } => {
            ApiError::too_large_resource_version(asked.unsigned_abs(), current.unsigned_abs(), 1)
        }
        error if error.is_unavailable() => ApiError::service_unavailable(error.to_string()),
        error => ApiError::internal(error),
    }
}
