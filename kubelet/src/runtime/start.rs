//! Starting a container: image, configuration, create, start, postStart. Every way to fail has upstream's reason, and
//! an event. Upstream's concept: `startContainer` in `kuberuntime_container.go`.

use std::collections::BTreeMap;
use std::fmt::Display;

use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, Secret};
use proto::runtime_v1 as v1;

use super::container::{ContainerInputs, container_config, log_path};
use super::labels::identity;
use super::mounts::{self, MountInputs};
use super::sandbox::pod_log_dir;
use super::types::{ContainerKind, PodContext, StartError};
use super::{Runtime, hooks, hosts_file, log_files};
use crate::container_env::{self, EnvInputs, Environment, field_ref::Capacity};
use crate::events::EventType;
use crate::images::credentials::{self, DockerConfig};

fn config_error(error: impl Display) -> StartError {
    StartError { reason: "CreateContainerConfigError".to_owned(), message: error.to_string() }
}

impl Runtime {
    fn warn_container(&self, pod: &Pod, container: &Container, reason: &str, message: &str) {
        self.config.recorder.container(pod, &container.name, EventType::Warning, reason, message);
    }

    /// Says in an event what will be in the status.
    fn failed(&self, pod: &Pod, container: &Container, error: StartError) -> StartError {
        self.warn_container(pod, container, "Failed", &format!("Error: {}", error.message));
        error
    }

    /// Pulls the image if the policy asks for it, creates and starts the container, runs postStart.
    pub async fn start_container(
        &self,
        context: &PodContext,
        container: &Container,
        kind: ContainerKind,
        attempt: u32,
    ) -> Result<String, StartError> {
        tracing::debug!(
            namespace = identity(&context.pod).namespace,
            name = identity(&context.pod).name,
            container = container.name,
            ?kind,
            attempt,
            "starting container"
        );
        let pod = context.pod.as_ref();
        let sandbox_config =
            self.sandbox_config_of(context).await.map_err(|e| self.failed(pod, container, e))?;
        let docker_configs = self.docker_configs(pod).await;
        let image = match self.images.ensure_image(pod, container, docker_configs, &sandbox_config).await {
            Ok(image) => image,
            Err(error) => {
                self.warn_container(pod, container, "Failed", &format!("Error: {}", error.reason));
                return Err(error);
            }
        };
        let config = self
            .prepare(context, container, attempt, &image.image)
            .await
            .map_err(|error| self.failed(pod, container, error))?;
        let created = self.cri.create_container(&context.sandbox_id, config, sandbox_config).await;
        let id = created.map_err(|error| {
            let reason = "CreateContainerError".to_owned();
            self.failed(pod, container, StartError { reason, message: error.message })
        })?;
        let event = |reason, message| {
            self.config.recorder.container(pod, &container.name, EventType::Normal, reason, message);
        };
        event("Created", "Container created");
        self.cri.start_container(&id).await.map_err(|error| {
            let reason = "RunContainerError".to_owned();
            self.failed(pod, container, StartError { reason, message: error.message })
        })?;
        event("Started", "Container started");
        self.link_log(pod, container, attempt, &id);
        self.post_start(context, container, &id).await?;
        Ok(id)
    }

    async fn sandbox_config_of(&self, context: &PodContext) -> Result<v1::PodSandboxConfig, StartError> {
        let status = self.cri.pod_sandbox_status(&context.sandbox_id).await.map_err(config_error)?;
        let attempt = status.metadata.map_or(0, |metadata| metadata.attempt);
        let (config, _) = self.sandbox_config(&context.pod, attempt).map_err(config_error)?;
        Ok(config)
    }

    /// Everything that must be there before the runtime is asked to create the container.
    async fn prepare(
        &self,
        context: &PodContext,
        container: &Container,
        attempt: u32,
        image: &v1::Image,
    ) -> Result<v1::ContainerConfig, StartError> {
        let pod = context.pod.as_ref();
        let id = identity(pod);
        let environment = self.environment(context, container).await?;
        for (reason, message) in &environment.warnings {
            self.warn_container(pod, container, reason, message);
        }
        let log_dir =
            pod_log_dir(&self.config.pod_logs_dir, id.namespace, id.name, id.uid).join(&container.name);
        std::fs::create_dir_all(&log_dir).map_err(|error| {
            config_error(format!(
                "create container log directory for container {} failed: {error}",
                container.name
            ))
        })?;
        let hosts = (!context.pod_ips.is_empty()).then(|| {
            // A node without the file has no names of its own to add.
            let host_file = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
            hosts_file::content(pod, &context.pod_ips, &self.config.cluster_domain, &host_file)
        });
        let pod_dir = mounts::pod_dir(&self.config.root_dir, id.uid);
        let inputs = MountInputs {
            pod_dir: &pod_dir,
            container,
            volumes: &context.volumes,
            env: &environment.variables,
            hosts: hosts.as_deref(),
        };
        let mounts = mounts::make(&inputs).map_err(config_error)?;
        container_config(ContainerInputs {
            pod,
            container,
            attempt,
            image,
            env: &environment.variables,
            mounts,
            root_dir: &self.config.root_dir,
            node: self.node,
        })
        .map_err(config_error)
    }

    async fn environment(
        &self,
        context: &PodContext,
        container: &Container,
    ) -> Result<Environment, StartError> {
        let pod = context.pod.as_ref();
        let references = container_env::references(container);
        let mut config_maps = BTreeMap::<String, ConfigMap>::new();
        let mut secrets = BTreeMap::<String, Secret>::new();
        let namespace = identity(pod).namespace;
        for name in references.config_maps {
            config_maps.extend(self.fetch::<ConfigMap>(namespace, &name).await?.map(|object| (name, object)));
        }
        for name in references.secrets {
            secrets.extend(self.fetch::<Secret>(namespace, &name).await?.map(|object| (name, object)));
        }
        let services = self.services.variables(pod).await.map_err(config_error)?;
        let inputs = EnvInputs {
            pod,
            pod_ips: &context.pod_ips,
            node_ips: &self.config.node_ips,
            node_capacity: Capacity { cpus: self.node.cpus, memory: self.node.memory },
            config_maps: &config_maps,
            secrets: &secrets,
            services: &services,
        };
        container_env::environment(container, &inputs).map_err(config_error)
    }

    /// An object that the environment refers to, as it is now; `None` when it doesn't exist.
    async fn fetch<K>(&self, namespace: &str, name: &str) -> Result<Option<K>, StartError>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned,
        K::DynamicType: Default,
    {
        let Some(connection) = &self.config.connection else {
            return Err(config_error(format!("{name:?} can't be read: the kubelet has no API server")));
        };
        let client = connection.client().clone();
        kube::Api::<K>::namespaced(client, namespace).get_opt(name).await.map_err(|error| match error {
            kube::Error::Api(status) => config_error(status.message),
            other => config_error(format!("failed to sync {name:?}: {other}")),
        })
    }

    /// The registries' credentials of a pod's imagePullSecrets and of the node. What can't be read is left out, with
    /// an event: the image may be public, or here already.
    async fn docker_configs(&self, pod: &Pod) -> Vec<DockerConfig> {
        let mut configs = Vec::new();
        let node_config = self.config.root_dir.join("config.json");
        match std::fs::read(&node_config) {
            Ok(bytes) => match credentials::parse_config_json(&bytes) {
                Ok(config) => configs.push(config),
                Err(error) => tracing::warn!(path = %node_config.display(), %error, "docker config not used"),
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(path = %node_config.display(), %error, "docker config not read"),
        }
        let mut missing = Vec::new();
        let secrets = pod.spec.as_ref().and_then(|s| s.image_pull_secrets.as_deref()).unwrap_or_default();
        for reference in secrets {
            match self.fetch::<Secret>(identity(pod).namespace, &reference.name).await {
                Ok(Some(secret)) => match credentials::from_secret(&secret) {
                    Ok(config) => configs.push(config),
                    Err(error) => tracing::warn!(name = reference.name, %error, "image pull secret not used"),
                },
                Ok(None) | Err(_) => missing.push(reference.name.as_str()),
            }
        }
        if !missing.is_empty() {
            let message = format!(
                "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
                missing.join(", ")
            );
            self.config.recorder.pod(pod, EventType::Warning, "FailedToRetrieveImagePullSecret", &message);
        }
        configs
    }

    fn link_log(&self, pod: &Pod, container: &Container, attempt: u32, container_id: &str) {
        let id = identity(pod);
        let pods = &self.config.pod_logs_dir;
        let log = pod_log_dir(pods, id.namespace, id.name, id.uid).join(log_path(&container.name, attempt));
        if let Err(error) =
            log_files::make_link(pods, (id.namespace, id.name), &container.name, container_id, &log)
        {
            // Only collectors of logs use it.
            tracing::warn!(namespace = id.namespace, name = id.name, %error, "log not linked");
        }
    }

    async fn post_start(
        &self,
        context: &PodContext,
        container: &Container,
        id: &str,
    ) -> Result<(), StartError> {
        let Some(handler) = container.lifecycle.as_ref().and_then(|l| l.post_start.as_ref()) else {
            return Ok(());
        };
        let pod_ip = context.pod_ips.first().copied();
        let Err(error) = hooks::run(&self.cri, handler, container, id, pod_ip).await else { return Ok(()) };
        let pod = context.pod.as_ref();
        self.warn_container(pod, container, "FailedPostStartHook", "PostStartHook failed");
        let grace = pod.spec.as_ref().and_then(|s| s.termination_grace_period_seconds).unwrap_or(30);
        let why = format!("Container {} failed its postStart hook and is being killed", container.name);
        if let Err(error) = self.kill_container(pod, id, &container.name, grace, &why).await {
            tracing::error!(container = container.name, %error, "container with a failed hook not killed");
        }
        Err(StartError { reason: "PostStartHookError".to_owned(), message: error.to_string() })
    }
}
