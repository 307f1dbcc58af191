//! The kubelet's path for a request to a pod: which container, which options, and what is wrong with them.
//!
//! Pure. Upstream: `pkg/registry/core/pod/strategy.go` (`LogLocation`, `ExecLocation`, `streamLocation`).

use std::fmt::Write as _;

use apimachinery::status::ApiError;
use apimachinery::validation::{Error, ErrorList, Path};
use k8s_openapi::api::core::v1::{Pod, PodSpec};

use crate::request::Query;

fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// The node that the pod is bound to.
pub(super) fn node_of(pod: &Pod) -> Result<&str, ApiError> {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).filter(|node| !node.is_empty());
    node.ok_or_else(|| ApiError::bad_request(format!("pod {} does not have a host assigned", name(pod))))
}

/// The container that is asked for; the only one, if none is.
pub(super) fn container<'a>(pod: &'a Pod, asked: &'a str) -> Result<&'a str, ApiError> {
    let empty = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&empty);
    let init: Vec<&str> = spec.init_containers.iter().flatten().map(|c| c.name.as_str()).collect();
    if !asked.is_empty() {
        let mut ephemeral = spec.ephemeral_containers.iter().flatten().map(|c| c.name.as_str());
        let known = spec.containers.iter().any(|c| c.name == asked)
            || init.contains(&asked)
            || ephemeral.any(|n| n == asked);
        let unknown =
            || ApiError::bad_request(format!("container {asked} is not valid for pod {}", name(pod)));
        return known.then_some(asked).ok_or_else(unknown);
    }
    let names: Vec<&str> = spec.containers.iter().map(|c| c.name.as_str()).collect();
    match (pod.spec.as_ref().map(|spec| spec.containers.as_slice()), names.as_slice()) {
        (Some([only]), _) => Ok(&only.name),
        (_, []) => {
            Err(ApiError::bad_request(format!("a container name must be specified for pod {}", name(pod))))
        }
        (_, names) => {
            let mut message = format!(
                "a container name must be specified for pod {}, choose one of: [{}]",
                name(pod),
                names.join(" ")
            );
            if !init.is_empty() {
                let _ = write!(message, " or one of the init containers: [{}]", init.join(" "));
            }
            Err(ApiError::bad_request(message))
        }
    }
}

fn is_true(query: &Query, key: &str) -> bool {
    query.get(key).is_some_and(|value| matches!(value, "true" | "1" | ""))
}

/// Percent-encodes what may stand in a path segment or a query value.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

fn path(kind: &str, pod: &Pod, container: Option<&str>, parameters: &[(&str, &str)]) -> String {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let mut path = format!("/{kind}/{}/{}", escape(namespace), escape(name(pod)));
    if let Some(container) = container {
        let _ = write!(path, "/{}", escape(container));
    }
    for (index, (key, value)) in parameters.iter().enumerate() {
        let _ = write!(path, "{}{key}={}", if index == 0 { '?' } else { '&' }, escape(value));
    }
    path
}

/// The path of a container's log.
pub(super) fn log(pod: &Pod, query: &Query) -> Result<String, ApiError> {
    let container = container(pod, query.get("container").unwrap_or_default())?;
    let mut errors = ErrorList::new();
    let mut parameters: Vec<(&str, &str)> = Vec::new();
    for flag in ["follow", "previous", "timestamps"] {
        if is_true(query, flag) {
            parameters.push((flag, "true"));
        }
    }
    for (key, least) in [("tailLines", 0), ("sinceSeconds", 1), ("limitBytes", 1)] {
        let Some(value) = query.text(key) else { continue };
        match value.parse::<i64>() {
            Ok(number) if number >= least => parameters.push((key, value)),
            Ok(number) => {
                let detail =
                    if least == 0 { "must be greater than or equal to 0" } else { "must be greater than 0" };
                errors.push(Error::invalid(&Path::new(key), number, detail));
            }
            Err(_) => {
                return Err(ApiError::bad_request(format!(
                    "invalid value for {key}: {value:?} is not a number"
                )));
            }
        }
    }
    if let Some(since) = query.text("sinceTime") {
        if query.text("sinceSeconds").is_some() {
            let detail = "at most one of `sinceTime` or `sinceSeconds` may be specified";
            errors.push(Error::forbidden(&Path::root(), detail));
        }
        if since.parse::<jiff::Timestamp>().is_err() {
            return Err(ApiError::bad_request(format!(
                "invalid value for sinceTime: {since:?} is not a time"
            )));
        }
        parameters.push(("sinceTime", since));
    }
    if let Some(stream) = query.text("stream") {
        match stream {
            "All" => {}
            "Stdout" | "Stderr" => parameters.push(("stream", stream)),
            other => {
                errors.push(Error::not_supported(&Path::new("stream"), other, &["All", "Stderr", "Stdout"]))
            }
        }
    }
    if !errors.is_empty() {
        return Err(ApiError::invalid("", "PodLogOptions", name(pod), &errors));
    }
    Ok(path("containerLogs", pod, Some(container), &parameters))
}

/// The streams that a session has, as the kubelet names them.
fn streams(query: &Query) -> Vec<(&'static str, &'static str)> {
    [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")]
        .into_iter()
        .filter(|(key, _)| is_true(query, key))
        .map(|(_, name)| (name, "1"))
        .collect()
}

fn session_streams(query: &Query) -> Result<Vec<(&'static str, &'static str)>, ApiError> {
    let streams = streams(query);
    if !streams.iter().any(|(name, _)| *name != "tty") {
        return Err(ApiError::bad_request("you must specify at least 1 of stdin, stdout, stderr"));
    }
    Ok(streams)
}

fn check_running(pod: &Pod, what: &str) -> Result<(), ApiError> {
    match pod.status.as_ref().and_then(|status| status.phase.as_deref()) {
        Some(phase @ ("Succeeded" | "Failed")) => {
            Err(ApiError::bad_request(format!("{what} in a completed pod; current phase is {phase}")))
        }
        _ => Ok(()),
    }
}

/// The path of a command in a container.
pub(super) fn exec(pod: &Pod, query: &Query) -> Result<String, ApiError> {
    check_running(pod, "cannot exec into a container")?;
    let container = container(pod, query.get("container").unwrap_or_default())?;
    let mut parameters: Vec<(&str, &str)> = query.all("command").map(|word| ("command", word)).collect();
    if parameters.is_empty() {
        return Err(ApiError::bad_request("you must specify at least 1 command for the container"));
    }
    parameters.extend(session_streams(query)?);
    Ok(path("exec", pod, Some(container), &parameters))
}

/// The path of a container's own streams.
pub(super) fn attach(pod: &Pod, query: &Query) -> Result<String, ApiError> {
    check_running(pod, "cannot attach a container")?;
    let container = container(pod, query.get("container").unwrap_or_default())?;
    Ok(path("attach", pod, Some(container), &session_streams(query)?))
}

/// The path of a pod's ports.
pub(super) fn port_forward(pod: &Pod, query: &Query) -> Result<String, ApiError> {
    let ports: Vec<&str> = query.all("ports").flat_map(|ports| ports.split(',')).collect();
    let bad = ports.iter().find(|port| !port.parse::<u16>().is_ok_and(|port| port > 0));
    if let Some(port) = bad {
        return Err(ApiError::bad_request(format!("invalid port {port:?}")));
    }
    let joined = ports.join(",");
    let parameters: Vec<(&str, &str)> =
        if ports.is_empty() { vec![] } else { vec![("port", joined.as_str())] };
    Ok(path("portForward", pod, None, &parameters))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(containers: &[&str], init: &[&str], status: &Value) -> Pod {
        let list = |names: &[&str]| names.iter().map(|name| json!({"name": name})).collect::<Vec<_>>();
        serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "ns"},
            "spec": {"containers": list(containers), "initContainers": list(init), "nodeName": "one"}, "status": status,
        }))
        .unwrap()
    }

    fn query(text: &str) -> Query {
        Query::parse(Some(text))
    }

    #[test]
    fn log_paths() {
        let one = pod(&["c"], &[], &json!({}));
        for (text, expected) in [
            ("", Ok("/containerLogs/ns/p/c")),
            ("container=c&follow=true", Ok("/containerLogs/ns/p/c?follow=true")),
            ("follow=false&tailLines=0", Ok("/containerLogs/ns/p/c?tailLines=0")),
            (
                "timestamps=true&previous=true&sinceSeconds=5&limitBytes=9",
                Ok("/containerLogs/ns/p/c?previous=true&timestamps=true&sinceSeconds=5&limitBytes=9"),
            ),
            (
                "sinceTime=2026-01-02T03:04:05Z",
                Ok("/containerLogs/ns/p/c?sinceTime=2026-01-02T03%3A04%3A05Z"),
            ),
            ("container=x", Err("container x is not valid for pod p")),
            ("container=..%2Fother", Err("is not valid for pod p")),
            ("tailLines=-1", Err("tailLines: Invalid value: -1: must be greater than or equal to 0")),
            ("sinceSeconds=0", Err("must be greater than 0")),
            ("tailLines=many", Err("is not a number")),
            ("sinceTime=2026-01-02T03:04:05Z&sinceSeconds=5", Err("at most one of")),
            ("sinceTime=yesterday", Err("is not a time")),
            ("stream=Both", Err("Unsupported value")),
        ] {
            match (log(&one, &query(text)), expected) {
                (Ok(path), Ok(expected)) => assert_eq!(path, expected),
                (Err(error), Err(part)) => {
                    assert!(error.message().contains(part), "{text}: {}", error.message())
                }
                (result, _) => panic!("{text}: {result:?}"),
            }
        }
    }

    #[test]
    fn a_container_must_be_named_when_there_are_several() {
        let several = pod(&["a", "b"], &["i"], &json!({}));
        assert_eq!(
            log(&several, &query("")).unwrap_err().message(),
            "a container name must be specified for pod p, choose one of: [a b] or one of the init containers: [i]"
        );
        assert!(log(&several, &query("container=i")).is_ok());
    }

    #[test]
    fn sessions() {
        let one = pod(&["c"], &[], &json!({}));
        let path =
            exec(&one, &query("command=sh&command=-c&command=echo+a%26b&stdin=true&stdout=true&tty=true"))
                .unwrap();
        assert_eq!(path, "/exec/ns/p/c?command=sh&command=-c&command=echo%20a%26b&input=1&output=1&tty=1");
        assert!(exec(&one, &query("stdout=true")).unwrap_err().message().contains("at least 1 command"));
        assert!(
            exec(&one, &query("command=sh&tty=true")).unwrap_err().message().contains("at least 1 of stdin")
        );
        assert_eq!(attach(&one, &query("stdout=1&stderr=1")).unwrap(), "/attach/ns/p/c?output=1&error=1");
        let done = pod(&["c"], &[], &json!({"phase": "Succeeded"}));
        let error = exec(&done, &query("command=sh&stdout=true")).unwrap_err();
        assert_eq!(
            error.message(),
            "cannot exec into a container in a completed pod; current phase is Succeeded"
        );
    }

    #[test]
    fn ports() {
        let one = pod(&["c"], &[], &json!({}));
        assert_eq!(port_forward(&one, &query("")).unwrap(), "/portForward/ns/p");
        assert_eq!(
            port_forward(&one, &query("ports=80&ports=443")).unwrap(),
            "/portForward/ns/p?port=80%2C443"
        );
        for bad in ["ports=0", "ports=65536", "ports=x", "ports=-1"] {
            assert!(port_forward(&one, &query(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_pod_needs_a_node() {
        let mut pod = pod(&["c"], &[], &json!({}));
        assert_eq!(node_of(&pod).unwrap(), "one");
        pod.spec.as_mut().unwrap().node_name = None;
        assert_eq!(node_of(&pod).unwrap_err().message(), "pod p does not have a host assigned");
    }
}
