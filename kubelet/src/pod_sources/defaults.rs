//! The API's defaults for a manifest, which has not passed the apiserver. Upstream's concept: `pkg/apis/core/v1/defaults.go`.

use k8s_openapi::api::core::v1::{Container, PodSpec, Probe, Volume};

const DEFAULT_MODE: i32 = 0o644;
const DEFAULT_TOKEN_EXPIRATION_SECONDS: i64 = 3600;

fn default<T>(field: &mut Option<T>, value: T) {
    field.get_or_insert(value);
}

/// Fills in what the manifest leaves out.
pub(super) fn apply(spec: &mut PodSpec) {
    default(&mut spec.dns_policy, "ClusterFirst".to_owned());
    default(&mut spec.restart_policy, "Always".to_owned());
    default(&mut spec.scheduler_name, "default-scheduler".to_owned());
    default(&mut spec.termination_grace_period_seconds, 30);
    default(&mut spec.enable_service_links, true);
    spec.security_context.get_or_insert_default();
    let host_network = spec.host_network.unwrap_or(false);
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        default_container(container, host_network);
    }
    for volume in spec.volumes.iter_mut().flatten() {
        default_volume(volume);
    }
}

fn default_container(container: &mut Container, host_network: bool) {
    default(&mut container.termination_message_path, "/dev/termination-log".to_owned());
    default(&mut container.termination_message_policy, "File".to_owned());
    if container.image_pull_policy.is_none() {
        let image = container.image.as_deref().unwrap_or_default();
        let policy = if uses_latest(image) { "Always" } else { "IfNotPresent" };
        container.image_pull_policy = Some(policy.to_owned());
    }
    for port in container.ports.iter_mut().flatten() {
        default(&mut port.protocol, "TCP".to_owned());
        if host_network {
            port.host_port.get_or_insert(port.container_port);
        }
    }
    let probes =
        [&mut container.liveness_probe, &mut container.readiness_probe, &mut container.startup_probe];
    for probe in probes.into_iter().flatten() {
        default_probe(probe);
    }
    for env in container.env.iter_mut().flatten() {
        if let Some(field) = env.value_from.as_mut().and_then(|from| from.field_ref.as_mut()) {
            default(&mut field.api_version, "v1".to_owned());
        }
    }
    // A limit without a request is a request too.
    if let Some(resources) = container.resources.as_mut()
        && let Some(limits) = resources.limits.clone()
    {
        let requests = resources.requests.get_or_insert_default();
        for (name, quantity) in limits {
            requests.entry(name).or_insert(quantity);
        }
    }
}

/// No tag and no digest, or the tag `latest`.
fn uses_latest(image: &str) -> bool {
    if image.contains('@') {
        return false;
    }
    let name = image.rsplit('/').next().unwrap_or(image);
    name.split_once(':').is_none_or(|(_, tag)| tag == "latest")
}

fn default_probe(probe: &mut Probe) {
    default(&mut probe.timeout_seconds, 1);
    default(&mut probe.period_seconds, 10);
    default(&mut probe.success_threshold, 1);
    default(&mut probe.failure_threshold, 3);
    if let Some(get) = probe.http_get.as_mut() {
        default(&mut get.path, "/".to_owned());
        default(&mut get.scheme, "HTTP".to_owned());
    }
}

fn default_volume(volume: &mut Volume) {
    let has_source = serde_json::to_value(&*volume)
        .ok()
        .and_then(|value| value.as_object().map(|map| map.len() > 1))
        .unwrap_or(true);
    if !has_source {
        volume.empty_dir.get_or_insert_default();
    }
    if let Some(host_path) = volume.host_path.as_mut() {
        default(&mut host_path.type_, String::new());
    }
    if let Some(downward) = volume.downward_api.as_mut() {
        default(&mut downward.default_mode, DEFAULT_MODE);
    }
    if let Some(projected) = volume.projected.as_mut() {
        default(&mut projected.default_mode, DEFAULT_MODE);
        for source in projected.sources.iter_mut().flatten() {
            if let Some(token) = source.service_account_token.as_mut() {
                default(&mut token.expiration_seconds, DEFAULT_TOKEN_EXPIRATION_SECONDS);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pull_policy_follows_the_tag() {
        let cases = [
            ("busybox", true),
            ("busybox:latest", true),
            ("registry:5000/busybox", true),
            ("busybox:1.36", false),
            ("registry:5000/busybox:1", false),
            ("busybox@sha256:abc", false),
        ];
        for (image, latest) in cases {
            assert_eq!(uses_latest(image), latest, "{image}");
        }
    }

    #[test]
    fn a_volume_without_a_source_is_an_empty_dir() {
        let mut volume = Volume { name: "data".to_owned(), ..Default::default() };
        default_volume(&mut volume);
        assert!(volume.empty_dir.is_some());
    }
}
