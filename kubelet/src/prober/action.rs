//! One probe attempt: exec, HTTP, TCP or gRPC, against the container as the pod's status shows it.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, PodStatus, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{grpc, http, tcp};
use crate::runtime::{Runtime, RuntimeError};

/// What one attempt says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Good.
    Success,
    /// Good, with something to tell.
    Warning(String),
    /// Bad, with the output.
    Failure(String),
}

const MAX_OUTPUT: usize = 10 * 1024;

/// Runs it. `Err`: the probe could not be run at all, which counts for nothing.
pub(super) async fn run(
    runtime: &Runtime,
    probe: &Probe,
    container: &Container,
    container_id: &str,
    status: &PodStatus,
) -> Result<Verdict, String> {
    let seconds = probe.timeout_seconds.filter(|s| *s > 0).unwrap_or(1);
    let timeout = Duration::from_secs(u64::try_from(seconds).unwrap_or(1));
    let pod_ip = status.pod_ip.as_deref().unwrap_or_default();
    if let Some(exec) = &probe.exec {
        let command = exec.command.clone().unwrap_or_default();
        return exec_probe(runtime, container_id, &command, timeout).await;
    }
    if let Some(get) = &probe.http_get {
        let port = resolve_port(&get.port, container)?;
        let host = get.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(pod_ip);
        return http::probe(get, host, port, timeout).await;
    }
    if let Some(socket) = &probe.tcp_socket {
        let port = resolve_port(&socket.port, container)?;
        let host = socket.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(pod_ip);
        return Ok(tcp::probe(host, port, timeout).await);
    }
    if let Some(action) = &probe.grpc {
        let port = u16::try_from(action.port).map_err(|_| format!("invalid port number: {}", action.port))?;
        return Ok(grpc::probe(pod_ip, port, action.service.as_deref().unwrap_or_default(), timeout).await);
    }
    Err(format!("missing probe handler for {}", container.name))
}

async fn exec_probe(
    runtime: &Runtime,
    container_id: &str,
    command: &[String],
    timeout: Duration,
) -> Result<Verdict, String> {
    match runtime.exec_sync(container_id, command, timeout).await {
        Ok(output) => {
            let mut text = output.stdout;
            text.extend_from_slice(&output.stderr);
            text.truncate(MAX_OUTPUT);
            let text = String::from_utf8_lossy(&text).into_owned();
            Ok(if output.exit_code == 0 { Verdict::Success } else { Verdict::Failure(text) })
        }
        Err(RuntimeError::Timeout(message)) => Ok(Verdict::Failure(message)),
        Err(error) => Err(error.to_string()),
    }
}

/// A number, or the name of one of the container's ports.
pub(super) fn resolve_port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|p| p.name.as_deref() == Some(name));
            match named {
                Some(found) => found.container_port,
                None => name.parse().map_err(|_| format!("couldn't find port: {name} in container"))?,
            }
        }
    };
    u16::try_from(number).ok().filter(|n| *n > 0).ok_or_else(|| format!("invalid port number: {number}"))
}
