//! Certificates and keys: loading, serving with reload, verifying clients, and who a peer certificate names.
//!
//! Answers to apiserver's dynamiccertificates and x509 request authenticator. Files are looked at again on a
//! handshake, at most every ten seconds, so a renewed certificate needs no restart; when the new files cannot be
//! used, the old certificate stays and the error is logged. Nothing here decides what a peer may do.

mod client_verifier;
mod files;
mod peer;
mod self_signed;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{RootCertStore, ServerConfig, crypto::CryptoProvider};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

pub use files::KeyPairFiles;
pub use peer::PeerIdentity;
pub use self_signed::{SelfSigned, self_signed};

/// Why TLS material could not be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file could not be read, or holds no PEM of the kind wanted.
    #[error("read {what} from {path:?}")]
    Read {
        /// Certificate, key, or CA.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    /// A file holds no certificate.
    #[error("no certificate in {0:?}")]
    NoCertificate(PathBuf),
    /// A certificate and key that rustls refuses (they do not belong together, or an unknown key type).
    #[error("use certificate {path:?} with its key")]
    KeyPair {
        /// The certificate's file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: rustls::Error,
    },
    /// A CA that cannot be a trust anchor.
    #[error("use CA certificate from {path:?}")]
    Authority {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: rustls::Error,
    },
    /// The verifier of client certificates could not be made.
    #[error("verify client certificates")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
    /// No keys for session tickets could be made.
    #[error("make session ticket keys")]
    Ticketer(#[source] rustls::Error),
    /// A certificate could not be generated.
    #[error("generate certificate")]
    Generate(#[from] rcgen::Error),
    /// A generated certificate could not be written to disk.
    #[error("write {path:?}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A peer certificate that is not X.509.
    #[error("parse peer certificate: {0}")]
    Peer(String),
}

/// Makes aws-lc-rs the process's crypto provider, once; later calls change nothing.
pub fn install_crypto_provider() {
    if CryptoProvider::get_default().is_none() {
        // Fails only when another thread was first, with the same provider.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    }
}

/// Reads a PEM file with one or more certificates, leaf first.
///
/// # Errors
/// When the file cannot be read or holds none.
pub fn load_certs(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrap = |source| TlsError::Read { what: "certificate", path: path.to_owned(), source };
    let certs =
        CertificateDer::pem_file_iter(path).map_err(wrap)?.collect::<Result<Vec<_>, _>>().map_err(wrap)?;
    if certs.is_empty() { Err(TlsError::NoCertificate(path.to_owned())) } else { Ok(certs) }
}

/// Reads a PEM file with a private key (PKCS#1, PKCS#8 or SEC1).
///
/// # Errors
/// When the file cannot be read or holds none.
pub fn load_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|source| TlsError::Read {
        what: "key",
        path: path.to_owned(),
        source,
    })
}

/// Reads a PEM bundle of CA certificates.
///
/// # Errors
/// When the file cannot be read, holds none, or one cannot be a trust anchor.
pub fn load_ca(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for cert in load_certs(path)? {
        roots.add(cert).map_err(|source| TlsError::Authority { path: path.to_owned(), source })?;
    }
    Ok(roots)
}

/// What a server does with client certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientAuth {
    /// Does not ask for one.
    None,
    /// Asks; verifies one that is given; lets a client without one in as anonymous.
    Optional {
        /// PEM bundle of the CAs that may sign them.
        ca_file: PathBuf,
    },
    /// As `Optional`, but a client without one cannot connect.
    Required {
        /// PEM bundle of the CAs that may sign them.
        ca_file: PathBuf,
    },
}

/// A rustls server configuration for HTTP/2 and HTTP/1.1 that follows its files.
///
/// # Errors
/// When the client CA cannot be loaded.
pub fn server_config(identity: Arc<KeyPairFiles>, clients: &ClientAuth) -> Result<ServerConfig, TlsError> {
    install_crypto_provider();
    let builder = ServerConfig::builder();
    let builder = match clients {
        ClientAuth::None => builder.with_no_client_auth(),
        ClientAuth::Optional { ca_file } => builder
            .with_client_cert_verifier(Arc::new(client_verifier::Reloading::load(ca_file.clone(), false)?)),
        ClientAuth::Required { ca_file } => builder
            .with_client_cert_verifier(Arc::new(client_verifier::Reloading::load(ca_file.clone(), true)?)),
    };
    let mut config = builder.with_cert_resolver(identity);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // Clients keep their own sessions: a server that knows thousands of them need not.
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().map_err(TlsError::Ticketer)?;
    Ok(config)
}

/// The server configuration for a certificate and key file and, when given, a client CA that is asked optionally.
///
/// # Errors
/// When a file cannot be used.
pub fn server_config_from_files(
    cert: &Path,
    key: &Path,
    client_ca: Option<&Path>,
) -> Result<ServerConfig, TlsError> {
    let identity = Arc::new(KeyPairFiles::load(cert.to_owned(), key.to_owned())?);
    let clients = match client_ca {
        Some(ca_file) => ClientAuth::Optional { ca_file: ca_file.to_owned() },
        None => ClientAuth::None,
    };
    server_config(identity, &clients)
}
