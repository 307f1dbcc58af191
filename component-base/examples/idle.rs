//! A daemon that does nothing but what every daemon does: a client, informers, health and metrics. It is what the
//! idle memory of component-base is measured on.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use component_base::{
    Shutdown,
    cli::{self, BoxError, Component},
    client,
    informer::{Connection, InformerBuilder},
    metrics::Registry,
    serving::{Endpoints, HealthChecks, ServingConfig, TlsFiles, serve},
};
use k8s_openapi::api::{
    core::v1::{Node, Service},
    discovery::v1::EndpointSlice,
};

#[derive(Debug, clap::Args)]
struct Args {
    /// Path to a kubeconfig file; without it nothing is watched
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// Serve health and metrics over TLS
    #[arg(long)]
    secure: bool,
    /// Address to serve health and metrics on
    #[arg(long, default_value = "127.0.0.1:0")]
    address: SocketAddr,
}

async fn run(args: Args, shutdown: Shutdown) -> Result<(), BoxError> {
    let registry = Registry::new();
    let serving = if args.secure {
        ServingConfig::secure(args.address, TlsFiles::default())
    } else {
        ServingConfig::plain(args.address)
    };
    let serving = serve(serving, Endpoints::new(HealthChecks::new(), registry), &shutdown).await?;
    if let Some(kubeconfig) = &args.kubeconfig {
        let client = client::load(Some(kubeconfig), "idle").await?;
        let connection = Connection::new(client);
        let services = InformerBuilder::<Service>::new(connection.clone()).start(&shutdown);
        let slices = InformerBuilder::<EndpointSlice>::new(connection.clone()).start(&shutdown);
        let nodes = InformerBuilder::<Node>::new(connection).start(&shutdown);
        tokio::join!(services.wait_synced(), slices.wait_synced(), nodes.wait_synced());
        tracing::info!(services = services.store().len(), nodes = nodes.store().len(), "synced");
    }
    serving.finished().await;
    Ok(())
}

fn main() -> ExitCode {
    cli::main(Component::new("idle").about("Measures what a daemon costs at rest."), Ok::<_, BoxError>, run)
}
