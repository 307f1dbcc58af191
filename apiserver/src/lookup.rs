//! Reads of stored objects by the server's own parts: authenticators, authorizers, admission plugins, connecting endpoints.
//!
//! They see objects through [`Lookup`] only, so that they can be tested without etcd. What is returned is what the store
//! would serve for an ordinary get or list. Upstream gives these parts informer listers.

use std::any::Any;
use std::sync::Arc;

use apimachinery::status::ApiError;
use futures::future::BoxFuture;

use crate::registry::{KubeObject, Object};

pub mod cached;
pub mod reflector;

/// A read-only view of the store.
pub trait Lookup: Send + Sync {
    /// The object, or `None` if there is none. Cluster-scoped objects have an empty namespace.
    fn get<'a>(
        &'a self,
        group: &'a str,
        resource: &'a str,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<Arc<dyn Object>>, ApiError>>;

    /// The object as the store has it at this moment, whatever a cache may say.
    fn get_live<'a>(
        &'a self,
        group: &'a str,
        resource: &'a str,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<Arc<dyn Object>>, ApiError>> {
        self.get(group, resource, namespace, name)
    }

    /// All objects of a resource; of one namespace unless that is empty.
    fn list<'a>(
        &'a self,
        group: &'a str,
        resource: &'a str,
        namespace: &'a str,
    ) -> BoxFuture<'a, Result<Vec<Arc<dyn Object>>, ApiError>>;
}

impl std::fmt::Debug for dyn Lookup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Lookup")
    }
}

/// [`Lookup::get`] for one kind.
pub async fn get<T: KubeObject>(
    lookup: &Arc<dyn Lookup>,
    namespace: &str,
    name: &str,
) -> Result<Option<Arc<T>>, ApiError> {
    lookup.get(T::GROUP, T::URL_PATH_SEGMENT, namespace, name).await?.map(typed).transpose()
}

/// [`Lookup::get_live`] for one kind.
pub async fn get_live<T: KubeObject>(
    lookup: &Arc<dyn Lookup>,
    namespace: &str,
    name: &str,
) -> Result<Option<Arc<T>>, ApiError> {
    lookup.get_live(T::GROUP, T::URL_PATH_SEGMENT, namespace, name).await?.map(typed).transpose()
}

/// [`Lookup::list`] for one kind.
pub async fn list<T: KubeObject>(lookup: &Arc<dyn Lookup>, namespace: &str) -> Result<Vec<Arc<T>>, ApiError> {
    let objects = lookup.list(T::GROUP, T::URL_PATH_SEGMENT, namespace).await?;
    objects.into_iter().map(typed).collect()
}

fn typed<T: KubeObject>(object: Arc<dyn Object>) -> Result<Arc<T>, ApiError> {
    let object: Arc<dyn Any + Send + Sync> = object;
    object.downcast().map_err(|_| ApiError::internal(format!("stored object is no {}", T::KIND)))
}

#[cfg(test)]
pub(crate) mod fake {
    //! A [`Lookup`] over objects held in memory.

    use parking_lot::Mutex;

    use super::*;

    type Held = (&'static str, &'static str, Arc<dyn Object>);

    /// Objects by group, resource, namespace and name.
    #[derive(Debug, Default)]
    pub(crate) struct Objects {
        objects: Mutex<Vec<Held>>,
    }

    impl Objects {
        pub(crate) fn add<T: KubeObject>(&self, object: T) {
            self.objects.lock().push((T::GROUP, T::URL_PATH_SEGMENT, Arc::new(object)));
        }

        pub(crate) fn clear(&self) {
            self.objects.lock().clear();
        }

        fn select(
            &self,
            group: &str,
            resource: &str,
            wanted: impl Fn(&dyn Object) -> bool,
        ) -> Vec<Arc<dyn Object>> {
            let objects = self.objects.lock();
            let of_kind = objects
                .iter()
                .filter(|(g, r, object)| *g == group && *r == resource && wanted(object.as_ref()));
            of_kind.map(|(_, _, object)| Arc::clone(object)).collect()
        }
    }

    impl Lookup for Objects {
        fn get<'a>(
            &'a self,
            group: &'a str,
            resource: &'a str,
            namespace: &'a str,
            name: &'a str,
        ) -> BoxFuture<'a, Result<Option<Arc<dyn Object>>, ApiError>> {
            let found = self.select(group, resource, |object| {
                object.meta().namespace.as_deref().unwrap_or("") == namespace
                    && object.meta().name.as_deref() == Some(name)
            });
            Box::pin(std::future::ready(Ok(found.into_iter().next())))
        }

        fn list<'a>(
            &'a self,
            group: &'a str,
            resource: &'a str,
            namespace: &'a str,
        ) -> BoxFuture<'a, Result<Vec<Arc<dyn Object>>, ApiError>> {
            let found = self.select(group, resource, |object| {
                namespace.is_empty() || object.meta().namespace.as_deref() == Some(namespace)
            });
            Box::pin(std::future::ready(Ok(found)))
        }
    }
}
