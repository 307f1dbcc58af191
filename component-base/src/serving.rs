//! The HTTP ports of a daemon: health, metrics, and what it adds itself, over TLS or plain.
//!
//! Answers to upstream's apiserver/pkg/server (secure serving, healthz) as the other components use it. `/healthz`,
//! `/livez` and `/readyz` are open to all; everything else on a TLS port asks for a client certificate signed by the
//! client CA. Asking the apiserver about tokens and permissions (delegated authentication and authorization) is not
//! here yet: any verified certificate may read, any other caller is refused.
//!
//! [`http_server::run`] is the accept loop alone, for servers with their own routes.

mod args;
mod health;
pub mod http_server;
mod routes;
#[cfg(test)]
mod tests;

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
};

use rustls::ServerConfig;
use tokio::net::TcpListener;

pub use args::{SecureServingArgs, SecureServingArgsError};
pub use health::{CheckError, HealthChecks};
pub use http_server::{Handler, Limits, Peer, ResponseBody};
pub use routes::{Endpoints, text_route};

use crate::{
    Shutdown,
    tls::{self, ClientAuth, KeyPairFiles, TlsError},
};

/// Why a port could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ServingError {
    /// The address is taken, or not this machine's.
    #[error("listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The TLS files cannot be used.
    #[error("set up TLS")]
    Tls(#[from] TlsError),
}

/// Where and how to serve.
#[derive(Debug, Clone)]
pub struct ServingConfig {
    /// Address to listen on; port 0 takes any free one.
    pub address: SocketAddr,
    /// `None` for plain HTTP.
    pub tls: Option<TlsFiles>,
    /// Bounds on clients.
    pub limits: Limits,
}

/// The files of a TLS port.
#[derive(Debug, Clone, Default)]
pub struct TlsFiles {
    /// Certificate (chain) and key. Without them a self-signed certificate is made and kept in memory.
    pub key_pair: Option<(PathBuf, PathBuf)>,
    /// CA that client certificates are verified against; without it nobody can authenticate.
    pub client_ca: Option<PathBuf>,
}

impl ServingConfig {
    /// Plain HTTP.
    #[must_use]
    pub fn plain(address: SocketAddr) -> Self {
        Self { address, tls: None, limits: Limits::default() }
    }

    /// TLS.
    #[must_use]
    pub fn secure(address: SocketAddr, tls: TlsFiles) -> Self {
        Self { address, tls: Some(tls), limits: Limits::default() }
    }
}

/// A port that is being served.
#[derive(Debug)]
pub struct Serving {
    /// The address it listens on.
    pub local_address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl Serving {
    /// Waits until the port is closed and its connections are finished, after shutdown.
    pub async fn finished(self) {
        if let Err(error) = self.task.await {
            tracing::error!(%error, "server ended early");
        }
    }
}

/// Opens the port and serves `endpoints` on it until `shutdown`. Returns as soon as the port is open.
///
/// # Errors
/// When the port cannot be opened or the TLS files cannot be used.
pub async fn serve(
    config: ServingConfig,
    endpoints: Endpoints,
    shutdown: &Shutdown,
) -> Result<Serving, ServingError> {
    let tls = config.tls.as_ref().map(|files| tls_config(files, config.address.ip())).transpose()?;
    let address = config.address;
    let listen = |source| ServingError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(listen)?;
    let local_address = listener.local_addr().map_err(listen)?;
    tracing::info!(address = %local_address, tls = tls.is_some(), "serving");
    let handler = routes::handler(endpoints, tls.is_some());
    let task = tokio::spawn(http_server::run(listener, tls, config.limits, handler, shutdown.clone()));
    Ok(Serving { local_address, task })
}

fn tls_config(files: &TlsFiles, address: IpAddr) -> Result<Arc<ServerConfig>, TlsError> {
    let key_pair = match &files.key_pair {
        Some((cert, key)) => KeyPairFiles::load(cert.clone(), key.clone())?,
        None => {
            let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
            if !address.is_unspecified() && !address.is_loopback() {
                names.push(address.to_string());
            }
            tls::self_signed("localhost", &names)?.into_key_pair()?
        }
    };
    let clients = match &files.client_ca {
        Some(ca_file) => ClientAuth::Optional { ca_file: ca_file.clone() },
        None => ClientAuth::None,
    };
    Ok(Arc::new(tls::server_config(Arc::new(key_pair), &clients)?))
}
