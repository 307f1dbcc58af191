//! The client of the Container Runtime Interface: one gRPC channel over a unix socket, a limit on every call's time
//! and answer size, errors that keep their gRPC code. It knows nothing of pods. Upstream's concept: `cri-client`.

use std::collections::HashMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::future::BoxFuture;
use hyper_util::rt::TokioIo;
use proto::runtime_v1 as v1;
use proto::runtime_v1::image_service_client::ImageServiceClient;
use proto::runtime_v1::runtime_service_client::RuntimeServiceClient;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Response, Status};
use tower::service_fn;

/// The largest answer taken from a runtime, and the largest request sent to one.
const MAX_MESSAGE_SIZE: usize = 16 * 1024 * 1024;

/// A pull may be long; a runtime that makes no progress gives up by itself long before.
const PULL_TIMEOUT: Duration = Duration::from_secs(60 * 60);

/// Longer than any hook: the caller of a command without a limit drops the call when it no longer waits.
const UNLIMITED: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// A call that failed, with the runtime's code and words.
#[derive(Debug, Clone, thiserror::Error)]
#[error("rpc error: code = {code:?} desc = {message}")]
pub struct Error {
    /// The call's name, for logs.
    pub call: &'static str,
    /// The gRPC code.
    pub code: Code,
    /// The runtime's description.
    pub message: String,
}

impl Error {
    /// Whether the runtime has no such sandbox, container or image.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.code == Code::NotFound
    }
}

/// An endpoint that can't be one.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// Only unix sockets are spoken to.
    #[error("protocol {0:?} of the container runtime endpoint is not supported, only unix")]
    Protocol(String),
    /// Nothing was given.
    #[error("the container runtime endpoint is empty")]
    Empty,
}

/// The socket's path in an endpoint (`unix:///run/containerd/containerd.sock`, or the bare path).
pub fn socket_path(endpoint: &str) -> Result<PathBuf, EndpointError> {
    let path = match endpoint.split_once("://") {
        Some(("unix", path)) => path,
        Some((protocol, _)) => return Err(EndpointError::Protocol(protocol.to_owned())),
        None => endpoint,
    };
    if path.is_empty() { Err(EndpointError::Empty) } else { Ok(PathBuf::from(path)) }
}

/// Talks to the runtime and image services behind one endpoint; cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    runtime: RuntimeServiceClient<Channel>,
    image: ImageServiceClient<Channel>,
    timeout: Duration,
}

/// Waits for an answer, but not for ever. The call is boxed: requests are large, and every caller up to the pod worker
/// would carry them.
fn within<'a, T: 'a>(
    call: &'static str,
    limit: Duration,
    answer: impl Future<Output = Result<Response<T>, Status>> + Send + 'a,
) -> impl Future<Output = Result<T, Error>> + Send + 'a {
    let answer: BoxFuture<'a, _> = Box::pin(answer);
    bounded(call, limit, answer)
}

async fn bounded<T>(
    call: &'static str,
    limit: Duration,
    answer: BoxFuture<'_, Result<Response<T>, Status>>,
) -> Result<T, Error> {
    match tokio::time::timeout(limit, answer).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(Error { call, code: status.code(), message: status.message().to_owned() }),
        Err(_) => Err(Error {
            call,
            code: Code::DeadlineExceeded,
            message: format!("{call}: context deadline exceeded after {limit:?}"),
        }),
    }
}

impl Client {
    /// Prepares the channel; the first call dials, and a lost connection is dialled again by the next one.
    #[must_use]
    pub fn new(socket: &Path, timeout: Duration) -> Self {
        let socket = socket.to_owned();
        // The URI only fills HTTP/2's :authority; the connector alone decides where the bytes go.
        let channel = Endpoint::from_static("http://localhost").connect_with_connector_lazy(service_fn(
            move |_: Uri| {
                let socket = socket.clone();
                async move { UnixStream::connect(socket).await.map(TokioIo::new) }
            },
        ));
        Self {
            runtime: RuntimeServiceClient::new(channel.clone())
                .max_decoding_message_size(MAX_MESSAGE_SIZE)
                .max_encoding_message_size(MAX_MESSAGE_SIZE),
            image: ImageServiceClient::new(channel)
                .max_decoding_message_size(MAX_MESSAGE_SIZE)
                .max_encoding_message_size(MAX_MESSAGE_SIZE),
            timeout,
        }
    }

    /// The limit on a call that is not expected to wait.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Version.
    pub async fn version(&self) -> Result<v1::VersionResponse, Error> {
        let request = v1::VersionRequest { version: "v1".to_owned() };
        within("Version", self.timeout, self.runtime.clone().version(request)).await
    }

    /// Status, without the verbose part.
    pub async fn status(&self) -> Result<v1::StatusResponse, Error> {
        within("Status", self.timeout, self.runtime.clone().status(v1::StatusRequest { verbose: false }))
            .await
    }

    /// RuntimeConfig, which runtimes before containerd 2.0 answer with Unimplemented.
    pub async fn runtime_config(&self) -> Result<v1::RuntimeConfigResponse, Error> {
        within(
            "RuntimeConfig",
            self.timeout,
            self.runtime.clone().runtime_config(v1::RuntimeConfigRequest {}),
        )
        .await
    }

    /// UpdateRuntimeConfig with the node's pod CIDR.
    pub async fn set_pod_cidr(&self, cidr: &str) -> Result<(), Error> {
        let network_config = Some(v1::NetworkConfig { pod_cidr: cidr.to_owned() });
        let request =
            v1::UpdateRuntimeConfigRequest { runtime_config: Some(v1::RuntimeConfig { network_config }) };
        within("UpdateRuntimeConfig", self.timeout, self.runtime.clone().update_runtime_config(request))
            .await
            .map(|_| ())
    }

    /// RunPodSandbox. CNI plugins run inside this call, so it gets twice the usual time.
    pub async fn run_pod_sandbox(
        &self,
        config: v1::PodSandboxConfig,
        runtime_handler: String,
    ) -> Result<String, Error> {
        let request = v1::RunPodSandboxRequest { config: Some(config), runtime_handler };
        let call = "RunPodSandbox";
        let id = within(call, self.timeout * 2, self.runtime.clone().run_pod_sandbox(request))
            .await?
            .pod_sandbox_id;
        non_empty(call, "PodSandboxId", id)
    }

    /// StopPodSandbox.
    pub async fn stop_pod_sandbox(&self, id: &str) -> Result<(), Error> {
        let request = v1::StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
        within("StopPodSandbox", self.timeout, self.runtime.clone().stop_pod_sandbox(request))
            .await
            .map(|_| ())
    }

    /// RemovePodSandbox.
    pub async fn remove_pod_sandbox(&self, id: &str) -> Result<(), Error> {
        let request = v1::RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
        within("RemovePodSandbox", self.timeout, self.runtime.clone().remove_pod_sandbox(request))
            .await
            .map(|_| ())
    }

    /// PodSandboxStatus.
    pub async fn pod_sandbox_status(&self, id: &str) -> Result<v1::PodSandboxStatus, Error> {
        let request = v1::PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: false };
        let call = "PodSandboxStatus";
        let response = within(call, self.timeout, self.runtime.clone().pod_sandbox_status(request)).await?;
        response.status.ok_or_else(|| malformed(call, "answer without a status"))
    }

    /// ListPodSandbox with these labels (all of them when empty).
    pub async fn list_pod_sandbox(
        &self,
        labels: HashMap<String, String>,
    ) -> Result<Vec<v1::PodSandbox>, Error> {
        let filter = v1::PodSandboxFilter { label_selector: labels, ..Default::default() };
        let request = v1::ListPodSandboxRequest { filter: Some(filter) };
        within("ListPodSandbox", self.timeout, self.runtime.clone().list_pod_sandbox(request))
            .await
            .map(|r| r.items)
    }

    /// CreateContainer.
    pub async fn create_container(
        &self,
        sandbox_id: &str,
        config: v1::ContainerConfig,
        sandbox_config: v1::PodSandboxConfig,
    ) -> Result<String, Error> {
        let request = v1::CreateContainerRequest {
            pod_sandbox_id: sandbox_id.to_owned(),
            config: Some(config),
            sandbox_config: Some(sandbox_config),
        };
        let call = "CreateContainer";
        let id =
            within(call, self.timeout, self.runtime.clone().create_container(request)).await?.container_id;
        non_empty(call, "ContainerId", id)
    }

    /// StartContainer.
    pub async fn start_container(&self, id: &str) -> Result<(), Error> {
        let request = v1::StartContainerRequest { container_id: id.to_owned() };
        within("StartContainer", self.timeout, self.runtime.clone().start_container(request))
            .await
            .map(|_| ())
    }

    /// StopContainer: TERM, then KILL after `grace_seconds`, which the call waits for.
    pub async fn stop_container(&self, id: &str, grace_seconds: i64) -> Result<(), Error> {
        let request = v1::StopContainerRequest { container_id: id.to_owned(), timeout: grace_seconds };
        let limit = self.timeout + Duration::from_secs(grace_seconds.max(0).unsigned_abs());
        within("StopContainer", limit, self.runtime.clone().stop_container(request)).await.map(|_| ())
    }

    /// RemoveContainer.
    pub async fn remove_container(&self, id: &str) -> Result<(), Error> {
        let request = v1::RemoveContainerRequest { container_id: id.to_owned() };
        within("RemoveContainer", self.timeout, self.runtime.clone().remove_container(request))
            .await
            .map(|_| ())
    }

    /// ListContainers with these labels (all of them when empty).
    pub async fn list_containers(
        &self,
        labels: HashMap<String, String>,
    ) -> Result<Vec<v1::Container>, Error> {
        let filter = v1::ContainerFilter { label_selector: labels, ..Default::default() };
        let request = v1::ListContainersRequest { filter: Some(filter) };
        within("ListContainers", self.timeout, self.runtime.clone().list_containers(request))
            .await
            .map(|r| r.containers)
    }

    /// ContainerStatus.
    pub async fn container_status(&self, id: &str) -> Result<v1::ContainerStatus, Error> {
        let request = v1::ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
        let call = "ContainerStatus";
        let response = within(call, self.timeout, self.runtime.clone().container_status(request)).await?;
        response.status.ok_or_else(|| malformed(call, "answer without a status"))
    }

    /// ReopenContainerLog, after its file was renamed.
    pub async fn reopen_container_log(&self, id: &str) -> Result<(), Error> {
        let request = v1::ReopenContainerLogRequest { container_id: id.to_owned() };
        within("ReopenContainerLog", self.timeout, self.runtime.clone().reopen_container_log(request))
            .await
            .map(|_| ())
    }

    /// ExecSync. A zero limit means that the command may run as long as its caller waits for it.
    pub async fn exec_sync(
        &self,
        id: &str,
        command: &[String],
        limit: Duration,
    ) -> Result<v1::ExecSyncResponse, Error> {
        let seconds = limit.as_secs() + u64::from(limit.subsec_nanos() > 0);
        let request = v1::ExecSyncRequest {
            container_id: id.to_owned(),
            cmd: command.to_vec(),
            timeout: i64::try_from(seconds).unwrap_or(i64::MAX),
        };
        // The runtime ends the command; our own limit only guards against a runtime that doesn't.
        let limit =
            if seconds == 0 { UNLIMITED } else { Duration::from_secs(seconds).saturating_add(self.timeout) };
        within("ExecSync", limit, self.runtime.clone().exec_sync(request)).await
    }

    /// Exec: the URL of a streaming endpoint.
    pub async fn exec(&self, request: v1::ExecRequest) -> Result<String, Error> {
        within("Exec", self.timeout, self.runtime.clone().exec(request)).await.map(|r| r.url)
    }

    /// Attach: the URL of a streaming endpoint.
    pub async fn attach(&self, request: v1::AttachRequest) -> Result<String, Error> {
        within("Attach", self.timeout, self.runtime.clone().attach(request)).await.map(|r| r.url)
    }

    /// PortForward: the URL of a streaming endpoint.
    pub async fn port_forward(&self, request: v1::PortForwardRequest) -> Result<String, Error> {
        within("PortForward", self.timeout, self.runtime.clone().port_forward(request)).await.map(|r| r.url)
    }

    /// ListContainerStats of all running containers.
    pub async fn list_container_stats(&self) -> Result<Vec<v1::ContainerStats>, Error> {
        let request = v1::ListContainerStatsRequest { filter: None };
        within("ListContainerStats", self.timeout, self.runtime.clone().list_container_stats(request))
            .await
            .map(|r| r.stats)
    }

    /// ImageStatus: `None` when the image is not on the node.
    pub async fn image_status(&self, image: &str) -> Result<Option<v1::Image>, Error> {
        let request = v1::ImageStatusRequest { image: Some(image_spec(image)), verbose: false };
        let call = "ImageStatus";
        let response = within(call, self.timeout, self.image.clone().image_status(request)).await?;
        match response.image {
            Some(image) if image.id.is_empty() => Err(malformed(call, "image without an id")),
            image => Ok(image),
        }
    }

    /// ListImages.
    pub async fn list_images(&self) -> Result<Vec<v1::Image>, Error> {
        within(
            "ListImages",
            self.timeout,
            self.image.clone().list_images(v1::ListImagesRequest { filter: None }),
        )
        .await
        .map(|r| r.images)
    }

    /// PullImage: the reference of what was pulled.
    pub async fn pull_image(
        &self,
        image: &str,
        auth: Option<v1::AuthConfig>,
        sandbox_config: v1::PodSandboxConfig,
    ) -> Result<String, Error> {
        let request = v1::PullImageRequest {
            image: Some(image_spec(image)),
            auth,
            sandbox_config: Some(sandbox_config),
        };
        let call = "PullImage";
        let image_ref = within(call, PULL_TIMEOUT, self.image.clone().pull_image(request)).await?.image_ref;
        non_empty(call, "ImageRef", image_ref)
    }

    /// RemoveImage.
    pub async fn remove_image(&self, image: &str) -> Result<(), Error> {
        let request = v1::RemoveImageRequest { image: Some(image_spec(image)) };
        within("RemoveImage", self.timeout, self.image.clone().remove_image(request)).await.map(|_| ())
    }

    /// ImageFsInfo.
    pub async fn image_fs_info(&self) -> Result<v1::ImageFsInfoResponse, Error> {
        within("ImageFsInfo", self.timeout, self.image.clone().image_fs_info(v1::ImageFsInfoRequest {})).await
    }
}

/// An image by the name its user gave.
#[must_use]
pub fn image_spec(image: &str) -> v1::ImageSpec {
    v1::ImageSpec { image: image.to_owned(), user_specified_image: image.to_owned(), ..Default::default() }
}

fn malformed(call: &'static str, what: &str) -> Error {
    Error { call, code: Code::Internal, message: format!("malformed {call} response: {what}") }
}

fn non_empty(call: &'static str, field: &str, value: String) -> Result<String, Error> {
    if value.is_empty() { Err(malformed(call, &format!("{field} is not set"))) } else { Ok(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        let path = |endpoint| socket_path(endpoint).map_err(|e| e.to_string());
        assert_eq!(path("unix:///run/c.sock"), Ok(PathBuf::from("/run/c.sock")));
        assert_eq!(path("/run/c.sock"), Ok(PathBuf::from("/run/c.sock")));
        assert!(path("tcp://127.0.0.1:1").unwrap_err().contains("\"tcp\""));
        assert!(path("").is_err());
        assert!(path("unix://").is_err());
    }

    #[tokio::test]
    async fn a_missing_socket_is_unavailable() {
        let dir = tempfile::tempdir().unwrap();
        let client = Client::new(&dir.path().join("none.sock"), Duration::from_secs(5));
        let error = client.version().await.unwrap_err();
        assert_eq!(error.code, Code::Unavailable, "{error}");
    }

    #[tokio::test]
    async fn a_silent_runtime_ends_in_deadline_exceeded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("silent.sock");
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let client = Client::new(&path, Duration::from_millis(50));
        assert_eq!(client.version().await.unwrap_err().code, Code::DeadlineExceeded);
    }
}
