//! A client certificate that lives in files and is replaced there while the daemon runs.
//!
//! client-go's cert rotation: each new connection presents what the files hold now. A connection that stands keeps
//! the certificate it was made with.

use std::{path::PathBuf, sync::Arc};

use kube::config::AuthInfo;
use rustls::{SignatureScheme, client::ResolvesClientCert, sign::CertifiedKey};

use crate::tls::{KeyPairFiles, TlsError};

/// Presents the certificate found in two files.
#[derive(Debug)]
pub(super) struct FileIdentity(KeyPairFiles);

/// The identity that `auth_info` names by file; `None` when it names none or carries the data inline.
pub(super) fn from_files(auth_info: &AuthInfo) -> Result<Option<FileIdentity>, TlsError> {
    if auth_info.client_certificate_data.is_some() || auth_info.client_key_data.is_some() {
        return Ok(None);
    }
    let (Some(certificate), Some(key)) = (&auth_info.client_certificate, &auth_info.client_key) else {
        return Ok(None);
    };
    Ok(Some(FileIdentity(KeyPairFiles::load(PathBuf::from(certificate), PathBuf::from(key))?)))
}

impl ResolvesClientCert for FileIdentity {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.current())
    }

    fn has_certs(&self) -> bool {
        true
    }
}
