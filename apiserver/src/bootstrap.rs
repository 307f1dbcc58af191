//! The objects that every cluster has: namespaces, priority classes, RBAC policy, the Service `kubernetes`.
//!
//! Made at the start, and again from time to time in case somebody deleted them. Upstream: the post-start hooks of
//! `pkg/controlplane`.

use std::time::Duration;

use apimachinery::status::ApiError;

use crate::authz::rbac::{bootstrap_policy, reconcile};
use crate::registry::KubeObject;
use crate::request::RequestContext;
use crate::store::{Store, Target};

pub mod kubernetes_service;
pub mod namespaces;
pub mod priority_classes;
pub mod service_endpoints;

pub use kubernetes_service::KubernetesService;

/// How often namespaces and the Service are looked after, as upstream.
pub const INTERVAL: Duration = Duration::from_secs(60);

/// Makes what is missing, all of it.
pub async fn run(store: &Store, service: &KubernetesService) -> Result<(), ApiError> {
    let objects = async {
        again(store, service).await?;
        for class in priority_classes::system() {
            ensure(store, class).await?;
        }
        Ok(())
    };
    let policy = reconcile::run(store, bootstrap_policy::policy());
    tokio::try_join!(Box::pin(objects), Box::pin(policy)).map(drop)
}

/// Makes what is looked after all the time.
pub async fn again(store: &Store, service: &KubernetesService) -> Result<(), ApiError> {
    for namespace in namespaces::system() {
        ensure(store, namespace).await?;
    }
    service.ensure_range(store).await?;
    ensure(store, service.object()).await
}

/// Creates `object` unless there is one of its name.
async fn ensure<T: KubeObject>(store: &Store, object: T) -> Result<(), ApiError> {
    let resource = store.resources().of::<T>()?;
    let meta = object.metadata();
    let namespace = meta.namespace.clone().unwrap_or_default();
    let name = meta.name.clone().unwrap_or_default();
    match store.get_stored(Target { resource, namespace: &namespace, name: &name }).await {
        Ok(_) => return Ok(()),
        Err(error) if error.code() == 404 => {}
        Err(error) => return Err(error),
    }
    let target = Target { resource, namespace: &namespace, name: "" };
    match store.create(&RequestContext::loopback(), target, Box::new(object), false).await {
        // Another API server starts at the same time.
        Err(error) if error.reason() == "AlreadyExists" => Ok(()),
        other => other.map(drop),
    }
}
