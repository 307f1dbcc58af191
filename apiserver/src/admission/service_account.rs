//! ServiceAccount: a pod runs as an existing account, and gets its token, the cluster's root certificate and its namespace as
//! files at the well-known place.
//!
//! The annotation `kubernetes.io/enforce-mountable-secrets` is not honoured. Upstream: `plugin/pkg/admission/serviceaccount`.

use std::sync::Arc;
use std::time::Duration;

use apimachinery::status::ApiError;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{
    ConfigMapProjection, Container, DownwardAPIProjection, DownwardAPIVolumeFile, KeyToPath,
    ObjectFieldSelector, Pod, PodSpec, ProjectedVolumeSource, ServiceAccount as Account,
    ServiceAccountTokenProjection, Volume, VolumeMount, VolumeProjection,
};

use super::{Attributes, Operation, Plugin};
use crate::authn::token_request::POD_TOKEN_SECONDS;
use crate::lookup::{self, Lookup};
use crate::registry::ResourceInfo;

const DEFAULT: &str = "default";
const MIRROR_POD: &str = "kubernetes.io/config.mirror";
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";

/// How often, and how long apart, a new namespace's default account is waited for.
const ATTEMPTS: u32 = 10;
const RETRY: Duration = Duration::from_millis(100);

/// The plugin.
#[derive(Debug)]
pub struct ServiceAccount {
    lookup: Arc<dyn Lookup>,
    retry: Duration,
}

impl ServiceAccount {
    /// Reads accounts from `lookup`.
    pub fn new(lookup: Arc<dyn Lookup>) -> Self {
        Self { lookup, retry: RETRY }
    }

    /// The account; the default one is waited for, since a controller makes it just after the namespace.
    async fn account(&self, namespace: &str, name: &str) -> Result<Option<Arc<Account>>, ApiError> {
        let attempts = if name == DEFAULT { ATTEMPTS } else { 1 };
        for attempt in 1..=attempts {
            let account = lookup::get::<Account>(&self.lookup, namespace, name).await?;
            if account.is_some() || attempt == attempts {
                return Ok(account);
            }
            tokio::time::sleep(self.retry).await;
        }
        Ok(None)
    }

    async fn admit_pod(&self, attributes: &mut Attributes<'_>) -> Result<(), ApiError> {
        let namespace = attributes.namespace.to_owned();
        let Some(pod) = attributes.new_mut::<Pod>() else { return Ok(()) };
        if is_mirror(pod) {
            // The kubelet made it, and nothing may be added to it.
            return Ok(());
        }
        let spec = pod.spec.get_or_insert_default();
        if spec.service_account_name.as_ref().is_none_or(String::is_empty) {
            let old_name = spec.service_account.clone().filter(|name| !name.is_empty());
            spec.service_account_name = Some(old_name.unwrap_or_else(|| DEFAULT.to_owned()));
        }
        spec.service_account.clone_from(&spec.service_account_name);
        let name = spec.service_account_name.clone().unwrap_or_default();
        let Some(account) = self.account(&namespace, &name).await? else {
            return Err(attributes.forbidden(&format!(
                "error looking up service account {namespace}/{name}: serviceaccount {name:?} not found"
            )));
        };
        if let Some(spec) = attributes.new_mut::<Pod>().and_then(|pod| pod.spec.as_mut()) {
            apply(spec, &account, || format!("{VOLUME_PREFIX}{}", apimachinery::meta::generate_name("")));
        }
        Ok(())
    }
}

fn is_mirror(pod: &Pod) -> bool {
    pod.metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(MIRROR_POD))
}

/// Gives the pod what its account provides.
fn apply(spec: &mut PodSpec, account: &Account, new_volume_name: impl Fn() -> String) {
    let automount =
        spec.automount_service_account_token.or(account.automount_service_account_token).unwrap_or(true);
    if automount {
        mount_token(spec, new_volume_name);
    }
    if spec.image_pull_secrets.as_ref().is_none_or(Vec::is_empty) {
        spec.image_pull_secrets.clone_from(&account.image_pull_secrets);
    }
}

fn mount_token(spec: &mut PodSpec, new_volume_name: impl Fn() -> String) {
    let volumes = spec.volumes.as_deref().unwrap_or_default();
    let existing =
        volumes.iter().find(|volume| volume.name.starts_with(VOLUME_PREFIX)).map(|v| v.name.clone());
    let is_new = existing.is_none();
    let taken = |name: &String| volumes.iter().any(|volume| volume.name == *name);
    let name = existing.unwrap_or_else(|| {
        let mut name = new_volume_name();
        while taken(&name) {
            name = new_volume_name();
        }
        name
    });
    let mut needed = false;
    let init = spec.init_containers.iter_mut().flatten();
    for container in init.chain(spec.containers.iter_mut()) {
        needed |= mount(container, &name);
    }
    if needed && is_new {
        spec.volumes.get_or_insert_default().push(volume(name));
    }
}

/// Mounts the volume unless something is mounted there already.
fn mount(container: &mut Container, volume: &str) -> bool {
    let mounts = container.volume_mounts.get_or_insert_default();
    if mounts.iter().any(|mount| mount.mount_path == MOUNT_PATH) {
        return false;
    }
    mounts.push(VolumeMount {
        name: volume.to_owned(),
        mount_path: MOUNT_PATH.to_owned(),
        read_only: Some(true),
        ..VolumeMount::default()
    });
    true
}

fn volume(name: String) -> Volume {
    let token = ServiceAccountTokenProjection {
        path: "token".to_owned(),
        expiration_seconds: Some(POD_TOKEN_SECONDS),
        audience: None,
    };
    let certificate = KeyToPath { key: "ca.crt".to_owned(), path: "ca.crt".to_owned(), mode: None };
    let root = ConfigMapProjection {
        name: "kube-root-ca.crt".to_owned(),
        items: Some(vec![certificate]),
        optional: None,
    };
    let field = ObjectFieldSelector {
        api_version: Some("v1".to_owned()),
        field_path: "metadata.namespace".to_owned(),
    };
    let namespace = DownwardAPIVolumeFile {
        path: "namespace".to_owned(),
        field_ref: Some(field),
        ..DownwardAPIVolumeFile::default()
    };
    let sources = vec![
        VolumeProjection { service_account_token: Some(token), ..VolumeProjection::default() },
        VolumeProjection { config_map: Some(root), ..VolumeProjection::default() },
        VolumeProjection {
            downward_api: Some(DownwardAPIProjection { items: Some(vec![namespace]) }),
            ..VolumeProjection::default()
        },
    ];
    let projected = ProjectedVolumeSource { default_mode: Some(0o644), sources: Some(sources) };
    Volume { name, projected: Some(projected), ..Volume::default() }
}

/// What a mirror pod may not have: the kubelet that made it has no right to any of it.
fn check_mirror(spec: &PodSpec) -> Result<(), &'static str> {
    if spec.service_account_name.as_ref().is_some_and(|name| !name.is_empty()) {
        return Err("a mirror pod may not reference service accounts");
    }
    if !super::pod_references::secrets(spec).is_empty() {
        return Err("a mirror pod may not reference secrets");
    }
    let mut projections = spec.volumes.iter().flatten().filter_map(|volume| volume.projected.as_ref());
    if projections.any(|p| p.sources.iter().flatten().any(|source| source.service_account_token.is_some())) {
        return Err("a mirror pod may not use ServiceAccountToken volume projections");
    }
    Ok(())
}

impl Plugin for ServiceAccount {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    fn handles(&self, operation: Operation, resource: &ResourceInfo, subresource: &str) -> bool {
        operation == Operation::Create
            && resource.group.is_empty()
            && resource.plural == "pods"
            && subresource.is_empty()
    }

    fn admit<'a>(&'a self, attributes: &'a mut Attributes<'_>) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(self.admit_pod(attributes))
    }

    fn validate<'a>(&'a self, attributes: &'a Attributes<'_>) -> BoxFuture<'a, Result<(), ApiError>> {
        let spec = attributes.new_ref::<Pod>().filter(|pod| is_mirror(pod)).and_then(|pod| pod.spec.as_ref());
        let result = spec.map_or(Ok(()), check_mirror).map_err(|problem| attributes.forbidden(problem));
        Box::pin(std::future::ready(result))
    }
}

#[cfg(test)]
#[path = "service_account/tests.rs"]
mod tests;
