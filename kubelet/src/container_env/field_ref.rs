//! Values of the downward API: fields of the pod, and resources of a container. Used by environments and by volumes.
//! Upstream's concept: `pkg/fieldpath`, `podFieldSelectorRuntimeValue`, `pkg/api/v1/resource`.

use std::net::IpAddr;

use apimachinery::quantity::{Quantity, parse_k8s};
use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};

/// A reference that leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// No such field.
    #[error("unsupported fieldPath: {0}")]
    Unsupported(String),
    /// The named container isn't in the pod.
    #[error("container {0} not found")]
    NoContainer(String),
    /// A resource that can't be asked for.
    #[error("unsupported container resource : {0}")]
    Resource(String),
    /// A divisor that isn't a positive quantity.
    #[error("invalid divisor {0:?}")]
    Divisor(String),
}

/// What a node has, standing in for limits that a container doesn't set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capacity {
    /// Processors.
    pub cpus: u64,
    /// Bytes.
    pub memory: u64,
}

fn join(ips: &[IpAddr]) -> String {
    ips.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(",")
}

fn first(ips: &[IpAddr]) -> String {
    ips.first().map(IpAddr::to_string).unwrap_or_default()
}

/// The key in `metadata.labels['key']`.
fn subscript<'a>(path: &'a str, field: &str) -> Option<&'a str> {
    path.strip_prefix(field)?.strip_prefix("['")?.strip_suffix("']")
}

fn format_map(map: Option<&std::collections::BTreeMap<String, String>>) -> String {
    let lines = map.into_iter().flatten().map(|(key, value)| format!("{key}={}", quote(value)));
    lines.collect::<Vec<_>>().join("\n")
}

/// Go's `%q` for the characters that turn up in labels and annotations.
fn quote(value: &str) -> String {
    let mut out = String::with_capacity(value.len() + 2);
    out.push('"');
    for c in value.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if u32::from(c) < 0x20 || c == '\u{7f}' => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A field of the pod by its path.
pub fn pod_field(
    pod: &Pod,
    path: &str,
    pod_ips: &[IpAddr],
    node_ips: &[IpAddr],
) -> Result<String, FieldError> {
    let meta = &pod.metadata;
    let spec = pod.spec.as_ref();
    if let Some(key) = subscript(path, "metadata.labels") {
        return Ok(meta.labels.as_ref().and_then(|m| m.get(key)).cloned().unwrap_or_default());
    }
    if let Some(key) = subscript(path, "metadata.annotations") {
        return Ok(meta.annotations.as_ref().and_then(|m| m.get(key)).cloned().unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => meta.name.clone().unwrap_or_default(),
        "metadata.namespace" => meta.namespace.clone().unwrap_or_default(),
        "metadata.uid" => meta.uid.clone().unwrap_or_default(),
        "metadata.labels" => format_map(meta.labels.as_ref()),
        "metadata.annotations" => format_map(meta.annotations.as_ref()),
        "spec.nodeName" => spec.and_then(|s| s.node_name.clone()).unwrap_or_default(),
        "spec.serviceAccountName" => spec.and_then(|s| s.service_account_name.clone()).unwrap_or_default(),
        "status.hostIP" => first(node_ips),
        "status.hostIPs" => join(node_ips),
        "status.podIP" => first(pod_ips),
        "status.podIPs" => join(pod_ips),
        other => return Err(FieldError::Unsupported(other.to_owned())),
    })
}

/// A container's limit or request, divided and rounded up.
pub fn resource_field(
    pod: &Pod,
    own: Option<&Container>,
    selector: &ResourceFieldSelector,
    node: Capacity,
) -> Result<String, FieldError> {
    let name = selector.container_name.as_deref().unwrap_or_default();
    let container = match (own, name) {
        (Some(own), "") => own,
        _ => apimachinery::pod::all_containers(pod)
            .find(|c| c.name == name)
            .ok_or_else(|| FieldError::NoContainer(name.to_owned()))?,
    };
    let unsupported = || FieldError::Resource(selector.resource.clone());
    let (kind, resource) = selector.resource.split_once('.').ok_or_else(unsupported)?;
    let known =
        ["cpu", "memory", "ephemeral-storage"].contains(&resource) || resource.starts_with("hugepages-");
    if !known {
        return Err(unsupported());
    }
    let resources = container.resources.as_ref();
    let list = match kind {
        "limits" => resources.and_then(|r| r.limits.as_ref()),
        "requests" => resources.and_then(|r| r.requests.as_ref()),
        _ => return Err(unsupported()),
    };
    let asked = list.and_then(|l| l.get(resource)).and_then(|q| parse_k8s(q).ok()).filter(|q| !q.is_zero());
    let whole = |value: u64| Quantity::from_value(i64::try_from(value).unwrap_or(i64::MAX));
    let quantity = match (asked, kind, resource) {
        (Some(quantity), ..) => quantity,
        (None, "limits", "cpu") => whole(node.cpus),
        (None, "limits", "memory") => whole(node.memory),
        _ => Quantity::ZERO,
    };
    let divisor = match &selector.divisor {
        None => Quantity::from_value(1),
        Some(text) => match parse_k8s(text) {
            // An absent divisor is stored as "0".
            Ok(divisor) if divisor.is_zero() => Quantity::from_value(1),
            Ok(divisor) if !divisor.is_negative() => divisor,
            _ => return Err(FieldError::Divisor(text.0.clone())),
        },
    };
    let ceil = |value: i64, by: i64| {
        i128::from(value).div_euclid(i128::from(by.max(1)))
            + i128::from(i128::from(value).rem_euclid(i128::from(by.max(1))) > 0)
    };
    Ok(if resource == "cpu" {
        ceil(quantity.milli_value(), divisor.milli_value()).to_string()
    } else {
        ceil(quantity.value(), divisor.value()).to_string()
    })
}
