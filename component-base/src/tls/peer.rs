//! Who a verified client certificate names: CN is the user, each O a group.
//!
//! Upstream's CommonNameUserConversion. The certificate must have been verified by the handshake.

use x509_parser::{certificate::X509Certificate, prelude::FromDer as _};

use super::TlsError;

/// The identity in a certificate's subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    /// The common name: the user.
    pub common_name: String,
    /// The organizations: the groups.
    pub organizations: Vec<String>,
    /// SHA-256 fingerprints and the like are upstream's `credential-id`; the serial number serves the audit log.
    pub serial: String,
    /// When it ends to be valid, in seconds since the epoch: connections and resumed sessions may outlive it.
    pub not_after: i64,
}

impl PeerIdentity {
    /// Reads the subject of a DER certificate.
    ///
    /// # Errors
    /// When it is not a certificate or has no common name.
    pub fn from_der(der: &[u8]) -> Result<Self, TlsError> {
        let (_, certificate) =
            X509Certificate::from_der(der).map_err(|error| TlsError::Peer(error.to_string()))?;
        let subject = certificate.subject();
        let text = |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| {
            attribute.as_str().map(str::to_owned).map_err(|error| TlsError::Peer(error.to_string()))
        };
        let common_name = subject.iter_common_name().next().map(text).transpose()?.unwrap_or_default();
        if common_name.is_empty() {
            return Err(TlsError::Peer("the subject has no common name".to_owned()));
        }
        let organizations = subject.iter_organization().map(text).collect::<Result<_, _>>()?;
        let not_after = certificate.validity().not_after.timestamp();
        Ok(Self { common_name, organizations, serial: certificate.raw_serial_as_string(), not_after })
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    #[test]
    fn subject_becomes_user_and_groups() {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "system:node:n1");
        params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
        let cert = params.self_signed(&key).unwrap();
        let peer = PeerIdentity::from_der(cert.der()).unwrap();
        assert_eq!(peer.common_name, "system:node:n1");
        assert_eq!(peer.organizations, ["system:nodes"]);
        assert_eq!(peer.not_after, params.not_after.unix_timestamp());
        assert!(PeerIdentity::from_der(b"nonsense").is_err());
    }
}
