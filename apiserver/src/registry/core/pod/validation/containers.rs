//! Containers of a pod: init, main and ephemeral ones.

use std::collections::{BTreeMap, BTreeSet};

use apimachinery::validation::names::{is_dns1123_label, is_valid_port_name, is_valid_port_num, parse_ip};
use apimachinery::validation::{Error, ErrorList, Path};
use k8s_openapi::api::core::v1::{Container, ContainerPort, EphemeralContainer, PodSpec, VolumeMount};

use super::volumes::VolumeKind;
use super::{env, probes, resources, security};

/// The volumes that containers may mount, by name.
pub(super) type Volumes<'a> = BTreeMap<&'a str, VolumeKind>;

/// Validates every container of the spec.
pub(super) fn validate_all(spec: &PodSpec, volumes: &Volumes<'_>, path: &Path, errors: &mut ErrorList) {
    let containers = path.child("containers");
    if spec.containers.is_empty() {
        errors.push(Error::required(&containers, ""));
    }
    let mut names = BTreeSet::new();
    let grace = spec.termination_grace_period_seconds;
    for (i, container) in spec.containers.iter().enumerate() {
        let path = containers.index(i);
        validate_container(container, spec, volumes, &path, errors);
        unique_name(&container.name, &mut names, &path, errors);
        validate_restart_policy(container, &path, errors);
        probes::validate_lifecycle(container, grace, &path, errors);
        probes::validate_probes(container, &path, errors);
    }
    for (i, container) in spec.init_containers.iter().flatten().enumerate() {
        let path = path.child("initContainers").index(i);
        validate_container(container, spec, volumes, &path, errors);
        unique_name(&container.name, &mut names, &path, errors);
        validate_restart_policy(container, &path, errors);
        if container.restart_policy.as_deref() == Some("Always") {
            probes::validate_lifecycle(container, grace, &path, errors);
            probes::validate_probes(container, &path, errors);
        } else {
            for (field, set) in [
                ("lifecycle", container.lifecycle.is_some()),
                ("livenessProbe", container.liveness_probe.is_some()),
                ("readinessProbe", container.readiness_probe.is_some()),
                ("startupProbe", container.startup_probe.is_some()),
            ] {
                if set {
                    let detail = "may not be set for init containers without restartPolicy=Always";
                    errors.push(Error::forbidden(&path.child(field), detail));
                }
            }
        }
    }
    validate_host_ports(spec, path, errors);
    validate_ephemeral(spec, volumes, &mut names, &path.child("ephemeralContainers"), errors);
}

fn unique_name<'a>(name: &'a str, names: &mut BTreeSet<&'a str>, path: &Path, errors: &mut ErrorList) {
    if !name.is_empty() && !names.insert(name) {
        errors.push(Error::duplicate(&path.child("name"), name));
    }
}

fn validate_name(name: &str, path: &Path, errors: &mut ErrorList) {
    if name.is_empty() {
        errors.push(Error::required(&path.child("name"), ""));
        return;
    }
    for problem in is_dns1123_label(name) {
        errors.push(Error::invalid(&path.child("name"), name, problem));
    }
}

fn validate_image(image: Option<&str>, path: &Path, errors: &mut ErrorList) {
    let image = image.unwrap_or_default();
    if image.is_empty() {
        errors.push(Error::required(&path.child("image"), ""));
    } else if image.trim() != image {
        let detail = "must not have leading or trailing whitespace";
        errors.push(Error::invalid(&path.child("image"), image, detail));
    }
}

fn one_of(value: Option<&str>, all: &[&str], path: &Path, errors: &mut ErrorList) {
    match value.unwrap_or_default() {
        "" => errors.push(Error::required(path, "")),
        value if !all.contains(&value) => errors.push(Error::not_supported(path, value, all)),
        _ => {}
    }
}

fn validate_container(
    container: &Container,
    spec: &PodSpec,
    volumes: &Volumes<'_>,
    path: &Path,
    errors: &mut ErrorList,
) {
    validate_name(&container.name, path, errors);
    validate_image(container.image.as_deref(), path, errors);
    one_of(
        container.termination_message_policy.as_deref(),
        &["File", "FallbackToLogsOnError"],
        &path.child("terminationMessagePolicy"),
        errors,
    );
    one_of(
        container.image_pull_policy.as_deref(),
        &["Always", "IfNotPresent", "Never"],
        &path.child("imagePullPolicy"),
        errors,
    );
    validate_ports(container.ports.as_deref().unwrap_or_default(), &path.child("ports"), errors);
    env::validate_env(container.env.as_deref().unwrap_or_default(), &path.child("env"), errors);
    env::validate_env_from(container.env_from.as_deref().unwrap_or_default(), &path.child("envFrom"), errors);
    let privileged = container.security_context.as_ref().and_then(|s| s.privileged) == Some(true);
    let mounts = container.volume_mounts.as_deref().unwrap_or_default();
    let mut devices = BTreeSet::new();
    for (i, device) in container.volume_devices.iter().flatten().enumerate() {
        let path = path.child("volumeDevices").index(i);
        if device.name.is_empty() {
            errors.push(Error::required(&path.child("name"), ""));
        } else if volumes.get(device.name.as_str()).is_none_or(|v| *v != VolumeKind::Claim) {
            let detail =
                "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
            errors.push(Error::invalid(&path.child("name"), &device.name, detail));
        }
        if device.device_path.is_empty() {
            errors.push(Error::required(&path.child("devicePath"), ""));
        }
        devices.insert(device.name.as_str());
    }
    validate_mounts(mounts, volumes, &devices, privileged, &path.child("volumeMounts"), errors);
    if let Some(requirements) = &container.resources {
        resources::validate_container(requirements, &path.child("resources"), errors);
    }
    if let Some(context) = &container.security_context {
        let host_users = spec.host_users;
        security::validate_container_context(context, host_users, &path.child("securityContext"), errors);
    }
}

fn validate_restart_policy(container: &Container, path: &Path, errors: &mut ErrorList) {
    let all = ["Always", "OnFailure", "Never"];
    if let Some(policy) = container.restart_policy.as_deref()
        && !all.contains(&policy)
    {
        errors.push(Error::not_supported(&path.child("restartPolicy"), policy, &all));
    }
    let rules = container.restart_policy_rules.as_ref().is_some_and(|r| !r.is_empty());
    if rules && container.restart_policy.is_none() {
        let detail = "must specify restartPolicy when restart rules are used";
        errors.push(Error::required(&path.child("restartPolicy"), detail));
    }
}

fn validate_ports(ports: &[ContainerPort], path: &Path, errors: &mut ErrorList) {
    let mut names = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let path = path.index(i);
        if let Some(name) = port.name.as_deref().filter(|n| !n.is_empty()) {
            let problems = is_valid_port_name(name);
            if problems.is_empty() && !names.insert(name) {
                errors.push(Error::duplicate(&path.child("name"), name));
            }
            for problem in problems {
                errors.push(Error::invalid(&path.child("name"), name, problem));
            }
        }
        if port.container_port == 0 {
            errors.push(Error::required(&path.child("containerPort"), ""));
        } else {
            for problem in is_valid_port_num(port.container_port) {
                errors.push(Error::invalid(&path.child("containerPort"), port.container_port, problem));
            }
        }
        if let Some(host_port) = port.host_port.filter(|p| *p != 0) {
            for problem in is_valid_port_num(host_port) {
                errors.push(Error::invalid(&path.child("hostPort"), host_port, problem));
            }
        }
        one_of(port.protocol.as_deref(), &["SCTP", "TCP", "UDP"], &path.child("protocol"), errors);
        if let Some(ip) = port.host_ip.as_deref().filter(|ip| !ip.is_empty())
            && parse_ip(ip).is_none()
        {
            let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
            errors.push(Error::invalid(&path.child("hostIP"), ip, detail));
        }
    }
}

/// On the host's network a container's port is the host's port; and no two containers may take the same one.
fn validate_host_ports(spec: &PodSpec, path: &Path, errors: &mut ErrorList) {
    let mut taken = BTreeSet::new();
    for (i, container) in spec.containers.iter().enumerate() {
        for (j, port) in container.ports.iter().flatten().enumerate() {
            let path = path.child("containers").index(i).child("ports").index(j);
            let host_port = port.host_port.unwrap_or(0);
            if spec.host_network == Some(true) && host_port != 0 && host_port != port.container_port {
                let detail = "must match `hostPort` when `hostNetwork` is true";
                errors.push(Error::invalid(&path.child("containerPort"), port.container_port, detail));
            }
            let key = (port.protocol.as_deref(), port.host_ip.as_deref(), host_port);
            if host_port != 0 && !taken.insert(key) {
                let shown = format!(
                    "{}/{}/{host_port}",
                    port.protocol.as_deref().unwrap_or_default(),
                    port.host_ip.as_deref().unwrap_or_default()
                );
                errors.push(Error::duplicate(&path.child("hostPort"), shown));
            }
        }
    }
}

fn validate_mounts(
    mounts: &[VolumeMount],
    volumes: &Volumes<'_>,
    devices: &BTreeSet<&str>,
    privileged: bool,
    path: &Path,
    errors: &mut ErrorList,
) {
    let mut mount_paths = BTreeSet::new();
    for (i, mount) in mounts.iter().enumerate() {
        let path = path.index(i);
        if mount.name.is_empty() {
            errors.push(Error::required(&path.child("name"), ""));
        } else if !volumes.contains_key(mount.name.as_str()) {
            errors.push(Error::not_found(&path.child("name"), &mount.name));
        }
        if mount.mount_path.is_empty() {
            errors.push(Error::required(&path.child("mountPath"), ""));
        } else if !mount_paths.insert(&mount.mount_path) {
            errors.push(Error::invalid(&path.child("mountPath"), &mount.mount_path, "must be unique"));
        }
        if devices.contains(mount.name.as_str()) {
            let detail = "must not already exist in volumeDevices";
            errors.push(Error::invalid(&path.child("name"), &mount.name, detail));
        }
        let sub_path = mount.sub_path.as_deref().unwrap_or_default();
        let sub_path_expr = mount.sub_path_expr.as_deref().unwrap_or_default();
        validate_descending_path(sub_path, &path.child("subPath"), errors);
        validate_descending_path(sub_path_expr, &path.child("subPathExpr"), errors);
        if !sub_path.is_empty() && !sub_path_expr.is_empty() {
            let detail = "subPathExpr and subPath are mutually exclusive";
            errors.push(Error::invalid(&path.child("subPathExpr"), sub_path_expr, detail));
        }
        match mount.mount_propagation.as_deref() {
            None | Some("None" | "HostToContainer") => {}
            Some("Bidirectional") => {
                if !privileged {
                    let detail = "Bidirectional mount propagation is available only to privileged containers";
                    errors.push(Error::forbidden(&path.child("mountPropagation"), detail));
                }
            }
            Some(other) => {
                let all = ["Bidirectional", "HostToContainer", "None"];
                errors.push(Error::not_supported(&path.child("mountPropagation"), other, &all));
            }
        }
        if mount.recursive_read_only.as_deref().is_some_and(|r| r != "Disabled")
            && mount.read_only != Some(true)
        {
            let detail = "may only be specified when readOnly is true";
            errors.push(Error::forbidden(&path.child("recursiveReadOnly"), detail));
        }
    }
}

/// A relative path that stays below where it starts; empty is fine.
pub(super) fn validate_descending_path(value: &str, path: &Path, errors: &mut ErrorList) {
    if value.starts_with('/') {
        errors.push(Error::invalid(path, value, "must be a relative path"));
    }
    if value.split('/').any(|part| part == "..") {
        errors.push(Error::invalid(path, value, "must not contain '..'"));
    }
}

fn validate_ephemeral<'a>(
    spec: &'a PodSpec,
    volumes: &Volumes<'_>,
    names: &mut BTreeSet<&'a str>,
    path: &Path,
    errors: &mut ErrorList,
) {
    for (i, container) in spec.ephemeral_containers.iter().flatten().enumerate() {
        let path = path.index(i);
        validate_name(&container.name, &path, errors);
        unique_name(&container.name, names, &path, errors);
        validate_image(container.image.as_deref(), &path, errors);
        let target = container.target_container_name.as_deref().unwrap_or_default();
        let known = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        if !target.is_empty() && !known.into_iter().any(|c| c.name == target) {
            errors.push(Error::not_found(&path.child("targetContainerName"), target));
        }
        for (field, set) in not_for_ephemeral(container) {
            if set {
                let detail = "cannot be set for an Ephemeral Container";
                errors.push(Error::forbidden(&path.child(field), detail));
            }
        }
        env::validate_env(container.env.as_deref().unwrap_or_default(), &path.child("env"), errors);
        let mounts = container.volume_mounts.as_deref().unwrap_or_default();
        let privileged = container.security_context.as_ref().and_then(|s| s.privileged) == Some(true);
        let mounts_path = path.child("volumeMounts");
        validate_mounts(mounts, volumes, &BTreeSet::new(), privileged, &mounts_path, errors);
        for (i, mount) in mounts.iter().enumerate() {
            if mount.sub_path.as_ref().is_some_and(|s| !s.is_empty()) {
                let path = mounts_path.index(i).child("subPath");
                errors.push(Error::forbidden(&path, "cannot be set for an Ephemeral Container"));
            }
        }
    }
}

fn not_for_ephemeral(container: &EphemeralContainer) -> [(&'static str, bool); 7] {
    let has_resources = container.resources.as_ref().is_some_and(|r| {
        r.limits.as_ref().is_some_and(|l| !l.is_empty()) || r.requests.as_ref().is_some_and(|l| !l.is_empty())
    });
    [
        ("ports", container.ports.as_ref().is_some_and(|p| !p.is_empty())),
        ("livenessProbe", container.liveness_probe.is_some()),
        ("readinessProbe", container.readiness_probe.is_some()),
        ("startupProbe", container.startup_probe.is_some()),
        ("lifecycle", container.lifecycle.is_some()),
        ("resources", has_resources),
        ("restartPolicy", container.restart_policy.is_some()),
    ]
}
