//! The mounts of one container: its volumes (subpaths resolved under the volume's root), the managed /etc/hosts and
//! the file for its last words. Upstream's concept: `makeMounts` in `kubelet_pods.go`.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, VolumeMount};
use proto::runtime_v1 as v1;

use crate::container_env::expansion::expand;
use crate::volumes::{MountedVolume, MountedVolumes, subpath};

const ETC_HOSTS: &str = "/etc/hosts";

/// Why a container's mounts can't be made; the text of a CreateContainerConfigError.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// No such volume in the pod.
    #[error("cannot find volume {volume:?} to mount into container {container:?}")]
    NoVolume {
        /// The volume.
        volume: String,
        /// The container.
        container: String,
    },
    /// A subPathExpr with a variable that isn't set.
    #[error("missing value for {0:?}")]
    Unexpanded(String),
    /// A subPath that can't be resolved below its volume.
    #[error("failed to prepare subPath for volumeMount {volume:?} of container {container:?}: {source}")]
    SubPath {
        /// The volume.
        volume: String,
        /// The container.
        container: String,
        /// Why.
        source: subpath::SubPathError,
    },
    /// recursiveReadOnly that can't be had.
    #[error("failed to resolve recursive read-only mode: {0}")]
    RecursiveReadOnly(&'static str),
    /// mountPropagation that isn't one.
    #[error("unknown mountPropagation {0:?}")]
    Propagation(String),
    /// A file of the kubelet's own.
    #[error("failed to write {path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Where a pod's things are kept.
#[must_use]
pub fn pod_dir(root_dir: &Path, uid: &str) -> PathBuf {
    root_dir.join("pods").join(uid)
}

/// What mounts are made from.
#[derive(Debug, Clone, Copy)]
pub struct MountInputs<'a> {
    /// [`pod_dir`].
    pub pod_dir: &'a Path,
    /// The container.
    pub container: &'a Container,
    /// The pod's volumes.
    pub volumes: &'a MountedVolumes,
    /// The container's environment, for subPathExpr.
    pub env: &'a BTreeMap<String, String>,
    /// The content of /etc/hosts, unless the pod has no address yet.
    pub hosts: Option<&'a str>,
}

fn propagation(mount: &VolumeMount) -> Result<v1::MountPropagation, MountError> {
    match mount.mount_propagation.as_deref() {
        None | Some("" | "None") => Ok(v1::MountPropagation::PropagationPrivate),
        Some("HostToContainer") => Ok(v1::MountPropagation::PropagationHostToContainer),
        Some("Bidirectional") => Ok(v1::MountPropagation::PropagationBidirectional),
        Some(other) => Err(MountError::Propagation(other.to_owned())),
    }
}

/// The sub path to use, after expansion; empty means the whole volume.
fn sub_path(mount: &VolumeMount, env: &BTreeMap<String, String>) -> Result<String, MountError> {
    match (mount.sub_path.as_deref(), mount.sub_path_expr.as_deref()) {
        (_, Some(expression)) if !expression.is_empty() => {
            let mut unset = None;
            let expanded = expand(expression, |name| {
                let value = env.get(name).cloned();
                if value.is_none() {
                    unset = Some(name.to_owned());
                }
                value
            });
            unset.map_or(Ok(expanded), |name| Err(MountError::Unexpanded(name)))
        }
        (Some(path), _) => Ok(path.to_owned()),
        _ => Ok(String::new()),
    }
}

fn volume_mount(
    inputs: &MountInputs<'_>,
    index: usize,
    mount: &VolumeMount,
    volume: &MountedVolume,
) -> Result<v1::Mount, MountError> {
    let container = &inputs.container.name;
    if mount.recursive_read_only.as_deref() == Some("Enabled") {
        return Err(MountError::RecursiveReadOnly("runtime does not support recursive read-only mounts"));
    }
    let sub_path = sub_path(mount, inputs.env)?;
    let host_path = if sub_path.is_empty() {
        volume.host_path.clone()
    } else {
        let target = subpath::bind_target(inputs.pod_dir, &mount.name, container, index);
        subpath::bind(&volume.host_path, &sub_path, &target).map_err(|source| MountError::SubPath {
            volume: mount.name.clone(),
            container: container.clone(),
            source,
        })?;
        target
    };
    let container_path = if mount.mount_path.starts_with('/') {
        mount.mount_path.clone()
    } else {
        format!("/{}", mount.mount_path)
    };
    Ok(v1::Mount {
        container_path,
        host_path: host_path.to_string_lossy().into_owned(),
        readonly: mount.read_only.unwrap_or(false) || volume.read_only,
        propagation: propagation(mount)?.into(),
        ..Default::default()
    })
}

fn file_error(path: &Path) -> impl FnOnce(io::Error) -> MountError + '_ {
    move |source| MountError::File { path: path.to_owned(), source }
}

/// An empty file that any user of the container may write its last words to.
fn termination_log(directory: &Path) -> Result<PathBuf, MountError> {
    fs::create_dir_all(directory).map_err(file_error(directory))?;
    let id: String = uuid::Uuid::new_v4().simple().to_string().chars().take(8).collect();
    let path = directory.join(id);
    let file =
        OpenOptions::new().write(true).create_new(true).mode(0o666).open(&path).map_err(file_error(&path))?;
    // The mode above went through the umask.
    file.set_permissions(fs::Permissions::from_mode(0o666)).map_err(file_error(&path))?;
    Ok(path)
}

fn write_hosts(path: &Path, content: &str) -> Result<(), MountError> {
    if fs::read_to_string(path).is_ok_and(|current| current == content) {
        return Ok(());
    }
    // In place: a rename would leave running containers with the old file mounted.
    fs::write(path, content).map_err(file_error(path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).map_err(file_error(path))
}

/// Makes a container's mounts, and the files that they need.
pub fn make(inputs: &MountInputs<'_>) -> Result<Vec<v1::Mount>, MountError> {
    let container = inputs.container;
    let mut mounts = Vec::new();
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let volume = inputs.volumes.0.get(&mount.name).ok_or_else(|| MountError::NoVolume {
            volume: mount.name.clone(),
            container: container.name.clone(),
        })?;
        mounts.push(volume_mount(inputs, index, mount, volume)?);
    }
    let taken = |path: &str, mounts: &[v1::Mount]| {
        mounts.iter().any(|m| m.container_path.trim_end_matches('/') == path)
    };
    fs::create_dir_all(inputs.pod_dir).map_err(file_error(inputs.pod_dir))?;
    let own = |container_path: &str, host_path: &Path| v1::Mount {
        container_path: container_path.to_owned(),
        host_path: host_path.to_string_lossy().into_owned(),
        ..Default::default()
    };
    if let Some(content) = inputs.hosts
        && !taken(ETC_HOSTS, &mounts)
    {
        let path = inputs.pod_dir.join("etc-hosts");
        write_hosts(&path, content)?;
        mounts.push(own(ETC_HOSTS, &path));
    }
    let message_path = container.termination_message_path.as_deref().unwrap_or("/dev/termination-log");
    if !message_path.is_empty() && !taken(message_path, &mounts) {
        let path = termination_log(&inputs.pod_dir.join("containers").join(&container.name))?;
        mounts.push(own(message_path, &path));
    }
    Ok(mounts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::sync::Arc;

    fn mounts(container: serde_json::Value) -> Result<Vec<v1::Mount>, MountError> {
        let dir = tempfile::tempdir().unwrap();
        let container: Container = serde_json::from_value(container).unwrap();
        let volume = MountedVolume { host_path: dir.path().join("v"), read_only: true };
        let volumes = MountedVolumes(Arc::new(BTreeMap::from([("v".to_owned(), volume)])));
        let env = BTreeMap::from([("A".to_owned(), "a".to_owned())]);
        make(&MountInputs {
            pod_dir: dir.path(),
            container: &container,
            volumes: &volumes,
            env: &env,
            hosts: Some("127.0.0.1 localhost\n"),
        })
    }

    #[test]
    fn volumes_hosts_and_last_words() {
        let got = mounts(json!({"name": "c", "volumeMounts": [{"name": "v", "mountPath": "data", "mountPropagation": "HostToContainer"}]})).unwrap();
        let paths: Vec<_> = got.iter().map(|m| m.container_path.as_str()).collect();
        assert_eq!(paths, ["/data", "/etc/hosts", "/dev/termination-log"]);
        assert!(got[0].readonly);
        assert_eq!(got[0].propagation(), v1::MountPropagation::PropagationHostToContainer);
        let own =
            mounts(json!({"name": "c", "volumeMounts": [{"name": "v", "mountPath": "/etc/hosts"}]})).unwrap();
        assert_eq!(own.len(), 2);
    }

    #[test]
    fn refusals() {
        for (mount, text) in [
            (json!({"name": "none", "mountPath": "/x"}), "cannot find volume \"none\""),
            (json!({"name": "v", "mountPath": "/x", "subPathExpr": "$(NONE)"}), "missing value for \"NONE\""),
            (json!({"name": "v", "mountPath": "/x", "recursiveReadOnly": "Enabled"}), "recursive read-only"),
            (json!({"name": "v", "mountPath": "/x", "mountPropagation": "Odd"}), "mountPropagation"),
        ] {
            let message = mounts(json!({"name": "c", "volumeMounts": [mount]})).unwrap_err().to_string();
            assert!(message.contains(text), "{message}");
        }
    }
}
