//! The values in which the rest of the kubelet sees sandboxes, containers and images. No IO.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use component_base::informer::Connection;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};

use crate::events::Recorder;
use crate::volumes::MountedVolumes;

/// Whether a sandbox can hold containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SandboxState {
    /// The sandbox's network and namespaces are up.
    Ready,
    /// The sandbox was stopped, or died.
    NotReady,
}

/// One sandbox of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxStatus {
    /// The runtime's id.
    pub id: String,
    /// Counts the sandboxes of one pod, from 0.
    pub attempt: u32,
    /// Ready or not.
    pub state: SandboxState,
    /// When the runtime created it.
    pub created_at: Timestamp,
    /// The pod's addresses (empty with host network, or before CNI answered).
    pub ips: Vec<IpAddr>,
    /// Whether the sandbox shares the node's network namespace.
    pub host_network: bool,
}

/// CRI's container states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContainerState {
    /// Created and never started.
    Created,
    /// Its process runs.
    Running,
    /// Its process ended.
    Exited,
    /// The runtime can't tell.
    Unknown,
}

/// One container (one attempt of one name) of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeContainerStatus {
    /// The runtime's id, without the `containerd://` scheme.
    pub id: String,
    /// The container's name in the pod spec.
    pub name: String,
    /// The sandbox it lives in.
    pub sandbox_id: String,
    /// The attempt number, which is the restart count the API shows.
    pub restart_count: u32,
    /// State.
    pub state: ContainerState,
    /// When the runtime created it.
    pub created_at: Timestamp,
    /// When its process started, if it ever did.
    pub started_at: Option<Timestamp>,
    /// When its process ended.
    pub finished_at: Option<Timestamp>,
    /// Meaningful in [`ContainerState::Exited`].
    pub exit_code: i32,
    /// The runtime's reason (`Completed`, `Error`, `OOMKilled`, `StartError`…).
    pub reason: String,
    /// The runtime's message, or the termination message (terminationMessagePath and its policy applied).
    pub message: String,
    /// The image as the user named it.
    pub image: String,
    /// The image's digest reference (`imageID` in the API).
    pub image_id: String,
    /// [`spec_hash`] of the container spec it was created from, from its annotation.
    pub spec_hash: Option<String>,
    /// Host path of its log.
    pub log_path: PathBuf,
}

/// All that the runtime knows of one pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuntimePodStatus {
    /// The pod's uid (for a static pod: the hash given by the file source).
    pub uid: String,
    /// The pod's name.
    pub name: String,
    /// The pod's namespace.
    pub namespace: String,
    /// Newest first.
    pub sandboxes: Vec<SandboxStatus>,
    /// Newest first, all attempts that the runtime still remembers.
    pub containers: Vec<RuntimeContainerStatus>,
}

impl RuntimePodStatus {
    /// The newest container of that name.
    #[must_use]
    pub fn container(&self, name: &str) -> Option<&RuntimeContainerStatus> {
        self.containers.iter().find(|c| c.name == name)
    }

    /// The pod's addresses: those of its newest sandbox, when that is ready.
    #[must_use]
    pub fn ips(&self) -> &[IpAddr] {
        self.sandboxes.first().filter(|s| s.state == SandboxState::Ready).map_or(&[], |s| &s.ips)
    }
}

/// A container in the cheap listing that PLEG compares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerSummary {
    /// The runtime's id.
    pub id: String,
    /// The container's name in the pod spec.
    pub name: String,
    /// The sandbox it lives in.
    pub sandbox_id: String,
    /// The attempt number.
    pub attempt: u32,
    /// State.
    pub state: ContainerState,
    /// When the runtime created it.
    pub created_at: Timestamp,
}

/// A sandbox in the cheap listing that PLEG compares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxSummary {
    /// The runtime's id.
    pub id: String,
    /// The attempt number.
    pub attempt: u32,
    /// Ready or not.
    pub state: SandboxState,
    /// When the runtime created it.
    pub created_at: Timestamp,
}

/// One pod in the cheap listing (two CRI calls for the whole node).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuntimePodSummary {
    /// The pod's uid.
    pub uid: String,
    /// The pod's name.
    pub name: String,
    /// The pod's namespace.
    pub namespace: String,
    /// Newest first.
    pub sandboxes: Vec<SandboxSummary>,
    /// Newest first.
    pub containers: Vec<ContainerSummary>,
}

/// One of the runtime's own conditions (`RuntimeReady`, `NetworkReady`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuntimeCondition {
    /// Whether the condition holds.
    pub status: bool,
    /// The runtime's word for why.
    pub reason: String,
    /// The runtime's text.
    pub message: String,
}

/// Both conditions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuntimeConditions {
    /// `RuntimeReady`.
    pub runtime: RuntimeCondition,
    /// `NetworkReady`.
    pub network: RuntimeCondition,
}

/// What CRI's Version answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeVersion {
    /// For example `containerd`.
    pub name: String,
    /// For example `1.6.20`.
    pub version: String,
}

/// An image on the node, for `node.status.images` and image collection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The runtime's image id.
    pub id: String,
    /// Tags and digests (digests first, as upstream lists them).
    pub names: Vec<String>,
    /// Bytes.
    pub size: u64,
    /// Never to be collected (the sandbox image).
    pub pinned: bool,
}

/// Used and total bytes and inodes of the file system that holds images.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageFsInfo {
    /// Where it is mounted or kept.
    pub mountpoint: String,
    /// Bytes used by images.
    pub used_bytes: u64,
    /// Inodes used by images.
    pub inodes_used: u64,
}

/// The role a container plays in its pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ContainerKind {
    /// An init container that must end before the next starts.
    Init,
    /// An init container with `restartPolicy: Always`.
    Sidecar,
    /// One of `spec.containers`.
    Regular,
}

/// What a container's start needs besides its own spec.
#[derive(Debug, Clone)]
pub struct PodContext {
    /// The pod as its source gave it.
    pub pod: Arc<Pod>,
    /// The sandbox to start in.
    pub sandbox_id: String,
    /// The pod's addresses (the node's with host network).
    pub pod_ips: Vec<IpAddr>,
    /// Volumes, already mounted.
    pub volumes: MountedVolumes,
}

/// Why a container didn't start; `reason` becomes `state.waiting.reason`, `message` its message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {message}")]
pub struct StartError {
    /// `ErrImagePull`, `ImagePullBackOff`, `CreateContainerConfigError`…
    pub reason: String,
    /// Upstream's text for it.
    pub message: String,
}

/// A call to the runtime that failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RuntimeError {
    /// The endpoint doesn't answer.
    #[error("container runtime is not reachable at {endpoint}: {message}")]
    Unreachable {
        /// What was dialled.
        endpoint: String,
        /// Why.
        message: String,
    },
    /// The runtime has no such sandbox, container or image.
    #[error("{0}")]
    NotFound(String),
    /// The call took longer than it may.
    #[error("{0}")]
    Timeout(String),
    /// Anything else, in the runtime's words.
    #[error("{0}")]
    Failed(String),
}

/// What `exec_sync` answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecSyncOutput {
    /// The command's exit code.
    pub exit_code: i32,
    /// What it wrote (bounded by the runtime).
    pub stdout: Vec<u8>,
    /// What it wrote to stderr.
    pub stderr: Vec<u8>,
}

/// Events of type Warning that came up: reason and message.
pub type Warnings = Vec<(&'static str, String)>;

/// Who drives the cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CgroupDriver {
    /// Plain directories.
    #[default]
    Cgroupfs,
    /// Slices and scopes.
    Systemd,
}

/// Everything the runtime side needs from the kubelet's configuration.
#[derive(Clone)]
pub struct RuntimeConfig {
    /// `--container-runtime-endpoint`, for example `unix:///run/containerd/containerd.sock`.
    pub endpoint: String,
    /// `--root-dir`.
    pub root_dir: PathBuf,
    /// `/var/log/pods` unless configured otherwise (`podLogsDir`).
    pub pod_logs_dir: PathBuf,
    /// `cgroupDriver`.
    pub cgroup_driver: CgroupDriver,
    /// `cgroupRoot` (empty: the root).
    pub cgroup_root: String,
    /// `cgroupsPerQOS`.
    pub cgroups_per_qos: bool,
    /// `clusterDNS`.
    pub cluster_dns: Vec<IpAddr>,
    /// `clusterDomain`.
    pub cluster_domain: String,
    /// `resolvConf`.
    pub resolv_conf: PathBuf,
    /// This node's name.
    pub node_name: String,
    /// The node's addresses (for `status.hostIP` in the downward API).
    pub node_ips: Vec<IpAddr>,
    /// `runtimeRequestTimeout`.
    pub request_timeout: Duration,
    /// `serializeImagePulls`.
    pub serialize_image_pulls: bool,
    /// `cpuCFSQuota`.
    pub cpu_cfs_quota: bool,
    /// `podPidsLimit`, when positive.
    pub pod_pids_limit: Option<i64>,
    /// The apiserver, when there is one (configMap and secret references; service environment).
    pub connection: Option<Connection>,
    /// Where `Pulling`, `Pulled`, `Created`, `Started`, `Killing`, `Failed`, `BackOff` go.
    pub recorder: Recorder,
}

impl std::fmt::Debug for RuntimeConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RuntimeConfig").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// The hash of a container's spec that decides whether a running container still matches it: upstream's idea
/// (`kubecontainer.HashContainer`), over the fields that can't change in a running container (name and image).
#[must_use]
pub fn spec_hash(container: &Container) -> String {
    use sha2::{Digest, Sha256};
    let mut hasher = Sha256::new();
    hasher.update(container.name.as_bytes());
    hasher.update([0]);
    hasher.update(container.image.as_deref().unwrap_or_default().as_bytes());
    let digest = hasher.finalize();
    digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}
