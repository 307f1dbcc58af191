//! Which tokens a kubelet may ask for: those of pods that run on it, for audiences that those pods name.
//!
//! Upstream: `admitServiceAccount` and `validateNodeServiceAccountAudience`. Audiences of CSI drivers are found for inline
//! volumes; those behind a PersistentVolumeClaim are not.

use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::storage::v1::CSIDriver;

/// The name and uid of the pod that the token shall be bound to.
pub(super) fn binding(request: &TokenRequest) -> Result<(&str, &str), &'static str> {
    let reference = request.spec.as_ref().and_then(|spec| spec.bound_object_ref.as_ref());
    let reference =
        reference.filter(|r| r.api_version.as_deref() == Some("v1") && r.kind.as_deref() == Some("Pod"));
    let named = |value: &Option<String>| value.as_ref().is_some_and(|value| !value.is_empty());
    let reference = reference.filter(|r| named(&r.name)).ok_or("node requested token not bound to a pod")?;
    let uid = reference.uid.as_deref().filter(|uid| !uid.is_empty());
    let uid = uid.ok_or("node requested token with a pod binding without a uid")?;
    Ok((reference.name.as_deref().unwrap_or_default(), uid))
}

/// The CSI drivers of the pod's inline volumes.
pub(super) fn drivers(pod: &Pod) -> Vec<&str> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter_map(|volume| volume.csi.as_ref()).map(|csi| csi.driver.as_str()).collect()
}

/// The audiences that a driver wants tokens for.
pub(super) fn driver_audiences(driver: &CSIDriver) -> Vec<String> {
    driver.spec.token_requests.iter().flatten().map(|request| request.audience.clone()).collect()
}

/// Checks the request against the pod as stored.
pub(super) fn check(
    node: &str,
    request: &TokenRequest,
    pod: &Pod,
    driver_audiences: &[String],
) -> Result<(), String> {
    let (_, uid) = binding(request)?;
    let stored = pod.metadata.uid.as_deref().unwrap_or_default();
    if uid != stored {
        return Err(format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted \
             and then recreated"
        ));
    }
    if !super::runs_on(pod, node) {
        return Err("node requested token bound to a pod scheduled on a different node".to_owned());
    }
    let asked = match request.spec.as_ref().and_then(|spec| spec.audiences.as_deref()).unwrap_or_default() {
        [] => "",
        [one] => one.as_str(),
        _ => return Err("node may only request 0 or 1 audiences".to_owned()),
    };
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let projections = volumes.filter_map(|v| v.projected.as_ref()).flat_map(|p| p.sources.iter().flatten());
    let mut audiences = projections
        .filter_map(|source| source.service_account_token.as_ref())
        .map(|token| token.audience.as_deref().unwrap_or_default());
    if audiences.any(|audience| audience == asked)
        || driver_audiences.iter().any(|audience| audience == asked)
    {
        return Ok(());
    }
    Err(format!("audience {asked:?} not found in pod spec volume"))
}
