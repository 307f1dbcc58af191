//! Flags and KubeletConfiguration become one validated [`Config`]. No other module reads flags or files of configuration.
//!
//! A flag or field that upstream has and this kubelet lacks is refused, never ignored. Upstream's concept:
//! `cmd/kubelet/app/options` and `pkg/kubelet/apis/config`.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use component_base::cli::flag;
use k8s_openapi::api::core::v1::Taint;

use crate::runtime::CgroupDriver;

mod file;
mod node_name;
mod taint;

use file::{KubeletConfiguration, parse};

/// The command line, with upstream's names.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Path to a kubeconfig file, specifying how to connect to the API server. Without it the kubelet runs standalone.
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// The Kubelet will load its initial configuration from this file.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Path to a kubeconfig file that will be used to get client certificate for kubelet. Only allowed while the file
    /// of --kubeconfig exists (it is then not needed).
    #[arg(long)]
    bootstrap_kubeconfig: Option<PathBuf>,
    /// If non-empty, will use this string as identification instead of the actual hostname.
    #[arg(long)]
    hostname_override: Option<String>,
    /// IP address (or comma-separated dual-stack IP addresses) of the node.
    #[arg(long, value_delimiter = ',')]
    node_ip: Vec<IpAddr>,
    /// Labels to add when registering the node in the cluster, key=value separated by commas.
    #[arg(long, value_parser = flag::key_values)]
    node_labels: Option<BTreeMap<String, String>>,
    /// Register the node with the given list of taints (`<key>=<value>:<effect>`, comma separated).
    #[arg(long, value_delimiter = ',')]
    register_with_taints: Vec<String>,
    /// Register the node with the apiserver.
    #[arg(long)]
    register_node: Option<bool>,
    /// Path to the directory containing static pod files to run.
    #[arg(long)]
    pod_manifest_path: Option<PathBuf>,
    /// The endpoint of container runtime service.
    #[arg(long)]
    container_runtime_endpoint: Option<String>,
    /// Directory path for managing kubelet files.
    #[arg(long, default_value = "/var/lib/kubelet")]
    root_dir: PathBuf,
    /// The directory where the TLS certs are located.
    #[arg(long, default_value = "/var/lib/kubelet/pki")]
    cert_dir: PathBuf,
    /// File containing x509 Certificate used for serving HTTPS.
    #[arg(long)]
    tls_cert_file: Option<PathBuf>,
    /// File containing x509 private key matching --tls-cert-file.
    #[arg(long)]
    tls_private_key_file: Option<PathBuf>,
    /// The IP address for the Kubelet to serve on.
    #[arg(long)]
    address: Option<IpAddr>,
    /// The port for the Kubelet to serve on.
    #[arg(long)]
    port: Option<u16>,
    /// The port of the localhost healthz endpoint (set to 0 to disable).
    #[arg(long)]
    healthz_port: Option<u16>,
    /// The IP address for the healthz server to serve on.
    #[arg(long)]
    healthz_bind_address: Option<IpAddr>,
    /// Driver that the kubelet uses to manipulate cgroups on the host: cgroupfs or systemd.
    #[arg(long)]
    cgroup_driver: Option<String>,
    /// Comma-separated list of DNS server IP address.
    #[arg(long, value_delimiter = ',')]
    cluster_dns: Vec<IpAddr>,
    /// Domain for this cluster.
    #[arg(long)]
    cluster_domain: Option<String>,
    /// Number of Pods that can run on this Kubelet.
    #[arg(long)]
    max_pods: Option<i32>,
}

/// How requests to the kubelet's port are checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerAuth {
    /// `authentication.anonymous.enabled`.
    pub anonymous: bool,
    /// `authentication.webhook.enabled` (TokenReview).
    pub webhook: bool,
    /// `authentication.x509.clientCAFile`.
    pub client_ca_file: Option<PathBuf>,
    /// `authorization.mode` is Webhook (SubjectAccessReview); else AlwaysAllow.
    pub authorize: bool,
}

/// The port 10250.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Where to listen.
    pub address: SocketAddr,
    /// Who may.
    pub auth: ServerAuth,
    /// `tlsCertFile` and `tlsPrivateKeyFile`.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Where a self-signed certificate is kept otherwise.
    pub cert_dir: PathBuf,
    /// `enableDebuggingHandlers`: logs, exec and the like.
    pub debugging_handlers: bool,
    /// `streamingConnectionIdleTimeout`.
    pub streaming_idle_timeout: Duration,
}

/// What the node's object and lease need.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// The node's name.
    pub name: String,
    /// The address of type Hostname: the override or the machine's hostname.
    pub hostname: String,
    /// `--node-ip`, or found at start.
    pub ips: Vec<IpAddr>,
    /// Whether the kubelet creates its node object.
    pub register: bool,
    /// `--node-labels` on top of the kubelet's own.
    pub labels: BTreeMap<String, String>,
    /// `registerWithTaints`.
    pub taints: Vec<Taint>,
    /// `registerWithUnschedulable` is not supported, so no field; `maxPods`.
    pub max_pods: i64,
    /// `nodeStatusUpdateFrequency`.
    pub status_update_frequency: Duration,
    /// `nodeStatusReportFrequency`.
    pub status_report_frequency: Duration,
    /// `nodeLeaseDurationSeconds`.
    pub lease_duration: Duration,
    /// `nodeStatusMaxImages`.
    pub max_images: usize,
    /// `providerID`.
    pub provider_id: Option<String>,
    /// The port in `daemonEndpoints`.
    pub port: u16,
    /// Reservations (`systemReserved`, `kubeReserved`), summed by resource.
    pub reserved: BTreeMap<String, String>,
    /// `evictionHard`'s share of memory and disk that is not allocatable.
    pub root_dir: PathBuf,
}

/// The whole configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// `None`: standalone.
    pub kubeconfig: Option<PathBuf>,
    /// The node.
    pub node: NodeConfig,
    /// `staticPodPath`.
    pub static_pod_path: Option<PathBuf>,
    /// `fileCheckFrequency`.
    pub file_check_frequency: Duration,
    /// `syncFrequency`.
    pub sync_frequency: Duration,
    /// `--root-dir`.
    pub root_dir: PathBuf,
    /// `podLogsDir`.
    pub pod_logs_dir: PathBuf,
    /// `containerRuntimeEndpoint`.
    pub runtime_endpoint: String,
    /// `runtimeRequestTimeout`.
    pub runtime_request_timeout: Duration,
    /// `cgroupDriver`.
    pub cgroup_driver: CgroupDriver,
    /// `cgroupRoot`.
    pub cgroup_root: String,
    /// `cgroupsPerQOS`.
    pub cgroups_per_qos: bool,
    /// `cpuCFSQuota`.
    pub cpu_cfs_quota: bool,
    /// `podPidsLimit`.
    pub pod_pids_limit: Option<i64>,
    /// `serializeImagePulls`.
    pub serialize_image_pulls: bool,
    /// `clusterDNS`.
    pub cluster_dns: Vec<IpAddr>,
    /// `clusterDomain`.
    pub cluster_domain: String,
    /// `resolvConf`.
    pub resolv_conf: PathBuf,
    /// The port 10250; `None` when `enableServer` is false.
    pub server: Option<ServerConfig>,
    /// The health port 10248; `None` when it is 0.
    pub healthz: Option<SocketAddr>,
}

/// Why the configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file can't be read.
    #[error("failed to load kubelet config file, path: {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file is not a KubeletConfiguration that this kubelet can follow.
    #[error("failed to load kubelet config file, path: {path}, error: {message}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        message: String,
    },
    /// A value can't be used.
    #[error("{0}")]
    Invalid(String),
}

fn invalid(message: impl Into<String>) -> ConfigError {
    ConfigError::Invalid(message.into())
}

/// Turns the command line and its files into a configuration.
pub fn configure(args: Args) -> Result<Config, ConfigError> {
    let file = match &args.config {
        Some(path) => load(path)?,
        None => KubeletConfiguration::default(),
    };
    build(args, file)
}

fn load(path: &Path) -> Result<KubeletConfiguration, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    parse(&text).map_err(|message| ConfigError::File { path: path.to_owned(), message })
}

/// A duration of the file; zero means "not set" (kubeadm's file spells it so).
fn set(field: Option<file::Duration>) -> Option<Duration> {
    field.map(|duration| duration.0).filter(|duration| !duration.is_zero())
}

fn seconds(field: Option<file::Duration>, default: u64) -> Duration {
    set(field).unwrap_or(Duration::from_secs(default))
}

fn build(mut args: Args, mut file: KubeletConfiguration) -> Result<Config, ConfigError> {
    file.validate().map_err(invalid)?;
    check_bootstrap(&args)?;
    check_swap(&file)?;
    let server = server_config(&mut args, &mut file)?;
    let node = node_config(&mut args, &mut file, server.address.port())?;
    let healthz_port = args.healthz_port.or(file.healthz_port).unwrap_or(10248);
    let healthz_address =
        args.healthz_bind_address.or(file.healthz_bind_address).unwrap_or(IpAddr::from([127, 0, 0, 1]));
    Ok(Config {
        node,
        static_pod_path: args
            .pod_manifest_path
            .take()
            .or(file.static_pod_path.take())
            .filter(|path| !path.as_os_str().is_empty()),
        file_check_frequency: seconds(file.file_check_frequency, 20),
        sync_frequency: seconds(file.sync_frequency, 60),
        pod_logs_dir: file.pod_logs_dir.take().unwrap_or_else(|| PathBuf::from("/var/log/pods")),
        runtime_endpoint: runtime_endpoint(&mut args, &mut file)?,
        runtime_request_timeout: seconds(file.runtime_request_timeout, 120),
        cgroup_driver: cgroup_driver(&args, &file)?,
        cgroup_root: file.cgroup_root.unwrap_or_default(),
        cgroups_per_qos: file.cgroups_per_qos.unwrap_or(true),
        cpu_cfs_quota: file.cpu_cfs_quota.unwrap_or(true),
        pod_pids_limit: file.pod_pids_limit.filter(|limit| *limit > 0),
        serialize_image_pulls: file.serialize_image_pulls.unwrap_or(true),
        cluster_dns: match args.cluster_dns.as_slice() {
            [] => file.cluster_dns.unwrap_or_default(),
            _ => args.cluster_dns,
        },
        cluster_domain: args.cluster_domain.or(file.cluster_domain).unwrap_or_default(),
        resolv_conf: file.resolv_conf.unwrap_or_else(|| PathBuf::from("/etc/resolv.conf")),
        server: file.enable_server.unwrap_or(true).then_some(server),
        healthz: (healthz_port != 0).then(|| SocketAddr::new(healthz_address, healthz_port)),
        kubeconfig: args.kubeconfig,
        root_dir: args.root_dir,
    })
}

fn runtime_endpoint(args: &mut Args, file: &mut KubeletConfiguration) -> Result<String, ConfigError> {
    let given = args.container_runtime_endpoint.take().or(file.container_runtime_endpoint.take());
    let endpoint = given.unwrap_or_default();
    if endpoint.is_empty() {
        return Err(invalid(
            "the container runtime endpoint address was not specified or empty, use --container-runtime-endpoint to set",
        ));
    }
    if !endpoint.starts_with("unix://") && !endpoint.starts_with('/') {
        let message = format!("unsupported container runtime endpoint {endpoint:?}: only unix sockets are");
        return Err(invalid(message));
    }
    Ok(endpoint)
}

fn cgroup_driver(args: &Args, file: &KubeletConfiguration) -> Result<CgroupDriver, ConfigError> {
    match args.cgroup_driver.as_deref().or(file.cgroup_driver.as_deref()) {
        None | Some("cgroupfs" | "") => Ok(CgroupDriver::Cgroupfs),
        Some("systemd") => Ok(CgroupDriver::Systemd),
        Some(other) => Err(invalid(format!("unknown cgroup driver {other:?}: must be cgroupfs or systemd"))),
    }
}

fn server_config(args: &mut Args, file: &mut KubeletConfiguration) -> Result<ServerConfig, ConfigError> {
    let cert = args.tls_cert_file.take().or(file.tls_cert_file.take());
    let key = args.tls_private_key_file.take().or(file.tls_private_key_file.take());
    let tls = match (cert, key) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        _ => return Err(invalid("tlsCertFile and tlsPrivateKeyFile must be given together")),
    };
    let default_cert_dir = args.cert_dir == Path::new("/var/lib/kubelet/pki");
    let cert_dir = if default_cert_dir { args.root_dir.join("pki") } else { args.cert_dir.clone() };
    let address = args.address.or(file.address).unwrap_or(IpAddr::from([0, 0, 0, 0]));
    Ok(ServerConfig {
        address: SocketAddr::new(address, args.port.or(file.port).unwrap_or(10250)),
        auth: file.server_auth(args.kubeconfig.is_some()).map_err(invalid)?,
        tls,
        cert_dir,
        debugging_handlers: file.enable_debugging_handlers.unwrap_or(true),
        streaming_idle_timeout: seconds(file.streaming_connection_idle_timeout, 4 * 3600),
    })
}

fn node_config(
    args: &mut Args,
    file: &mut KubeletConfiguration,
    port: u16,
) -> Result<NodeConfig, ConfigError> {
    let hostname =
        node_name::hostname().map_err(|error| invalid(format!("failed to read the hostname: {error}")))?;
    let name = node_name::node_name(args.hostname_override.as_deref(), &hostname).map_err(invalid)?;
    let labels = args.node_labels.take().unwrap_or_default();
    node_name::check_labels(&labels).map_err(invalid)?;
    let taints = match args.register_with_taints.as_slice() {
        [] => file.register_with_taints.take().unwrap_or_default(),
        given => given.iter().map(|text| taint::parse(text)).collect::<Result<_, _>>().map_err(invalid)?,
    };
    // Upstream reports every 5 minutes, unless only the update frequency is set: then as often as that.
    let status_report_frequency = set(file.node_status_report_frequency)
        .or(set(file.node_status_update_frequency))
        .unwrap_or(Duration::from_secs(300));
    Ok(NodeConfig {
        hostname: name.clone(),
        name,
        ips: node_name::node_ips(&args.node_ip).map_err(invalid)?,
        register: args.register_node.or(file.register_node).unwrap_or(true),
        labels,
        taints,
        max_pods: i64::from(args.max_pods.or(file.max_pods).unwrap_or(110)),
        status_update_frequency: seconds(file.node_status_update_frequency, 10),
        status_report_frequency,
        lease_duration: Duration::from_secs(u64::from(file.node_lease_duration_seconds.unwrap_or(40).max(4))),
        max_images: match file.node_status_max_images.unwrap_or(50) {
            -1 => usize::MAX,
            count => usize::try_from(count).unwrap_or(50),
        },
        provider_id: file.provider_id.take(),
        port,
        reserved: file.reserved(),
        root_dir: args.root_dir.clone(),
    })
}

/// Upstream ignores the bootstrap file once there is a kubeconfig; asking for a certificate is not supported yet.
fn check_bootstrap(args: &Args) -> Result<(), ConfigError> {
    let Some(bootstrap) = &args.bootstrap_kubeconfig else { return Ok(()) };
    match &args.kubeconfig {
        Some(kubeconfig) if kubeconfig.exists() => Ok(()),
        _ => Err(invalid(format!(
            "--bootstrap-kubeconfig {}: the kubeconfig of --kubeconfig does not exist, and requesting a client \
             certificate (TLS bootstrap) is not supported",
            bootstrap.display()
        ))),
    }
}

fn check_swap(file: &KubeletConfiguration) -> Result<(), ConfigError> {
    if !file.fail_swap_on.unwrap_or(true) {
        return Ok(());
    }
    // Without /proc/swaps the kernel has no swap.
    let swaps = std::fs::read_to_string("/proc/swaps").unwrap_or_default();
    let lines: Vec<&str> = swaps.lines().skip(1).filter(|line| !line.trim().is_empty()).collect();
    if lines.is_empty() {
        return Ok(());
    }
    Err(invalid(format!(
        "running with swap on is not supported, please disable swap or set failSwapOn to false: {}",
        lines.join("; ")
    )))
}

#[cfg(test)]
mod tests;
