//! Environment variables, and the references to fields of the pod that volumes also use.

use apimachinery::validation::names::{is_config_map_key, is_relaxed_env_var_name};
use apimachinery::validation::{Error, ErrorList, Path};
use k8s_openapi::api::core::v1::{
    EnvFromSource, EnvVar, EnvVarSource, ObjectFieldSelector, ResourceFieldSelector,
};

const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// The fields that a downward API volume can show.
pub(super) const VOLUME_FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
const RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

pub(super) fn validate_env(vars: &[EnvVar], path: &Path, errors: &mut ErrorList) {
    for (i, var) in vars.iter().enumerate() {
        let path = path.index(i);
        if var.name.is_empty() {
            errors.push(Error::required(&path.child("name"), ""));
        } else {
            for problem in is_relaxed_env_var_name(&var.name) {
                errors.push(Error::invalid(&path.child("name"), &var.name, problem));
            }
        }
        if let Some(source) = &var.value_from {
            let has_value = var.value.as_ref().is_some_and(|v| !v.is_empty());
            validate_source(source, has_value, &path.child("valueFrom"), errors);
        }
    }
}

fn validate_source(source: &EnvVarSource, has_value: bool, path: &Path, errors: &mut ErrorList) {
    let mut sources = 0;
    if let Some(field) = &source.field_ref {
        sources += 1;
        validate_field_ref(field, ENV_FIELDS, &path.child("fieldRef"), errors);
    }
    if let Some(resource) = &source.resource_field_ref {
        sources += 1;
        validate_resource_ref(resource, &path.child("resourceFieldRef"), errors);
    }
    if let Some(key) = &source.config_map_key_ref {
        sources += 1;
        validate_key_ref(&key.name, &key.key, &path.child("configMapKeyRef"), errors);
    }
    if let Some(key) = &source.secret_key_ref {
        sources += 1;
        validate_key_ref(&key.name, &key.key, &path.child("secretKeyRef"), errors);
    }
    if source.file_key_ref.is_some() {
        sources += 1;
    }
    let detail = match sources {
        0 => {
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
        }
        _ if has_value => "may not be specified when `value` is not empty",
        1 => return,
        _ => "may not have more than one field specified at a time",
    };
    errors.push(Error::invalid(path, "", detail));
}

fn validate_key_ref(name: &str, key: &str, path: &Path, errors: &mut ErrorList) {
    if name.is_empty() {
        errors.push(Error::required(&path.child("name"), ""));
    }
    if key.is_empty() {
        errors.push(Error::required(&path.child("key"), ""));
        return;
    }
    for problem in is_config_map_key(key) {
        errors.push(Error::invalid(&path.child("key"), key, problem));
    }
}

/// A reference to a field of the pod; `supported` are those allowed here, besides single labels and annotations.
pub(super) fn validate_field_ref(
    field: &ObjectFieldSelector,
    supported: &[&str],
    path: &Path,
    errors: &mut ErrorList,
) {
    if field.api_version.as_deref().unwrap_or_default().is_empty() {
        errors.push(Error::required(&path.child("apiVersion"), ""));
        return;
    }
    let path = path.child("fieldPath");
    let value = field.field_path.as_str();
    if value.is_empty() {
        errors.push(Error::required(&path, ""));
        return;
    }
    let subscripted = ["metadata.annotations['", "metadata.labels['"]
        .iter()
        .find_map(|prefix| value.strip_prefix(prefix)?.strip_suffix("']"));
    match subscripted {
        Some(key) => {
            for problem in apimachinery::validation::names::is_qualified_name(key) {
                errors.push(Error::invalid(&path, value, problem));
            }
        }
        None if !supported.contains(&value) => errors.push(Error::not_supported(&path, value, supported)),
        None => {}
    }
}

/// A reference to a container's requests or limits.
pub(super) fn validate_resource_ref(resource: &ResourceFieldSelector, path: &Path, errors: &mut ErrorList) {
    let name = resource.resource.as_str();
    let path = path.child("resource");
    if name.is_empty() {
        errors.push(Error::required(&path, ""));
    } else if !RESOURCES.contains(&name)
        && !name.starts_with("limits.hugepages-")
        && !name.starts_with("requests.hugepages-")
    {
        errors.push(Error::not_supported(&path, name, RESOURCES));
    }
}

pub(super) fn validate_env_from(sources: &[EnvFromSource], path: &Path, errors: &mut ErrorList) {
    for (i, source) in sources.iter().enumerate() {
        let path = path.index(i);
        if let Some(prefix) = source.prefix.as_deref().filter(|p| !p.is_empty()) {
            for problem in is_relaxed_env_var_name(prefix) {
                errors.push(Error::invalid(&path.child("prefix"), prefix, problem));
            }
        }
        let detail = match (&source.config_map_ref, &source.secret_ref) {
            (None, None) => "must specify one of: `configMapRef` or `secretRef`",
            (Some(_), Some(_)) => "may not have more than one field specified at a time",
            (Some(from), None) => {
                if from.name.is_empty() {
                    errors.push(Error::required(&path.child("configMapRef").child("name"), ""));
                }
                continue;
            }
            (None, Some(from)) => {
                if from.name.is_empty() {
                    errors.push(Error::required(&path.child("secretRef").child("name"), ""));
                }
                continue;
            }
        };
        errors.push(Error::invalid(&path, "", detail));
    }
}
