//! kube-scheduler watches pods without a node and binds each to the node that suits it best.
//!
//! [`queue`], [`cache`] and [`algorithm`] decide, without IO or a clock of their own; [`scheduler`] is the one
//! task that owns them, takes the watch's changes in, and sends bindings out. [`framework`] says what a plugin
//! is, [`plugins`] lists them.

pub mod algorithm;
pub mod cache;
pub mod config;
pub mod framework;
pub mod metrics;
pub mod node_info;
pub mod plugins;
pub mod pod_info;
pub mod queue;
pub mod resource;
pub mod scheduler;

use std::convert::Infallible;

use component_base::Shutdown;
use component_base::events::EventRecorder;
use component_base::leader_election;
use component_base::metrics::Registry;
use component_base::serving::{self, Endpoints, HealthChecks};

use crate::config::Config;
use crate::scheduler::Scheduler;

/// Runs the scheduler until `shutdown` or until leadership is lost.
///
/// # Errors
/// The API server's address or credentials can't be loaded, the port can't be opened, or leadership was lost.
pub async fn run(config: Config, shutdown: Shutdown) -> anyhow::Result<()> {
    let Config { kubeconfig, leader_election, serving, profiles, pod_initial_backoff, pod_max_backoff } =
        config;
    tracing::info!(?profiles, "configuration");
    let client = component_base::client::load(kubeconfig.as_deref(), "kube-scheduler").await?;
    let registry = Registry::new();
    if let Some(serving) = serving {
        serving::serve(serving, Endpoints::new(HealthChecks::new(), registry.clone()), &shutdown).await?;
    }
    let metrics = metrics::Metrics::new(&registry);
    let Some(mut election) = leader_election else {
        let recorder = EventRecorder::new(client.clone(), "default-scheduler", "");
        let scheduler =
            Scheduler::new(client, recorder, &profiles, pod_initial_backoff, pod_max_backoff, metrics);
        scheduler.run(&shutdown).await;
        return Ok(());
    };
    let recorder = EventRecorder::new(client.clone(), "default-scheduler", "");
    election.recorder = Some(recorder.clone());
    // What leads writes through a client that refuses once leadership may be gone.
    let fenced = election.fence.guard(client.clone());
    let stop = shutdown.clone();
    leader_election::run(election, client, shutdown, |lost| async move {
        let scheduler =
            Scheduler::new(fenced, recorder, &profiles, pod_initial_backoff, pod_max_backoff, metrics);
        let either = Shutdown::new();
        let watch = either.clone();
        let watcher = tokio::spawn(async move {
            tokio::select! {
                () = lost.cancelled() => {}
                () = stop.cancelled() => {}
            }
            watch.cancel();
        });
        scheduler.run(&either).await;
        watcher.abort();
        Ok::<(), Infallible>(())
    })
    .await?;
    Ok(())
}
