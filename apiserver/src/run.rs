//! The wiring: from a [`Config`] to a serving process, and its drain.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use component_base::Shutdown;
use component_base::cli::BoxError;
use component_base::metrics::Registry;
use component_base::tls::{self, ClientAuth, KeyPairFiles, TlsError};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

use crate::admission::{self, Plugin, plugins};
use crate::allocation::service::ServiceAllocator;
use crate::authz::rbac::escalation::Escalation;
use crate::bootstrap::service_endpoints::{self, ServiceEndpoints};
use crate::bootstrap::{self, KubernetesService};
use crate::config::{Config, TlsConfig};
use crate::endpoints::connect;
use crate::endpoints::connect::kubelet::{KubeletClientError, Kubelets};
use crate::health::Health;
use crate::lookup::Lookup;
use crate::lookup::cached::CachedLookup;
use crate::metrics::Metrics;
use crate::openapi::OpenApi;
use crate::registry::{self, resources::Resources};
use crate::server::{self, ApiContext, Page, Parts};
use crate::storage::{Storage, StorageError, StorageMetrics};
use crate::store::Store;

mod access;

/// Why the server could not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("connect to etcd")]
    Storage(#[from] StorageError),
    #[error("serving certificate")]
    Tls(#[from] TlsError),
    #[error("create {directory}")]
    CertDir {
        directory: String,
        #[source]
        source: std::io::Error,
    },
    #[error("listen on {address}")]
    Listen {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error("--{flag} {file}")]
    File {
        flag: &'static str,
        file: String,
        #[source]
        source: BoxError,
    },
    #[error("--{0}")]
    Flag(String),
    #[error("client of kubelets")]
    Kubelets(#[from] KubeletClientError),
}

/// How long connections wait at the start for the objects that every cluster has: without the default roles, clients that
/// come early would be refused and back off for seconds.
const BOOTSTRAP_PATIENCE: Duration = Duration::from_secs(3);

/// Pause between tries to make the bootstrap objects.
const BOOTSTRAP_RETRY: Duration = Duration::from_millis(500);

/// How long the last writes after shutdown may take; the process has five seconds in all.
const LEAVE: Duration = Duration::from_secs(1);

/// Serves until shutdown.
pub async fn run(config: Config, shutdown: Shutdown) -> Result<(), RunError> {
    let address = SocketAddr::new(config.bind_address, config.secure_port);
    let listener = TcpListener::bind(address).await.map_err(|source| RunError::Listen { address, source })?;
    Box::pin(serve(config, listener, shutdown)).await
}

/// Serves on a listener that is open already, so that its port may be chosen by the system.
pub async fn serve(config: Config, listener: TcpListener, shutdown: Shutdown) -> Result<(), RunError> {
    let tls = Arc::new(server_tls(&config)?);
    let registry = Registry::new();
    let storage_metrics = StorageMetrics::default();
    storage_metrics.register(&registry);
    let resources = Resources::new(registry::all::all());
    let mut storage = Storage::connect(&config.etcd, storage_metrics).await?;
    if config.args.watch_cache {
        storage = storage.with_cache(&resources, &registry, shutdown.clone());
    }
    let store = Store::new(storage.clone(), resources, config.event_ttl_seconds);
    let lookup: Arc<dyn Lookup> = Arc::new(CachedLookup::start(Arc::clone(&store), &shutdown));
    let (enable, disable) = (&config.args.enable_admission_plugins, &config.args.disable_admission_plugins);
    let mut plugins: Vec<Box<dyn Plugin>> =
        plugins::enabled(enable, disable, &lookup).map_err(|error| RunError::Flag(error.to_string()))?;
    let authentication = access::authentication(&config.args, &lookup)?;
    let authorization = access::authorization(&config.authorization_modes, &store, &shutdown);
    plugins.push(Box::new(Escalation::new(
        Arc::clone(&authorization.rbac),
        Arc::clone(&authorization.authorizer),
    )));
    let (range, ports) = (config.service_cluster_ip_range, config.service_node_ports);
    let allocator = ServiceAllocator::new(Arc::clone(&store), range, ports);
    store.set_hooks(admission::Chain::new(plugins), vec![Box::new(allocator)]);
    let health = Health::new(storage.clone(), shutdown.clone());
    let open_api = OpenApi::new(store.resources().clone());
    let mut pages: Vec<Page> =
        vec![Box::new(move |path, query, headers| open_api.answer(path, query, headers))];
    pages.extend(authentication.pages);
    let mut specials = authentication.specials;
    specials.extend(authorization.specials);
    specials.extend(connect::handlers(&lookup, Kubelets::new(&config.args)?));
    let api = ApiContext::new(Parts {
        authenticator: authentication.authenticator,
        authorizer: authorization.authorizer,
        health: health.clone(),
        metrics: Metrics::new(registry),
        specials,
        pages,
        store: Arc::clone(&store),
        shutdown: shutdown.clone(),
    });

    let tasks = TaskTracker::new();
    if let Some(interval) = config.compaction_interval {
        let (storage, shutdown) = (storage.clone(), shutdown.clone());
        tasks.spawn(async move { shutdown.run_until_cancelled(storage.run_compactor(interval)).await });
    }
    let feeds = authorization.feeds;
    let port = listener.local_addr().map_or(config.secure_port, |address| address.port());
    let service = KubernetesService { range, target_port: port };
    let endpoints = service_endpoints(&config, &store, port);
    let stop = shutdown.clone();
    let (done, bootstrapped) = oneshot::channel();
    let bootstrap = async move {
        bootstrap(&store, &service).await;
        for mut feed in feeds {
            // A feed that ended takes the server's shutdown with it.
            let _ = feed.wait_for(|synced| *synced).await;
        }
        health.set_bootstrapped();
        // Nobody waits any more when it took too long.
        let _ = done.send(());
        if let Some(endpoints) = endpoints {
            tokio::join!(keep(&store, &service, &stop), endpoints.run(stop.clone()));
        } else {
            keep(&store, &service, &stop).await;
        }
    };
    let stop = shutdown.clone();
    tasks.spawn(async move {
        tokio::pin!(bootstrap);
        if stop.run_until_cancelled(&mut bootstrap).await.is_none() {
            // What is under way may take itself out of the cluster, for a moment.
            let _ = tokio::time::timeout(LEAVE, bootstrap).await;
        }
    });
    tasks.close();

    if let Ok(address) = listener.local_addr() {
        tracing::info!(%address, "serving securely");
    }
    // Whether it is done or not, health must be told from then on.
    let _ = shutdown.run_until_cancelled(tokio::time::timeout(BOOTSTRAP_PATIENCE, bootstrapped)).await;
    server::serve(api, listener, tls).await;
    tasks.wait().await;
    Ok(())
}

/// Makes the objects that every cluster has, trying again until etcd lets it.
async fn bootstrap(store: &Store, service: &KubernetesService) {
    loop {
        match bootstrap::run(store, service).await {
            Ok(()) => return,
            Err(error) => tracing::warn!(%error, "bootstrap objects are not all there yet"),
        }
        tokio::time::sleep(BOOTSTRAP_RETRY).await;
    }
}

/// Makes again, until shutdown, what somebody may have deleted.
async fn keep(store: &Store, service: &KubernetesService, shutdown: &Shutdown) {
    while shutdown.run_until_cancelled(tokio::time::sleep(bootstrap::INTERVAL)).await.is_some() {
        if let Err(error) = bootstrap::again(store, service).await {
            tracing::warn!(%error, "bootstrap objects are not all there");
        }
    }
}

/// Who keeps the endpoints of the Service `kubernetes`, unless `--endpoint-reconciler-type=none`.
fn service_endpoints(config: &Config, store: &Arc<Store>, port: u16) -> Option<ServiceEndpoints> {
    if !config.reconcile_endpoints {
        return None;
    }
    let address = service_endpoints::advertised(config.advertise_address, config.bind_address);
    if address.is_none() {
        tracing::warn!(
            "no address to advertise: the service kubernetes has no endpoints; give --advertise-address"
        );
    }
    address.map(|address| ServiceEndpoints::new(Arc::clone(store), address, port))
}

fn server_tls(config: &Config) -> Result<rustls::ServerConfig, RunError> {
    let identity = match &config.tls {
        TlsConfig::Files { cert, key } => KeyPairFiles::load(cert.clone(), key.clone())?,
        TlsConfig::SelfSigned { directory } => {
            let (cert, key) = (directory.join("apiserver.crt"), directory.join("apiserver.key"));
            if !cert.exists() || !key.exists() {
                std::fs::create_dir_all(directory).map_err(|source| RunError::CertDir {
                    directory: directory.display().to_string(),
                    source,
                })?;
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
