//! Volumes of pods: mounted before containers start, refreshed while they run, unmounted when the pod is gone.
//!
//! Upstream's concept: `pkg/kubelet/volumemanager` (one owner instead of a reconciler between two worlds).

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use apimachinery::quantity::parse_k8s;
use k8s_openapi::api::core::v1::{Pod, ProjectedVolumeSource, Volume};
use parking_lot::Mutex;

pub mod atomic_writer;
pub mod directory;
pub mod objects;
pub mod payload;
pub mod subpath;
pub mod tokens;

use crate::cgroups::name::is_plain_uid;
use crate::container_env::field_ref::Capacity;
use crate::runtime::resources;
use atomic_writer::{FileProjection, Payload};
use objects::{ObjectCache, ObjectError};
use payload::DownwardInputs;
use tokens::TokenManager;

const DEFAULT_MODE: i32 = 0o644;

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

/// What was last written to a pod's volumes: a hash by volume, so that a sync with nothing due touches no file.
type Written = Arc<tokio::sync::Mutex<HashMap<String, u64>>>;

#[derive(Debug)]
struct Shared {
    config: VolumeConfig,
    objects: ObjectCache,
    tokens: TokenManager,
    pods: Mutex<HashMap<String, Written>>,
    capacity: Capacity,
}

/// Mounts and unmounts; cheap to clone.
#[derive(Debug, Clone)]
pub struct VolumeManager {
    shared: Arc<Shared>,
}

/// A pod's directory of one plugin's volume, as upstream lays it out.
#[must_use]
pub fn volume_path(root_dir: &Path, uid: &str, plugin: &str, volume: &str) -> PathBuf {
    root_dir.join("pods").join(uid).join("volumes").join(format!("kubernetes.io~{plugin}")).join(volume)
}

/// The user of all containers, if they agree on one: tokens are then his.
fn common_user(pod: &Pod) -> Option<u32> {
    let spec = pod.spec.as_ref()?;
    let of_pod = spec.security_context.as_ref().and_then(|c| c.run_as_user);
    let mut users = apimachinery::pod::all_containers(pod)
        .map(|c| c.security_context.as_ref().and_then(|s| s.run_as_user).or(of_pod));
    let first = users.next()??;
    users.all(|user| user == Some(first)).then(|| u32::try_from(first).ok())?
}

fn fs_group(pod: &Pod) -> Option<u32> {
    let group = pod.spec.as_ref()?.security_context.as_ref()?.fs_group?;
    u32::try_from(group).ok()
}

/// The kind of a volume that no plugin here knows, by its field's name.
fn unsupported(volume: &Volume) -> String {
    let fields = serde_json::to_value(volume).ok();
    let kind = fields
        .as_ref()
        .and_then(|fields| fields.as_object())
        .and_then(|fields| fields.keys().find(|key| *key != "name"))
        .map_or("none", String::as_str);
    match kind {
        "gitRepo" => "git volume plugin is disabled".to_owned(),
        kind => format!("no volume plugin matched: volumes of type {kind} are not supported"),
    }
}

fn fingerprint(payload: &Payload, group: Option<u32>) -> u64 {
    let mut hasher = DefaultHasher::new();
    for (path, file) in payload {
        (path, &file.data, file.mode, file.owner).hash(&mut hasher);
    }
    group.hash(&mut hasher);
    hasher.finish()
}

impl VolumeManager {
    /// A manager with nothing mounted yet.
    #[must_use]
    pub fn new(config: VolumeConfig) -> Self {
        let memory = resources::node_memory().unwrap_or_else(|error| {
            tracing::warn!(%error, "node's memory not read, the downward API shows none");
            0
        });
        let cpus = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
        Self {
            shared: Arc::new(Shared {
                objects: ObjectCache::new(config.client.clone()),
                config,
                tokens: TokenManager::default(),
                pods: Mutex::default(),
                capacity: Capacity { cpus, memory },
            }),
        }
    }

    /// The configuration it runs with.
    #[must_use]
    pub fn config(&self) -> &VolumeConfig {
        &self.shared.config
    }

    /// Mounts what is missing and rewrites what changed (configMap, secret, projected, downwardAPI, tokens before
    /// they expire). The pod worker calls it in every sync, so it must be cheap when nothing is due.
    /// `pod_ips` feeds downward API volumes and may be empty on the first call.
    pub async fn ensure_mounted(&self, pod: &Pod) -> Result<MountedVolumes, VolumeError> {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let written = self.shared.pods.lock().entry(uid.clone()).or_default().clone();
        // One sync of a pod at a time.
        let mut written = written.lock().await;
        let mut mounted = BTreeMap::new();
        for volume in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
            let failed = |message: String| VolumeError { volume: volume.name.clone(), message };
            let plain_name = is_plain_uid(&volume.name);
            if !is_plain_uid(&uid) || !plain_name {
                return Err(failed(format!("unusable pod uid {uid:?} or volume name {:?}", volume.name)));
            }
            let done = self.mount(pod, &uid, volume, &mut written).await.map_err(failed)?;
            mounted.insert(volume.name.clone(), done);
        }
        Ok(MountedVolumes(Arc::new(mounted)))
    }

    async fn mount(
        &self,
        pod: &Pod,
        uid: &str,
        volume: &Volume,
        written: &mut HashMap<String, u64>,
    ) -> Result<MountedVolume, String> {
        let root_dir = &self.shared.config.root_dir;
        let path = |plugin| volume_path(root_dir, uid, plugin, &volume.name);
        if let Some(source) = &volume.host_path {
            let host_path = PathBuf::from(&source.path);
            directory::check_host_path(&host_path, source.type_.as_deref().unwrap_or_default())?;
            return Ok(MountedVolume { host_path, read_only: false });
        }
        if let Some(source) = &volume.empty_dir {
            let host_path = path("empty-dir");
            let memory = match source.medium.as_deref().unwrap_or_default() {
                "" => false,
                "Memory" => true,
                other => return Err(format!("emptyDir medium {other:?} is not supported")),
            };
            let size = source.size_limit.as_ref().and_then(|q| parse_k8s(q).ok()).map(|q| q.value());
            let size = size.filter(|size| *size > 0).map(i64::unsigned_abs);
            let group = fs_group(pod);
            let prepare = || -> std::io::Result<()> {
                directory::empty_dir(&host_path, memory, size)?;
                match group {
                    // Its content is the pod's own: only a fresh directory needs to be given away.
                    Some(group) if !directory::belongs_to_group(&host_path, group)? => {
                        directory::give_to_group(&host_path, group, false)
                    }
                    _ => Ok(()),
                }
            };
            prepare().map_err(|error| format!("{}: {error}", host_path.display()))?;
            return Ok(MountedVolume { host_path, read_only: false });
        }
        let (plugin, memory) = if volume.config_map.is_some() {
            ("configmap", false)
        } else if volume.secret.is_some() {
            ("secret", true)
        } else if volume.downward_api.is_some() {
            ("downward-api", true)
        } else if volume.projected.is_some() {
            ("projected", true)
        } else {
            return Err(unsupported(volume));
        };
        let files = self.files(pod, volume).await?;
        let host_path = path(plugin);
        write_files(&host_path, memory, &files, fs_group(pod), written.get(&volume.name).copied())?;
        written.insert(volume.name.clone(), fingerprint(&files, fs_group(pod)));
        Ok(MountedVolume { host_path, read_only: true })
    }

    /// The files that a volume must hold now.
    async fn files(&self, pod: &Pod, volume: &Volume) -> Result<Payload, String> {
        let text = |error: payload::PayloadError| error.to_string();
        let mode = |mode: Option<i32>| payload::mode(mode.unwrap_or(DEFAULT_MODE)).map_err(text);
        if let Some(source) = &volume.config_map {
            return self
                .config_map(
                    pod,
                    &source.name,
                    source.items.as_deref(),
                    mode(source.default_mode)?,
                    source.optional,
                )
                .await;
        }
        if let Some(source) = &volume.secret {
            let name = source.secret_name.as_deref().unwrap_or_default();
            return self
                .secret(pod, name, source.items.as_deref(), mode(source.default_mode)?, source.optional)
                .await;
        }
        if let Some(source) = &volume.downward_api {
            return self.downward(pod, source.items.as_deref(), mode(source.default_mode)?);
        }
        match &volume.projected {
            Some(source) => self.projected(pod, source, mode(source.default_mode)?).await,
            None => Err(unsupported(volume)),
        }
    }

    async fn config_map(
        &self,
        pod: &Pod,
        name: &str,
        items: Option<&[k8s_openapi::api::core::v1::KeyToPath]>,
        mode: u32,
        optional: Option<bool>,
    ) -> Result<Payload, String> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let optional = optional.unwrap_or(false);
        let object = existing(self.shared.objects.config_map(namespace, name).await, optional)?;
        payload::config_map(object.as_deref(), items, mode, optional).map_err(|error| error.to_string())
    }

    async fn secret(
        &self,
        pod: &Pod,
        name: &str,
        items: Option<&[k8s_openapi::api::core::v1::KeyToPath]>,
        mode: u32,
        optional: Option<bool>,
    ) -> Result<Payload, String> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let optional = optional.unwrap_or(false);
        let object = existing(self.shared.objects.secret(namespace, name).await, optional)?;
        payload::secret(object.as_deref(), items, mode, optional).map_err(|error| error.to_string())
    }

    fn downward(
        &self,
        pod: &Pod,
        items: Option<&[k8s_openapi::api::core::v1::DownwardAPIVolumeFile]>,
        mode: u32,
    ) -> Result<Payload, String> {
        let pod_ips: Vec<IpAddr> = pod
            .status
            .iter()
            .flat_map(|status| status.pod_ips.iter().flatten())
            .filter_map(|ip| ip.ip.parse().ok())
            .collect();
        let inputs = DownwardInputs {
            pod,
            pod_ips: &pod_ips,
            node_ips: &self.shared.config.node_ips,
            node_capacity: self.shared.capacity,
        };
        payload::downward_api(items.unwrap_or_default(), mode, &inputs).map_err(|error| error.to_string())
    }

    async fn projected(
        &self,
        pod: &Pod,
        source: &ProjectedVolumeSource,
        mode: u32,
    ) -> Result<Payload, String> {
        let mut all = Payload::new();
        for source in source.sources.iter().flatten() {
            let files = if let Some(s) = &source.config_map {
                self.config_map(pod, &s.name, s.items.as_deref(), mode, s.optional).await?
            } else if let Some(s) = &source.secret {
                self.secret(pod, &s.name, s.items.as_deref(), mode, s.optional).await?
            } else if let Some(s) = &source.downward_api {
                self.downward(pod, s.items.as_deref(), mode)?
            } else if let Some(s) = &source.service_account_token {
                let token = self.shared.tokens.token(self.shared.objects.client(), pod, s).await;
                let token = token.map_err(|error| error.to_string())?;
                let owner = common_user(pod);
                // Group ownership, where there is a group, adds its own permissions afterwards.
                let mode = if owner.is_some() || fs_group(pod).is_some() { 0o600 } else { mode };
                Payload::from([(s.path.clone(), FileProjection { data: token.into_bytes(), mode, owner })])
            } else {
                return Err(
                    "projected volume sources clusterTrustBundle and podCertificate are not supported"
                        .to_owned(),
                );
            };
            payload::merge(&mut all, files).map_err(|error| error.to_string())?;
        }
        Ok(all)
    }

    /// Unmounts and removes everything of a pod whose containers are all gone (idempotent), its directory under
    /// `pods/UID` included.
    pub async fn unmount_pod(&self, uid: &str) -> Result<(), VolumeError> {
        if !is_plain_uid(uid) {
            return Ok(());
        }
        let directory = self.shared.config.root_dir.join("pods").join(uid);
        let held = self.shared.pods.lock().get(uid).cloned();
        let guard = match &held {
            Some(written) => Some(written.lock().await),
            None => None,
        };
        let removed = tokio::task::spawn_blocking(move || {
            subpath::unmount_all(&directory)?;
            directory::remove_with_mounts(&directory)
        })
        .await;
        drop(guard);
        let failed = |message: String| VolumeError { volume: uid.to_owned(), message };
        match removed {
            Ok(result) => result.map_err(|error| failed(error.to_string()))?,
            Err(error) => return Err(failed(error.to_string())),
        }
        self.shared.pods.lock().remove(uid);
        self.shared.tokens.forget(uid);
        Ok(())
    }

    /// The uids of pods that still have a directory under `pods/`, for the clean-up of pods the kubelet no longer knows.
    pub async fn pods_on_disk(&self) -> Vec<String> {
        let directory = self.shared.config.root_dir.join("pods");
        let mut uids = Vec::new();
        match tokio::fs::read_dir(&directory).await {
            Ok(mut entries) => {
                while let Ok(Some(entry)) = entries.next_entry().await {
                    uids.extend(entry.file_name().into_string().ok());
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(path = %directory.display(), %error, "pods' directories not listed"),
        }
        uids
    }
}

/// An object, or none where it is optional and doesn't exist.
fn existing<K>(object: Result<Arc<K>, ObjectError>, optional: bool) -> Result<Option<Arc<K>>, String> {
    match object {
        Ok(object) => Ok(Some(object)),
        Err(ObjectError::NotFound { .. }) if optional => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// Brings a volume's directory to hold these files, unless it was last written with the same ones.
fn write_files(
    host_path: &Path,
    memory: bool,
    files: &Payload,
    group: Option<u32>,
    written: Option<u64>,
) -> Result<(), String> {
    if written == Some(fingerprint(files, group)) && host_path.exists() {
        return Ok(());
    }
    let failed = |error: std::io::Error| format!("{}: {error}", host_path.display());
    directory::make(host_path, 0o777).map_err(failed)?;
    if memory {
        directory::mount_memory(host_path, None).map_err(failed)?;
    }
    let finish = |fresh: &Path| group.map_or(Ok(()), |group| directory::give_to_group(fresh, group, true));
    atomic_writer::write(host_path, files, finish).map_err(|error| error.to_string())?;
    Ok(())
}
