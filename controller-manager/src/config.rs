//! Flags of kube-controller-manager (upstream's names and defaults) and the validated configuration made from them.
//! A flag of upstream's that is missing here is refused by the parser.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use component_base::cli::flag;
use component_base::leader_election::{LeaderElectionArgs, LeaderElectionConfig};
use component_base::serving::{SecureServingArgs, ServingConfig};
use ipnet::IpNet;

use crate::descriptor::{self, Descriptor};

/// Command line of kube-controller-manager.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Path to kubeconfig file with authorization and master location information.
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
    /// Leader election.
    #[command(flatten)]
    pub leader_election: LeaderElectionArgs,
    /// The port of /healthz and /metrics, 10257 by default.
    #[command(flatten)]
    pub serving: SecureServingArgs,
    /// Controllers to run: '*' all that are on by default, 'foo' this one, '-foo' not this one.
    #[arg(long, value_delimiter = ',', default_value = "*", allow_hyphen_values = true)]
    pub controllers: Vec<String>,
    /// Certificate authority published to every namespace in the ConfigMap kube-root-ca.crt.
    #[arg(long)]
    pub root_ca_file: Option<PathBuf>,
    /// Private key that signs service account tokens of Secrets.
    #[arg(long)]
    pub service_account_private_key_file: Option<PathBuf>,
    /// Certificate authority that signs CertificateSigningRequests.
    #[arg(long, requires = "cluster_signing_key_file")]
    pub cluster_signing_cert_file: Option<PathBuf>,
    /// Key of --cluster-signing-cert-file.
    #[arg(long, requires = "cluster_signing_cert_file")]
    pub cluster_signing_key_file: Option<PathBuf>,
    /// CIDR ranges of pods, one per address family.
    #[arg(long, value_delimiter = ',')]
    pub cluster_cidr: Vec<IpNet>,
    /// CIDR ranges of Services, one per address family; never given to nodes.
    #[arg(long, value_delimiter = ',')]
    pub service_cluster_ip_range: Vec<IpNet>,
    /// Allocate pod CIDRs to nodes.
    #[arg(long, default_value_t = false)]
    pub allocate_node_cidrs: bool,
    /// Mask size of a node's CIDR in a single-stack cluster: 24 for IPv4, 64 for IPv6 by default.
    #[arg(long)]
    pub node_cidr_mask_size: Option<u8>,
    /// Mask size of a node's IPv4 CIDR.
    #[arg(long)]
    pub node_cidr_mask_size_ipv4: Option<u8>,
    /// Mask size of a node's IPv6 CIDR.
    #[arg(long)]
    pub node_cidr_mask_size_ipv6: Option<u8>,
    /// Prefix of the names of what a cloud is asked to make; here it only names the cluster.
    #[arg(long, default_value = "kubernetes")]
    pub cluster_name: String,
    /// Let every controller use its own service account.
    #[arg(long, default_value_t = false)]
    pub use_service_account_credentials: bool,
    /// How often nodes are looked at.
    #[arg(long, default_value = "5s", value_parser = flag::duration)]
    pub node_monitor_period: Duration,
    /// How long a running node may be silent before it is unhealthy.
    #[arg(long, default_value = "50s", value_parser = flag::duration)]
    pub node_monitor_grace_period: Duration,
    /// How long a starting node may be silent before it is unhealthy.
    #[arg(long, default_value = "1m", value_parser = flag::duration)]
    pub node_startup_grace_period: Duration,
    /// Nodes per second whose taints are changed while a zone is healthy.
    #[arg(long, default_value_t = 0.1)]
    pub node_eviction_rate: f32,
    /// The same in an unhealthy zone of a large cluster.
    #[arg(long, default_value_t = 0.01)]
    pub secondary_node_eviction_rate: f32,
    /// Fraction of nodes of a zone that must be unhealthy for the zone to be.
    #[arg(long, default_value_t = 0.55)]
    pub unhealthy_zone_threshold: f32,
    /// Number of nodes from which on a cluster is large.
    #[arg(long, default_value_t = 50)]
    pub large_cluster_size_threshold: usize,
    /// Finished pods that may exist before the oldest are deleted; 0 keeps them all.
    #[arg(long, default_value_t = 12_500)]
    pub terminated_pod_gc_threshold: usize,
    /// ReplicaSets synced at once.
    #[arg(long, default_value_t = 5)]
    pub concurrent_replicaset_syncs: usize,
    /// Deployments synced at once.
    #[arg(long, default_value_t = 5)]
    pub concurrent_deployment_syncs: usize,
    /// DaemonSets synced at once.
    #[arg(long, default_value_t = 2)]
    pub concurrent_daemonset_syncs: usize,
    /// Endpoints synced at once.
    #[arg(long, default_value_t = 5)]
    pub concurrent_endpoint_syncs: usize,
    /// Services whose EndpointSlices are synced at once.
    #[arg(long, default_value_t = 5)]
    pub concurrent_service_endpoint_syncs: usize,
    /// Most endpoints in one EndpointSlice.
    #[arg(long, default_value_t = 100)]
    pub max_endpoints_per_slice: usize,
    /// How long to gather pod changes before Endpoints are written.
    #[arg(long, default_value = "0s", value_parser = flag::duration)]
    pub endpoint_updates_batch_period: Duration,
    /// How long to gather pod changes before EndpointSlices are written.
    #[arg(long, default_value = "0s", value_parser = flag::duration)]
    pub endpointslice_updates_batch_period: Duration,
    /// Namespaces synced at once.
    #[arg(long, default_value_t = 10)]
    pub concurrent_namespace_syncs: usize,
    /// Objects collected at once.
    #[arg(long, default_value_t = 20)]
    pub concurrent_gc_syncs: usize,
    /// Run the garbage collector; must agree with the apiserver's flag.
    #[arg(long, default_value_t = true)]
    pub enable_garbage_collector: bool,
}

/// Why the flags make no sense together.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("--controllers: {0:?} is not in the list of known controllers")]
    UnknownController(String),
    #[error("--kubeconfig: read {path:?}")]
    Kubeconfig { path: PathBuf, source: std::io::Error },
    #[error("--{flag}: read {path:?}")]
    File { flag: &'static str, path: PathBuf, source: std::io::Error },
    #[error("--{flag}: {path:?} holds no PEM certificate")]
    NoCertificate { flag: &'static str, path: PathBuf },
    #[error("--cluster-cidr: {0}")]
    ClusterCidr(String),
    #[error("--{flag}: mask /{mask} does not fit into {cidr}")]
    MaskSize { flag: &'static str, mask: u8, cidr: IpNet },
    #[error("--{0} must be greater than 0")]
    Zero(&'static str),
    #[error("{0}")]
    LeaderElection(String),
    #[error("{0}")]
    Serving(String),
    #[error("--node-monitor-grace-period must be greater than --node-monitor-period")]
    NodeMonitor,
}

/// What the daemon runs with: checked flags and the files they name.
#[derive(Debug)]
pub struct Config {
    /// The flags.
    pub args: Args,
    /// The controllers to run.
    pub controllers: Vec<&'static Descriptor>,
    /// Contents of --root-ca-file.
    pub root_ca: Option<String>,
    /// One range per address family, with the mask size of a node's share.
    pub node_cidrs: Vec<(IpNet, u8)>,
    /// Leader election, unless it is off.
    pub leader_election: Option<LeaderElectionConfig>,
    /// The secure port, unless it is off.
    pub serving: Option<ServingConfig>,
}

const DEFAULT_PORT: u16 = 10257;

impl std::ops::Deref for Config {
    type Target = Args;

    fn deref(&self) -> &Args {
        &self.args
    }
}

impl Config {
    /// Checks the flags and reads the files.
    pub fn new(args: Args) -> Result<Self, ConfigError> {
        let controllers = enabled(&args)?;
        if let Some(path) = &args.kubeconfig {
            std::fs::metadata(path)
                .map_err(|source| ConfigError::Kubeconfig { path: path.clone(), source })?;
        }
        let leader_election = args.leader_election.clone().config("kube-controller-manager");
        let leader_election =
            leader_election.map_err(|error| ConfigError::LeaderElection(error.to_string()))?;
        let serving = args
            .serving
            .clone()
            .config(DEFAULT_PORT)
            .map_err(|error| ConfigError::Serving(error.to_string()))?;
        if args.node_monitor_grace_period <= args.node_monitor_period {
            return Err(ConfigError::NodeMonitor);
        }
        for (flag, value) in [
            ("concurrent-replicaset-syncs", args.concurrent_replicaset_syncs),
            ("concurrent-deployment-syncs", args.concurrent_deployment_syncs),
            ("concurrent-daemonset-syncs", args.concurrent_daemonset_syncs),
            ("concurrent-endpoint-syncs", args.concurrent_endpoint_syncs),
            ("concurrent-service-endpoint-syncs", args.concurrent_service_endpoint_syncs),
            ("concurrent-namespace-syncs", args.concurrent_namespace_syncs),
            ("concurrent-gc-syncs", args.concurrent_gc_syncs),
            ("max-endpoints-per-slice", args.max_endpoints_per_slice),
        ] {
            if value == 0 {
                return Err(ConfigError::Zero(flag));
            }
        }
        let root_ca =
            args.root_ca_file.as_deref().map(|path| certificate("root-ca-file", path)).transpose()?;
        for (flag, path) in [
            ("service-account-private-key-file", &args.service_account_private_key_file),
            ("cluster-signing-cert-file", &args.cluster_signing_cert_file),
            ("cluster-signing-key-file", &args.cluster_signing_key_file),
            ("client-ca-file", &args.serving.client_ca_file),
        ] {
            if let Some(path) = path {
                read(flag, path)?;
            }
        }
        let node_cidrs = node_cidrs(&args)?;
        Ok(Self { args, controllers, root_ca, node_cidrs, leader_election, serving })
    }
}

fn read(flag: &'static str, path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|source| ConfigError::File { flag, path: path.to_owned(), source })
}

fn certificate(flag: &'static str, path: &Path) -> Result<String, ConfigError> {
    let text = read(flag, path)?;
    if text.contains("-----BEGIN CERTIFICATE-----") {
        Ok(text)
    } else {
        Err(ConfigError::NoCertificate { flag, path: path.to_owned() })
    }
}

/// The controllers that `--controllers` names, in the table's order.
fn enabled(args: &Args) -> Result<Vec<&'static Descriptor>, ConfigError> {
    let mut wanted = BTreeSet::new();
    let mut refused = BTreeSet::new();
    let mut all = false;
    for item in &args.controllers {
        match item.as_str() {
            "*" => all = true,
            item => {
                let (set, name) = match item.strip_prefix('-') {
                    Some(name) => (&mut refused, name),
                    None => (&mut wanted, item),
                };
                let descriptor =
                    descriptor::find(name).ok_or_else(|| ConfigError::UnknownController(item.to_owned()))?;
                set.insert(descriptor.name);
            }
        }
    }
    Ok(descriptor::CONTROLLERS
        .iter()
        .filter(|controller| {
            if refused.contains(controller.name) {
                return false;
            }
            wanted.contains(controller.name)
                || (all && controller.on_by_default && controller.has_its_flags(args))
        })
        .collect())
}

fn node_cidrs(args: &Args) -> Result<Vec<(IpNet, u8)>, ConfigError> {
    if !args.allocate_node_cidrs {
        return Ok(Vec::new());
    }
    let ranges = &args.cluster_cidr;
    let families: BTreeSet<bool> = ranges.iter().map(|range| range.addr().is_ipv4()).collect();
    if ranges.is_empty() {
        return Err(ConfigError::ClusterCidr("needed by --allocate-node-cidrs".to_owned()));
    }
    if families.len() != ranges.len() {
        return Err(ConfigError::ClusterCidr("at most one range per address family".to_owned()));
    }
    ranges
        .iter()
        .map(|range| {
            let (flag, own, default) = if range.addr().is_ipv4() {
                ("node-cidr-mask-size-ipv4", args.node_cidr_mask_size_ipv4, 24)
            } else {
                ("node-cidr-mask-size-ipv6", args.node_cidr_mask_size_ipv6, 64)
            };
            let general = args.node_cidr_mask_size.filter(|_| ranges.len() == 1);
            let mask = own.or(general).unwrap_or(default);
            // Upstream allows 2^16 nodes per range at most.
            let fits = mask >= range.prefix_len()
                && mask <= range.max_prefix_len()
                && mask - range.prefix_len() <= 16;
            if fits {
                Ok((range.trunc(), mask))
            } else {
                Err(ConfigError::MaskSize { flag, mask, cidr: *range })
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn config(flags: &[&str]) -> Result<Config, ConfigError> {
        let cli =
            Cli::try_parse_from(std::iter::once("kube-controller-manager").chain(flags.iter().copied()))
                .unwrap();
        Config::new(cli.args)
    }

    fn names(flags: &[&str]) -> Vec<&'static str> {
        config(flags).unwrap().controllers.iter().map(|controller| controller.name).collect()
    }

    #[test]
    fn controllers_are_chosen_by_name_or_alias() {
        assert_eq!(
            names(&["--controllers=deployment,replicaset-controller"]),
            ["replicaset-controller", "deployment-controller"]
        );
        let without = names(&["--controllers=*,-deployment-controller"]);
        assert!(without.contains(&"replicaset-controller") && !without.contains(&"deployment-controller"));
        assert!(names(&[]).contains(&"deployment-controller"));
        assert!(matches!(config(&["--controllers=nonsense"]), Err(ConfigError::UnknownController(_))));
        assert!(matches!(config(&["--controllers=-nonsense"]), Err(ConfigError::UnknownController(_))));
    }

    #[test]
    fn node_ipam_runs_when_cidrs_are_to_be_allocated() {
        assert!(!names(&[]).contains(&"node-ipam-controller"));
        let flags = ["--allocate-node-cidrs", "--cluster-cidr=10.244.0.0/16"];
        assert!(names(&flags).contains(&"node-ipam-controller"));
        assert_eq!(config(&flags).unwrap().node_cidrs, [("10.244.0.0/16".parse().unwrap(), 24)]);
    }

    #[test]
    fn bad_ranges_are_refused() {
        for flags in [
            &["--allocate-node-cidrs"][..],
            &["--allocate-node-cidrs", "--cluster-cidr=10.0.0.0/16,10.1.0.0/16"],
            &["--allocate-node-cidrs", "--cluster-cidr=10.0.0.0/25"],
            &["--allocate-node-cidrs", "--cluster-cidr=10.0.0.0/8", "--node-cidr-mask-size=28"],
        ] {
            assert!(config(flags).is_err(), "{flags:?}");
        }
    }

    #[test]
    fn missing_files_are_named() {
        let error = config(&["--root-ca-file=/nonexistent/ca.crt"]).unwrap_err();
        assert!(error.to_string().contains("--root-ca-file"), "{error}");
        assert!(config(&["--kubeconfig=/nonexistent/kc"]).is_err());
    }

    #[test]
    fn times_must_fit_together() {
        assert!(matches!(
            config(&["--leader-elect-renew-deadline=20s"]),
            Err(ConfigError::LeaderElection(_))
        ));
        assert!(matches!(config(&["--node-monitor-grace-period=1s"]), Err(ConfigError::NodeMonitor)));
        assert!(matches!(config(&["--concurrent-gc-syncs=0"]), Err(ConfigError::Zero(_))));
    }
}
