//! The API client of every daemon: `kube::Client` over one HTTP/2 connection, from a kubeconfig or the pod's own
//! service account.
//!
//! Answers to client-go's clientcmd and transport: token files and client certificate files are read again when
//! they change, the connection is probed (HTTP/2 ping, TCP keepalive) so that a dead peer is found within a minute,
//! and there is no compression and no client-side rate limit. Requests answered 429 or 503 with a Retry-After
//! header are retried as client-go does; other failures are the caller's.

mod first_alone;
mod identity;
pub mod raw;
mod retry;

use std::{path::Path, sync::Arc, time::Duration};

use http::{HeaderValue, header::USER_AGENT};
use hyper_util::{
    client::legacy::{Client as HttpClient, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use kube::{
    Client, Config,
    client::ConfigExt as _,
    config::{KubeConfigOptions, Kubeconfig, KubeconfigError},
};
use tower::ServiceBuilder;

/// Why a client could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The kubeconfig is missing or makes no sense.
    #[error("load kubeconfig {path:?}")]
    Kubeconfig {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<KubeconfigError>,
    },
    /// No kubeconfig was given and this process is not in a pod.
    #[error("no kubeconfig given and not running in a pod")]
    InCluster(#[source] kube::config::InClusterError),
    /// The credentials cannot be used.
    #[error("use credentials of the kubeconfig")]
    Credentials(#[source] Box<kube::Error>),
    /// The client certificate files cannot be used.
    #[error("load client certificate")]
    Identity(#[source] crate::tls::TlsError),
    /// Not a possible user agent.
    #[error("user agent {0:?} is not a header value")]
    UserAgent(String),
    /// `tls-server-name` is not a name.
    #[error("tls-server-name {0:?} is not a host name")]
    ServerName(String),
    /// The kubeconfig asks for a proxy, which is not supported.
    #[error("proxy-url is not supported")]
    Proxy,
}

/// A client for the cluster that `kubeconfig` names, or for the cluster this pod is in when it is `None`.
///
/// `component` is the daemon's name, for the user agent. Must be called inside a tokio runtime.
///
/// # Errors
/// When there is no usable configuration. The server is not contacted.
pub async fn load(kubeconfig: Option<&Path>, component: &str) -> Result<Client, ClientError> {
    let config = match kubeconfig {
        Some(path) => from_file(path).await?,
        None => Config::incluster().map_err(ClientError::InCluster)?,
    };
    from_config(config, component)
}

async fn from_file(path: &Path) -> Result<Config, ClientError> {
    let wrap = |source| ClientError::Kubeconfig { path: path.to_owned(), source: Box::new(source) };
    let kubeconfig = Kubeconfig::read_from(path).map_err(wrap)?;
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.map_err(wrap)
}

/// A client from a configuration already in hand (an address found by bootstrap, a test's server).
///
/// # Errors
/// When the configuration's credentials cannot be used.
pub fn from_config(mut config: Config, component: &str) -> Result<Client, ClientError> {
    crate::tls::install_crypto_provider();
    if config.proxy_url.is_some() {
        return Err(ClientError::Proxy);
    }
    let agent = crate::version::user_agent(component);
    let agent = HeaderValue::from_str(&agent).map_err(|_| ClientError::UserAgent(agent))?;
    config.headers.push((USER_AGENT, agent));

    let credentials = |error| ClientError::Credentials(Box::new(error));
    let mut tls = config.rustls_client_config().map_err(credentials)?;
    if let Some(resolver) = identity::from_files(&config.auth_info).map_err(ClientError::Identity)? {
        tls.client_auth_cert_resolver = Arc::new(resolver);
    }
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(Duration::from_secs(30)));
    tcp.set_keepalive(Some(Duration::from_secs(30)));
    tcp.set_keepalive_interval(Some(Duration::from_secs(15)));
    tcp.set_keepalive_retries(Some(3));
    let mut connector = hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
    if let Some(name) = &config.tls_server_name {
        let name = rustls_pki_types::ServerName::try_from(name.clone())
            .map_err(|_| ClientError::ServerName(name.clone()))?;
        connector = connector.with_server_name_resolver(hyper_rustls::FixedServerNameResolver::new(name));
    }
    let http = HttpClient::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(Duration::from_secs(90))
        .pool_max_idle_per_host(4)
        // client-go's ReadIdleTimeout and PingTimeout.
        .http2_keep_alive_interval(Duration::from_secs(30))
        .http2_keep_alive_timeout(Duration::from_secs(15))
        .build(connector.enable_all_versions().wrap_connector(tcp));
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .layer(tower::retry::RetryLayer::new(retry::AsServerAsks::default()))
        .option_layer(config.auth_layer().map_err(credentials)?)
        .layer(config.extra_headers_layer().map_err(credentials)?)
        .map_err(tower::BoxError::from)
        .service(first_alone::FirstAlone::new(http));
    Ok(Client::new(service, config.default_namespace))
}
