//! The container runtime as the rest of the kubelet sees it: pod sandboxes, containers and images over CRI.
//!
//! This module turns a pod's spec into CRI requests and CRI answers into plain values. It decides nothing about
//! *when* something must start or stop (that is `compute_actions`) and keeps no state besides image-pull back-off.
//! Upstream's concept: `pkg/kubelet/kuberuntime`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::node::v1::RuntimeClass;
use proto::runtime_v1 as v1;

pub mod container;
pub mod dns;
mod hooks;
pub mod hosts_file;
mod kill;
pub mod labels;
pub mod log_files;
pub mod mounts;
mod observe;
pub mod resources;
pub mod sandbox;
pub mod security;
mod service_source;
mod start;
mod termination;
mod types;

pub use types::*;

use crate::cgroups::{CgroupConfig, CgroupManager};
use crate::cri;
use crate::events::EventType;
use crate::images::ImageManager;
use dns::DnsInputs;
use resources::NodeResources;
use sandbox::{SandboxError, SandboxInputs, sandbox_config};
use service_source::ServiceSource;

/// A handle on the container runtime; cheap to clone.
#[derive(Debug, Clone)]
pub struct Runtime {
    config: Arc<RuntimeConfig>,
    cri: cri::Client,
    images: Arc<ImageManager>,
    cgroups: Arc<CgroupManager>,
    services: ServiceSource,
    node: NodeResources,
}

impl Runtime {
    /// Connects (lazily: a runtime that is down shows in the calls and in [`Runtime::conditions`]) and makes the
    /// cgroups that pods' cgroups go into. Must be called inside a tokio runtime.
    pub fn connect(config: RuntimeConfig) -> Result<Self, RuntimeError> {
        let socket = cri::socket_path(&config.endpoint).map_err(|error| RuntimeError::Unreachable {
            endpoint: config.endpoint.clone(),
            message: error.to_string(),
        })?;
        let failed = |what: &str, error: std::io::Error| RuntimeError::Failed(format!("{what}: {error}"));
        let cgroups = CgroupManager::detect(&CgroupConfig {
            driver: config.cgroup_driver,
            root: config.cgroup_root.clone(),
            per_qos: config.cgroups_per_qos,
            pids_limit: config.pod_pids_limit,
            cfs_quota: config.cpu_cfs_quota,
        })
        .map_err(|error| failed("failed to find the cgroup mounts", error))?;
        let node = NodeResources {
            cpus: std::thread::available_parallelism().map_or(1, |n| n.get() as u64),
            memory: resources::node_memory()
                .map_err(|error| failed("failed to read the node's memory", error))?,
            cgroup_version: cgroups.version(),
            cfs_quota: config.cpu_cfs_quota,
        };
        cgroups
            .ensure_qos_tree(node.cpus, node.memory)
            .map_err(|error| RuntimeError::Failed(component_base::error_chain::Chain(&error).to_string()))?;
        let cri = cri::Client::new(&socket, config.request_timeout);
        let images = ImageManager::new(cri.clone(), config.recorder.clone(), config.serialize_image_pulls);
        Ok(Self {
            services: ServiceSource::start(config.connection.clone()),
            config: Arc::new(config),
            cri,
            images: Arc::new(images),
            cgroups: Arc::new(cgroups),
            node,
        })
    }

    /// The configuration it runs with.
    #[must_use]
    pub fn config(&self) -> &RuntimeConfig {
        &self.config
    }

    /// The CRI client, for streaming and statistics.
    #[must_use]
    pub fn cri(&self) -> &cri::Client {
        &self.cri
    }

    /// The cgroups above containers.
    #[must_use]
    pub fn cgroups(&self) -> &CgroupManager {
        &self.cgroups
    }

    /// The node's processors and memory, as pods' resources are judged by.
    #[must_use]
    pub fn node_resources(&self) -> NodeResources {
        self.node
    }

    fn error(&self, error: cri::Error) -> RuntimeError {
        observe::runtime_error(&self.config.endpoint, error)
    }

    /// CRI Version.
    pub async fn version(&self) -> Result<RuntimeVersion, RuntimeError> {
        let version = self.cri.version().await.map_err(|e| self.error(e))?;
        Ok(RuntimeVersion { name: version.runtime_name, version: version.runtime_version })
    }

    /// CRI Status. A condition that the runtime doesn't report doesn't hold.
    pub async fn conditions(&self) -> Result<RuntimeConditions, RuntimeError> {
        let status = self.cri.status().await.map_err(|e| self.error(e))?;
        let mut conditions = status.status.unwrap_or_default().conditions;
        let mut take = |name: &str| match conditions.iter().position(|c| c.r#type == name) {
            Some(index) => {
                let found = conditions.swap_remove(index);
                RuntimeCondition { status: found.status, reason: found.reason, message: found.message }
            }
            None => RuntimeCondition {
                message: format!("{name} is not reported by the runtime"),
                ..RuntimeCondition::default()
            },
        };
        Ok(RuntimeConditions { runtime: take("RuntimeReady"), network: take("NetworkReady") })
    }

    /// Every pod on the node, cheaply.
    pub async fn list_pods(&self) -> Result<Vec<RuntimePodSummary>, RuntimeError> {
        let (sandboxes, containers) = futures::future::try_join(
            self.cri.list_pod_sandbox(HashMap::new()),
            self.cri.list_containers(HashMap::new()),
        )
        .await
        .map_err(|e| self.error(e))?;
        Ok(observe::summarise(sandboxes, containers))
    }

    /// All of one pod, by uid. An unknown pod has no sandboxes and no containers.
    pub async fn pod_status(
        &self,
        uid: &str,
        name: &str,
        namespace: &str,
    ) -> Result<RuntimePodStatus, RuntimeError> {
        observe::pod_status(&self.cri, uid, name, namespace).await.map_err(|e| self.error(e))
    }

    /// A pod's sandbox configuration and the warnings that came up. Reads the host's resolv.conf.
    fn sandbox_config(
        &self,
        pod: &Pod,
        attempt: u32,
    ) -> Result<(v1::PodSandboxConfig, Warnings), SandboxError> {
        let path = &self.config.resolv_conf;
        let resolv_conf = (!path.as_os_str().is_empty()).then(|| {
            std::fs::read_to_string(path).unwrap_or_else(|error| {
                tracing::warn!(path = %path.display(), %error, "resolv.conf not read, pods get no nameserver of the node");
                String::new()
            })
        });
        sandbox_config(
            pod,
            attempt,
            &SandboxInputs {
                pod_logs_dir: &self.config.pod_logs_dir,
                dns: DnsInputs {
                    cluster_dns: &self.config.cluster_dns,
                    cluster_domain: &self.config.cluster_domain,
                    host_resolv_conf: resolv_conf.as_deref(),
                },
                cgroup_parent: &self.cgroups.pod_cgroup_parent(pod),
                node: self.node,
            },
        )
    }

    /// The runtime's handler for a pod's runtimeClassName; the default one is "".
    async fn runtime_handler(&self, pod: &Pod) -> Result<String, RuntimeError> {
        let name = pod.spec.as_ref().and_then(|s| s.runtime_class_name.as_deref()).unwrap_or_default();
        if name.is_empty() {
            return Ok(String::new());
        }
        let Some(connection) = &self.config.connection else {
            return Err(RuntimeError::Failed(format!(
                "RuntimeClass {name:?} can't be read without an API server"
            )));
        };
        match kube::Api::<RuntimeClass>::all(connection.client().clone()).get_opt(name).await {
            Ok(Some(class)) => Ok(class.handler),
            Ok(None) => Err(RuntimeError::Failed(format!("RuntimeClass {name:?} not found"))),
            Err(error) => Err(RuntimeError::Failed(format!("failed to get RuntimeClass {name:?}: {error}"))),
        }
    }

    /// Creates and starts a sandbox, cgroups and log directory included.
    pub async fn create_sandbox(&self, pod: &Pod, attempt: u32) -> Result<String, RuntimeError> {
        let (config, warnings) =
            self.sandbox_config(pod, attempt).map_err(|error| RuntimeError::Failed(error.to_string()))?;
        for (reason, message) in warnings {
            self.config.recorder.pod(pod, EventType::Warning, reason, &message);
        }
        let handler = self.runtime_handler(pod).await?;
        self.cgroups
            .ensure_pod(pod)
            .map_err(|error| RuntimeError::Failed(component_base::error_chain::Chain(&error).to_string()))?;
        std::fs::create_dir_all(&config.log_directory).map_err(|error| {
            RuntimeError::Failed(format!("failed to create log directory {}: {error}", config.log_directory))
        })?;
        self.cri.run_pod_sandbox(config, handler).await.map_err(|e| self.error(e))
    }

    /// CRI StopPodSandbox (idempotent).
    pub async fn stop_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        match self.cri.stop_pod_sandbox(id).await {
            Err(error) if !error.is_not_found() => Err(self.error(error)),
            _ => Ok(()),
        }
    }

    /// CRI RemovePodSandbox (idempotent).
    pub async fn remove_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        match self.cri.remove_pod_sandbox(id).await {
            Err(error) if !error.is_not_found() => Err(self.error(error)),
            _ => Ok(()),
        }
    }

    /// Runs a command in a container (exec probes).
    pub async fn exec_sync(
        &self,
        container_id: &str,
        command: &[String],
        timeout: Duration,
    ) -> Result<ExecSyncOutput, RuntimeError> {
        let output = self.cri.exec_sync(container_id, command, timeout).await.map_err(|e| self.error(e))?;
        Ok(ExecSyncOutput { exit_code: output.exit_code, stdout: output.stdout, stderr: output.stderr })
    }

    /// CRI UpdateRuntimeConfig.
    pub async fn set_pod_cidr(&self, cidr: &str) -> Result<(), RuntimeError> {
        self.cri.set_pod_cidr(cidr).await.map_err(|e| self.error(e))
    }

    /// CRI ListImages.
    pub async fn list_images(&self) -> Result<Vec<Image>, RuntimeError> {
        let images = self.cri.list_images().await.map_err(|e| self.error(e))?;
        let image = |image: v1::Image| Image {
            id: image.id,
            names: image.repo_digests.into_iter().chain(image.repo_tags).collect(),
            size: image.size,
            pinned: image.pinned,
        };
        Ok(images.into_iter().map(image).collect())
    }

    /// CRI ImageFsInfo.
    pub async fn image_fs_info(&self) -> Result<ImageFsInfo, RuntimeError> {
        let info = self.cri.image_fs_info().await.map_err(|e| self.error(e))?;
        let first = info.image_filesystems.into_iter().next().unwrap_or_default();
        Ok(ImageFsInfo {
            mountpoint: first.fs_id.map(|id| id.mountpoint).unwrap_or_default(),
            used_bytes: first.used_bytes.map_or(0, |v| v.value),
            inodes_used: first.inodes_used.map_or(0, |v| v.value),
        })
    }
}
