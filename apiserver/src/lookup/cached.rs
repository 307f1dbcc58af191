//! [`Lookup`] over the store, with the resources that nearly every write asks for held in memory.
//!
//! A cached object may be as old as the watch is behind. A get that finds nothing asks the store before it says so, since the
//! object may have been made a moment ago; what must not be stale uses `get_live`.

use std::collections::HashMap;
use std::sync::Arc;

use apimachinery::status::ApiError;
use component_base::Shutdown;
use futures::future::BoxFuture;
use parking_lot::RwLock;
use tokio::sync::watch;

use super::Lookup;
use super::reflector::{self, Kind, Sink};
use crate::registry::Object;
use crate::store::{Store, Target};

/// What is held in memory.
const CACHED: [Kind; 4] = [
    Kind { group: "", version: "v1", plural: "namespaces" },
    Kind { group: "", version: "v1", plural: "serviceaccounts" },
    Kind { group: "scheduling.k8s.io", version: "v1", plural: "priorityclasses" },
    Kind { group: "storage.k8s.io", version: "v1", plural: "storageclasses" },
];

/// A cache, and whether it has been filled.
type Held = (Arc<Cache>, watch::Receiver<bool>);

/// Objects by namespace, then name.
type Objects = HashMap<String, HashMap<String, Arc<dyn Object>>>;

#[derive(Debug, Default)]
struct Cache {
    objects: RwLock<Objects>,
}

impl Cache {
    fn get(&self, namespace: &str, name: &str) -> Option<Arc<dyn Object>> {
        self.objects.read().get(namespace)?.get(name).cloned()
    }

    fn list(&self, namespace: &str) -> Vec<Arc<dyn Object>> {
        let objects = self.objects.read();
        let wanted = objects.iter().filter(|(of, _)| namespace.is_empty() || *of == namespace);
        wanted.flat_map(|(_, objects)| objects.values().cloned()).collect()
    }
}

fn key(object: &dyn Object) -> (&str, &str) {
    let meta = object.meta();
    (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

fn insert(objects: &mut Objects, object: Arc<dyn Object>) {
    let (namespace, name) = key(&*object);
    let (namespace, name) = (namespace.to_owned(), name.to_owned());
    objects.entry(namespace).or_default().insert(name, object);
}

impl Sink for Cache {
    fn replace(&self, objects: Vec<Arc<dyn Object>>) {
        let mut all = Objects::new();
        objects.into_iter().for_each(|object| insert(&mut all, object));
        *self.objects.write() = all;
    }

    fn put(&self, object: Arc<dyn Object>) {
        insert(&mut self.objects.write(), object);
    }

    fn delete(&self, object: &dyn Object) {
        let (namespace, name) = key(object);
        let mut all = self.objects.write();
        let Some(objects) = all.get_mut(namespace) else { return };
        objects.remove(name);
        if objects.is_empty() {
            all.remove(namespace);
        }
    }
}

/// The store with caches before it.
#[derive(Debug)]
pub struct CachedLookup {
    store: Arc<Store>,
    caches: HashMap<(&'static str, &'static str), Held>,
}

impl CachedLookup {
    /// Starts the caches.
    pub fn start(store: Arc<Store>, shutdown: &Shutdown) -> Self {
        let served = |kind: &Kind| store.resources().get(kind.group, kind.version, kind.plural).is_some();
        let caches = CACHED
            .into_iter()
            .filter(served)
            .map(|kind| {
                let cache = Arc::new(Cache::default());
                let synced = reflector::start(store.clone(), kind, cache.clone(), shutdown.clone());
                ((kind.group, kind.plural), (cache, synced))
            })
            .collect();
        Self { store, caches }
    }

    fn cache(&self, group: &str, resource: &str) -> Option<&Cache> {
        let (_, (cache, synced)) = self.caches.iter().find(|((g, r), _)| (*g, *r) == (group, resource))?;
        synced.borrow().then_some(&**cache)
    }

    async fn stored(
        &self,
        group: &str,
        resource: &str,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<dyn Object>>, ApiError> {
        let resource = self.resource(group, resource)?;
        match self.store.get(Target { resource, namespace, name }).await {
            Ok(object) => Ok(Some(object.into())),
            Err(error) if error.code() == 404 => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn resource(&self, group: &str, plural: &str) -> Result<&dyn crate::registry::Resource, ApiError> {
        let mut all = self.store.resources().iter();
        all.find(|resource| (resource.info().group, resource.info().plural) == (group, plural))
            .ok_or_else(|| ApiError::internal(format!("{plural}.{group} is not served")))
    }
}

impl Lookup for CachedLookup {
    fn get<'a>(
        &'a self,
        group: &'a str,
        resource: &'a str,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<Arc<dyn Object>>, ApiError>> {
        let held = self.cache(group, resource).and_then(|cache| cache.get(namespace, name));
        match held {
            Some(object) => Box::pin(std::future::ready(Ok(Some(object)))),
            None => Box::pin(self.stored(group, resource, namespace, name)),
        }
    }

    fn get_live<'a>(
        &'a self,
        group: &'a str,
        resource: &'a str,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<Arc<dyn Object>>, ApiError>> {
        Box::pin(self.stored(group, resource, namespace, name))
    }

    fn list<'a>(
        &'a self,
        group: &'a str,
        resource: &'a str,
        namespace: &'a str,
    ) -> BoxFuture<'a, Result<Vec<Arc<dyn Object>>, ApiError>> {
        Box::pin(async move {
            if let Some(cache) = self.cache(group, resource) {
                return Ok(cache.list(namespace));
            }
            let resource = self.resource(group, resource)?;
            let info = resource.info();
            let page = self.store.list_all(info, namespace).await?;
            page.items
                .iter()
                .map(|stored| Ok(crate::store::decode(resource, &stored.value, stored.revision)?.into()))
                .collect()
        })
    }
}
