//! Where a Keelson node keeps its files, and the addresses and names that every part of `up` and `down` agrees on.
//!
//! The paths below /etc/kubernetes, /var/lib/kubelet and /var/lib/etcd are kubeadm's; what kubeadm has no name for
//! lies below /var/lib/keelson and /run/keelson.

use std::path::{Path, PathBuf};

pub(crate) const KUBERNETES: &str = "/etc/kubernetes";
pub(crate) const PKI: &str = "/etc/kubernetes/pki";
pub(crate) const STATIC_PODS: &str = "/etc/kubernetes/manifests";
pub(crate) const ADMIN_CONF: &str = "/etc/kubernetes/admin.conf";
pub(crate) const KUBELET_ROOT: &str = "/var/lib/kubelet";
pub(crate) const KUBELET_CONFIG: &str = "/var/lib/kubelet/config.yaml";
pub(crate) const ETCD_DATA: &str = "/var/lib/etcd";

pub(crate) const STATE: &str = "/var/lib/keelson";
pub(crate) const BIN: &str = "/var/lib/keelson/bin";
pub(crate) const JOURNAL: &str = "/var/lib/keelson/journal.json";
pub(crate) const KNOWN_LAYERS: &str = "/var/lib/keelson/layers.json";
pub(crate) const RUN: &str = "/run/keelson";
pub(crate) const LOGS: &str = "/var/log/keelson";
pub(crate) const POD_LOGS: &str = "/var/log/pods";
pub(crate) const CONTAINER_LOGS: &str = "/var/log/containers";

pub(crate) const CONTAINERD_CONFIG: &str = "/var/lib/keelson/containerd.toml";
pub(crate) const CONTAINERD_ROOT: &str = "/var/lib/keelson/containerd";
pub(crate) const CONTAINERD_STATE: &str = "/run/keelson/containerd";
pub(crate) const CONTAINERD_SOCKET: &str = "/run/keelson/containerd/containerd.sock";
pub(crate) const CNI_CONF: &str = "/etc/cni/net.d";
pub(crate) const CNI_BIN: &str = "/usr/lib/cni";
/// The file that the pod-network daemon writes into [`CNI_CONF`].
pub(crate) const CNI_CONF_FILE: &str = "10-keelson.conflist";

pub(crate) const SERVICE_CIDR: &str = "10.96.0.0/12";
pub(crate) const POD_CIDR: &str = "10.244.0.0/16";
/// The first address of the service CIDR: the Service `kubernetes`.
pub(crate) const KUBERNETES_SERVICE_IP: &str = "10.96.0.1";
pub(crate) const APISERVER_PORT: u16 = 6443;

/// Name of the context, cluster and user entries in the caller's kubeconfig.
pub(crate) const CONTEXT: &str = "keelson";

/// The root of the source tree.
pub(crate) fn workspace() -> PathBuf {
    // Cargo sets the variable when it runs this program; the constant serves a binary started by hand.
    let manifest =
        std::env::var("CARGO_MANIFEST_DIR").unwrap_or_else(|_| env!("CARGO_MANIFEST_DIR").to_owned());
    let manifest = PathBuf::from(manifest);
    manifest.parent().map_or(manifest.clone(), Path::to_path_buf)
}

/// The directory of templates, add-ons and examples.
pub(crate) fn manifests() -> PathBuf {
    workspace().join("manifests")
}
