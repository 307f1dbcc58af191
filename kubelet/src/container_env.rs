//! The environment of a container: envFrom, env with its references, service variables, `$(VAR)` expansion.
//! Upstream's concept: `makeEnvironmentVariables` in `kubelet_pods.go`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvFromSource, EnvVarSource, Pod, Secret};

use crate::runtime::Warnings;

pub mod expansion;
pub mod field_ref;
pub mod services;

/// Why an environment can't be made; the text of a CreateContainerConfigError.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct EnvError(pub String);

/// What an environment is made from. The referenced objects are fetched before: see [`references`].
#[derive(Debug, Clone, Copy)]
pub struct EnvInputs<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// The pod's addresses.
    pub pod_ips: &'a [IpAddr],
    /// The node's addresses.
    pub node_ips: &'a [IpAddr],
    /// The node's processors in thousandths and memory in bytes, which stand in for limits that are not set.
    pub node_capacity: field_ref::Capacity,
    /// ConfigMaps of the pod's namespace by name; absent ones don't exist.
    pub config_maps: &'a BTreeMap<String, ConfigMap>,
    /// Secrets of the pod's namespace by name; absent ones don't exist.
    pub secrets: &'a BTreeMap<String, Secret>,
    /// The variables of services that the pod may see.
    pub services: &'a BTreeMap<String, String>,
}

/// The names of ConfigMaps and Secrets that a container's environment refers to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct References {
    /// ConfigMaps.
    pub config_maps: Vec<String>,
    /// Secrets.
    pub secrets: Vec<String>,
}

/// An environment, and the warnings (event reason, message) that came up.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// The variables.
    pub variables: BTreeMap<String, String>,
    /// Events about the pod.
    pub warnings: Warnings,
}

/// What must be fetched before [`environment`] can be called.
#[must_use]
pub fn references(container: &Container) -> References {
    let mut found = References::default();
    for source in container.env_from.iter().flatten() {
        found.config_maps.extend(source.config_map_ref.as_ref().map(|r| r.name.clone()));
        found.secrets.extend(source.secret_ref.as_ref().map(|r| r.name.clone()));
    }
    for source in container.env.iter().flatten().filter_map(|e| e.value_from.as_ref()) {
        found.config_maps.extend(source.config_map_key_ref.as_ref().map(|r| r.name.clone()));
        found.secrets.extend(source.secret_key_ref.as_ref().map(|r| r.name.clone()));
    }
    for list in [&mut found.config_maps, &mut found.secrets] {
        list.sort();
        list.dedup();
    }
    found
}

/// A variable's name may be any printable ASCII but `=`.
fn is_env_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'=')
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or_default()
}

/// What one `envFrom` source holds.
struct SourceValues {
    kind: &'static str,
    name: String,
    values: Vec<(String, String)>,
}

/// The keys and values of one `envFrom` source; `None` when it is optional and missing.
fn source_values(source: &EnvFromSource, inputs: &EnvInputs<'_>) -> Result<Option<SourceValues>, EnvError> {
    if let Some(reference) = &source.config_map_ref {
        let Some(map) = inputs.config_maps.get(&reference.name) else {
            return missing(reference.optional, "configmap", &reference.name);
        };
        let values = map.data.iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
        return Ok(Some(SourceValues { kind: "configMap", name: reference.name.clone(), values }));
    }
    if let Some(reference) = &source.secret_ref {
        let Some(secret) = inputs.secrets.get(&reference.name) else {
            return missing(reference.optional, "secret", &reference.name);
        };
        let values = secret.data.iter().flatten().map(|(k, v)| (k.clone(), text(&v.0))).collect();
        return Ok(Some(SourceValues { kind: "secret", name: reference.name.clone(), values }));
    }
    Ok(None)
}

fn missing<T>(optional: Option<bool>, kind: &str, name: &str) -> Result<Option<T>, EnvError> {
    if optional.unwrap_or(false) { Ok(None) } else { Err(EnvError(format!("{kind} {name:?} not found"))) }
}

/// One variable's referenced value; `None` when it is optional and missing.
fn value_from(
    source: &EnvVarSource,
    container: &Container,
    inputs: &EnvInputs<'_>,
) -> Result<Option<String>, EnvError> {
    let namespace = namespace(inputs.pod);
    if let Some(field) = &source.field_ref {
        return field_ref::pod_field(inputs.pod, &field.field_path, inputs.pod_ips, inputs.node_ips)
            .map(Some)
            .map_err(|error| EnvError(error.to_string()));
    }
    if let Some(resource) = &source.resource_field_ref {
        return field_ref::resource_field(inputs.pod, Some(container), resource, inputs.node_capacity)
            .map(Some)
            .map_err(|error| EnvError(error.to_string()));
    }
    if let Some(key) = &source.config_map_key_ref {
        let optional = key.optional;
        let Some(map) = inputs.config_maps.get(&key.name) else {
            return missing(optional, "configmap", &key.name);
        };
        return match map.data.as_ref().and_then(|data| data.get(&key.key)) {
            Some(value) => Ok(Some(value.clone())),
            None if optional.unwrap_or(false) => Ok(None),
            None => {
                Err(EnvError(format!("couldn't find key {} in ConfigMap {namespace}/{}", key.key, key.name)))
            }
        };
    }
    if let Some(key) = &source.secret_key_ref {
        let optional = key.optional;
        let Some(secret) = inputs.secrets.get(&key.name) else {
            return missing(optional, "secret", &key.name);
        };
        return match secret.data.as_ref().and_then(|data| data.get(&key.key)) {
            Some(value) => Ok(Some(text(&value.0))),
            None if optional.unwrap_or(false) => Ok(None),
            None => {
                Err(EnvError(format!("couldn't find key {} in Secret {namespace}/{}", key.key, key.name)))
            }
        };
    }
    if source.file_key_ref.is_some() {
        return Err(EnvError("fileKeyRef is not supported".to_owned()));
    }
    Ok(Some(String::new()))
}

/// Makes the environment of a container.
pub fn environment(container: &Container, inputs: &EnvInputs<'_>) -> Result<Environment, EnvError> {
    let mut variables = BTreeMap::new();
    let mut warnings = Vec::new();
    for source in container.env_from.iter().flatten() {
        let Some(SourceValues { kind, name, values }) = source_values(source, inputs)? else { continue };
        let prefix = source.prefix.as_deref().unwrap_or_default();
        let mut skipped = Vec::new();
        for (key, value) in values {
            let key = format!("{prefix}{key}");
            if is_env_name(&key) {
                variables.insert(key, value);
            } else {
                skipped.push(key);
            }
        }
        if !skipped.is_empty() {
            skipped.sort();
            warnings.push((
                "InvalidEnvironmentVariableNames",
                format!(
                    "Keys [{}] from the EnvFrom {kind} {}/{name} were skipped since they are considered invalid \
                     environment variable names.",
                    skipped.join(", "),
                    namespace(inputs.pod)
                ),
            ));
        }
    }
    for env in container.env.iter().flatten() {
        let value = match (&env.value, &env.value_from) {
            (Some(value), _) if !value.is_empty() => {
                let look_up = |name: &str| variables.get(name).or_else(|| inputs.services.get(name)).cloned();
                expansion::expand(value, look_up)
            }
            (_, Some(source)) => match value_from(source, container, inputs)? {
                Some(value) => value,
                None => continue,
            },
            _ => String::new(),
        };
        variables.insert(env.name.clone(), value);
    }
    for (name, value) in inputs.services {
        variables.entry(name.clone()).or_insert_with(|| value.clone());
    }
    Ok(Environment { variables, warnings })
}

#[cfg(test)]
#[path = "container_env/tests.rs"]
mod tests;
