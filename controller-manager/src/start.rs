//! Wiring: clients, port, leader election, and then all enabled controllers until one fails or the process ends.

use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use component_base::Shutdown;
use component_base::client::{self, ClientError};
use component_base::leader_election::{self, Fence, LeaderElectionError};
use component_base::metrics::Registry;
use component_base::serving::{self, Endpoints, HealthChecks, ServingError};
use component_base::workqueue::WorkqueueMetrics;
use kube::config::{AuthInfo, InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config as ClientConfig};
use tokio::task::JoinSet;

use crate::client_builder::ClientBuilder;
use crate::config::Config;
use crate::context::{Context, RunError};
use crate::informers::Informers;

const COMPONENT: &str = "kube-controller-manager";

/// Why the daemon ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("load kubeconfig {path:?}")]
    Kubeconfig { path: std::path::PathBuf, source: Box<KubeconfigError> },
    #[error("no --kubeconfig given and not running in a pod")]
    InCluster(#[from] InClusterError),
    #[error("make a client")]
    Client(#[from] ClientError),
    #[error("serve health and metrics")]
    Serving(#[from] ServingError),
    #[error("leader election")]
    LeaderElection(#[from] LeaderElectionError),
    #[error("run {name}")]
    Controller { name: &'static str, source: RunError },
    #[error("{name} ended unexpectedly")]
    Ended { name: &'static str },
    #[error("a controller panicked")]
    Panicked(#[source] tokio::task::JoinError),
}

/// Runs until `shutdown`, or until leadership is lost.
pub async fn run(config: Config, shutdown: Shutdown) -> Result<(), Error> {
    tell_unused(&config);
    let registry = Registry::new();
    let health = HealthChecks::new();
    let queue_metrics = Arc::new(WorkqueueMetrics::register(&registry));
    let client_config = client_config(config.kubeconfig.as_deref()).await?;
    let kubeconfig_ca = authority(&client_config);
    let own = client::from_config(client_config.clone(), COMPONENT)?;
    let serving = match config.serving.clone() {
        Some(port) => Some(serving::serve(port, Endpoints::new(health.clone(), registry), &shutdown).await?),
        None => None,
    };

    let fence = config.leader_election.as_ref().map(|election| election.fence.clone());
    let guarded = |client: Client| fence.as_ref().map_or(client.clone(), |fence: &Fence| fence.guard(client));
    let clients = if config.use_service_account_credentials {
        let mut bare = client_config;
        bare.auth_info = AuthInfo::default();
        ClientBuilder::service_accounts(guarded(own.clone()), guarded(client::from_config(bare, COMPONENT)?))
    } else {
        ClientBuilder::shared(guarded(own.clone()))
    };
    let election = config.leader_election.clone();
    let config = Arc::new(config);
    let lead = |lost: Shutdown| {
        // Ends with the process, and with leadership.
        let stop = shutdown.child_token();
        let context = Context {
            informers: Arc::new(Informers::new(own.clone(), stop.clone())),
            shutdown: stop.clone(),
            clients,
            host: host().into(),
            queue_metrics,
            kubeconfig_ca,
            config,
        };
        async move {
            tokio::select! {
                outcome = run_controllers(context) => outcome,
                () = lost.cancelled() => {
                    stop.cancel();
                    Ok(())
                }
            }
        }
    };
    match election {
        Some(election) => leader_election::run(election, own.clone(), shutdown.clone(), lead).await?,
        None => lead(Shutdown::new()).await?,
    }
    if let Some(serving) = serving {
        serving.finished().await;
    }
    Ok(())
}

/// Flags that kubeadm's manifests give and that belong to controllers which are not here yet: their files were checked,
/// and nobody uses them.
fn tell_unused(config: &Config) {
    for (flag, given, controller) in [
        (
            "--service-account-private-key-file",
            config.service_account_private_key_file.is_some(),
            "serviceaccount-token-controller",
        ),
        (
            "--cluster-signing-cert-file",
            config.cluster_signing_cert_file.is_some(),
            "certificatesigningrequest-signing-controller",
        ),
    ] {
        if given {
            tracing::warn!(
                flag,
                controller,
                "the controller that this flag is for is not available, nothing is signed"
            );
        }
    }
}

async fn run_controllers(context: Context) -> Result<(), Error> {
    let shutdown = context.shutdown.clone();
    let mut running = JoinSet::new();
    for controller in &context.config.controllers {
        tracing::info!(controller = controller.name, "starting controller");
        let run = (controller.run)(context.clone());
        let name = controller.name;
        running.spawn(async move { (name, run.await) });
    }
    while let Some(ended) = running.join_next().await {
        match ended {
            Ok((name, Err(source))) => return Err(Error::Controller { name, source }),
            Ok((name, Ok(()))) if !shutdown.is_cancelled() => return Err(Error::Ended { name }),
            Ok(_) => {}
            Err(error) => return Err(Error::Panicked(error)),
        }
    }
    Ok(())
}

async fn client_config(kubeconfig: Option<&Path>) -> Result<ClientConfig, Error> {
    let Some(path) = kubeconfig else { return Ok(ClientConfig::incluster()?) };
    let failed = |source| Error::Kubeconfig { path: path.to_owned(), source: Box::new(source) };
    let kubeconfig = Kubeconfig::read_from(path).map_err(failed)?;
    ClientConfig::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.map_err(failed)
}

/// The certificate authorities that the kubeconfig trusts, as PEM.
fn authority(config: &ClientConfig) -> Option<Arc<str>> {
    let certificates = config.root_cert.as_ref()?;
    let pem: String = certificates.iter().map(|der| pem(der)).collect();
    Some(pem.into())
}

fn pem(der: &[u8]) -> String {
    let encoded = BASE64_STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in encoded.as_bytes().chunks(64) {
        pem.extend(line.iter().map(|byte| char::from(*byte)));
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pem_has_lines_of_64() {
        let text = pem(&[7; 100]);
        assert!(
            text.starts_with("-----BEGIN CERTIFICATE-----\n")
                && text.ends_with("-----END CERTIFICATE-----\n")
        );
        assert!(text.lines().all(|line| line.len() <= 64));
    }
}
