//! The kubelet's port, 10250: logs, exec, attach, port forwarding, pods, statistics, metrics, over TLS, to callers that
//! the apiserver vouches for. Paths and parameters are upstream's. Upstream's concept: `pkg/kubelet/server`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use component_base::Shutdown;
use component_base::metrics::{self, Registry};
use component_base::serving::http_server::{self, full};
use component_base::serving::{Handler, Limits, Peer, ResponseBody};
use component_base::tls::{self, TlsError};
use futures::FutureExt;
use http::header::{ALLOW, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

pub mod auth;
pub mod container_logs;
pub mod query;
pub mod route;
pub mod stats;
pub mod streaming;

use crate::config::ServerConfig;
use crate::pod_manager::PodManager;
use crate::runtime::{ContainerState, Runtime, SandboxState};
use crate::status_manager::StatusManager;
use auth::{Auth, Refusal};
use query::Query;
use route::{ContainerPath, Route};
use streaming::StreamOptions;

/// Why the port can't be served.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The address is taken, or not ours.
    #[error("failed to listen on {address}")]
    Listen {
        /// What was asked for.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The certificate or the clients' CA can't be used.
    #[error("serving certificate")]
    Tls(#[from] TlsError),
    /// The directory for the self-signed certificate.
    #[error("failed to create {path}")]
    CertDir {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// What the server answers from.
#[derive(Clone)]
pub struct ServerContext {
    /// The port.
    pub config: ServerConfig,
    /// This node's name.
    pub node_name: String,
    /// The runtime.
    pub runtime: Runtime,
    /// The pods this kubelet runs.
    pub pods: PodManager,
    /// Their statuses.
    pub statuses: StatusManager,
    /// The apiserver, which is asked who may.
    pub client: Option<kube::Client>,
    /// `/metrics`.
    pub metrics: Registry,
}

impl std::fmt::Debug for ServerContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerContext").field("config", &self.config).finish_non_exhaustive()
    }
}

struct Server {
    context: ServerContext,
    auth: Auth,
}

/// The configured certificate, or a self-signed one that is made once and kept in the certificate directory.
fn tls_config(context: &ServerContext) -> Result<rustls::ServerConfig, ServerError> {
    let config = &context.config;
    let client_ca = config.auth.client_ca_file.as_deref();
    if let Some((cert, key)) = &config.tls {
        return Ok(tls::server_config_from_files(cert, key, client_ca)?);
    }
    let (cert, key) = (config.cert_dir.join("kubelet.crt"), config.cert_dir.join("kubelet.key"));
    if !cert.exists() || !key.exists() {
        std::fs::create_dir_all(&config.cert_dir)
            .map_err(|source| ServerError::CertDir { path: config.cert_dir.clone(), source })?;
        let ips = context.runtime.config().node_ips.iter().map(ToString::to_string);
        let names: Vec<String> = std::iter::once(context.node_name.clone()).chain(ips).collect();
        tls::self_signed(&context.node_name, &names)?.write(&cert, &key)?;
    }
    Ok(tls::server_config_from_files(&cert, &key, client_ca)?)
}

/// Listens and serves until shutdown. Returns the address that it listens on.
pub async fn start(
    context: ServerContext,
    tracker: &TaskTracker,
    shutdown: &Shutdown,
) -> Result<SocketAddr, ServerError> {
    let tls = Arc::new(tls_config(&context)?);
    let address = context.config.address;
    let failed = |source| ServerError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let local = listener.local_addr().map_err(failed)?;
    let auth = Auth::new(&context.config.auth, context.node_name.clone(), context.client.clone());
    let server = Arc::new(Server { context, auth });
    let handler: Handler = Arc::new(move |request, peer| {
        let server = server.clone();
        async move { server.answer(request, peer).await }.boxed()
    });
    tracing::info!(address = %local, "serving the kubelet's API");
    tracker.spawn(http_server::run(listener, Some(tls), Limits::default(), handler, shutdown.clone()));
    Ok(local)
}

fn text(status: StatusCode, text: impl Into<bytes::Bytes>) -> Response<ResponseBody> {
    let mut response = Response::new(full(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

fn json(value: &impl serde::Serialize) -> Response<ResponseBody> {
    match serde_json::to_vec(value) {
        Ok(bytes) => {
            let mut response = text(StatusCode::OK, bytes);
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response
        }
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

fn refuse(refusal: Refusal) -> Response<ResponseBody> {
    match refusal {
        Refusal::Unauthorized => {
            let mut response = text(StatusCode::UNAUTHORIZED, "Unauthorized");
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            response
        }
        Refusal::Forbidden(why) => text(StatusCode::FORBIDDEN, why),
        Refusal::Unavailable(why) => text(StatusCode::INTERNAL_SERVER_ERROR, why),
    }
}

type Answer = Result<Response<ResponseBody>, (StatusCode, String)>;

fn internal(error: impl std::fmt::Display) -> (StatusCode, String) {
    (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n"))
}

impl Server {
    async fn answer(&self, request: Request<Incoming>, peer: Peer) -> Response<ResponseBody> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        // Whoever may not ask doesn't learn what there is either.
        if let Err(refusal) = self.auth.check(&method, &path, request.headers(), &peer).await {
            tracing::info!(%method, path, address = %peer.address, ?refusal, "request refused");
            return refuse(refusal);
        }
        let query = Query::parse(request.uri().query());
        let answer = match route::route(&method, &path, self.context.config.debugging_handlers) {
            Route::Healthz => Ok(text(StatusCode::OK, "ok")),
            Route::Metrics => Ok(self.metrics()),
            Route::Pods => Ok(self.pods()),
            Route::RunningPods => self.running_pods().await,
            Route::StatsSummary => self.stats().await,
            Route::ContainerLogs(path) => self.container_logs(&path, &query).await,
            Route::Exec(path) => self.exec(request, &path, &query).await,
            Route::Attach(path) => self.attach(request, &path, &query).await,
            Route::PortForward(path) => self.port_forward(request, &path, &query).await,
            Route::NotSupported => Err((StatusCode::NOT_IMPLEMENTED, format!("{path} is not supported\n"))),
            Route::NotFound => Err((StatusCode::NOT_FOUND, "404 page not found\n".to_owned())),
            Route::MethodNotAllowed => {
                let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n");
                response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, POST"));
                Ok(response)
            }
        };
        answer.unwrap_or_else(|(status, why)| {
            tracing::debug!(%method, path, %status, why, "request failed");
            text(status, why)
        })
    }

    fn metrics(&self) -> Response<ResponseBody> {
        let mut response = text(StatusCode::OK, self.context.metrics.encode());
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(metrics::CONTENT_TYPE));
        response
    }

    fn pods(&self) -> Response<ResponseBody> {
        let with_status = |pod: &Arc<Pod>| {
            let mut pod = Pod::clone(pod);
            let status = pod.metadata.uid.as_deref().and_then(|uid| self.context.statuses.get(uid));
            if let Some(status) = status {
                pod.status = Some((*status).clone());
            }
            pod
        };
        let items: Vec<Pod> = self.context.pods.pods().iter().map(with_status).collect();
        json(&serde_json::json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
    }

    async fn running_pods(&self) -> Answer {
        let pods = self.context.runtime.list_pods().await.map_err(internal)?;
        let running = |pod: &crate::runtime::RuntimePodSummary| {
            let containers = pod.containers.iter().filter(|c| c.state == ContainerState::Running);
            let containers: Vec<_> = containers.map(|c| serde_json::json!({"name": c.name})).collect();
            serde_json::json!({
                "metadata": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
                "spec": {"containers": containers}, "status": {},
            })
        };
        let alive =
            pods.iter().filter(|pod| pod.containers.iter().any(|c| c.state == ContainerState::Running));
        let items: Vec<_> = alive.map(running).collect();
        Ok(json(&serde_json::json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})))
    }

    async fn stats(&self) -> Answer {
        let containers = self.context.runtime.cri().list_container_stats().await.map_err(internal)?;
        Ok(json(&stats::summary(&self.context.node_name, &containers).map_err(internal)?))
    }

    /// The pod that a path names; with a uid in the path it must be that very pod.
    fn pod(&self, path: &ContainerPath) -> Result<Arc<Pod>, (StatusCode, String)> {
        let pod = self.context.pods.get_by_name(&path.namespace, &path.pod);
        pod.filter(|pod| path.uid.is_none() || pod.metadata.uid == path.uid)
            .ok_or_else(|| (StatusCode::NOT_FOUND, format!("pod {:?} does not exist\n", path.pod)))
    }

    async fn runtime_status(
        &self,
        pod: &Pod,
    ) -> Result<crate::runtime::RuntimePodStatus, (StatusCode, String)> {
        let meta = &pod.metadata;
        let (uid, name) = (meta.uid.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default());
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        self.context.runtime.pod_status(uid, name, namespace).await.map_err(internal)
    }

    async fn container_logs(&self, path: &ContainerPath, query: &Query) -> Answer {
        let asked = container_logs::parse(query, Timestamp::now())?;
        let pod = self.pod(path)?;
        if !apimachinery::pod::all_containers(&pod).any(|c| c.name == path.container) {
            let text = format!("container {:?} not found in pod {:?}\n", path.container, path.pod);
            return Err((StatusCode::NOT_FOUND, text));
        }
        let found = self.runtime_status(&pod).await?;
        let status = pod.metadata.uid.as_deref().and_then(|uid| self.context.statuses.get(uid));
        let container =
            container_logs::choose(&pod, status.as_deref(), &found, &path.container, asked.previous)?;
        Ok(container_logs::stream(self.context.runtime.clone(), container, asked.options))
    }

    async fn running_container(&self, path: &ContainerPath) -> Result<String, (StatusCode, String)> {
        let pod = self.pod(path)?;
        let found = self.runtime_status(&pod).await?;
        let running = found.container(&path.container).filter(|c| c.state == ContainerState::Running);
        running
            .map(|container| container.id.clone())
            .ok_or_else(|| (StatusCode::NOT_FOUND, format!("container not found ({:?})\n", path.container)))
    }

    async fn exec(&self, request: Request<Incoming>, path: &ContainerPath, query: &Query) -> Answer {
        let options = StreamOptions::parse(query).map_err(|why| (StatusCode::BAD_REQUEST, why))?;
        let command: Vec<String> = query.all("command").map(str::to_owned).collect();
        if command.is_empty() {
            return Err((StatusCode::BAD_REQUEST, "you must specify a command\n".to_owned()));
        }
        check_upgrade(&request)?;
        let id = self.running_container(path).await?;
        let url = self.context.runtime.cri().exec(options.exec(&id, command)).await.map_err(internal)?;
        Ok(self.stream(request, &url).await)
    }

    async fn attach(&self, request: Request<Incoming>, path: &ContainerPath, query: &Query) -> Answer {
        let options = StreamOptions::parse(query).map_err(|why| (StatusCode::BAD_REQUEST, why))?;
        check_upgrade(&request)?;
        let id = self.running_container(path).await?;
        let url = self.context.runtime.cri().attach(options.attach(&id)).await.map_err(internal)?;
        Ok(self.stream(request, &url).await)
    }

    async fn port_forward(&self, request: Request<Incoming>, path: &ContainerPath, query: &Query) -> Answer {
        check_upgrade(&request)?;
        let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0).map(i32::from);
        let ports =
            query.all("port").flat_map(|value| value.split(',')).map(port).collect::<Option<Vec<_>>>();
        let port = ports
            .ok_or_else(|| (StatusCode::BAD_REQUEST, "port must be a number from 1 to 65535\n".to_owned()))?;
        let found = self.runtime_status(&*self.pod(path)?).await?;
        let sandbox =
            found.sandboxes.first().filter(|s| s.state == SandboxState::Ready).ok_or_else(|| {
                (
                    StatusCode::NOT_FOUND,
                    format!("pod not found ({:?})\n", format!("{}_{}", path.pod, path.namespace)),
                )
            })?;
        let asked = proto::runtime_v1::PortForwardRequest { pod_sandbox_id: sandbox.id.clone(), port };
        let url = self.context.runtime.cri().port_forward(asked).await.map_err(internal)?;
        Ok(self.stream(request, &url).await)
    }

    async fn stream(&self, request: Request<Incoming>, url: &str) -> Response<ResponseBody> {
        streaming::proxy(request, url, self.context.config.streaming_idle_timeout).await
    }
}

fn check_upgrade(request: &Request<Incoming>) -> Result<(), (StatusCode, String)> {
    if streaming::is_upgrade(request.headers()) {
        Ok(())
    } else {
        Err((StatusCode::BAD_REQUEST, "Upgrade request required\n".to_owned()))
    }
}
