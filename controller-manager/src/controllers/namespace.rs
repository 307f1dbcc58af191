//! namespace-controller: empties a namespace that is being deleted, tells how far it has come, and takes the `kubernetes`
//! finalizer off when nothing is left. Upstream: pkg/controller/namespace.

pub mod conditions;
pub mod content;

use std::sync::Arc;
use std::time::Duration;

use apimachinery::meta::ObjectKey;
use component_base::informer::Store;
use component_base::workqueue::{self, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::PostParams;
use kube::{Api, Client};

use crate::api_error;
use crate::context::{Context, RunError};

const FINALIZER: &str = "kubernetes";
/// Time for admission and caches of other API servers to learn that the namespace is going.
const DELETION_GRACE: Duration = Duration::from_secs(2);

/// Why a pass did not finish; it is retried.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    #[error("get the namespace")]
    Get(#[source] Box<kube::Error>),
    #[error("update the namespace's status")]
    Status(#[source] Box<kube::Error>),
    #[error("finalize the namespace")]
    Finalize(#[source] Box<kube::Error>),
    #[error("delete the namespace's content: {0}")]
    Content(String),
}

/// Whether this controller still holds the namespace back.
fn has_finalizer(namespace: &Namespace) -> bool {
    let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.as_ref());
    finalizers.is_some_and(|finalizers| finalizers.iter().any(|finalizer| finalizer == FINALIZER))
}

/// The namespace without this controller's finalizer.
fn finalized(namespace: &Namespace) -> Namespace {
    let mut namespace = namespace.clone();
    if let Some(finalizers) = namespace.spec.as_mut().and_then(|spec| spec.finalizers.as_mut()) {
        finalizers.retain(|finalizer| finalizer != FINALIZER);
    }
    namespace
}

/// Half the estimate, and a second, as upstream does: most things go earlier than they might.
fn retry_after(estimate_seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(estimate_seconds / 2 + 1).unwrap_or(1))
}

/// Runs until shutdown.
pub async fn run(context: Context) -> Result<(), RunError> {
    let client = context.client("namespace-controller");
    let namespaces = context.informers.namespaces();
    let queue: WorkQueue<String> = context.queue("namespace");
    context.on_change(&namespaces, {
        let queue = queue.clone();
        move |change| {
            if let Some(namespace) = change.new()
                && namespace.metadata.deletion_timestamp.is_some()
                && let Some(name) = namespace.metadata.name.clone()
            {
                queue.add_after(name, DELETION_GRACE);
            }
        }
    });
    if !context.wait_synced(&namespaces).await {
        return Ok(());
    }
    let controller =
        Arc::new(NamespaceController { client, namespaces: namespaces.store(), queue: queue.clone() });
    let workers = context.config.concurrent_namespace_syncs;
    workqueue::run_workers(queue, workers, context.shutdown.clone(), move |name| {
        let controller = Arc::clone(&controller);
        async move { api_error::retry_conflict(controller.sync(&name).await, &controller.queue, name) }
    })
    .await;
    Ok(())
}

struct NamespaceController {
    client: Client,
    namespaces: Store<Namespace>,
    queue: WorkQueue<String>,
}

impl NamespaceController {
    async fn sync(&self, name: &str) -> Result<(), SyncError> {
        let cached = self.namespaces.get(&ObjectKey::cluster(name));
        if cached.is_none_or(|namespace| namespace.metadata.deletion_timestamp.is_none()) {
            return Ok(());
        }
        // A destructive pass starts from the live object, not from the cache.
        let api = Api::<Namespace>::all(self.client.clone());
        let Some(mut namespace) = api.get_opt(name).await.map_err(|error| SyncError::Get(Box::new(error)))?
        else {
            return Ok(());
        };
        if namespace.metadata.deletion_timestamp.is_none() {
            return Ok(());
        }
        let status = namespace.status.get_or_insert_default();
        if status.phase.as_deref() != Some("Terminating") {
            status.phase = Some("Terminating".to_owned());
            namespace = self.update_status(&api, name, &namespace).await?;
        }
        if !has_finalizer(&namespace) {
            return Ok(());
        }

        let findings = content::delete_all(&self.client, name).await;
        if conditions::update(namespace.status.get_or_insert_default(), &findings, Timestamp::now()) {
            namespace = self.update_status(&api, name, &namespace).await?;
        }
        if findings.is_empty() {
            return self.finalize(&api, name, &namespace).await;
        }
        let errors: Vec<_> = findings.discovery_errors.into_iter().chain(findings.deletion_errors).collect();
        if errors.is_empty() {
            self.queue.add_after(name.to_owned(), retry_after(findings.estimate_seconds));
            Ok(())
        } else {
            Err(SyncError::Content(errors.join(", ")))
        }
    }

    async fn update_status(
        &self,
        api: &Api<Namespace>,
        name: &str,
        namespace: &Namespace,
    ) -> Result<Namespace, SyncError> {
        let updated = api.replace_status(name, &PostParams::default(), namespace).await;
        updated.map_err(|error| SyncError::Status(Box::new(error)))
    }

    async fn finalize(
        &self,
        api: &Api<Namespace>,
        name: &str,
        namespace: &Namespace,
    ) -> Result<(), SyncError> {
        let finalized = finalized(namespace);
        match api.replace_subresource("finalize", name, &PostParams::default(), &finalized).await {
            Ok(_) => Ok(()),
            Err(error) if api_error::is_not_found(&error) => Ok(()),
            Err(error) => Err(SyncError::Finalize(Box::new(error))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::namespace;

    #[test]
    fn only_the_own_finalizer_is_taken_off() {
        let mut ns = namespace("a", "Terminating");
        assert!(!has_finalizer(&ns));
        ns.spec.get_or_insert_default().finalizers =
            Some(vec!["kubernetes".into(), "example.com/mine".into()]);
        assert!(has_finalizer(&ns));
        assert_eq!(finalized(&ns).spec.unwrap().finalizers, Some(vec!["example.com/mine".to_owned()]));
    }

    #[test]
    fn retries_half_way() {
        assert_eq!(retry_after(30), Duration::from_secs(16));
        assert_eq!(retry_after(0), Duration::from_secs(1));
    }
}
