//! Reads of stored objects by the server's own parts: authenticators, authorizers, admission plugins, connecting endpoints.
//!
//! They see objects through [`Lookup`] only, so that they can be tested without etcd. What is returned is what the store
//! would serve for an ordinary get or list. Upstream gives these parts informer listers.

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
    ) -> BoxFuture<'a, Result<Option<Box<dyn Object>>, ApiError>>;

    /// The object as the store has it at this moment, whatever a cache may say.
    fn get_live<'a>(
        &'a self,
        group: &'a str,
        resource: &'a str,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<Box<dyn Object>>, ApiError>> {
        self.get(group, resource, namespace, name)
    }

    /// All objects of a resource; of one namespace unless that is empty.
    fn list<'a>(
        &'a self,
        group: &'a str,
        resource: &'a str,
        namespace: &'a str,
    ) -> BoxFuture<'a, Result<Vec<Box<dyn Object>>, ApiError>>;
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
) -> Result<Option<T>, ApiError> {
    let object = lookup.get(T::GROUP, T::URL_PATH_SEGMENT, namespace, name).await?;
    object.map(|object| typed::<T>(object.as_ref()).cloned()).transpose()
}

/// [`Lookup::get_live`] for one kind.
pub async fn get_live<T: KubeObject>(
    lookup: &Arc<dyn Lookup>,
    namespace: &str,
    name: &str,
) -> Result<Option<T>, ApiError> {
    let object = lookup.get_live(T::GROUP, T::URL_PATH_SEGMENT, namespace, name).await?;
    object.map(|object| typed::<T>(object.as_ref()).cloned()).transpose()
}

/// [`Lookup::list`] for one kind.
pub async fn list<T: KubeObject>(lookup: &Arc<dyn Lookup>, namespace: &str) -> Result<Vec<T>, ApiError> {
    let objects = lookup.list(T::GROUP, T::URL_PATH_SEGMENT, namespace).await?;
    objects.iter().map(|object| typed::<T>(object.as_ref()).cloned()).collect()
}

fn typed<T: KubeObject>(object: &dyn Object) -> Result<&T, ApiError> {
    object.downcast_ref::<T>().ok_or_else(|| ApiError::internal(format!("stored object is no {}", T::KIND)))
}

#[cfg(test)]
pub(crate) mod fake {
    //! A [`Lookup`] over objects held in memory.

    use parking_lot::Mutex;

    use super::*;

    type Held = (&'static str, &'static str, Box<dyn Object>);

    /// Objects by group, resource, namespace and name.
    #[derive(Debug, Default)]
    pub(crate) struct Objects {
        objects: Mutex<Vec<Held>>,
    }

    impl Objects {
        pub(crate) fn add<T: KubeObject>(&self, object: T) {
            self.objects.lock().push((T::GROUP, T::URL_PATH_SEGMENT, Box::new(object)));
        }

        pub(crate) fn clear(&self) {
            self.objects.lock().clear();
        }

        fn select(
            &self,
            group: &str,
            resource: &str,
            wanted: impl Fn(&dyn Object) -> bool,
        ) -> Vec<Box<dyn Object>> {
            let objects = self.objects.lock();
            let of_kind = objects
                .iter()
                .filter(|(g, r, object)| *g == group && *r == resource && wanted(object.as_ref()));
            of_kind.map(|(_, _, object)| object.clone_box()).collect()
        }
    }

    impl Lookup for Objects {
        fn get<'a>(
            &'a self,
            group: &'a str,
            resource: &'a str,
            namespace: &'a str,
            name: &'a str,
        ) -> BoxFuture<'a, Result<Option<Box<dyn Object>>, ApiError>> {
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
        ) -> BoxFuture<'a, Result<Vec<Box<dyn Object>>, ApiError>> {
            let found = self.select(group, resource, |object| {
                namespace.is_empty() || object.meta().namespace.as_deref() == Some(namespace)
            });
            Box::pin(std::future::ready(Ok(found)))
        }
    }
}
