//! Flags and `KubeProxyConfiguration` (kubeproxy.config.k8s.io/v1alpha1) as one validated [`Config`].
//!
//! What upstream offers and this proxy does not do is refused by name, never ignored.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use component_base::cli::flag;
use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;

const API_VERSION: &str = "kubeproxy.config.k8s.io/v1alpha1";
const KIND: &str = "KubeProxyConfiguration";

/// The command line. With `--config` the file decides and only `--hostname-override` still counts.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The path to the configuration file.
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// Path to kubeconfig file with authorization information.
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
    /// Which proxy mode to use: only nftables.
    #[arg(long, default_value = "")]
    pub proxy_mode: String,
    /// The CIDR range of the pods in the cluster (up to one of each IP family). Traffic to a Service from
    /// outside of it is masqueraded.
    #[arg(long, default_value = "")]
    pub cluster_cidr: String,
    /// If non-empty, will be used as the name of the Node that kube-proxy is running on.
    #[arg(long, default_value = "")]
    pub hostname_override: String,
    /// The IP address and port for the health check server to serve on.
    #[arg(long, default_value = "0.0.0.0:10256")]
    pub healthz_bind_address: String,
    /// The IP address and port for the metrics server to serve on.
    #[arg(long, default_value = "127.0.0.1:10249")]
    pub metrics_bind_address: String,
    /// CIDR ranges of the node addresses that accept NodePort connections, or "primary".
    #[arg(long, value_delimiter = ',')]
    pub nodeport_addresses: Vec<String>,
    /// Masquerade all traffic sent to a Service.
    #[arg(long)]
    pub masquerade_all: bool,
    /// An interval (e.g. '5s', '1m') that indicates how frequently the rules are checked against the kernel.
    #[arg(long, default_value = "30s", value_parser = flag::duration)]
    pub nftables_sync_period: Duration,
    /// The minimum period between rule changes.
    #[arg(long, default_value = "0s", value_parser = flag::duration)]
    pub nftables_min_sync_period: Duration,
}

/// Which node addresses take NodePort connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodePortAddresses {
    /// The node's own InternalIP addresses: the default of the nftables mode.
    Primary,
    /// Every local address within these ranges.
    Ranges(Vec<IpNet>),
}

/// What kube-proxy runs with.
#[derive(Clone, Debug)]
pub struct Config {
    /// How to reach the API server; in-cluster when `None`.
    pub kubeconfig: Option<PathBuf>,
    /// Name of this node.
    pub node_name: String,
    /// Pod ranges, at most one of a family.
    pub cluster_cidrs: Vec<IpNet>,
    /// Addresses for NodePorts.
    pub node_port_addresses: NodePortAddresses,
    /// Where `/healthz` is served.
    pub healthz: Option<SocketAddr>,
    /// Where `/metrics` is served.
    pub metrics: Option<SocketAddr>,
    /// Masquerade all Service traffic.
    pub masquerade_all: bool,
    /// The packet mark that asks for masquerading, one bit.
    pub masquerade_mark: u32,
    /// How often the kernel's tables are checked.
    pub sync_period: Duration,
    /// Least time between two transactions.
    pub min_sync_period: Duration,
}

/// Why the configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file can't be read.
    #[error("read configuration file {path:?}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The file is no configuration of ours.
    #[error("parse configuration file {path:?}: {message}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A flag or field has a value that is not allowed.
    #[error("{field}: Invalid value: {value:?}: {problem}")]
    Invalid {
        /// Flag or field.
        field: &'static str,
        /// Its value.
        value: String,
        /// Why not.
        problem: String,
    },
    /// A field that upstream has and we lack.
    #[error("{0}: Forbidden: not supported by this kube-proxy")]
    Unsupported(String),
}

/// The fields of the file; nested parts that we only check for being unset stay JSON.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    #[serde(default)]
    client_connection: ClientConnection,
    #[serde(default, rename = "clusterCIDR")]
    cluster_cidr: String,
    #[serde(default)]
    mode: String,
    #[serde(default)]
    hostname_override: String,
    #[serde(default)]
    healthz_bind_address: String,
    #[serde(default)]
    metrics_bind_address: String,
    #[serde(default)]
    node_port_addresses: Option<Vec<String>>,
    #[serde(default)]
    nftables: Nftables,
    #[serde(default)]
    detect_local_mode: String,
    // Accepted when unset or without effect on nftables rules.
    #[serde(default)]
    bind_address: String,
    #[serde(default)]
    bind_address_hard_fail: bool,
    #[serde(default)]
    config_sync_period: Value,
    #[serde(default)]
    conntrack: Value,
    #[serde(default)]
    detect_local: Value,
    #[serde(default)]
    enable_profiling: bool,
    #[serde(default)]
    feature_gates: Value,
    #[serde(default)]
    iptables: Value,
    #[serde(default)]
    ipvs: Value,
    #[serde(default)]
    logging: Value,
    #[serde(default)]
    oom_score_adj: Value,
    #[serde(default)]
    port_range: String,
    #[serde(default)]
    show_hidden_metrics_for_version: String,
    #[serde(default)]
    winkernel: Value,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ClientConnection {
    #[serde(default)]
    kubeconfig: String,
    #[serde(default)]
    accept_content_types: String,
    #[serde(default)]
    content_type: String,
    // The client limits itself only by the server's answers, so these two have nothing to set.
    #[serde(default)]
    #[expect(dead_code, reason = "accepted as upstream writes it; we do not limit ourselves")]
    qps: Value,
    #[serde(default)]
    #[expect(dead_code, reason = "accepted as upstream writes it; we do not limit ourselves")]
    burst: Value,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Nftables {
    #[serde(default)]
    masquerade_all: bool,
    #[serde(default)]
    masquerade_bit: Option<u8>,
    #[serde(default)]
    min_sync_period: Option<String>,
    #[serde(default)]
    sync_period: Option<String>,
}

/// True when nothing in `value` asks for anything: null, false, zero, empty, `0s`, or made of such.
fn is_unset(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(s) => s.is_empty() || s == "0s",
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.values().all(is_unset),
    }
}

impl File {
    fn refuse_unsupported(&self) -> Result<(), Error> {
        let unset = [
            ("bindAddressHardFail", !self.bind_address_hard_fail),
            ("conntrack", is_unset(&self.conntrack)),
            ("detectLocal", is_unset(&self.detect_local)),
            ("enableProfiling", !self.enable_profiling),
            ("featureGates", is_unset(&self.feature_gates)),
            ("portRange", self.port_range.is_empty()),
            ("showHiddenMetricsForVersion", self.show_hidden_metrics_for_version.is_empty()),
            ("winkernel", is_unset(&self.winkernel)),
            ("detectLocalMode", matches!(self.detect_local_mode.as_str(), "" | "ClusterCIDR")),
            (
                "clientConnection.acceptContentTypes",
                matches!(self.client_connection.accept_content_types.as_str(), "" | "application/json"),
            ),
            (
                "clientConnection.contentType",
                matches!(self.client_connection.content_type.as_str(), "" | "application/json"),
            ),
        ];
        // `iptables`, `ipvs`, `logging`, `oomScoreAdj`, `bindAddress` and `configSyncPeriod` speak of other modes
        // or of things that a running container already has; upstream's nftables mode does not read them either.
        let _ = (
            &self.iptables,
            &self.ipvs,
            &self.logging,
            &self.oom_score_adj,
            &self.bind_address,
            &self.config_sync_period,
        );
        match unset.into_iter().find(|(_, unset)| !unset) {
            Some((field, _)) => Err(Error::Unsupported(field.to_owned())),
            None => Ok(()),
        }
    }
}

impl Config {
    /// The configuration that the command line and its `--config` file ask for.
    ///
    /// # Errors
    /// A file that can't be read or parsed, a bad value, or a feature that is not supported.
    pub fn from_args(args: Args) -> Result<Self, Error> {
        match args.config.clone() {
            None => Self::from_flags(args),
            Some(path) => {
                let text = std::fs::read_to_string(&path)
                    .map_err(|source| Error::Read { path: path.clone(), source })?;
                Self::from_file(&text, &path, args)
            }
        }
    }

    fn from_flags(args: Args) -> Result<Self, Error> {
        let mode = check_mode(&args.proxy_mode);
        mode?;
        Ok(Self {
            kubeconfig: args.kubeconfig,
            node_name: node_name(&args.hostname_override)?,
            cluster_cidrs: cidrs("--cluster-cidr", &args.cluster_cidr)?,
            node_port_addresses: node_port_addresses("--nodeport-addresses", &args.nodeport_addresses)?,
            healthz: bind_address("--healthz-bind-address", &args.healthz_bind_address, 10256)?,
            metrics: bind_address("--metrics-bind-address", &args.metrics_bind_address, 10249)?,
            masquerade_all: args.masquerade_all,
            masquerade_mark: 1 << 14,
            sync_period: args.nftables_sync_period,
            min_sync_period: args.nftables_min_sync_period,
        })
    }

    fn from_file(text: &str, path: &std::path::Path, args: Args) -> Result<Self, Error> {
        let parse = |message: String| Error::Parse { path: path.to_owned(), message };
        let file: File = serde_saphyr::from_str(text).map_err(|e| parse(e.to_string()))?;
        if file.api_version != API_VERSION || file.kind != KIND {
            return Err(parse(format!(
                "no kind {:?} is registered for version {:?}",
                file.kind, file.api_version
            )));
        }
        file.refuse_unsupported()?;
        check_mode(&file.mode)?;
        let hostname =
            if args.hostname_override.is_empty() { &file.hostname_override } else { &args.hostname_override };
        let or =
            |value: &str, default: &str| if value.is_empty() { default.to_owned() } else { value.to_owned() };
        let bit = file.nftables.masquerade_bit.unwrap_or(14);
        if bit > 31 {
            return Err(invalid(
                "nftables.masqueradeBit",
                &bit.to_string(),
                "must be within the range [0, 31]",
            ));
        }
        let kubeconfig = &file.client_connection.kubeconfig;
        Ok(Self {
            kubeconfig: (!kubeconfig.is_empty()).then(|| PathBuf::from(kubeconfig)),
            node_name: node_name(hostname)?,
            cluster_cidrs: cidrs("clusterCIDR", &file.cluster_cidr)?,
            node_port_addresses: node_port_addresses(
                "nodePortAddresses",
                &file.node_port_addresses.unwrap_or_default(),
            )?,
            healthz: bind_address(
                "healthzBindAddress",
                &or(&file.healthz_bind_address, "0.0.0.0:10256"),
                10256,
            )?,
            metrics: bind_address(
                "metricsBindAddress",
                &or(&file.metrics_bind_address, "127.0.0.1:10249"),
                10249,
            )?,
            masquerade_all: file.nftables.masquerade_all,
            masquerade_mark: 1 << bit,
            sync_period: duration("nftables.syncPeriod", file.nftables.sync_period.as_deref(), 30)?,
            min_sync_period: duration("nftables.minSyncPeriod", file.nftables.min_sync_period.as_deref(), 0)?,
        })
    }
}

fn invalid(field: &'static str, value: &str, problem: &str) -> Error {
    Error::Invalid { field, value: value.to_owned(), problem: problem.to_owned() }
}

fn check_mode(mode: &str) -> Result<(), Error> {
    match mode {
        "" | "nftables" => Ok(()),
        "iptables" | "ipvs" => Err(invalid("mode", mode, "this kube-proxy supports the mode nftables only")),
        other => Err(invalid("mode", other, "must be nftables")),
    }
}

fn node_name(hostname_override: &str) -> Result<String, Error> {
    let name = match hostname_override.trim() {
        "" => std::fs::read_to_string("/proc/sys/kernel/hostname")
            .map_err(|source| Error::Read { path: "/proc/sys/kernel/hostname".into(), source })?,
        name => name.to_owned(),
    };
    Ok(name.trim().to_lowercase())
}

fn cidrs(field: &'static str, text: &str) -> Result<Vec<IpNet>, Error> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let cidrs: Vec<IpNet> = parts
        .map(|part| {
            part.parse().map_err(|_| {
                invalid(field, part, "must be a valid CIDR block (e.g. 10.100.0.0/16 or fde4:8dba:82e1::/48)")
            })
        })
        .collect::<Result<_, _>>()?;
    let of = |v4: bool| cidrs.iter().filter(|c| c.addr().is_ipv4() == v4).count();
    if of(true) > 1 || of(false) > 1 {
        return Err(invalid(field, text, "only one CIDR of each IP family is allowed"));
    }
    Ok(cidrs)
}

fn node_port_addresses(field: &'static str, texts: &[String]) -> Result<NodePortAddresses, Error> {
    if texts.is_empty() || (texts.len() == 1 && texts[0] == "primary") {
        return Ok(NodePortAddresses::Primary);
    }
    let ranges = texts
        .iter()
        .map(|text| {
            text.parse().map_err(|_| invalid(field, text, "must be a valid CIDR block, or \"primary\" alone"))
        })
        .collect::<Result<_, _>>()?;
    Ok(NodePortAddresses::Ranges(ranges))
}

fn bind_address(field: &'static str, text: &str, default_port: u16) -> Result<Option<SocketAddr>, Error> {
    if text.is_empty() {
        return Ok(None);
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(Some(address));
    }
    match text.parse::<IpAddr>() {
        Ok(ip) => Ok(Some(SocketAddr::new(ip, default_port))),
        Err(_) => Err(invalid(field, text, "must be IP:port")),
    }
}

fn duration(field: &'static str, text: Option<&str>, default_seconds: u64) -> Result<Duration, Error> {
    match text {
        // kubeadm writes 0s for "the default".
        None | Some("" | "0s") => Ok(Duration::from_secs(default_seconds)),
        Some(text) => flag::duration(text).map_err(|e| invalid(field, text, &e.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> Args {
        Args {
            config: None,
            kubeconfig: None,
            proxy_mode: String::new(),
            cluster_cidr: String::new(),
            hostname_override: "Node-1".into(),
            healthz_bind_address: "0.0.0.0:10256".into(),
            metrics_bind_address: String::new(),
            nodeport_addresses: Vec::new(),
            masquerade_all: false,
            nftables_sync_period: Duration::from_secs(30),
            nftables_min_sync_period: Duration::ZERO,
        }
    }

    fn file(text: &str) -> Result<Config, Error> {
        let head = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";
        Config::from_file(&format!("{head}{text}"), std::path::Path::new("config.conf"), args())
    }

    #[test]
    fn kubeadms_file_is_understood() {
        let config = file(
            "bindAddress: 0.0.0.0\nbindAddressHardFail: false\nclientConnection:\n  acceptContentTypes: \"\"\n  burst: 0\n  contentType: \"\"\n  kubeconfig: /var/lib/kube-proxy/kubeconfig.conf\n  qps: 0\nclusterCIDR: 10.244.0.0/16\nconfigSyncPeriod: 0s\nconntrack:\n  maxPerCore: null\n  min: null\nmode: nftables\nnftables:\n  masqueradeAll: false\n  masqueradeBit: null\n  minSyncPeriod: 0s\n  syncPeriod: 0s\nnodePortAddresses: null\noomScoreAdj: null\nmetricsBindAddress: \"\"\n",
        )
        .expect("valid");
        assert_eq!(config.node_name, "node-1");
        assert_eq!(config.kubeconfig, Some("/var/lib/kube-proxy/kubeconfig.conf".into()));
        assert_eq!(config.cluster_cidrs, ["10.244.0.0/16".parse::<IpNet>().expect("valid")]);
        assert_eq!(config.masquerade_mark, 0x4000);
        assert_eq!(config.node_port_addresses, NodePortAddresses::Primary);
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        for (text, names) in [
            ("mode: iptables", "mode"),
            ("mode: x", "mode"),
            ("detectLocalMode: BridgeInterface", "detectLocalMode"),
            ("conntrack:\n  maxPerCore: 5", "conntrack"),
            ("featureGates:\n  A: true", "featureGates"),
            ("clusterCIDR: 10.0.0.0/8,11.0.0.0/8", "clusterCIDR"),
            ("nosuchfield: 1", "nosuchfield"),
            ("nodePortAddresses: [\"x\"]", "nodePortAddresses"),
        ] {
            let error = file(text).expect_err(text).to_string();
            assert!(error.contains(names), "{text}: {error}");
        }
    }
}
