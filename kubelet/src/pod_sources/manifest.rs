//! One manifest's bytes become a static pod, or an error that says why not. No IO.
//!
//! Upstream's concept: `pkg/kubelet/config/common.go` (`tryDecodeSinglePod`, `applyDefaults`) and the checks of static pods.

use std::path::Path;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodSpec, PodStatus, Toleration};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::defaults;
use crate::pod::{
    CONFIG_FIRST_SEEN_ANNOTATION, CONFIG_HASH_ANNOTATION, CONFIG_SOURCE_ANNOTATION, FILE_SOURCE,
};

/// Why a manifest is refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum ManifestError {
    /// Neither YAML nor JSON, or not of a pod's shape.
    #[error("couldn't parse as pod: {0}")]
    Parse(String),
    /// Another kind of object.
    #[error("expected a v1 Pod, got {0}")]
    Kind(String),
    /// A pod that can't be run from a manifest.
    #[error("invalid pod: {0}")]
    Invalid(String),
}

/// Decodes, defaults, names and checks.
pub(super) fn decode(
    bytes: &[u8],
    path: &Path,
    node_name: &str,
    now: Timestamp,
) -> Result<Pod, ManifestError> {
    let text = std::str::from_utf8(bytes).map_err(|error| ManifestError::Parse(error.to_string()))?;
    let mut value: Value =
        serde_saphyr::from_str(text).map_err(|error| ManifestError::Parse(one_line(&error.to_string())))?;
    let field = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (api_version, kind) = (field("apiVersion"), field("kind"));
    if api_version != "v1" || kind != "Pod" {
        return Err(ManifestError::Kind(format!("{api_version:?} {kind:?}")));
    }
    quantities_as_strings(&mut value);
    let mut pod: Pod =
        serde_json::from_value(value).map_err(|error| ManifestError::Parse(error.to_string()))?;
    let Some(spec) = pod.spec.as_mut() else {
        return Err(ManifestError::Invalid("spec: Required value".to_owned()));
    };
    defaults::apply(spec);
    check_spec(spec)?;
    spec.node_name = Some(node_name.to_owned());
    // A static pod stays whatever happens to the node.
    spec.tolerations.get_or_insert_default().push(Toleration {
        operator: Some("Exists".to_owned()),
        effect: Some("NoExecute".to_owned()),
        ..Toleration::default()
    });
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    if name.is_empty() {
        return Err(ManifestError::Invalid(
            "metadata.name: Required value: name or generateName is required".to_owned(),
        ));
    }
    // The hash is over what the person wrote (defaulted), where, and on which node.
    let uid = match pod.metadata.uid.take().filter(|uid| !uid.is_empty()) {
        Some(uid) => uid,
        None => hash(&pod, path, node_name),
    };
    let metadata = &mut pod.metadata;
    let name = format!("{}-{}", metadata.name.as_deref().unwrap_or_default(), node_name.to_lowercase());
    let problems = apimachinery::validation::names::is_dns1123_subdomain(&name);
    if let Some(problem) = problems.first() {
        return Err(ManifestError::Invalid(format!("metadata.name: Invalid value: {name:?}: {problem}")));
    }
    metadata.name = Some(name);
    metadata.namespace.get_or_insert_with(|| "default".to_owned());
    let annotations = metadata.annotations.get_or_insert_default();
    annotations.insert(CONFIG_HASH_ANNOTATION.to_owned(), uid.clone());
    annotations.insert(CONFIG_SOURCE_ANNOTATION.to_owned(), FILE_SOURCE.to_owned());
    annotations.insert(CONFIG_FIRST_SEEN_ANNOTATION.to_owned(), now.to_string());
    metadata.uid = Some(uid);
    pod.status = Some(PodStatus { phase: Some("Pending".to_owned()), ..PodStatus::default() });
    Ok(pod)
}

fn one_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

fn hash(pod: &Pod, path: &Path, node_name: &str) -> String {
    let mut hasher = Sha256::new();
    hasher.update(format!("host:{node_name}\nfile:{}\n", path.display()));
    // A Pod always serialises; its maps are ordered, so the text is the same for the same content.
    hasher.update(serde_json::to_vec(pod).unwrap_or_default());
    hasher.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// `cpu: 1` is as good as `cpu: "1"` to the API.
fn quantities_as_strings(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (key, child) in map.iter_mut() {
                if matches!(key.as_str(), "limits" | "requests" | "overhead") {
                    if let Value::Object(quantities) = child {
                        quantities.values_mut().for_each(number_as_string);
                    }
                } else if matches!(key.as_str(), "sizeLimit" | "divisor") {
                    number_as_string(child);
                } else {
                    quantities_as_strings(child);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(quantities_as_strings),
        _ => {}
    }
}

fn number_as_string(value: &mut Value) {
    if let Value::Number(number) = value {
        *value = Value::String(number.to_string());
    }
}

/// What the apiserver would refuse and what a static pod can't have.
fn check_spec(spec: &PodSpec) -> Result<(), ManifestError> {
    let invalid = |text: String| Err(ManifestError::Invalid(text));
    if spec.containers.is_empty() {
        return invalid("spec.containers: Required value".to_owned());
    }
    let mut names = std::collections::HashSet::new();
    for (_, container) in crate::pod::containers(spec) {
        let name = &container.name;
        if let Some(problem) = apimachinery::validation::names::is_dns1123_label(name).first() {
            return invalid(format!("spec.containers[].name: Invalid value: {name:?}: {problem}"));
        }
        if !names.insert(name.clone()) {
            return invalid(format!("spec.containers[].name: Duplicate value: {name:?}"));
        }
        if container.image.as_deref().unwrap_or_default().is_empty() {
            return invalid(format!("spec.containers[{name}].image: Required value"));
        }
        for mount in container.volume_mounts.iter().flatten() {
            if !spec.volumes.iter().flatten().any(|volume| volume.name == mount.name) {
                return invalid(format!(
                    "spec.containers[{name}].volumeMounts[].name: Not found: {:?}",
                    mount.name
                ));
            }
        }
    }
    if !matches!(crate::pod::restart_policy(spec), "Always" | "OnFailure" | "Never") {
        return invalid(format!(
            "spec.restartPolicy: Unsupported value: {:?}",
            crate::pod::restart_policy(spec)
        ));
    }
    match api_reference(spec) {
        Some(what) => invalid(format!("static pods may not reference {what}")),
        None => Ok(()),
    }
}

/// A static pod must run without the apiserver, so it can't refer to objects in it.
fn api_reference(spec: &PodSpec) -> Option<&'static str> {
    if spec.service_account_name.as_deref().is_some_and(|name| !name.is_empty()) {
        return Some("a ServiceAccount");
    }
    if spec.resource_claims.as_ref().is_some_and(|claims| !claims.is_empty()) {
        return Some("resourceclaims");
    }
    for volume in spec.volumes.iter().flatten() {
        if volume.secret.is_some() {
            return Some("secrets");
        }
        if volume.config_map.is_some() {
            return Some("configmaps");
        }
        if volume.persistent_volume_claim.is_some() {
            return Some("persistentvolumeclaims");
        }
        for source in volume.projected.iter().flat_map(|p| p.sources.iter().flatten()) {
            if source.service_account_token.is_some() {
                return Some("serviceaccounts");
            }
            if source.secret.is_some() {
                return Some("secrets");
            }
            if source.config_map.is_some() {
                return Some("configmaps");
            }
        }
    }
    for (_, container) in crate::pod::containers(spec) {
        for from in container.env_from.iter().flatten() {
            if from.secret_ref.is_some() {
                return Some("secrets");
            }
            if from.config_map_ref.is_some() {
                return Some("configmaps");
            }
        }
        for from in container.env.iter().flatten().filter_map(|env| env.value_from.as_ref()) {
            if from.secret_key_ref.is_some() {
                return Some("secrets");
            }
            if from.config_map_key_ref.is_some() {
                return Some("configmaps");
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: kube-system}
spec:
  containers:
  - name: web
    image: busybox:1
    resources: {limits: {cpu: 1, memory: 64Mi}}
    ports: [{containerPort: 80}]
";

    fn decode_text(text: &str) -> Result<Pod, ManifestError> {
        decode(text.as_bytes(), Path::new("/manifests/web.yaml"), "Node1", Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn a_manifest_is_named_hashed_and_defaulted() {
        let pod = decode_text(MANIFEST).unwrap();
        assert_eq!(pod.metadata.name.as_deref(), Some("web-node1"));
        let uid = pod.metadata.uid.clone().unwrap();
        assert_eq!(uid.len(), 32);
        let annotations = pod.metadata.annotations.unwrap();
        assert_eq!(annotations[CONFIG_HASH_ANNOTATION], uid);
        assert_eq!(annotations[CONFIG_SOURCE_ANNOTATION], "file");
        let spec = pod.spec.unwrap();
        assert_eq!(spec.restart_policy.as_deref(), Some("Always"));
        assert_eq!(spec.node_name.as_deref(), Some("Node1"));
        assert_eq!(spec.containers[0].resources.as_ref().unwrap().requests.as_ref().unwrap()["cpu"].0, "1");
        assert_eq!(
            decode_text(MANIFEST).unwrap().metadata.uid,
            Some(uid.clone()),
            "the same content, the same uid"
        );
        assert_ne!(decode_text(&MANIFEST.replace("busybox:1", "busybox:2")).unwrap().metadata.uid, Some(uid));
    }

    #[test]
    fn bad_manifests_say_why() {
        let cases = [
            ("a: [", "couldn't parse as pod"),
            ("", "expected a v1 Pod"),
            ("apiVersion: v1\nkind: Service\n", "expected a v1 Pod, got \"v1\" \"Service\""),
            ("apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n", "spec: Required value"),
            (
                "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: []}\n",
                "spec.containers: Required",
            ),
            (
                "apiVersion: v1\nkind: Pod\nspec: {containers: [{name: a, image: b}]}\n",
                "metadata.name: Required value",
            ),
            (
                "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a, image: b}], volumes: [{name: v, secret: {secretName: s}}]}\n",
                "static pods may not reference secrets",
            ),
            (
                "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: 5}\n",
                "couldn't parse as pod",
            ),
        ];
        for (text, expected) in cases {
            let error = decode_text(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text:?}: {error}");
        }
    }
}
