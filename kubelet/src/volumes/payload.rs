//! The files of configMap, secret, downwardAPI and projected volumes, as pure functions of the objects. Upstream's
//! concept: `MakePayload` of `pkg/volume/{configmap,secret,downwardapi,projected}`.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, Secret};

use super::atomic_writer::{FileProjection, Payload};
use crate::container_env::field_ref::{self, Capacity};

/// A payload that can't be made; the text ends up in the FailedMount event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// A key that the object doesn't have.
    #[error("references non-existent {0} key: {1}")]
    NoKey(&'static str, String),
    /// The downward API.
    #[error(transparent)]
    Field(#[from] field_ref::FieldError),
    /// Permissions that aren't.
    #[error("invalid mode: {0}")]
    Mode(i32),
    /// Two sources want the same path.
    #[error("conflicting paths: {0:?} is projected twice")]
    Conflict(String),
}

/// Permissions out of an API field.
pub fn mode(mode: i32) -> Result<u32, PayloadError> {
    u32::try_from(mode).ok().filter(|m| *m <= 0o7777).ok_or(PayloadError::Mode(mode))
}

/// Picks the items (all keys when there are none named) out of an object's data.
fn project<'a>(
    kind: &'static str,
    data: impl Iterator<Item = (&'a str, &'a [u8])> + Clone,
    items: Option<&[KeyToPath]>,
    default_mode: u32,
    optional: bool,
) -> Result<Payload, PayloadError> {
    let file = |bytes: &[u8], mode| FileProjection { data: bytes.to_vec(), mode, owner: None };
    let items = items.unwrap_or_default();
    if items.is_empty() {
        return Ok(data.map(|(key, bytes)| (key.to_owned(), file(bytes, default_mode))).collect());
    }
    let mut payload = Payload::new();
    for item in items {
        let Some((_, bytes)) = data.clone().find(|(key, _)| *key == item.key) else {
            if optional {
                continue;
            }
            return Err(PayloadError::NoKey(kind, item.key.clone()));
        };
        let mode = item.mode.map_or(Ok(default_mode), mode)?;
        payload.insert(item.path.clone(), file(bytes, mode));
    }
    Ok(payload)
}

/// A ConfigMap's files. An optional ConfigMap that doesn't exist has none.
pub fn config_map(
    object: Option<&ConfigMap>,
    items: Option<&[KeyToPath]>,
    default_mode: u32,
    optional: bool,
) -> Result<Payload, PayloadError> {
    let text =
        object.into_iter().flat_map(|o| o.data.iter().flatten()).map(|(k, v)| (k.as_str(), v.as_bytes()));
    let binary = object
        .into_iter()
        .flat_map(|o| o.binary_data.iter().flatten())
        .map(|(k, v)| (k.as_str(), v.0.as_slice()));
    project("config", text.chain(binary), items, default_mode, optional)
}

/// A Secret's files. An optional Secret that doesn't exist has none.
pub fn secret(
    object: Option<&Secret>,
    items: Option<&[KeyToPath]>,
    default_mode: u32,
    optional: bool,
) -> Result<Payload, PayloadError> {
    let data =
        object.into_iter().flat_map(|o| o.data.iter().flatten()).map(|(k, v)| (k.as_str(), v.0.as_slice()));
    project("secret", data, items, default_mode, optional)
}

/// What the downward API draws on.
#[derive(Debug, Clone, Copy)]
pub struct DownwardInputs<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// Its addresses.
    pub pod_ips: &'a [IpAddr],
    /// The node's addresses.
    pub node_ips: &'a [IpAddr],
    /// What stands in for limits that are not set.
    pub node_capacity: Capacity,
}

/// The files of a downwardAPI volume.
pub fn downward_api(
    items: &[DownwardAPIVolumeFile],
    default_mode: u32,
    inputs: &DownwardInputs<'_>,
) -> Result<Payload, PayloadError> {
    let mut payload = Payload::new();
    for item in items {
        let text = match (&item.field_ref, &item.resource_field_ref) {
            (Some(field), _) => {
                field_ref::pod_field(inputs.pod, &field.field_path, inputs.pod_ips, inputs.node_ips)?
            }
            (None, Some(resource)) => {
                field_ref::resource_field(inputs.pod, None, resource, inputs.node_capacity)?
            }
            (None, None) => String::new(),
        };
        let mode = item.mode.map_or(Ok(default_mode), mode)?;
        payload.insert(item.path.clone(), FileProjection { data: text.into_bytes(), mode, owner: None });
    }
    Ok(payload)
}

/// Adds one source's files to those of the sources before it.
pub fn merge(into: &mut Payload, files: Payload) -> Result<(), PayloadError> {
    for (path, file) in files {
        if into.contains_key(&path) {
            return Err(PayloadError::Conflict(path));
        }
        into.insert(path, file);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn paths(payload: &Payload) -> Vec<(&str, u32)> {
        payload.iter().map(|(path, file)| (path.as_str(), file.mode)).collect()
    }

    #[test]
    fn keys_items_and_modes() {
        let map: ConfigMap =
            serde_json::from_value(json!({"data": {"a": "1"}, "binaryData": {"b": "AQI="}})).unwrap();
        let all = config_map(Some(&map), None, 0o644, false).unwrap();
        assert_eq!(paths(&all), [("a", 0o644), ("b", 0o644)]);
        assert_eq!(all["b"].data, [1, 2]);
        let items: Vec<KeyToPath> = serde_json::from_value(
            json!([{"key": "a", "path": "x/y", "mode": 256}, {"key": "none", "path": "z"}]),
        )
        .unwrap();
        assert_eq!(
            config_map(Some(&map), Some(&items), 0o644, false).unwrap_err().to_string(),
            "references non-existent config key: none"
        );
        assert_eq!(paths(&config_map(Some(&map), Some(&items), 0o644, true).unwrap()), [("x/y", 0o400)]);
        assert!(secret(None, Some(&items), 0o644, true).unwrap().is_empty());
        assert!(mode(0o10000).is_err() && mode(-1).is_err());
    }

    #[test]
    fn downward_files() {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "p", "labels": {"b": "2", "a": "q\"\n"}},
            "spec": {"containers": [{"name": "c", "resources": {"limits": {"memory": "5Mi"}}}]}}))
            .unwrap();
        let items: Vec<DownwardAPIVolumeFile> = serde_json::from_value(json!([
            {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
            {"path": "mem", "mode": 384, "resourceFieldRef": {"containerName": "c", "resource": "limits.memory", "divisor": "1Mi"}}]))
        .unwrap();
        let inputs = DownwardInputs {
            pod: &pod,
            pod_ips: &[],
            node_ips: &[],
            node_capacity: Capacity { cpus: 1, memory: 1 },
        };
        let got = downward_api(&items, 0o644, &inputs).unwrap();
        assert_eq!(got["labels"].data, b"a=\"q\\\"\\n\"\nb=\"2\"");
        assert_eq!((got["mem"].data.as_slice(), got["mem"].mode), (b"5".as_slice(), 0o600));
        let again = got.clone();
        let mut merged = got;
        assert_eq!(merge(&mut merged, again), Err(PayloadError::Conflict("labels".to_owned())));
    }
}
