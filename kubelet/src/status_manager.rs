//! Keeps each pod's latest status and brings it to the apiserver: patches of `/status` when something changed, and the
//! final deletion of a pod that the user deleted once nothing of it is left on the node.
//!
//! Without an apiserver it only remembers. It makes no status; `pod_status` does. Upstream's concept:
//! `pkg/kubelet/status/status_manager.go`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::api_error::ApiError;
use crate::pod;
use crate::pod_manager::PodManager;

mod patch;

const RETRY_PERIOD: Duration = Duration::from_secs(2);
const FULL_SYNC_PERIOD: Duration = Duration::from_secs(10);

#[derive(Debug)]
struct Entry {
    status: Arc<PodStatus>,
    /// Differs from what the apiserver is known to hold.
    dirty: bool,
    /// Nothing of the pod is left on the node: its object may go.
    finished: bool,
    /// What the apiserver answered to the last patch, with its resourceVersion.
    written: Option<(u64, PodStatus)>,
    /// The object was deleted by us.
    deleted: bool,
}

/// Shared by the pod workers (writers), the prober and the server (readers). Cheap to clone.
#[derive(Debug, Clone)]
pub struct StatusManager {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    entries: Mutex<HashMap<String, Entry>>,
    changed: Notify,
    pods: PodManager,
}

fn resource_version(pod: &Pod) -> u64 {
    pod.metadata.resource_version.as_deref().and_then(|text| text.parse().ok()).unwrap_or(0)
}

impl StatusManager {
    /// An empty manager.
    #[must_use]
    pub fn new(pods: PodManager) -> Self {
        let inner = Inner { entries: Mutex::default(), changed: Notify::new(), pods };
        Self { inner: Arc::new(inner) }
    }

    /// The latest status of a pod.
    #[must_use]
    pub fn get(&self, uid: &str) -> Option<Arc<PodStatus>> {
        self.inner.entries.lock().get(uid).map(|entry| entry.status.clone())
    }

    /// Sets a pod's status; true when it differs from the one before.
    pub fn set(&self, uid: &str, status: PodStatus) -> bool {
        let mut entries = self.inner.entries.lock();
        match entries.get_mut(uid) {
            Some(entry) if *entry.status == status => return false,
            Some(entry) => {
                entry.status = Arc::new(status);
                entry.dirty = true;
            }
            None => {
                let entry = Entry {
                    status: Arc::new(status),
                    dirty: true,
                    finished: false,
                    written: None,
                    deleted: false,
                };
                entries.insert(uid.to_owned(), entry);
            }
        }
        drop(entries);
        self.inner.changed.notify_one();
        true
    }

    /// Notes that nothing of the pod is left on the node, so that a deleted pod's object may go.
    pub fn finish(&self, uid: &str) {
        if let Some(entry) = self.inner.entries.lock().get_mut(uid) {
            entry.finished = true;
            entry.dirty = true;
        }
        self.inner.changed.notify_one();
    }

    /// The apiserver's copy of a pod (or of a static pod's mirror) changed: writes again where somebody else wrote over it,
    /// and where a deletion has come.
    pub fn reconcile(&self, uid: &str, object: &Pod) {
        let mut entries = self.inner.entries.lock();
        let Some(entry) = entries.get_mut(uid) else { return };
        if entry.written.as_ref().is_some_and(|(version, _)| resource_version(object) <= *version) {
            return;
        }
        entry.written = None;
        let held = object.status.clone().unwrap_or_default();
        let deletion_due = entry.finished && object.metadata.deletion_timestamp.is_some() && !entry.deleted;
        if deletion_due || patch::status_patch(&held, &entry.status).is_some() {
            entry.dirty = true;
            drop(entries);
            self.inner.changed.notify_one();
        }
    }

    /// Forgets a pod.
    pub fn remove(&self, uid: &str) {
        self.inner.entries.lock().remove(uid);
    }

    /// Writes until shutdown.
    pub async fn run(self, client: kube::Client, shutdown: CancellationToken) {
        let mut wait = FULL_SYNC_PERIOD;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.inner.changed.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
            let failed = self.sync_dirty(&client).await;
            wait = if failed { RETRY_PERIOD } else { FULL_SYNC_PERIOD };
        }
    }

    /// True when something is left to be tried again soon.
    async fn sync_dirty(&self, client: &kube::Client) -> bool {
        let dirty: Vec<String> = {
            let entries = self.inner.entries.lock();
            entries.iter().filter(|(_, entry)| entry.dirty).map(|(uid, _)| uid.clone()).collect()
        };
        let mut failed = false;
        for uid in dirty {
            let Some(object) = self.object(&uid) else { continue };
            if let Err(error) = self.sync_one(client, &uid, &object).await {
                failed = true;
                tracing::warn!(
                    namespace = pod::namespace(&object),
                    name = pod::name(&object),
                    error = %ApiError(&error),
                    "failed to update status for pod"
                );
            }
        }
        failed
    }

    /// The API object that carries a pod's status: itself, or the mirror of a static pod.
    fn object(&self, uid: &str) -> Option<Arc<Pod>> {
        let pod = self.inner.pods.get(uid)?;
        if pod::is_static(&pod) { self.inner.pods.mirror_of(&pod) } else { Some(pod) }
    }

    async fn sync_one(&self, client: &kube::Client, uid: &str, object: &Pod) -> Result<(), kube::Error> {
        let (status, base, finished) = {
            let mut entries = self.inner.entries.lock();
            let Some(entry) = entries.get_mut(uid) else { return Ok(()) };
            entry.dirty = false;
            let base = match &entry.written {
                Some((version, written)) if *version >= resource_version(object) => written.clone(),
                _ => object.status.clone().unwrap_or_default(),
            };
            (entry.status.clone(), base, entry.finished)
        };
        let result = self.write(client, uid, object, &status, &base, finished).await;
        if result.is_err()
            && let Some(entry) = self.inner.entries.lock().get_mut(uid)
        {
            entry.dirty = true;
        }
        result
    }

    async fn write(
        &self,
        client: &kube::Client,
        uid: &str,
        object: &Pod,
        status: &PodStatus,
        base: &PodStatus,
        finished: bool,
    ) -> Result<(), kube::Error> {
        let api: Api<Pod> = Api::namespaced(client.clone(), pod::namespace(object));
        let mut deleting = object.metadata.deletion_timestamp.is_some();
        if let Some(patch) = patch::status_patch(base, status) {
            let body = serde_json::json!({ "metadata": { "uid": pod::uid(object) }, "status": patch });
            match api.patch_status(pod::name(object), &PatchParams::default(), &Patch::Strategic(body)).await
            {
                Ok(written) => {
                    deleting |= written.metadata.deletion_timestamp.is_some();
                    let version = resource_version(&written);
                    if let Some(entry) = self.inner.entries.lock().get_mut(uid) {
                        entry.written = Some((version, written.status.unwrap_or_default()));
                    }
                }
                // Gone, or another pod of that name: nothing to report to.
                Err(error) if is_gone(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        if deleting && finished && !pod::is_mirror(object) {
            self.delete(&api, uid, object).await?;
        }
        Ok(())
    }

    async fn delete(&self, api: &Api<Pod>, uid: &str, object: &Pod) -> Result<(), kube::Error> {
        let preconditions = Preconditions { uid: object.metadata.uid.clone(), resource_version: None };
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(preconditions),
            ..DeleteParams::default()
        };
        match api.delete(pod::name(object), &params).await {
            Ok(_) => {
                tracing::debug!(
                    namespace = pod::namespace(object),
                    name = pod::name(object),
                    "pod fully terminated and removed from the apiserver"
                );
            }
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(error),
        }
        if let Some(entry) = self.inner.entries.lock().get_mut(uid) {
            entry.deleted = true;
        }
        Ok(())
    }
}

/// 404, or the uid precondition failed (409): the object is not ours any more.
fn is_gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404 || status.code == 409)
}
