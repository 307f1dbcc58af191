//! Pod lifecycle event generator: lists the runtime once a second and says which pods changed.
//!
//! It reads no details; a changed pod's worker does. Upstream's concept: `pkg/kubelet/pleg/generic.go`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::runtime::{ContainerState, Runtime, RuntimePodSummary, SandboxState};
use crate::runtime_state::RuntimeState;

/// `genericPlegRelistPeriod`.
const RELIST_PERIOD: Duration = Duration::from_secs(1);
/// Upstream calls the node not ready when no relist has worked for that long.
const RELIST_THRESHOLD: Duration = Duration::from_secs(180);

/// The last listing, for those who need to know what runs (orphans, garbage collection, the server).
#[derive(Debug, Clone, Default)]
pub struct RuntimePods {
    inner: Arc<RwLock<Option<Arc<Vec<RuntimePodSummary>>>>>,
    now: Arc<Notify>,
}

impl RuntimePods {
    /// The last listing; `None` before the runtime has first answered.
    #[must_use]
    pub fn get(&self) -> Option<Arc<Vec<RuntimePodSummary>>> {
        self.inner.read().clone()
    }

    /// Takes a pod out that was just removed, so that nobody acts on a listing from before.
    pub fn forget(&self, uid: &str) {
        let mut inner = self.inner.write();
        if let Some(pods) = inner.as_ref().filter(|pods| pods.iter().any(|pod| pod.uid == uid)) {
            *inner = Some(Arc::new(pods.iter().filter(|pod| pod.uid != uid).cloned().collect()));
        }
    }

    /// Asks for a listing before the period is over.
    pub fn relist_now(&self) {
        self.now.notify_one();
    }
}

type Shape = (Vec<(String, SandboxState)>, Vec<(String, ContainerState)>);

fn shape(pod: &RuntimePodSummary) -> Shape {
    let mut sandboxes: Vec<_> = pod.sandboxes.iter().map(|s| (s.id.clone(), s.state)).collect();
    let mut containers: Vec<_> = pod.containers.iter().map(|c| (c.id.clone(), c.state)).collect();
    sandboxes.sort_by(|a, b| a.0.cmp(&b.0));
    containers.sort_by(|a, b| a.0.cmp(&b.0));
    (sandboxes, containers)
}

/// The uids of pods that are not as they were (new and gone ones included).
fn changed_pods(old: &HashMap<String, Shape>, new: &HashMap<String, Shape>) -> Vec<String> {
    let mut changed: Vec<String> =
        new.iter().filter(|(uid, shape)| old.get(*uid) != Some(shape)).map(|(uid, _)| uid.clone()).collect();
    changed.extend(old.keys().filter(|uid| !new.contains_key(*uid)).cloned());
    changed.sort();
    changed
}

/// Lists until shutdown; sends the uids of changed pods.
pub async fn run(
    runtime: Runtime,
    state: RuntimeState,
    pods: RuntimePods,
    changes: mpsc::UnboundedSender<String>,
    shutdown: CancellationToken,
) {
    let mut known = HashMap::new();
    let mut last_success = Instant::now();
    loop {
        match runtime.list_pods().await {
            Ok(listing) => {
                last_success = Instant::now();
                state.set_pleg_error(None);
                let shapes: HashMap<_, _> = listing.iter().map(|pod| (pod.uid.clone(), shape(pod))).collect();
                let first = pods.inner.write().replace(Arc::new(listing)).is_none();
                for uid in changed_pods(&known, &shapes) {
                    // The sync loop may be gone during shutdown; then nobody needs to know.
                    let _ = changes.send(uid);
                }
                if first {
                    tracing::info!(pods = shapes.len(), "listed the runtime's pods");
                }
                known = shapes;
            }
            Err(error) => {
                let elapsed = last_success.elapsed();
                tracing::debug!(%error, "failed to list the runtime's pods");
                if elapsed > RELIST_THRESHOLD {
                    let ago = component_base::duration::format(Duration::from_secs(elapsed.as_secs()));
                    let threshold = component_base::duration::format(RELIST_THRESHOLD);
                    state.set_pleg_error(Some(format!(
                        "PLEG is not healthy: pleg was last seen active {ago} ago; threshold is {threshold}"
                    )));
                }
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = pods.now.notified() => {}
            () = tokio::time::sleep(RELIST_PERIOD) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::ContainerSummary;

    fn pod(uid: &str, state: ContainerState) -> (String, Shape) {
        let summary = RuntimePodSummary {
            uid: uid.to_owned(),
            containers: vec![ContainerSummary {
                id: format!("{uid}-c"),
                name: "c".to_owned(),
                sandbox_id: String::new(),
                attempt: 0,
                state,
                created_at: jiff::Timestamp::UNIX_EPOCH,
            }],
            ..Default::default()
        };
        (uid.to_owned(), shape(&summary))
    }

    #[test]
    fn only_pods_that_changed_are_named() {
        let old = HashMap::from([
            pod("same", ContainerState::Running),
            pod("died", ContainerState::Running),
            pod("gone", ContainerState::Exited),
        ]);
        let new = HashMap::from([
            pod("same", ContainerState::Running),
            pod("died", ContainerState::Exited),
            pod("new", ContainerState::Created),
        ]);
        assert_eq!(changed_pods(&old, &new), ["died", "gone", "new"]);
        assert!(changed_pods(&new, &new).is_empty());
    }
}
