//! The wiring: from a [`Config`] to a serving process, and its drain.

use std::net::SocketAddr;
use std::sync::Arc;

use component_base::Shutdown;
use component_base::metrics::Registry;
use component_base::tls::{self, ClientAuth, KeyPairFiles, TlsError};
use tokio::net::TcpListener;

use crate::admission;
use crate::authn::union::Union;
use crate::authn::x509::X509;
use crate::authz::{AlwaysAllow, Authorizer};
use crate::config::{Config, TlsConfig};
use crate::health::Health;
use crate::metrics::Metrics;
use crate::registry::{self, resources::Resources};
use crate::server::{self, ApiContext, Parts};
use crate::storage::{Storage, StorageError, StorageMetrics};
use crate::store::Store;

/// Why the server could not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("connect to etcd")]
    Storage(#[from] StorageError),
    #[error("serving certificate")]
    Tls(#[from] TlsError),
    #[error("create {directory}")]
    CertDir { directory: String, #[source] source: std::io::Error },
    #[error("listen on {address}")]
    Listen { address: SocketAddr, #[source] source: std::io::Error },
    #[error("{0}")]
    Unsupported(String),
}

/// Serves until shutdown.
pub async fn run(config: Config, shutdown: Shutdown) -> Result<(), RunError> {
    let address = SocketAddr::new(config.bind_address, config.secure_port);
    let listener =
        TcpListener::bind(address).await.map_err(|source| RunError::Listen { address, source })?;
    serve(config, listener, shutdown).await
}

/// Serves on a listener that is open already, so that its port may be chosen by the system.
pub async fn serve(config: Config, listener: TcpListener, shutdown: Shutdown) -> Result<(), RunError> {
    let tls = Arc::new(server_tls(&config)?);
    let registry = Registry::new();
    let storage_metrics = StorageMetrics::default();
    storage_metrics.register(&registry);
    let storage = Storage::connect(&config.etcd, storage_metrics).await?;
    let store = Store::new(storage.clone(), Resources::new(registry::all::all()), config.event_ttl_seconds);
    store.set_hooks(admission::Chain::default(), Vec::new());
    let health = Health::new(storage.clone(), shutdown.clone());
    let api = ApiContext::new(Parts {
        authenticator: Arc::new(Union::new(vec![Box::new(X509)], config.args.anonymous_auth)),
        authorizer: authorizer(&config)?,
        health: health.clone(),
        metrics: Metrics::new(registry),
        specials: Vec::new(),
        pages: Vec::new(),
        store,
        shutdown: shutdown.clone(),
    });
    let compactor = config.compaction_interval.map(|interval| {
        let (storage, shutdown) = (storage.clone(), shutdown.clone());
        tokio::spawn(async move { shutdown.run_until_cancelled(storage.run_compactor(interval)).await })
    });
    health.set_bootstrapped();
    if let Ok(address) = listener.local_addr() {
        tracing::info!(%address, "serving securely");
    }
    server::serve(api, listener, tls).await;
    if let Some(compactor) = compactor {
        // It ends with the shutdown token, and has nothing to tell.
        let _ = compactor.await;
    }
    Ok(())
}

fn authorizer(config: &Config) -> Result<Arc<dyn Authorizer>, RunError> {
    use crate::authz::modes::Mode;
    if config.authorization_modes.iter().all(|mode| *mode == Mode::AlwaysAllow) {
        return Ok(Arc::new(AlwaysAllow));
    }
    Err(RunError::Unsupported("--authorization-mode: only AlwaysAllow is served yet".to_owned()))
}

fn server_tls(config: &Config) -> Result<rustls::ServerConfig, RunError> {
    let identity = match &config.tls {
        TlsConfig::Files { cert, key } => KeyPairFiles::load(cert.clone(), key.clone())?,
        TlsConfig::SelfSigned { directory } => {
            let (cert, key) = (directory.join("apiserver.crt"), directory.join("apiserver.key"));
            if !cert.exists() || !key.exists() {
                std::fs::create_dir_all(directory)
                    .map_err(|source| RunError::CertDir { directory: directory.display().to_string(), source })?;
                tls::self_signed("localhost", &names(config))?.write(&cert, &key)?;
            }
            KeyPairFiles::load(cert, key)?
        }
    };
    let clients = match &config.client_ca_file {
        Some(ca_file) => ClientAuth::Optional { ca_file: ca_file.clone() },
        None => ClientAuth::None,
    };
    Ok(tls::server_config(Arc::new(identity), &clients)?)
}

/// The names and addresses under which clients reach a server without a certificate of its own.
fn names(config: &Config) -> Vec<String> {
    let mut names: Vec<String> =
        ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost", "127.0.0.1"]
            .map(str::to_owned)
            .to_vec();
    names.extend(config.advertise_address.map(|address| address.to_string()));
    if !config.bind_address.is_unspecified() && !config.bind_address.is_loopback() {
        names.push(config.bind_address.to_string());
    }
    names.extend(config.service_cluster_ip_range.hosts().next().map(|address| address.to_string()));
    names
}
