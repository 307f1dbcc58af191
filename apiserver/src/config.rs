//! The command line: upstream's flags, checked and turned into one [`Config`].
//!
//! A flag that upstream has and this server does not is unknown here and refused; so is a value that it can't honour.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use component_base::cli::flag;
use ipnet::IpNet;

use crate::authz::modes::{self, Mode};
use crate::storage::EtcdConfig;

/// kube-apiserver's flags.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// List of etcd servers to connect with (scheme://ip:port), comma separated.
    #[arg(long, value_delimiter = ',')]
    pub etcd_servers: Vec<String>,
    /// SSL Certificate Authority file used to secure etcd communication.
    #[arg(long)]
    pub etcd_cafile: Option<PathBuf>,
    /// SSL certification file used to secure etcd communication.
    #[arg(long)]
    pub etcd_certfile: Option<PathBuf>,
    /// SSL key file used to secure etcd communication.
    #[arg(long)]
    pub etcd_keyfile: Option<PathBuf>,
    /// The prefix to prepend to all resource paths in etcd.
    #[arg(long, default_value = "/registry")]
    pub etcd_prefix: String,
    /// The interval of compaction requests. If 0, the compaction request from apiserver is disabled.
    #[arg(long, default_value = "5m0s", value_parser = flag::duration)]
    pub etcd_compaction_interval: Duration,
    /// The media type to use to store objects in storage: application/json only, so far.
    #[arg(long, default_value = "application/json")]
    pub storage_media_type: String,
    /// Enable watch caching in the apiserver.
    #[arg(long, default_value_t = true)]
    pub watch_cache: bool,
    /// Amount of time to retain events.
    #[arg(long, default_value = "1h0m0s", value_parser = flag::duration)]
    pub event_ttl: Duration,

    /// The port on which to serve HTTPS with authentication and authorization.
    #[arg(long, default_value_t = 6443)]
    pub secure_port: u16,
    /// The IP address on which to listen for the --secure-port port.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED))]
    pub bind_address: IpAddr,
    /// The IP address on which to advertise the apiserver to members of the cluster.
    #[arg(long)]
    pub advertise_address: Option<IpAddr>,
    /// The directory where the TLS certs are located, if --tls-cert-file and --tls-private-key-file are not given.
    #[arg(long, default_value = "/var/run/kubernetes")]
    pub cert_dir: PathBuf,
    /// File containing the default x509 Certificate for HTTPS.
    #[arg(long)]
    pub tls_cert_file: Option<PathBuf>,
    /// File containing the default x509 private key matching --tls-cert-file.
    #[arg(long)]
    pub tls_private_key_file: Option<PathBuf>,

    /// Requests that present a client certificate signed by one of these authorities are authenticated by its subject.
    #[arg(long)]
    pub client_ca_file: Option<PathBuf>,
    /// Enables anonymous requests to the secure port of the API server.
    #[arg(long, default_value_t = true)]
    pub anonymous_auth: bool,
    /// File containing PEM-encoded x509 RSA or ECDSA private or public keys, used to verify ServiceAccount tokens. May be repeated.
    #[arg(long, value_delimiter = ',')]
    pub service_account_key_file: Vec<PathBuf>,
    /// Path to the file that contains the current private key of the service account token issuer.
    #[arg(long)]
    pub service_account_signing_key_file: Option<PathBuf>,
    /// Identifier of the service account token issuer. May be repeated: the first one issues.
    #[arg(long)]
    pub service_account_issuer: Vec<String>,
    /// Overrides the URI for the JSON Web Key Set in the discovery document.
    #[arg(long)]
    pub service_account_jwks_uri: Option<String>,
    /// The maximum validity duration of a token created by the service account token issuer.
    #[arg(long, value_parser = flag::duration)]
    pub service_account_max_token_expiration: Option<Duration>,
    /// Turns on projected service account expiration extension during token generation.
    #[arg(long, default_value_t = true)]
    pub service_account_extend_token_expiration: bool,
    /// Identifiers of the API; tokens used against it must be bound to at least one. Default: the issuers.
    #[arg(long, value_delimiter = ',')]
    pub api_audiences: Vec<String>,

    /// Ordered list of plug-ins to do authorization on secure port, comma separated: AlwaysAllow, AlwaysDeny, RBAC, Node.
    #[arg(long, value_delimiter = ',')]
    pub authorization_mode: Vec<String>,
    /// Admission plugins that should be enabled in addition to default enabled ones, comma separated.
    #[arg(long, value_delimiter = ',')]
    pub enable_admission_plugins: Vec<String>,
    /// Admission plugins that should be disabled although they are in the default enabled plugins list.
    #[arg(long, value_delimiter = ',')]
    pub disable_admission_plugins: Vec<String>,
    /// If true, allow privileged containers.
    #[arg(long)]
    pub allow_privileged: Option<bool>,

    /// A CIDR notation IP range from which to assign service cluster IPs.
    #[arg(long, default_value = "10.0.0.0/24")]
    pub service_cluster_ip_range: String,
    /// A port range to reserve for services with NodePort visibility, inclusive at both ends.
    #[arg(long, default_value = "30000-32767")]
    pub service_node_port_range: String,
    /// Use an endpoint reconciler (lease, none).
    #[arg(long, default_value = "lease")]
    pub endpoint_reconciler_type: String,

    /// Path to a client cert file for TLS to kubelets.
    #[arg(long)]
    pub kubelet_client_certificate: Option<PathBuf>,
    /// Path to a client key file for TLS to kubelets.
    #[arg(long)]
    pub kubelet_client_key: Option<PathBuf>,
    /// Path to a cert file for the certificate authority of kubelets' serving certificates.
    #[arg(long)]
    pub kubelet_certificate_authority: Option<PathBuf>,
    /// List of the preferred NodeAddressTypes to use for kubelet connections, comma separated.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "Hostname,InternalDNS,InternalIP,ExternalDNS,ExternalIP"
    )]
    pub kubelet_preferred_address_types: Vec<String>,
    /// Timeout for kubelet operations.
    #[arg(long, default_value = "5s", value_parser = flag::duration)]
    pub kubelet_timeout: Duration,
}

/// The validated configuration.
#[derive(Debug, Clone)]
pub struct Config {
    pub etcd: EtcdConfig,
    /// `None`: this server does not compact.
    pub compaction_interval: Option<Duration>,
    pub event_ttl_seconds: i64,
    pub bind_address: IpAddr,
    pub secure_port: u16,
    pub advertise_address: Option<IpAddr>,
    pub tls: TlsConfig,
    pub client_ca_file: Option<PathBuf>,
    pub authorization_modes: Vec<Mode>,
    pub service_cluster_ip_range: IpNet,
    /// First and last port.
    pub service_node_ports: (u16, u16),
    pub reconcile_endpoints: bool,
    /// Flags that the authenticators, admission and kubelet connections read as they are.
    pub args: Args,
}

/// Where the serving certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsConfig {
    Files {
        cert: PathBuf,
        key: PathBuf,
    },
    /// `apiserver.crt` and `apiserver.key` there, made if they are missing.
    SelfSigned {
        directory: PathBuf,
    },
}

/// A flag, or a combination of flags, that can't be honoured.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    #[error("--etcd-servers must be specified")]
    NoEtcdServers,
    #[error("--etcd-servers must not mix http and https")]
    MixedEtcdServers,
    #[error("--{0} and --{1} must be given together")]
    Pair(&'static str, &'static str),
    #[error("--{flag}: {problem}")]
    Value { flag: &'static str, problem: String },
}

fn value(flag: &'static str, problem: impl Into<String>) -> ConfigError {
    ConfigError::Value { flag, problem: problem.into() }
}

impl Config {
    pub fn new(args: Args) -> Result<Self, ConfigError> {
        let compaction = args.etcd_compaction_interval;
        Ok(Self {
            etcd: etcd(&args)?,
            compaction_interval: (!compaction.is_zero()).then_some(compaction),
            event_ttl_seconds: i64::try_from(args.event_ttl.as_secs())
                .ok()
                .filter(|seconds| *seconds > 0)
                .ok_or_else(|| value("event-ttl", "must be a positive number of seconds"))?,
            bind_address: args.bind_address,
            secure_port: args.secure_port,
            advertise_address: args.advertise_address,
            tls: tls(&args)?,
            client_ca_file: args.client_ca_file.clone(),
            authorization_modes: authorization_modes(&args)?,
            service_cluster_ip_range: service_range(&args.service_cluster_ip_range)?,
            service_node_ports: node_ports(&args.service_node_port_range)?,
            reconcile_endpoints: match args.endpoint_reconciler_type.as_str() {
                "lease" => true,
                "none" => false,
                other => {
                    return Err(value(
                        "endpoint-reconciler-type",
                        format!("{other} is not supported (lease, none)"),
                    ));
                }
            },
            args: checked(args)?,
        })
    }
}

fn etcd(args: &Args) -> Result<EtcdConfig, ConfigError> {
    if args.etcd_servers.is_empty() {
        return Err(ConfigError::NoEtcdServers);
    }
    let https = args.etcd_servers.iter().filter(|server| server.starts_with("https://")).count();
    if https != 0 && https != args.etcd_servers.len() {
        return Err(ConfigError::MixedEtcdServers);
    }
    if args.etcd_certfile.is_some() != args.etcd_keyfile.is_some() {
        return Err(ConfigError::Pair("etcd-certfile", "etcd-keyfile"));
    }
    if args.storage_media_type != "application/json" {
        let problem = format!("{} is not supported (application/json)", args.storage_media_type);
        return Err(value("storage-media-type", problem));
    }
    Ok(EtcdConfig {
        servers: args.etcd_servers.clone(),
        prefix: args.etcd_prefix.clone(),
        ca_file: args.etcd_cafile.clone(),
        cert_file: args.etcd_certfile.clone(),
        key_file: args.etcd_keyfile.clone(),
    })
}

fn tls(args: &Args) -> Result<TlsConfig, ConfigError> {
    match (&args.tls_cert_file, &args.tls_private_key_file) {
        (Some(cert), Some(key)) => Ok(TlsConfig::Files { cert: cert.clone(), key: key.clone() }),
        (None, None) => Ok(TlsConfig::SelfSigned { directory: args.cert_dir.clone() }),
        _ => Err(ConfigError::Pair("tls-cert-file", "tls-private-key-file")),
    }
}

fn authorization_modes(args: &Args) -> Result<Vec<Mode>, ConfigError> {
    let modes: Vec<&str> = args.authorization_mode.iter().map(String::as_str).collect();
    // Upstream's default, too.
    let modes = if modes.is_empty() { vec!["AlwaysAllow"] } else { modes };
    modes::parse(&modes).map_err(|error| value("authorization-mode", error.to_string()))
}

fn service_range(text: &str) -> Result<IpNet, ConfigError> {
    const FLAG: &str = "service-cluster-ip-range";
    if text.contains(',') {
        return Err(value(FLAG, "two ranges (dual-stack) are not supported"));
    }
    let range: IpNet = text.parse().map_err(|_| value(FLAG, format!("invalid CIDR address: {text}")))?;
    if range.max_prefix_len() - range.prefix_len() > 20 {
        return Err(value(
            FLAG,
            "specified range is too large; for 32-bit addresses, the mask must be >= 12",
        ));
    }
    Ok(range.trunc())
}

fn node_ports(text: &str) -> Result<(u16, u16), ConfigError> {
    const FLAG: &str = "service-node-port-range";
    let bad = || value(FLAG, format!("not a port range: {text}"));
    let (first, last) = text.split_once('-').ok_or_else(bad)?;
    let (first, last): (u16, u16) =
        (first.trim().parse().map_err(|_| bad())?, last.trim().parse().map_err(|_| bad())?);
    if first == 0 || last < first {
        return Err(bad());
    }
    Ok((first, last))
}

fn checked(args: Args) -> Result<Args, ConfigError> {
    if args.kubelet_client_certificate.is_some() != args.kubelet_client_key.is_some() {
        return Err(ConfigError::Pair("kubelet-client-certificate", "kubelet-client-key"));
    }
    if args.allow_privileged == Some(false) {
        return Err(value(
            "allow-privileged",
            "false is not supported: privileged containers are always allowed",
        ));
    }
    if args.secure_port == 0 {
        return Err(value("secure-port", "0 is not supported: HTTPS can't be switched off"));
    }
    Ok(args)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Args as _, Command, FromArgMatches};

    fn parse(flags: &[&str]) -> Result<Config, String> {
        let command = Args::augment_args(Command::new("kube-apiserver").no_binary_name(true));
        let matches = command.try_get_matches_from(flags).map_err(|error| error.to_string())?;
        let args = Args::from_arg_matches(&matches).map_err(|error| error.to_string())?;
        Config::new(args).map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_are_upstreams() {
        let config = parse(&["--etcd-servers=http://127.0.0.1:2379"]).unwrap();
        assert_eq!(config.etcd.prefix, "/registry");
        assert_eq!((config.secure_port, config.event_ttl_seconds), (6443, 3600));
        assert_eq!(config.service_node_ports, (30000, 32767));
        assert_eq!(config.compaction_interval, Some(Duration::from_secs(300)));
        assert_eq!(config.authorization_modes, [Mode::AlwaysAllow]);
        assert_eq!(config.tls, TlsConfig::SelfSigned { directory: "/var/run/kubernetes".into() });
    }

    #[test]
    fn what_cannot_be_honoured_is_refused() {
        for (flag, want) in [
            ("--unknown=1", "unexpected argument"),
            ("--storage-media-type=application/vnd.kubernetes.protobuf", "storage-media-type"),
            ("--tls-cert-file=x", "must be given together"),
            ("--etcd-certfile=x", "must be given together"),
            ("--kubelet-client-key=x", "must be given together"),
            ("--service-cluster-ip-range=10.0.0.0/8", "too large"),
            ("--service-cluster-ip-range=10.0.0.0/16,fd00::/112", "dual-stack"),
            ("--service-node-port-range=5", "not a port range"),
            ("--service-node-port-range=9-5", "not a port range"),
            ("--endpoint-reconciler-type=master-count", "not supported"),
            ("--authorization-mode=Webhook", "authorization-mode"),
            ("--etcd-servers=https://a:1", "mix"),
            ("--secure-port=0", "secure-port"),
            ("--allow-privileged=false", "allow-privileged"),
        ] {
            let error = parse(&["--etcd-servers=http://127.0.0.1:2379", flag]).unwrap_err();
            assert!(error.contains(want), "{flag}: {error}");
        }
        assert!(parse(&[]).unwrap_err().contains("--etcd-servers"));
    }
}
