//! Self-signed serving certificates, for a daemon that was given none.
//!
//! Upstream's GenerateSelfSignedCertKey: valid for a year from an hour ago, names and addresses as alternative
//! names. Nobody can verify it; it only keeps the port TLS.

use std::{
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::{KeyPairFiles, TlsError};

/// A fresh certificate with its key.
#[derive(Debug)]
pub struct SelfSigned {
    cert: rcgen::Certificate,
    key: KeyPair,
}

/// Generates a certificate for `host`; `names` are host names or IP addresses.
///
/// # Errors
/// When a name is neither.
pub fn self_signed(host: &str, names: &[String]) -> Result<SelfSigned, TlsError> {
    super::install_crypto_provider();
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(names.to_vec())?;
    let now = SystemTime::now();
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("{host}@{seconds}"));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.not_before = (now - Duration::from_secs(3600)).into();
    params.not_after = (now + Duration::from_secs(365 * 24 * 3600)).into();
    let cert = params.self_signed(&key)?;
    Ok(SelfSigned { cert, key })
}

impl SelfSigned {
    /// The certificate as PEM.
    #[must_use]
    pub fn cert_pem(&self) -> String {
        self.cert.pem()
    }

    /// The key as PEM (PKCS#8).
    #[must_use]
    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// The pair for serving, kept in memory only.
    ///
    /// # Errors
    /// When rustls refuses the pair.
    pub fn into_key_pair(self) -> Result<KeyPairFiles, TlsError> {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        KeyPairFiles::in_memory(vec![CertificateDer::from(self.cert.der().to_vec())], &key)
    }

    /// Writes the pair as upstream names it in a cert directory; the key is readable by its owner only.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, cert: &Path, key: &Path) -> Result<(), TlsError> {
        use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _};
        let put = |path: &Path, mode: u32, text: &str| {
            let write = || {
                if let Some(parent) = path.parent() {
                    std::fs::create_dir_all(parent)?;
                }
                std::fs::OpenOptions::new()
                    .create(true)
                    .truncate(true)
                    .write(true)
                    .mode(mode)
                    .open(path)?
                    .write_all(text.as_bytes())
            };
            write().map_err(|source| TlsError::Write { path: path.to_owned(), source })
        };
        put(key, 0o600, &self.key_pem())?;
        put(cert, 0o644, &self.cert_pem())
    }
}
