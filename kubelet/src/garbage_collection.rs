//! Removes dead containers and sandboxes, and all that is left of pods that are gone.
//!
//! Of each container name the newest dead one stays (for logs and the last state), as upstream's defaults say.
//! Upstream's concept: `pkg/kubelet/kuberuntime/kuberuntime_gc.go`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::pleg::RuntimePods;
use crate::prober::ProbeManager;
use crate::runtime::{ContainerState, Runtime, RuntimeError, RuntimePodSummary, SandboxState};
use crate::volumes::VolumeManager;

/// `ContainerGCPeriod`.
const PERIOD: Duration = Duration::from_secs(60);

/// Container and sandbox ids that may go while their pod stays.
#[derive(Debug, Default, PartialEq, Eq)]
struct Garbage {
    containers: Vec<String>,
    sandboxes: Vec<String>,
}

/// Containers and sandboxes are listed newest first.
fn garbage(pod: &RuntimePodSummary) -> Garbage {
    let mut dead_kept: HashMap<&str, usize> = HashMap::new();
    let mut garbage = Garbage::default();
    let mut used: HashSet<&str> = HashSet::new();
    for container in &pod.containers {
        let kept = dead_kept.entry(&container.name).or_default();
        let dead = container.state == ContainerState::Exited;
        if dead && *kept >= 1 {
            garbage.containers.push(container.id.clone());
            continue;
        }
        *kept += usize::from(dead);
        used.insert(&container.sandbox_id);
    }
    for sandbox in pod.sandboxes.iter().skip(1) {
        if sandbox.state == SandboxState::NotReady && !used.contains(sandbox.id.as_str()) {
            garbage.sandboxes.push(sandbox.id.clone());
        }
    }
    garbage
}

/// Removes; cheap to clone.
#[derive(Debug, Clone)]
pub struct GarbageCollector {
    /// Where things are removed.
    pub runtime: Runtime,
    /// Directories of pods.
    pub volumes: VolumeManager,
    /// What the runtime holds.
    pub runtime_pods: RuntimePods,
    /// Results of probes of pods that are gone.
    pub prober: ProbeManager,
    /// Pods that are being removed.
    pub removing: Arc<Mutex<HashSet<String>>>,
    /// Waits for removals at shutdown.
    pub tracker: TaskTracker,
}

impl GarbageCollector {
    /// Whether a pod's remains are being removed.
    #[must_use]
    pub fn is_removing(&self, uid: &str) -> bool {
        self.removing.lock().contains(uid)
    }

    /// Removes all that the node keeps of a pod that is gone, in the background.
    pub fn remove_pod(&self, uid: &str) {
        if !self.removing.lock().insert(uid.to_owned()) {
            return;
        }
        let (collector, uid) = (self.clone(), uid.to_owned());
        self.tracker.spawn(async move {
            if let Err(error) = collector.remove(&uid).await {
                // The next listing still has it: housekeeping comes back to it as an orphan.
                tracing::warn!(uid, %error, "failed to remove the remains of a pod");
            }
            collector.removing.lock().remove(&uid);
        });
    }

    async fn remove(&self, uid: &str) -> Result<(), RuntimeError> {
        self.prober.remove_pod(uid);
        let listing = self.runtime.list_pods().await?;
        let (mut name, mut namespace) = (String::new(), String::new());
        if let Some(pod) = listing.into_iter().find(|pod| pod.uid == uid) {
            for container in &pod.containers {
                self.runtime.remove_container(&container.id).await?;
            }
            for sandbox in &pod.sandboxes {
                self.runtime.stop_sandbox(&sandbox.id).await?;
                self.runtime.remove_sandbox(&sandbox.id).await?;
            }
            (name, namespace) = (pod.name, pod.namespace);
        }
        if let Err(error) = self.volumes.unmount_pod(uid).await {
            tracing::warn!(uid, %error, "failed to remove a pod's directory");
        }
        self.runtime.cleanup_pod(uid, &name, &namespace).await?;
        self.runtime_pods.forget(uid);
        self.runtime_pods.relist_now();
        Ok(())
    }

    /// Removes, in the background, the directories of pods that neither a source nor the runtime knows any more.
    pub fn remove_orphaned_directories(&self, known: HashSet<String>) {
        let collector = self.clone();
        self.tracker.spawn(async move {
            let Some(running) = collector.runtime_pods.get() else { return };
            for uid in collector.volumes.pods_on_disk().await {
                if !known.contains(&uid) && running.iter().all(|pod| pod.uid != uid) {
                    tracing::info!(uid, "removing the directory of a pod that is gone");
                    collector.remove_pod(&uid);
                }
            }
        });
    }

    /// Collects once a minute until shutdown.
    pub async fn run(self, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(PERIOD) => self.collect().await,
            }
        }
    }

    async fn collect(&self) {
        let Some(pods) = self.runtime_pods.get() else { return };
        for pod in pods.iter() {
            let garbage = garbage(pod);
            for id in &garbage.containers {
                if let Err(error) = self.runtime.remove_container(id).await {
                    tracing::warn!(container = %id, %error, "failed to remove a dead container");
                }
            }
            for id in &garbage.sandboxes {
                if let Err(error) = self.runtime.remove_sandbox(id).await {
                    tracing::warn!(sandbox = %id, %error, "failed to remove a dead sandbox");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{ContainerSummary, SandboxSummary};

    #[test]
    fn the_newest_dead_container_of_a_name_stays() {
        let container = |id: &str, name: &str, state, sandbox: &str| ContainerSummary {
            id: id.to_owned(),
            name: name.to_owned(),
            sandbox_id: sandbox.to_owned(),
            attempt: 0,
            state,
            created_at: jiff::Timestamp::UNIX_EPOCH,
        };
        let sandbox = |id: &str, state| SandboxSummary {
            id: id.to_owned(),
            attempt: 0,
            state,
            created_at: jiff::Timestamp::UNIX_EPOCH,
        };
        use ContainerState::{Exited, Running};
        let pod = RuntimePodSummary {
            sandboxes: vec![
                sandbox("s3", SandboxState::Ready),
                sandbox("s2", SandboxState::NotReady),
                sandbox("s1", SandboxState::NotReady),
            ],
            containers: vec![
                container("a3", "a", Running, "s3"),
                container("a2", "a", Exited, "s2"),
                container("a1", "a", Exited, "s1"),
                container("b1", "b", Exited, "s3"),
            ],
            ..Default::default()
        };
        let expected = Garbage { containers: vec!["a1".to_owned()], sandboxes: vec!["s1".to_owned()] };
        assert_eq!(garbage(&pod), expected);
    }
}
