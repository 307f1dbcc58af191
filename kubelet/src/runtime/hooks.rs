//! Lifecycle handlers: exec, httpGet and sleep. tcpSocket is refused, as upstream never runs it. Upstream's concept:
//! `pkg/kubelet/lifecycle`.

use std::net::IpAddr;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Request};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, LifecycleHandler};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::net::TcpStream;

use crate::cri;

/// As much of a hook's answer as is worth a message.
const MAX_BODY: usize = 10 * 1024;

/// A hook that didn't end well; the text of the container's message.
#[derive(Debug, thiserror::Error)]
pub(super) enum HookError {
    /// The command couldn't be run.
    #[error("Exec lifecycle hook ({command:?}) for Container {container:?} failed - error: {source}")]
    Exec {
        /// The command.
        command: Vec<String>,
        /// The container.
        container: String,
        /// Why.
        source: cri::Error,
    },
    /// The command ended with an error.
    #[error(
        "Exec lifecycle hook ({command:?}) for Container {container:?} failed - error: command '{}' exited with \
         {exit_code}: , message: {output:?}",
        command.join(" ")
    )]
    ExitCode {
        /// The command.
        command: Vec<String>,
        /// The container.
        container: String,
        /// Its exit code.
        exit_code: i32,
        /// What it wrote.
        output: String,
    },
    /// The request failed.
    #[error("HTTP lifecycle hook ({path}) for Container {container:?} failed - error: {message}")]
    Http {
        /// The request's path.
        path: String,
        /// The container.
        container: String,
        /// Why.
        message: String,
    },
    /// Neither of the known kinds.
    #[error("invalid handler: {0}")]
    Invalid(&'static str),
}

/// A port by number, or by its name among the container's.
fn resolve_port(port: &IntOrString, container: &Container) -> Option<u16> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => match name.parse() {
            Ok(number) => number,
            Err(_) => {
                let mut ports = container.ports.iter().flatten();
                ports.find(|p| p.name.as_deref() == Some(name))?.container_port
            }
        },
    };
    u16::try_from(number).ok().filter(|port| *port > 0)
}

async fn http_get(
    action: &HTTPGetAction,
    container: &Container,
    pod_ip: Option<IpAddr>,
) -> Result<(), String> {
    if action.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https")) {
        return Err("httpGet hooks with scheme HTTPS are not supported".to_owned());
    }
    let host = match action.host.as_deref().filter(|host| !host.is_empty()) {
        Some(host) => host.to_owned(),
        None => pod_ip.ok_or("pod has no address")?.to_string(),
    };
    let port =
        resolve_port(&action.port, container).ok_or_else(|| format!("no such port: {:?}", action.port))?;
    let stream = TcpStream::connect((host.as_str(), port)).await.map_err(|e| e.to_string())?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    let path = action.path.as_deref().unwrap_or("/");
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let authority = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let mut request =
        Request::get(path).header(http::header::HOST, authority).header("User-Agent", "kube-lifecycle/1.36");
    for header in action.http_headers.iter().flatten() {
        let name = HeaderName::try_from(header.name.as_str()).map_err(|e| e.to_string())?;
        request =
            request.header(name, HeaderValue::try_from(header.value.as_str()).map_err(|e| e.to_string())?);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|e| e.to_string())?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
        let status = response.status();
        // The body is read so that the server sees its answer taken; what it says doesn't matter.
        let _ = Limited::new(response.into_body(), MAX_BODY).collect().await;
        if status.is_client_error() || status.is_server_error() {
            return Err(format!("HTTP hook answered {status}"));
        }
        Ok(())
    };
    tokio::select! {
        result = exchange => result,
        result = connection => Err(result.err().map_or_else(|| "connection closed".to_owned(), |e| e.to_string())),
    }
}

/// Runs one handler to its end. The caller bounds its time.
pub(super) async fn run(
    cri: &cri::Client,
    handler: &LifecycleHandler,
    container: &Container,
    container_id: &str,
    pod_ip: Option<IpAddr>,
) -> Result<(), HookError> {
    let name = || container.name.clone();
    if let Some(exec) = &handler.exec {
        let command = exec.command.clone().unwrap_or_default();
        let output = match cri.exec_sync(container_id, &command, Duration::ZERO).await {
            Ok(output) => output,
            Err(source) => return Err(HookError::Exec { command, container: name(), source }),
        };
        if output.exit_code != 0 {
            let text = [output.stdout, output.stderr].concat();
            let text = String::from_utf8_lossy(&text[..text.len().min(MAX_BODY)]).into_owned();
            return Err(HookError::ExitCode {
                command,
                container: name(),
                exit_code: output.exit_code,
                output: text,
            });
        }
        return Ok(());
    }
    if let Some(action) = &handler.http_get {
        let path = action.path.clone().unwrap_or_default();
        return http_get(action, container, pod_ip).await.map_err(|message| HookError::Http {
            path,
            container: name(),
            message,
        });
    }
    if let Some(sleep) = &handler.sleep {
        tokio::time::sleep(Duration::from_secs(sleep.seconds.max(0).unsigned_abs())).await;
        return Ok(());
    }
    Err(HookError::Invalid("exec, httpGet or sleep must be set"))
}
