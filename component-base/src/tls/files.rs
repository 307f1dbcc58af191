//! A certificate and key in two files, read again when they change.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use parking_lot::Mutex;
use rustls::{
    crypto::CryptoProvider,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::{TlsError, load_certs, load_key};
use crate::error_chain::Chain;

/// How often the files are looked at, at most.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// A key pair that follows its files, or one that lives in memory only.
#[derive(Debug)]
pub struct KeyPairFiles {
    files: Option<(PathBuf, PathBuf)>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    key: Arc<CertifiedKey>,
    stamp: Stamp,
    checked: Instant,
}

/// Modification time and size of files: equal stamps mean unchanged files.
pub(super) type Stamp = Vec<Option<(SystemTime, u64)>>;

/// The stamp of `paths` now; a missing file is `None`.
pub(super) fn stamp(paths: &[&Path]) -> Stamp {
    let one = |path: &&Path| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    paths.iter().map(one).collect()
}

impl KeyPairFiles {
    /// Loads both files.
    ///
    /// # Errors
    /// When they cannot be read or do not belong together.
    pub fn load(cert: PathBuf, key: PathBuf) -> Result<Self, TlsError> {
        let stamp = stamp(&[&cert, &key]);
        let certified = certified_key(load_certs(&cert)?, &load_key(&key)?, &cert)?;
        let state = State { key: Arc::new(certified), stamp, checked: Instant::now() };
        Ok(Self { files: Some((cert, key)), state: Mutex::new(state) })
    }

    /// A pair that never changes.
    ///
    /// # Errors
    /// When certificate and key do not belong together.
    pub fn in_memory(
        cert: Vec<CertificateDer<'static>>,
        key: &PrivateKeyDer<'static>,
    ) -> Result<Self, TlsError> {
        let certified = certified_key(cert, key, Path::new("(in memory)"))?;
        let state = State { key: Arc::new(certified), stamp: Vec::new(), checked: Instant::now() };
        Ok(Self { files: None, state: Mutex::new(state) })
    }

    /// The pair to present now.
    #[must_use]
    pub fn current(&self) -> Arc<CertifiedKey> {
        self.current_at(Instant::now())
    }

    fn current_at(&self, now: Instant) -> Arc<CertifiedKey> {
        let mut state = self.state.lock();
        let Some((cert, key)) = &self.files else { return Arc::clone(&state.key) };
        if now.saturating_duration_since(state.checked) < CHECK_INTERVAL {
            return Arc::clone(&state.key);
        }
        state.checked = now;
        let found = stamp(&[cert, key]);
        if found != state.stamp {
            let loaded = load_certs(cert).and_then(|certs| certified_key(certs, &load_key(key)?, cert));
            match loaded {
                Ok(certified) => {
                    tracing::info!(path = %cert.display(), "reloaded certificate");
                    state.key = Arc::new(certified);
                    state.stamp = found;
                }
                // The stamp stays the old one, so that half-written files are tried again.
                Err(error) => tracing::error!(error = %Chain(&error), "keeping the old certificate"),
            }
        }
        Arc::clone(&state.key)
    }
}

impl ResolvesServerCert for KeyPairFiles {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

fn certified_key(
    certs: Vec<CertificateDer<'static>>,
    key: &PrivateKeyDer<'static>,
    path: &Path,
) -> Result<CertifiedKey, TlsError> {
    super::install_crypto_provider();
    let provider = CryptoProvider::get_default().expect("a crypto provider was installed just now");
    CertifiedKey::from_der(certs, key.clone_key(), provider)
        .map_err(|source| TlsError::KeyPair { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::self_signed;

    #[test]
    fn changed_files_are_presented_and_broken_ones_are_not() {
        let dir = std::env::temp_dir().join(format!("keypair-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&dir).unwrap();
        let (cert, key) = (dir.join("tls.crt"), dir.join("tls.key"));
        let write = |name: &str| {
            let pair = self_signed(name, &[name.to_owned()]).unwrap();
            std::fs::write(&key, pair.key_pem()).unwrap();
            // Two versions may be written within one tick of the clock: make the sizes differ.
            std::fs::write(&cert, format!("{}{}", pair.cert_pem(), "\n".repeat(name.len()))).unwrap();
        };
        write("one");
        let pair = KeyPairFiles::load(cert.clone(), key.clone()).unwrap();
        let first = pair.current();
        let start = Instant::now();
        write("second");
        assert!(Arc::ptr_eq(&first, &pair.current_at(start)), "not looked at before the interval");
        let second = pair.current_at(start + CHECK_INTERVAL * 2);
        assert_ne!(first.cert, second.cert);
        std::fs::write(&cert, "garbage").unwrap();
        let third = pair.current_at(start + CHECK_INTERVAL * 4);
        assert!(Arc::ptr_eq(&second, &third), "a broken file keeps the old certificate");
        write("one");
        let fourth = pair.current_at(start + CHECK_INTERVAL * 6);
        assert_ne!(third.cert, fourth.cert);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
