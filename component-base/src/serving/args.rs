//! The flags of a secure port, for components that have one beside their own work.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use super::{ServingConfig, TlsFiles};

/// Upstream's SecureServingOptions and the client CA of DelegatingAuthenticationOptions; flatten it into a
/// daemon's `Args`.
#[derive(Debug, Clone, clap::Args)]
pub struct SecureServingArgs {
    /// The IP address on which to listen for the --secure-port port
    #[arg(long, default_value = "0.0.0.0")]
    pub bind_address: IpAddr,
    /// The port on which to serve HTTPS; 0 serves no HTTPS at all
    #[arg(long)]
    pub secure_port: Option<u16>,
    /// File containing the x509 certificate for HTTPS; self-signed if not given
    #[arg(long)]
    pub tls_cert_file: Option<PathBuf>,
    /// File containing the private key matching --tls-cert-file
    #[arg(long)]
    pub tls_private_key_file: Option<PathBuf>,
    /// Client certificates signed by an authority in this file authenticate
    #[arg(long)]
    pub client_ca_file: Option<PathBuf>,
}

/// Flags that do not go together.
#[derive(Debug, thiserror::Error)]
pub enum SecureServingArgsError {
    /// One of the pair is missing.
    #[error("--tls-cert-file and --tls-private-key-file must be given together")]
    HalfKeyPair,
}

impl SecureServingArgs {
    /// The port's configuration; `None` when it is switched off.
    ///
    /// # Errors
    /// When only one of certificate and key is given.
    pub fn config(self, default_port: u16) -> Result<Option<ServingConfig>, SecureServingArgsError> {
        let key_pair = match (self.tls_cert_file, self.tls_private_key_file) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            _ => return Err(SecureServingArgsError::HalfKeyPair),
        };
        let port = self.secure_port.unwrap_or(default_port);
        if port == 0 {
            return Ok(None);
        }
        let tls = TlsFiles { key_pair, client_ca: self.client_ca_file };
        Ok(Some(ServingConfig::secure(SocketAddr::new(self.bind_address, port), tls)))
    }
}
