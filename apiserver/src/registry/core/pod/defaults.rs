//! Defaulting of pod specs, shared by pods and by every kind that carries a pod template
//! (upstream `SetDefaults_PodSpec`, `SetDefaults_Container`, `SetDefaults_Probe`, … and the
//! normalisation that upstream's conversion to its internal type makes on the way).
//!
//! What admission fills in (priority, default tolerations, service account) is not here.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Container, DownwardAPIVolumeFile, EnvVar, HTTPGetAction, Lifecycle, Pod, PodSpec, PodTemplateSpec, Probe,
    ResourceRequirements, Volume,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// The mode that files of configMap, secret, projected and downwardAPI volumes get.
const DEFAULT_MODE: i32 = 0o644;

/// Defaults of a pod: those of its spec, and those that templates don't get.
pub(crate) fn set_pod_defaults(pod: &mut Pod) {
    let spec = pod.spec.get_or_insert_default();
    set_pod_spec_defaults(spec);
    spec.enable_service_links.get_or_insert(true);
    let host_network = spec.host_network == Some(true);
    for container in all_containers(spec) {
        requests_from_limits(container.resources.as_mut());
        if host_network {
            for port in container.ports.iter_mut().flatten() {
                if port.host_port.is_none_or(|p| p == 0) {
                    port.host_port = Some(port.container_port);
                }
            }
        }
    }
    pod_level_requests(spec);
}

/// Defaults of a pod template in any workload kind.
pub(crate) fn set_pod_template_defaults(template: &mut PodTemplateSpec) {
    set_pod_spec_defaults(template.spec.get_or_insert_default());
}

/// Defaults that pods and templates share.
pub(crate) fn set_pod_spec_defaults(spec: &mut PodSpec) {
    set_if_empty(&mut spec.dns_policy, "ClusterFirst");
    set_if_empty(&mut spec.restart_policy, "Always");
    set_if_empty(&mut spec.scheduler_name, "default-scheduler");
    spec.termination_grace_period_seconds.get_or_insert(30);
    spec.security_context.get_or_insert_default();
    normalise_pod_spec(spec);
    for volume in spec.volumes.iter_mut().flatten() {
        set_volume_defaults(volume);
    }
    for container in all_containers(spec) {
        set_container_defaults(container);
    }
    for c in spec.ephemeral_containers.iter_mut().flatten() {
        if is_empty(c.image_pull_policy.as_ref()) {
            c.image_pull_policy = Some(pull_policy_for(c.image.as_deref().unwrap_or_default()));
        }
        set_if_empty(&mut c.termination_message_path, "/dev/termination-log");
        set_if_empty(&mut c.termination_message_policy, "File");
        set_env_defaults(c.env.as_mut());
        canonicalise_resources(c.resources.as_mut());
    }
    canonicalise_resources(spec.resources.as_mut());
    canonicalise(spec.overhead.as_mut());
}

/// What upstream's conversion does: the deprecated `serviceAccount` mirrors `serviceAccountName`,
/// and booleans and strings that are omitted when empty are absent.
fn normalise_pod_spec(spec: &mut PodSpec) {
    drop_empty(&mut spec.service_account_name);
    drop_empty(&mut spec.service_account);
    if spec.service_account_name.is_none() {
        spec.service_account_name = spec.service_account.take();
    }
    spec.service_account.clone_from(&spec.service_account_name);
    for flag in [&mut spec.host_network, &mut spec.host_pid, &mut spec.host_ipc] {
        if *flag == Some(false) {
            *flag = None;
        }
    }
    for text in [&mut spec.node_name, &mut spec.hostname, &mut spec.subdomain, &mut spec.priority_class_name]
    {
        drop_empty(text);
    }
}

fn all_containers(spec: &mut PodSpec) -> impl Iterator<Item = &mut Container> {
    spec.init_containers.iter_mut().flatten().chain(spec.containers.iter_mut())
}

fn set_container_defaults(container: &mut Container) {
    if is_empty(container.image_pull_policy.as_ref()) {
        let image = container.image.as_deref().unwrap_or_default();
        container.image_pull_policy = Some(pull_policy_for(image));
    }
    set_if_empty(&mut container.termination_message_path, "/dev/termination-log");
    set_if_empty(&mut container.termination_message_policy, "File");
    for port in container.ports.iter_mut().flatten() {
        set_if_empty(&mut port.protocol, "TCP");
    }
    set_env_defaults(container.env.as_mut());
    let probes =
        [&mut container.liveness_probe, &mut container.readiness_probe, &mut container.startup_probe];
    probes.into_iter().flatten().for_each(set_probe_defaults);
    if let Some(lifecycle) = &mut container.lifecycle {
        set_lifecycle_defaults(lifecycle);
    }
    canonicalise_resources(container.resources.get_or_insert_default().into());
}

fn set_env_defaults(env: Option<&mut Vec<EnvVar>>) {
    for source in env.into_iter().flatten().filter_map(|e| e.value_from.as_mut()) {
        if let Some(field) = &mut source.field_ref {
            set_if_empty(&mut field.api_version, "v1");
        }
        if let Some(resource) = &mut source.resource_field_ref {
            resource.divisor.get_or_insert_with(zero);
        }
        if let Some(file) = &mut source.file_key_ref {
            file.optional.get_or_insert(false);
        }
    }
}

fn set_probe_defaults(probe: &mut Probe) {
    for (field, default) in [
        (&mut probe.timeout_seconds, 1),
        (&mut probe.period_seconds, 10),
        (&mut probe.success_threshold, 1),
        (&mut probe.failure_threshold, 3),
    ] {
        if field.is_none_or(|v| v == 0) {
            *field = Some(default);
        }
    }
    if probe.initial_delay_seconds == Some(0) {
        probe.initial_delay_seconds = None;
    }
    if let Some(http) = &mut probe.http_get {
        set_http_get_defaults(http);
    }
    if let Some(grpc) = &mut probe.grpc {
        grpc.service.get_or_insert_default();
    }
}

fn set_lifecycle_defaults(lifecycle: &mut Lifecycle) {
    for handler in [&mut lifecycle.post_start, &mut lifecycle.pre_stop] {
        if let Some(http) = handler.as_mut().and_then(|h| h.http_get.as_mut()) {
            set_http_get_defaults(http);
        }
    }
}

fn set_http_get_defaults(http: &mut HTTPGetAction) {
    set_if_empty(&mut http.path, "/");
    set_if_empty(&mut http.scheme, "HTTP");
}

fn set_volume_defaults(volume: &mut Volume) {
    if let Some(source) = &mut volume.secret {
        source.default_mode.get_or_insert(DEFAULT_MODE);
    }
    if let Some(source) = &mut volume.config_map {
        source.default_mode.get_or_insert(DEFAULT_MODE);
    }
    if let Some(source) = &mut volume.downward_api {
        source.default_mode.get_or_insert(DEFAULT_MODE);
        set_downward_items_defaults(source.items.as_mut());
    }
    if let Some(source) = &mut volume.projected {
        source.default_mode.get_or_insert(DEFAULT_MODE);
        for projection in source.sources.iter_mut().flatten() {
            if let Some(token) = &mut projection.service_account_token {
                token.expiration_seconds.get_or_insert(3600);
            }
            if let Some(downward) = &mut projection.downward_api {
                set_downward_items_defaults(downward.items.as_mut());
            }
        }
    }
    if let Some(source) = &mut volume.host_path {
        source.type_.get_or_insert_default();
    }
    if let Some(source) = &mut volume.image
        && is_empty(source.pull_policy.as_ref())
    {
        let image = source.reference.as_deref().unwrap_or_default();
        source.pull_policy = Some(pull_policy_for(image));
    }
    if let Some(template) = volume.ephemeral.as_mut().and_then(|e| e.volume_claim_template.as_mut()) {
        set_if_empty(&mut template.spec.volume_mode, "Filesystem");
    }
    if let Some(source) = &mut volume.empty_dir {
        drop_empty(&mut source.medium);
        if let Some(limit) = &mut source.size_limit {
            canonicalise_quantity(limit);
        }
    }
    set_legacy_volume_defaults(volume);
    if has_no_source(volume) {
        volume.empty_dir.get_or_insert_default();
    }
}

fn set_legacy_volume_defaults(volume: &mut Volume) {
    if let Some(source) = &mut volume.iscsi {
        set_if_empty(&mut source.iscsi_interface, "default");
    }
    if let Some(source) = &mut volume.rbd {
        set_if_empty(&mut source.pool, "rbd");
        set_if_empty(&mut source.user, "admin");
        set_if_empty(&mut source.keyring, "/etc/ceph/keyring");
    }
    if let Some(source) = &mut volume.azure_disk {
        set_if_empty(&mut source.caching_mode, "ReadWrite");
        set_if_empty(&mut source.kind, "Shared");
        set_if_empty(&mut source.fs_type, "ext4");
        source.read_only.get_or_insert(false);
    }
    if let Some(source) = &mut volume.scale_io {
        set_if_empty(&mut source.storage_mode, "ThinProvisioned");
        set_if_empty(&mut source.fs_type, "xfs");
    }
}

/// A volume that names no source is an emptyDir.
fn has_no_source(volume: &Volume) -> bool {
    let named_only = Volume { name: volume.name.clone(), ..Volume::default() };
    *volume == named_only
}

fn set_downward_items_defaults(items: Option<&mut Vec<DownwardAPIVolumeFile>>) {
    for item in items.into_iter().flatten() {
        if let Some(field) = &mut item.field_ref {
            set_if_empty(&mut field.api_version, "v1");
        }
        if let Some(resource) = &mut item.resource_field_ref {
            resource.divisor.get_or_insert_with(zero);
        }
    }
}

/// The pull policy of an image whose container names none: `:latest` is pulled always.
fn pull_policy_for(image: &str) -> String {
    let (name, digest) = match image.split_once('@') {
        Some((name, _)) => (name, true),
        None => (image, false),
    };
    let last = name.rsplit('/').next().unwrap_or(name);
    let tag = last.split_once(':').map(|(_, tag)| tag);
    let latest = tag == Some("latest") || (tag.is_none() && !digest);
    if latest { "Always" } else { "IfNotPresent" }.to_owned()
}

/// A resource that is limited and not requested is requested at its limit.
fn requests_from_limits(resources: Option<&mut ResourceRequirements>) {
    let Some(resources) = resources else { return };
    let Some(limits) = &resources.limits else {
        return;
    };
    let requests = resources.requests.get_or_insert_default();
    for (name, limit) in limits {
        requests.entry(name.clone()).or_insert_with(|| limit.clone());
    }
}

/// Pod-level requests: what is limited at pod level and requested nowhere is requested at the limit.
fn pod_level_requests(spec: &mut PodSpec) {
    let requested: Vec<String> = spec
        .containers
        .iter()
        .filter_map(|c| c.resources.as_ref()?.requests.as_ref())
        .flat_map(|r| r.keys().cloned())
        .collect();
    let Some(resources) = &mut spec.resources else {
        return;
    };
    let Some(limits) = &resources.limits else {
        return;
    };
    let missing: Vec<_> = limits
        .iter()
        .filter(|(name, _)| !requested.contains(name))
        .map(|(name, limit)| (name.clone(), limit.clone()))
        .collect();
    if missing.is_empty() {
        return;
    }
    let requests = resources.requests.get_or_insert_default();
    for (name, limit) in missing {
        requests.entry(name).or_insert(limit);
    }
}

/// Quantities are kept in canonical form ("0.5" is "500m"); what does not parse is left for
/// validation to refuse.
pub(crate) fn canonicalise(list: Option<&mut BTreeMap<String, Quantity>>) {
    for quantity in list.into_iter().flat_map(BTreeMap::values_mut) {
        canonicalise_quantity(quantity);
    }
}

/// See [`canonicalise`].
pub(crate) fn canonicalise_quantity(quantity: &mut Quantity) {
    if let Ok(parsed) = apimachinery::quantity::Quantity::parse(&quantity.0) {
        quantity.0 = parsed.to_string();
    }
}

fn canonicalise_resources(resources: Option<&mut ResourceRequirements>) {
    if let Some(resources) = resources {
        canonicalise(resources.limits.as_mut());
        canonicalise(resources.requests.as_mut());
    }
}

fn zero() -> Quantity {
    Quantity("0".to_owned())
}

fn is_empty(text: Option<&String>) -> bool {
    text.is_none_or(String::is_empty)
}

/// Sets a string field that is absent or empty.
pub(crate) fn set_if_empty(field: &mut Option<String>, default: &str) {
    if is_empty(field.as_ref()) {
        *field = Some(default.to_owned());
    }
}

/// An empty string is an absent one, as upstream's `omitempty` has it.
pub(crate) fn drop_empty(field: &mut Option<String>) {
    if field.as_ref().is_some_and(String::is_empty) {
        *field = None;
    }
}
