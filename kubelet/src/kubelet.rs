//! The wiring of the owners: built once, run until shutdown.
//!
//! Upstream's concept: `NewMainKubelet` and `Run`, without the object that holds it all.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use component_base::Shutdown;
use component_base::events::EventRecorder;
use component_base::informer::Connection;
use component_base::metrics::Registry;
use component_base::serving::{self, Endpoints, HealthChecks, ServingConfig};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use crate::admission::NodeView;
use crate::config::Config;
use crate::crash_loop_backoff::CrashLoopBackOff;
use crate::events::Recorder;
use crate::garbage_collection::GarbageCollector;
use crate::logs::rotate::{self, RotationPolicy};
use crate::mirror_pods::MirrorPods;
use crate::node;
use crate::pleg::{self, RuntimePods};
use crate::pod_manager::PodManager;
use crate::pod_sources::{apiserver, file::FileSource};
use crate::prober::{ProbeContext, ProbeManager};
use crate::runtime::{Runtime, RuntimeConfig, RuntimeError};
use crate::runtime_state::RuntimeState;
use crate::server::{self, ServerContext, ServerError};
use crate::status_manager::StatusManager;
use crate::sync_loop::{Inputs, SyncLoop};
use crate::sync_pod::PodSyncer;
use crate::volumes::{VolumeConfig, VolumeManager};
use crate::worker_tasks::WorkerTasks;

/// How long running syncs may take to notice the shutdown.
const DRAIN: Duration = Duration::from_secs(3);

/// Why the kubelet can't run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The kubeconfig can't be used.
    #[error("failed to construct kubelet dependencies: {0}")]
    Client(#[from] component_base::client::ClientError),
    /// The runtime side can't start.
    #[error("failed to run kubelet")]
    Runtime(#[from] RuntimeError),
    /// A port can't be served.
    #[error("failed to serve")]
    Serving(#[from] serving::ServingError),
    /// The port 10250 can't be served.
    #[error("failed to serve the kubelet's API")]
    Server(#[from] ServerError),
    /// A directory can't be made.
    #[error("failed to create {path}")]
    Directory {
        /// Which.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

fn runtime_config(config: &Config, connection: Option<Connection>, recorder: Recorder) -> RuntimeConfig {
    RuntimeConfig {
        endpoint: config.runtime_endpoint.clone(),
        root_dir: config.root_dir.clone(),
        pod_logs_dir: config.pod_logs_dir.clone(),
        cgroup_driver: config.cgroup_driver,
        cgroup_root: config.cgroup_root.clone(),
        cgroups_per_qos: config.cgroups_per_qos,
        cluster_dns: config.cluster_dns.clone(),
        cluster_domain: config.cluster_domain.clone(),
        resolv_conf: config.resolv_conf.clone(),
        node_name: config.node.name.clone(),
        node_ips: config.node.ips.clone(),
        request_timeout: config.runtime_request_timeout,
        serialize_image_pulls: config.serialize_image_pulls,
        cpu_cfs_quota: config.cpu_cfs_quota,
        pod_pids_limit: config.pod_pids_limit,
        connection,
        recorder,
    }
}

async fn make_directories(config: &Config) -> Result<(), RunError> {
    for path in [config.root_dir.clone(), config.root_dir.join("pods"), config.pod_logs_dir.clone()] {
        tokio::fs::create_dir_all(&path)
            .await
            .map_err(|source| RunError::Directory { path: path.clone(), source })?;
    }
    Ok(())
}

/// The owners that the rest is built from.
struct Owners {
    config: Config,
    connection: Option<Connection>,
    recorder: Recorder,
    runtime: Runtime,
    runtime_state: RuntimeState,
    runtime_pods: RuntimePods,
    volumes: VolumeManager,
    pods: PodManager,
    statuses: StatusManager,
    mirrors: MirrorPods,
    node: NodeView,
    tracker: TaskTracker,
    shutdown: Shutdown,
}

impl Owners {
    async fn build(config: Config, shutdown: Shutdown) -> Result<Self, RunError> {
        make_directories(&config).await?;
        let client = match &config.kubeconfig {
            Some(path) => Some(component_base::client::load(Some(path), "kubelet").await?),
            None => None,
        };
        let recorder = client.clone().map_or_else(Recorder::log_only, |client| {
            Recorder::to_apiserver(EventRecorder::new(client, "kubelet", &config.node.name))
        });
        let connection = client.clone().map(Connection::new);
        let runtime = Runtime::connect(runtime_config(&config, connection.clone(), recorder.clone()))?;
        let volumes = VolumeManager::new(VolumeConfig {
            root_dir: config.root_dir.clone(),
            node_name: config.node.name.clone(),
            node_ips: config.node.ips.clone(),
            client,
        });
        let pods = PodManager::default();
        Ok(Self {
            statuses: StatusManager::new(pods.clone()),
            mirrors: MirrorPods::new(pods.clone()),
            config,
            connection,
            recorder,
            runtime,
            runtime_state: RuntimeState::default(),
            runtime_pods: RuntimePods::default(),
            volumes,
            pods,
            node: NodeView::default(),
            tracker: TaskTracker::new(),
            shutdown,
        })
    }

    fn prober(&self, changes: mpsc::UnboundedSender<String>) -> ProbeManager {
        ProbeManager::new(ProbeContext {
            runtime: self.runtime.clone(),
            statuses: self.statuses.clone(),
            pods: self.pods.clone(),
            recorder: self.recorder.clone(),
            changes,
            shutdown: self.shutdown.clone(),
            tracker: self.tracker.clone(),
        })
    }

    fn workers(&self, prober: &ProbeManager) -> WorkerTasks {
        let syncer = Arc::new(PodSyncer {
            runtime: self.runtime.clone(),
            runtime_state: self.runtime_state.clone(),
            volumes: self.volumes.clone(),
            pods: self.pods.clone(),
            statuses: self.statuses.clone(),
            prober: prober.clone(),
            recorder: self.recorder.clone(),
            node_ips: self.config.node.ips.clone(),
            back_off: Mutex::new(CrashLoopBackOff::default()),
            start_errors: Mutex::new(HashMap::new()),
        });
        WorkerTasks::new(syncer, self.config.sync_frequency, self.shutdown.clone(), self.tracker.clone())
    }

    /// Starts the port 10250, and the rotation of the logs that it serves.
    async fn start_server(&self) -> Result<(), RunError> {
        let (cri, logs) = (self.runtime.cri().clone(), self.config.pod_logs_dir.clone());
        self.tracker.spawn(rotate::run(cri, logs, RotationPolicy::default(), self.shutdown.clone()));
        let Some(config) = self.config.server.clone() else { return Ok(()) };
        let context = ServerContext {
            config,
            node_name: self.config.node.name.clone(),
            runtime: self.runtime.clone(),
            pods: self.pods.clone(),
            statuses: self.statuses.clone(),
            client: self.connection.as_ref().map(|connection| connection.client().clone()),
            metrics: Registry::new(),
        };
        server::start(context, &self.tracker, &self.shutdown).await?;
        Ok(())
    }

    /// Starts everything that talks to the apiserver.
    fn start_api_side(&self, sources: &mpsc::UnboundedSender<crate::pod_sources::SourceUpdate>) {
        let owner = node::NodeOwner {
            config: self.config.node.clone(),
            runtime: self.runtime.clone(),
            runtime_state: self.runtime_state.clone(),
            recorder: self.recorder.clone(),
            view: self.node.clone(),
            mirrors: self.mirrors.clone(),
        };
        owner.measure();
        let Some(connection) = &self.connection else { return };
        let (client, shutdown) = (connection.client(), &self.shutdown);
        self.tracker.spawn(self.statuses.clone().run(client.clone(), shutdown.clone()));
        self.tracker.spawn(self.mirrors.clone().run(client.clone(), shutdown.clone()));
        let name = self.config.node.name.clone();
        self.tracker.spawn(apiserver::run(connection.clone(), name, sources.clone(), shutdown.clone()));
        owner.start(connection, &self.tracker, shutdown);
    }
}

/// Runs the kubelet until `shutdown`.
///
/// # Errors
/// When something that it can't do without is missing at start. Containers keep running when it ends.
pub async fn run(config: Config, shutdown: Shutdown) -> Result<(), RunError> {
    let owners = Owners::build(config, shutdown.clone()).await?;
    let config = &owners.config;
    tracing::info!(node = %config.node.name, ips = ?config.node.ips, standalone = owners.connection.is_none(), "node");
    serve_health(config, &shutdown).await?;

    let (source_updates, sources) = mpsc::unbounded_channel();
    let (runtime_change, runtime_changes) = mpsc::unbounded_channel();
    let (probe_change, probe_changes) = mpsc::unbounded_channel();
    let tracker = owners.tracker.clone();
    tracker.spawn(owners.runtime_state.clone().run(owners.runtime.clone(), shutdown.clone()));
    tracker.spawn(pleg::run(
        owners.runtime.clone(),
        owners.runtime_state.clone(),
        owners.runtime_pods.clone(),
        runtime_change,
        shutdown.clone(),
    ));
    let prober = owners.prober(probe_change);
    let workers = owners.workers(&prober);
    let garbage = GarbageCollector {
        runtime: owners.runtime.clone(),
        volumes: owners.volumes.clone(),
        runtime_pods: owners.runtime_pods.clone(),
        prober,
        removing: Arc::default(),
        tracker: tracker.clone(),
    };
    tracker.spawn(garbage.clone().run(shutdown.clone()));
    if let Some(path) = config.static_pod_path.clone() {
        let source = FileSource::new(path, config.node.name.clone());
        tracker.spawn(source.run(config.file_check_frequency, source_updates.clone(), shutdown.clone()));
    } else {
        owners.mirrors.manifests_are_known();
    }
    owners.start_api_side(&source_updates);
    owners.start_server().await?;

    let sync_loop = SyncLoop {
        pods: owners.pods.clone(),
        workers,
        statuses: owners.statuses.clone(),
        mirrors: owners.mirrors.clone(),
        runtime_pods: owners.runtime_pods.clone(),
        garbage,
        node: owners.node.clone(),
        manifests_ready: config.static_pod_path.is_none(),
        api_ready: owners.connection.is_none(),
    };
    sync_loop.run(Inputs { sources, runtime_changes, probe_changes }, shutdown).await;
    tracker.close();
    if tokio::time::timeout(DRAIN, tracker.wait()).await.is_err() {
        tracing::warn!("some work did not end in time; the next start takes it up");
    }
    Ok(())
}

/// The health port 10248.
async fn serve_health(config: &Config, shutdown: &Shutdown) -> Result<(), RunError> {
    let Some(address) = config.healthz else { return Ok(()) };
    let endpoints = Endpoints::new(HealthChecks::new(), Registry::new());
    serving::serve(ServingConfig::plain(address), endpoints, shutdown).await?;
    Ok(())
}
