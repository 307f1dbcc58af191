//! NamespaceLifecycle: nothing is created in a namespace that is missing or going away, and the system's namespaces stay.
//!
//! Upstream: `apiserver/pkg/admission/plugin/namespace/lifecycle`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use apimachinery::status::ApiError;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Namespace;
use parking_lot::Mutex;

use super::{Attributes, Operation, Plugin};
use crate::lookup::{self, Lookup};
use crate::registry::ResourceInfo;

/// Namespaces that can't be deleted.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

/// After a namespace was deleted through this server, its state is read from the store for so long, since a cache may not
/// know of the deletion yet.
const LIVE_LOOKUP: Duration = Duration::from_secs(30);

/// The plugin.
#[derive(Debug)]
pub struct NamespaceLifecycle {
    lookup: Arc<dyn Lookup>,
    deleted: Mutex<HashMap<String, Instant>>,
}

impl NamespaceLifecycle {
    /// Reads namespaces from `lookup`.
    pub fn new(lookup: Arc<dyn Lookup>) -> Self {
        Self { lookup, deleted: Mutex::default() }
    }

    async fn check(&self, attributes: &Attributes<'_>) -> Result<(), ApiError> {
        let of_namespaces =
            attributes.resource.group.is_empty() && attributes.resource.plural == "namespaces";
        if of_namespaces && attributes.operation == Operation::Delete {
            if IMMORTAL.contains(&attributes.name) {
                return Err(attributes.forbidden("this namespace may not be deleted"));
            }
            let mut deleted = self.deleted.lock();
            deleted.retain(|_, at| at.elapsed() < LIVE_LOOKUP);
            deleted.insert(attributes.name.to_owned(), Instant::now());
        }
        if of_namespaces || attributes.namespace.is_empty() || attributes.operation == Operation::Delete {
            return Ok(());
        }
        let name = attributes.namespace;
        let live = self.deleted.lock().get(name).is_some_and(|at| at.elapsed() < LIVE_LOOKUP);
        let namespace = if live {
            lookup::get_live::<Namespace>(&self.lookup, "", name).await?
        } else {
            lookup::get::<Namespace>(&self.lookup, "", name).await?
        };
        let Some(namespace) = namespace else {
            return Err(ApiError::not_found("", "namespaces", name));
        };
        let terminating = namespace.metadata.deletion_timestamp.is_some()
            || namespace.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Terminating"));
        if terminating && attributes.operation == Operation::Create {
            let text =
                format!("unable to create new content in namespace {name} because it is being terminated");
            let cause = format!("namespace {name} is being terminated");
            let error = attributes.forbidden(&text);
            return Err(error.with_cause("NamespaceTerminating", &cause, "metadata.namespace"));
        }
        Ok(())
    }
}

impl Plugin for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    fn handles(&self, operation: Operation, resource: &ResourceInfo, _: &str) -> bool {
        operation != Operation::Connect && resource.plural != "localsubjectaccessreviews"
    }

    fn admit<'a>(&'a self, attributes: &'a mut Attributes<'_>) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(self.check(attributes))
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{ConfigMap, NamespaceStatus};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::super::tests::Request;
    use super::*;
    use crate::lookup::fake::Objects;

    fn plugin() -> NamespaceLifecycle {
        let objects = Objects::default();
        for (name, phase) in [("web", "Active"), ("going", "Terminating")] {
            objects.add(Namespace {
                metadata: ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() },
                status: Some(NamespaceStatus { phase: Some(phase.into()), ..NamespaceStatus::default() }),
                ..Namespace::default()
            });
        }
        NamespaceLifecycle::new(Arc::new(objects))
    }

    #[tokio::test]
    async fn by_operation_and_namespace() {
        let plugin = plugin();
        for (operation, namespace, code) in [
            (Operation::Create, "web", 0),
            (Operation::Create, "missing", 404),
            (Operation::Create, "going", 403),
            (Operation::Update, "going", 0),
            (Operation::Update, "missing", 404),
            (Operation::Delete, "going", 0),
            (Operation::Delete, "missing", 0),
        ] {
            let mut object = ConfigMap::default();
            let result =
                Request::new(operation, &mut object).namespace(namespace).name("a").admit(&plugin).await;
            assert_eq!(result.err().map_or(0, |error| error.code()), code, "{operation:?} {namespace}");
        }
    }

    #[tokio::test]
    async fn a_terminating_namespace_says_so() {
        let mut object = ConfigMap::default();
        let request = Request::new(Operation::Create, &mut object).namespace("going").name("a");
        let error = request.admit(&plugin()).await.unwrap_err();
        assert_eq!(
            error.message(),
            "configmaps \"a\" is forbidden: unable to create new content in namespace going because it is being terminated"
        );
    }

    #[tokio::test]
    async fn system_namespaces_are_not_deleted() {
        for (name, good) in
            [("default", false), ("kube-system", false), ("kube-public", false), ("kube-node-lease", true)]
        {
            let result = Request::delete(&Namespace::default()).name(name).admit(&plugin()).await;
            assert_eq!(result.is_ok(), good, "{name}");
        }
    }
}
