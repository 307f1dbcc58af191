//! Connections to kubelets: the address of a node, checked before it is dialled, and TLS with the server's client certificate.
//!
//! A node may claim any address, so loopback, link-local and multicast ones are refused after names are resolved, and the very
//! address that was checked is dialled (CVE-2020-8562, CVE-2022-3294). Each request has its own connection.
//! Upstream: `pkg/kubelet/client` and `apimachinery/pkg/util/proxy/dial.go`.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use apimachinery::status::ApiError;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Node;
use rustls::ClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::body::Body;
use crate::config::Args;
use crate::lookup::{self, Lookup};

const DEFAULT_PORT: u16 = 10250;

/// The flags do not give a usable client.
#[derive(Debug, thiserror::Error)]
pub enum KubeletClientError {
    /// A file can't be used.
    #[error("kubelet client files")]
    Files(#[from] component_base::tls::TlsError),
    /// Certificate and key do not fit.
    #[error("kubelet client certificate")]
    Tls(#[from] rustls::Error),
    /// An address type that does not exist.
    #[error("kubelet-preferred-address-types: unknown type {0:?}")]
    AddressType(String),
}

/// Where a kubelet is reached.
#[derive(Debug, Clone)]
pub struct KubeletAddress {
    /// Name or IP as the node gives it, for TLS.
    host: String,
    /// Checked addresses.
    addresses: Vec<SocketAddr>,
}

/// The client of all kubelets.
pub struct Kubelets {
    tls: TlsConnector,
    preferred: Vec<String>,
    timeout: Duration,
}

impl std::fmt::Debug for Kubelets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kubelets").field("preferred", &self.preferred).finish_non_exhaustive()
    }
}

impl Kubelets {
    /// From the `--kubelet-*` flags.
    pub fn new(args: &Args) -> Result<Self, KubeletClientError> {
        let builder = ClientConfig::builder();
        let builder = match &args.kubelet_certificate_authority {
            Some(file) => builder.with_root_certificates(component_base::tls::load_ca(file)?),
            // Kubelets usually sign their serving certificates themselves, and upstream does not check them then either.
            None => builder.dangerous().with_custom_certificate_verifier(Arc::new(Unverified(provider()))),
        };
        let mut config = match (&args.kubelet_client_certificate, &args.kubelet_client_key) {
            (Some(certificate), Some(key)) => builder.with_client_auth_cert(
                component_base::tls::load_certs(certificate)?,
                component_base::tls::load_key(key)?,
            )?,
            _ => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let preferred = args.kubelet_preferred_address_types.clone();
        const TYPES: [&str; 5] = ["Hostname", "InternalDNS", "InternalIP", "ExternalDNS", "ExternalIP"];
        if let Some(unknown) = preferred.iter().find(|kind| !TYPES.contains(&kind.as_str())) {
            return Err(KubeletClientError::AddressType(unknown.clone()));
        }
        Ok(Self { tls: TlsConnector::from(Arc::new(config)), preferred, timeout: args.kubelet_timeout })
    }

    /// A client without a certificate of its own.
    #[cfg(test)]
    pub(super) fn for_tests() -> Self {
        let verifier = Arc::new(Unverified(provider()));
        let builder = ClientConfig::builder().dangerous().with_custom_certificate_verifier(verifier);
        let tls = TlsConnector::from(Arc::new(builder.with_no_client_auth()));
        Self { tls, preferred: Vec::new(), timeout: Duration::from_secs(10) }
    }

    /// Where the kubelet of `node` is reached.
    pub async fn address(&self, lookup: &Arc<dyn Lookup>, node: &str) -> Result<KubeletAddress, ApiError> {
        let object = lookup::get::<Node>(lookup, "", node).await?;
        let object = object.ok_or_else(|| ApiError::not_found("", "nodes", node))?;
        let (host, port) = endpoint(&object, &self.preferred).ok_or_else(|| {
            let known = object.status.iter().flat_map(|status| status.addresses.iter().flatten());
            let known: Vec<String> =
                known.map(|address| format!("{{{} {}}}", address.type_, address.address)).collect();
            ApiError::internal(format!(
                "no preferred addresses found; known addresses: [{}]",
                known.join(" ")
            ))
        })?;
        let addresses = match host.parse::<IpAddr>() {
            Ok(ip) => vec![SocketAddr::new(ip, port)],
            Err(_) => tokio::net::lookup_host((host.as_str(), port))
                .await
                .map_err(|error| {
                    ApiError::internal(format!("error dialing backend: lookup {host}: {error}"))
                })?
                .collect(),
        };
        if addresses.is_empty() || !addresses.iter().all(|address| may_be_dialled(address.ip())) {
            return Err(ApiError::bad_request("address not allowed"));
        }
        Ok(KubeletAddress { host, addresses })
    }

    /// Opens a connection for one request.
    pub(super) async fn connect(&self, address: &KubeletAddress) -> Result<SendRequest<Body>, ApiError> {
        let failed = |problem: String| ApiError::internal(format!("error dialing backend: {problem}"));
        let opening = async {
            let stream = dial(&address.addresses).await.map_err(|error| failed(error.to_string()))?;
            let name =
                ServerName::try_from(address.host.clone()).map_err(|error| failed(error.to_string()))?;
            let stream = self.tls.connect(name, stream).await.map_err(|error| failed(error.to_string()))?;
            let (sender, connection) =
                http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(error.to_string()))?;
            tokio::spawn(async move {
                if let Err(error) = connection.with_upgrades().await {
                    tracing::debug!(%error, "connection to a kubelet ended");
                }
            });
            Ok(sender)
        };
        // Dialling and the handshake are what a kubelet may be slow with; streams last as long as they like.
        match tokio::time::timeout(self.timeout, opening).await {
            Ok(opened) => opened,
            Err(_) => Err(failed("timed out".to_owned())),
        }
    }
}

impl KubeletAddress {
    #[cfg(test)]
    pub(super) fn for_tests(host: &str, port: u16) -> Self {
        let ip: IpAddr = host.parse().unwrap();
        Self { host: host.to_owned(), addresses: vec![SocketAddr::new(ip, port)] }
    }

    /// `host:port`, for the Host header.
    pub(super) fn authority(&self) -> String {
        let port = self.addresses.first().map_or(DEFAULT_PORT, SocketAddr::port);
        if self.host.contains(':') {
            format!("[{}]:{port}", self.host)
        } else {
            format!("{}:{port}", self.host)
        }
    }
}

async fn dial(addresses: &[SocketAddr]) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(addresses).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The first address of the most preferred type that the node has, and its kubelet's port.
fn endpoint(node: &Node, preferred: &[String]) -> Option<(String, u16)> {
    let status = node.status.as_ref()?;
    let addresses = status.addresses.as_deref().unwrap_or_default();
    let host = preferred.iter().find_map(|kind| addresses.iter().find(|address| address.type_ == *kind))?;
    let port = status.daemon_endpoints.as_ref().and_then(|endpoints| endpoints.kubelet_endpoint.as_ref());
    let port = port.and_then(|endpoint| u16::try_from(endpoint.port).ok()).filter(|port| *port != 0);
    Some((host.address.clone(), port.unwrap_or(DEFAULT_PORT)))
}

/// Whether a node may be at this address: global unicast ones only.
fn may_be_dialled(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            !(ip.is_loopback()
                || ip.is_link_local()
                || ip.is_multicast()
                || ip.is_unspecified()
                || ip.is_broadcast())
        }
        IpAddr::V6(ip) => {
            !(ip.is_loopback() || ip.is_multicast() || ip.is_unspecified() || ip.is_unicast_link_local())
        }
    }
}

fn provider() -> Arc<CryptoProvider> {
    CryptoProvider::get_default()
        .cloned()
        .unwrap_or_else(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
}

/// Takes any certificate, but insists that the peer holds its key.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn addresses_that_are_never_dialled() {
        for (ip, allowed) in [
            ("192.0.2.1", true),
            ("10.0.0.1", true),
            ("127.0.0.1", false),
            ("127.8.8.8", false),
            ("169.254.169.254", false),
            ("0.0.0.0", false),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
            ("::1", false),
            ("::", false),
            ("fe80::1", false),
            ("ff02::1", false),
            ("::ffff:127.0.0.1", false),
            ("::ffff:169.254.169.254", false),
            ("fd00::1", true),
        ] {
            assert_eq!(may_be_dialled(ip.parse().unwrap()), allowed, "{ip}");
        }
    }

    #[test]
    fn the_preferred_address_and_the_nodes_port() {
        let node = |port: i32| -> Node {
            serde_json::from_value(json!({"apiVersion": "v1", "kind": "Node", "metadata": {}, "status": {
                "addresses": [{"type": "Hostname", "address": "one"}, {"type": "InternalIP", "address": "192.0.2.1"}],
                "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
            }}))
            .unwrap()
        };
        let types = |list: &[&str]| list.iter().map(|&kind| kind.to_owned()).collect::<Vec<_>>();
        let preferred = types(&["ExternalIP", "InternalIP", "Hostname"]);
        assert_eq!(endpoint(&node(10255), &preferred), Some(("192.0.2.1".into(), 10255)));
        assert_eq!(endpoint(&node(0), &types(&["Hostname"])), Some(("one".into(), DEFAULT_PORT)));
        assert_eq!(endpoint(&node(70000), &types(&["Hostname"])), Some(("one".into(), DEFAULT_PORT)));
        assert_eq!(endpoint(&node(1), &types(&["ExternalDNS"])), None);
    }
}
