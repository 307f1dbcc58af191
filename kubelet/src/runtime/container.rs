//! The configuration of a container, as a pure function of its spec and what was prepared for it. Upstream's concept:
//! `generateContainerConfig` in `kuberuntime_container.go`.

use std::collections::BTreeMap;
use std::path::Path;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use proto::runtime_v1 as v1;

use super::labels::{container_annotations, container_labels, identity};
use super::resources::{NodeResources, container_resources};
use super::security::{ImageUser, SecurityError, container_context};
use crate::container_env::expansion::expand;

/// What was prepared for a container.
#[derive(Debug)]
pub struct ContainerInputs<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// The container's spec.
    pub container: &'a Container,
    /// The attempt, which is the restart count.
    pub attempt: u32,
    /// The image to create from.
    pub image: &'a v1::Image,
    /// The environment.
    pub env: &'a BTreeMap<String, String>,
    /// Mounts, subpaths resolved.
    pub mounts: Vec<v1::Mount>,
    /// `--root-dir`.
    pub root_dir: &'a Path,
    /// The node's resources.
    pub node: NodeResources,
}

/// A container's log below its pod's directory of logs.
#[must_use]
pub fn log_path(container: &str, attempt: u32) -> String {
    format!("{container}/{attempt}.log")
}

/// The configuration, or why the container can't run as it asks to.
pub fn container_config(inputs: ContainerInputs<'_>) -> Result<v1::ContainerConfig, SecurityError> {
    let ContainerInputs { pod, container, attempt, image, env, mounts, root_dir, node } = inputs;
    let empty = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&empty);
    let id = identity(pod);
    let place = format!("pod: \"{}_{}({})\", container: {}", id.name, id.namespace, id.uid, container.name);
    let security = container_context(spec, container, &ImageUser::of(image), root_dir, &place)?;
    let look_up = |name: &str| env.get(name).cloned();
    let expanded =
        |list: &Option<Vec<String>>| list.iter().flatten().map(|text| expand(text, look_up)).collect();
    Ok(v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata { name: container.name.clone(), attempt }),
        image: Some(v1::ImageSpec {
            image: image.id.clone(),
            user_specified_image: container.image.clone().unwrap_or_default(),
            ..Default::default()
        }),
        command: expanded(&container.command),
        args: expanded(&container.args),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        envs: env
            .iter()
            .map(|(key, value)| v1::KeyValue { key: key.clone(), value: value.clone() })
            .collect(),
        mounts,
        labels: container_labels(pod, container),
        annotations: container_annotations(pod, container, attempt),
        log_path: log_path(&container.name, attempt),
        stdin: container.stdin.unwrap_or(false),
        stdin_once: container.stdin_once.unwrap_or(false),
        tty: container.tty.unwrap_or(false),
        linux: Some(v1::LinuxContainerConfig {
            resources: Some(container_resources(pod, container, node)),
            security_context: Some(security),
        }),
        ..Default::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroups::Version;
    use serde_json::json;

    #[test]
    fn commands_are_expanded() {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u"},
            "spec": {"containers": [{"name": "c", "image": "busybox", "command": ["sh", "-c", "$(A)"],
                     "args": ["$(NONE)", "$$(A)"], "tty": true}]}}))
            .unwrap();
        let env = BTreeMap::from([("A".to_owned(), "echo a".to_owned())]);
        let image = v1::Image { id: "sha256:1".to_owned(), username: "www".to_owned(), ..Default::default() };
        let got = container_config(ContainerInputs {
            pod: &pod,
            container: &pod.spec.as_ref().unwrap().containers[0],
            attempt: 2,
            image: &image,
            env: &env,
            mounts: Vec::new(),
            root_dir: Path::new("/var/lib/kubelet"),
            node: NodeResources { cpus: 1, memory: 1 << 30, cgroup_version: Version::V1, cfs_quota: true },
        })
        .unwrap();
        assert_eq!(got.command, ["sh", "-c", "echo a"]);
        assert_eq!(got.args, ["$(NONE)", "$(A)"]);
        assert_eq!(got.log_path, "c/2.log");
        assert_eq!(got.image.unwrap().image, "sha256:1");
        assert!(got.tty);
        assert_eq!(got.linux.unwrap().security_context.unwrap().run_as_username, "www");
    }
}
