//! Volumes of pods: mounted before containers start, refreshed while they run, unmounted when the pod is gone.
//!
//! Upstream's concept: `pkg/kubelet/volumemanager` (one owner instead of a reconciler between two worlds).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

pub mod subpath;

/// One mounted volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountedVolume {
    /// Where it is on the host.
    pub host_path: PathBuf,
    /// Mounted read-only whatever the container says.
    pub read_only: bool,
}

/// A pod's volumes by name.
#[derive(Debug, Clone, Default)]
pub struct MountedVolumes(pub Arc<BTreeMap<String, MountedVolume>>);

/// Why a pod's volumes are not there; the Display is the text of the FailedMount event.
#[derive(Debug, Clone, thiserror::Error)]
#[error("MountVolume.SetUp failed for volume \"{volume}\" : {message}")]
pub struct VolumeError {
    /// The volume's name in the pod.
    pub volume: String,
    /// Upstream's text.
    pub message: String,
}

/// The volume manager's configuration.
#[derive(Clone)]
pub struct VolumeConfig {
    /// `--root-dir`: volumes live under `pods/UID/volumes/`.
    pub root_dir: PathBuf,
    /// This node's name.
    pub node_name: String,
    /// The node's addresses (downward API `status.hostIP`).
    pub node_ips: Vec<IpAddr>,
    /// The apiserver, when there is one.
    pub client: Option<kube::Client>,
}

impl std::fmt::Debug for VolumeConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VolumeConfig").field("root_dir", &self.root_dir).finish_non_exhaustive()
    }
}

/// Mounts and unmounts; cheap to clone.
#[derive(Debug, Clone)]
pub struct VolumeManager {
    config: Arc<VolumeConfig>,
}

#[expect(clippy::unused_async, reason = "skeleton: the CRI side fills these in")]
impl VolumeManager {
    /// A manager with nothing mounted yet.
    #[must_use]
    pub fn new(config: VolumeConfig) -> Self {
        Self { config: Arc::new(config) }
    }

    /// Mounts what is missing and rewrites what changed (configMap, secret, projected, downwardAPI, tokens before
    /// they expire). The pod worker calls it in every sync, so it must be cheap when nothing is due.
    pub async fn ensure_mounted(&self, pod: &Pod) -> Result<MountedVolumes, VolumeError> {
        let name =
            pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()).map(|v| v.name.clone()).next();
        match name {
            None => Ok(MountedVolumes::default()),
            Some(volume) => {
                Err(VolumeError { volume, message: "no volume plugins in this build".to_owned() })
            }
        }
    }

    /// Unmounts and removes everything of a pod whose containers are all gone (idempotent), its directory under
    /// `pods/UID` included.
    pub async fn unmount_pod(&self, _uid: &str) -> Result<(), VolumeError> {
        Ok(())
    }

    /// The uids of pods that still have a directory under `pods/`, for the clean-up of pods the kubelet no longer knows.
    pub async fn pods_on_disk(&self) -> Vec<String> {
        Vec::new()
    }

    /// The configuration it runs with.
    #[must_use]
    pub fn config(&self) -> &VolumeConfig {
        &self.config
    }
}
