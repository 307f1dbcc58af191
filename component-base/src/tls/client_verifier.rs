//! Verifies client certificates against a CA bundle that is read again when its file changes.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::{
    TlsError,
    files::{Stamp, stamp},
    load_ca,
};
use crate::error_chain::Chain;

const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// The verifier; delegates to webpki's for the bundle as it is now.
#[derive(Debug)]
pub(super) struct Reloading {
    ca_file: PathBuf,
    mandatory: bool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    verifier: Arc<dyn ClientCertVerifier>,
    stamp: Stamp,
    checked: Instant,
}

impl Reloading {
    pub(super) fn load(ca_file: PathBuf, mandatory: bool) -> Result<Self, TlsError> {
        let stamp = stamp(&[&ca_file]);
        let state = State { verifier: verifier(&ca_file)?, stamp, checked: Instant::now() };
        Ok(Self { ca_file, mandatory, state: Mutex::new(state) })
    }

    fn current(&self) -> Arc<dyn ClientCertVerifier> {
        let mut state = self.state.lock();
        if state.checked.elapsed() >= CHECK_INTERVAL {
            state.checked = Instant::now();
            let found = stamp(&[&self.ca_file]);
            if found != state.stamp {
                match verifier(&self.ca_file) {
                    Ok(verifier) => {
                        state.verifier = verifier;
                        state.stamp = found;
                    }
                    Err(error) => tracing::error!(error = %Chain(&error), "keeping the old client CA"),
                }
            }
        }
        Arc::clone(&state.verifier)
    }
}

fn verifier(ca_file: &std::path::Path) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    Ok(WebPkiClientVerifier::builder(Arc::new(load_ca(ca_file)?)).build()?)
}

impl ClientCertVerifier for Reloading {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // The hints would have to outlive a reload, and clients of Kubernetes have one certificate to offer anyway.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.current().verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.current().verify_tls12_signature(message, cert, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.current().verify_tls13_signature(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.current().supported_verify_schemes()
    }
}
