//! The table of served resources, looked up by path, by kind or by Rust type.

use std::collections::HashMap;
use std::sync::Arc;

use apimachinery::status::ApiError;

use super::{KubeObject, Resource, ResourceInfo};

/// All resources. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Resources {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    all: Vec<Arc<dyn Resource>>,
    /// (group, version) → plural → index.
    by_path: HashMap<(&'static str, &'static str), HashMap<&'static str, usize>>,
    /// (group, version, kind) → index.
    by_kind: HashMap<(&'static str, &'static str, &'static str), usize>,
}

impl Resources {
    pub fn new(all: Vec<Box<dyn Resource>>) -> Self {
        let mut by_path: HashMap<_, HashMap<_, _>> = HashMap::new();
        let mut by_kind = HashMap::new();
        for (index, resource) in all.iter().enumerate() {
            let info = resource.info();
            by_path.entry((info.group, info.version)).or_default().insert(info.plural, index);
            by_kind.insert((info.group, info.version, info.kind), index);
        }
        let all = all.into_iter().map(Arc::from).collect();
        Self { inner: Arc::new(Inner { all, by_path, by_kind }) }
    }

    pub fn iter(&self) -> impl Iterator<Item = &dyn Resource> {
        self.inner.all.iter().map(|resource| &**resource)
    }

    /// All resources, to keep.
    pub fn shared(&self) -> &[Arc<dyn Resource>] {
        &self.inner.all
    }

    /// One resource, to keep.
    pub fn shared_of(&self, info: &ResourceInfo) -> Result<Arc<dyn Resource>, ApiError> {
        let index = self.inner.by_kind.get(&(info.group, info.version, info.kind));
        let resource = index.and_then(|index| self.inner.all.get(*index));
        resource
            .map(Arc::clone)
            .ok_or_else(|| ApiError::internal(format!("{} is not served", info.qualified())))
    }

    pub fn get(&self, group: &str, version: &str, plural: &str) -> Option<&dyn Resource> {
        let index = self.inner.by_path.get(&(group, version))?.get(plural)?;
        self.inner.all.get(*index).map(|resource| &**resource)
    }

    pub fn by_kind(&self, group: &str, version: &str, kind: &str) -> Option<&dyn Resource> {
        let index = self.inner.by_kind.get(&(group, version, kind))?;
        self.inner.all.get(*index).map(|resource| &**resource)
    }

    /// The resource of a Rust type.
    pub fn of<K: KubeObject>(&self) -> Result<&dyn Resource, ApiError> {
        self.by_kind(K::GROUP, K::VERSION, K::KIND).ok_or_else(|| {
            ApiError::internal(format!("no resource is registered for {} {}", K::API_VERSION, K::KIND))
        })
    }

    /// Whether any resource is served in this group and version.
    pub fn serves(&self, group: &str, version: &str) -> bool {
        self.inner.by_path.contains_key(&(group, version))
    }
}
