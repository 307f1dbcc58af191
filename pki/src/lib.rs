//! Certificate authorities, leaf certificates and signing keys in PEM, with kubeadm's names and lifetimes.
//!
//! It makes key material and reads back when it ends and whom it names. Which files a cluster has, and where they
//! lie, is the caller's business. Upstream's concept: kubeadm's `certs` phase.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// How long an authority is valid.
pub const CA_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// How long a leaf certificate is valid.
pub const LEAF_LIFE: Duration = Duration::from_secs(365 * 24 * 3600);

/// Why key material could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The certificate library refused the parameters or the key.
    #[error("cannot make the certificate of {subject}")]
    Make {
        /// The common name asked for.
        subject: String,
        /// What the library said.
        #[source]
        source: rcgen::Error,
    },
    /// A PEM file does not hold what its name promises.
    #[error("not a PEM certificate: {0}")]
    Parse(String),
}

/// A certificate and its private key, both PEM.
#[derive(Debug, Clone)]
pub struct Pair {
    /// The certificate.
    pub cert: String,
    /// The private key, PKCS#8.
    pub key: String,
}

/// What a leaf certificate says and may be used for.
#[derive(Debug, Clone, Default)]
pub struct Leaf {
    /// The user name in Kubernetes' eyes.
    pub common_name: String,
    /// The groups in Kubernetes' eyes.
    pub organizations: Vec<String>,
    /// DNS names and IP addresses that a server answers under.
    pub sans: Vec<String>,
    /// May be used by a TLS server.
    pub server: bool,
    /// May be used by a TLS client.
    pub client: bool,
}

impl Leaf {
    /// A client certificate for a user in these groups.
    pub fn client(common_name: &str, organizations: &[&str]) -> Leaf {
        Leaf {
            common_name: common_name.to_owned(),
            organizations: organizations.iter().map(|o| (*o).to_owned()).collect(),
            client: true,
            ..Leaf::default()
        }
    }

    /// A server certificate for these names.
    pub fn server(common_name: &str, sans: &[String]) -> Leaf {
        Leaf { common_name: common_name.to_owned(), sans: sans.to_vec(), server: true, ..Leaf::default() }
    }

    /// A certificate used on both ends, as etcd's are.
    pub fn peer(common_name: &str, sans: &[String]) -> Leaf {
        Leaf { client: true, ..Leaf::server(common_name, sans) }
    }
}

fn validity(params: &mut CertificateParams, now: SystemTime, life: Duration) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    // A little into the past: a machine whose clock lags behind must still accept it.
    params.not_before = epoch + now.saturating_sub(Duration::from_secs(300));
    params.not_after = epoch + now + life;
}

/// A new self-signed authority.
pub fn new_ca(common_name: &str, now: SystemTime) -> Result<Pair, Error> {
    let make = |source| Error::Make { subject: common_name.to_owned(), source };
    let key = KeyPair::generate().map_err(make)?;
    let mut params = CertificateParams::new(vec![common_name.to_owned()]).map_err(make)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
        KeyUsagePurpose::KeyCertSign,
    ];
    validity(&mut params, now, CA_LIFE);
    let cert = params.self_signed(&key).map_err(make)?;
    Ok(Pair { cert: cert.pem(), key: key.serialize_pem() })
}

/// A new leaf certificate, signed by `ca`.
pub fn new_leaf(ca: &Pair, leaf: &Leaf, now: SystemTime) -> Result<Pair, Error> {
    let make = |source| Error::Make { subject: leaf.common_name.clone(), source };
    let issuer =
        Issuer::from_ca_cert_pem(&ca.cert, KeyPair::from_pem(&ca.key).map_err(make)?).map_err(make)?;
    let key = KeyPair::generate().map_err(make)?;
    let mut params = CertificateParams::new(leaf.sans.clone()).map_err(make)?;
    params.distinguished_name = DistinguishedName::new();
    for organization in &leaf.organizations {
        params.distinguished_name.push(DnType::OrganizationName, organization.as_str());
    }
    params.distinguished_name.push(DnType::CommonName, leaf.common_name.as_str());
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    if leaf.server {
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    }
    if leaf.client {
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
    }
    params.use_authority_key_identifier_extension = true;
    validity(&mut params, now, LEAF_LIFE);
    let cert = params.signed_by(&key, &issuer).map_err(make)?;
    Ok(Pair { cert: cert.pem(), key: key.serialize_pem() })
}

/// A new RSA key pair for signing service account tokens: `cert` holds the public key.
pub fn new_signing_key() -> Result<Pair, Error> {
    let make = |source| Error::Make { subject: "sa.key".to_owned(), source };
    let key = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).map_err(make)?;
    Ok(Pair { cert: key.public_key_pem(), key: key.serialize_pem() })
}

/// What a stored certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// First instant of validity.
    pub not_before: SystemTime,
    /// Last instant of validity.
    pub not_after: SystemTime,
    /// Common name.
    pub common_name: String,
    /// DNS names and IP addresses.
    pub sans: BTreeSet<String>,
}

impl Facts {
    /// Whether less than a third of the certificate's life is left.
    pub fn needs_renewal(&self, now: SystemTime) -> bool {
        let life = self.not_after.duration_since(self.not_before).unwrap_or_default();
        let left = self.not_after.duration_since(now).unwrap_or_default();
        left < life / 3
    }

    /// Whole days until the certificate ends; 0 when it has.
    pub fn days_left(&self, now: SystemTime) -> u64 {
        self.not_after.duration_since(now).unwrap_or_default().as_secs() / DAY.as_secs()
    }
}

/// Reads the first certificate of a PEM text.
pub fn facts(pem: &str) -> Result<Facts, Error> {
    let (_, block) =
        x509_parser::pem::parse_x509_pem(pem.as_bytes()).map_err(|error| Error::Parse(error.to_string()))?;
    let cert = block.parse_x509().map_err(|error| Error::Parse(error.to_string()))?;
    let time = |t: x509_parser::time::ASN1Time| {
        UNIX_EPOCH + Duration::from_secs(u64::try_from(t.timestamp()).unwrap_or_default())
    };
    let mut sans = BTreeSet::new();
    if let Ok(Some(extension)) = cert.subject_alternative_name() {
        for name in &extension.value.general_names {
            match name {
                x509_parser::extensions::GeneralName::DNSName(dns) => {
                    sans.insert((*dns).to_owned());
                }
                x509_parser::extensions::GeneralName::IPAddress(bytes) => {
                    let ip = <[u8; 4]>::try_from(*bytes)
                        .map(IpAddr::from)
                        .or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
                    if let Ok(ip) = ip {
                        sans.insert(ip.to_string());
                    }
                }
                _ => {}
            }
        }
    }
    let common_name = cert
        .subject()
        .iter_common_name()
        .next()
        .and_then(|cn| cn.as_str().ok())
        .unwrap_or_default()
        .to_owned();
    Ok(Facts {
        not_before: time(cert.validity().not_before),
        not_after: time(cert.validity().not_after),
        common_name,
        sans,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaf_says_what_was_asked_and_is_renewed_in_its_last_third() {
        let now = SystemTime::now();
        let ca = new_ca("kubernetes", now).unwrap();
        let sans = vec!["kubernetes".to_owned(), "10.96.0.1".to_owned(), "::1".to_owned()];
        let leaf = new_leaf(&ca, &Leaf::server("kube-apiserver", &sans), now).unwrap();
        let read = facts(&leaf.cert).unwrap();
        assert_eq!(read.common_name, "kube-apiserver");
        assert_eq!(read.sans, sans.into_iter().collect());
        assert_eq!(read.days_left(now), 364);
        assert!(!read.needs_renewal(now));
        assert!(!read.needs_renewal(now + 240 * DAY));
        assert!(read.needs_renewal(now + 250 * DAY));
        assert!(read.needs_renewal(now + 400 * DAY));
        assert_eq!(facts(&ca.cert).unwrap().days_left(now), 3649);
    }

    #[test]
    fn text_that_is_no_certificate_is_refused() {
        assert!(matches!(facts("hello"), Err(Error::Parse(_))));
        assert!(matches!(facts(&new_signing_key().unwrap().cert), Err(Error::Parse(_))));
    }
}
