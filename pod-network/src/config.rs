//! Flags of pod-network as one validated [`Config`].

use std::path::PathBuf;

use ipnet::IpNet;

/// The command line.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Path to a kubeconfig; without it the pod's service account is used.
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
    /// Name of the Node that this runs on.
    #[arg(long)]
    pub node_name: String,
    /// The pod ranges of the whole cluster: what goes there is not masqueraded.
    #[arg(long, value_delimiter = ',', required = true)]
    pub cluster_cidr: Vec<String>,
    /// Directory that the container runtime reads CNI configurations from.
    #[arg(long, default_value = "/etc/cni/net.d")]
    pub cni_conf_dir: PathBuf,
    /// Name of the bridge that joins the node's pods.
    #[arg(long, default_value = "cni0")]
    pub bridge_name: String,
}

/// What pod-network runs with.
#[derive(Clone, Debug)]
pub struct Config {
    /// How to reach the API server; in-cluster when `None`.
    pub kubeconfig: Option<PathBuf>,
    /// Name of this node.
    pub node_name: String,
    /// The cluster's pod ranges.
    pub cluster_cidrs: Vec<IpNet>,
    /// Where the CNI configuration goes.
    pub cni_conf_dir: PathBuf,
    /// Name of the bridge.
    pub bridge_name: String,
}

/// Why the flags are refused.
#[derive(Debug, thiserror::Error)]
#[error("{flag}: Invalid value: {value:?}: {problem}")]
pub struct Error {
    flag: &'static str,
    value: String,
    problem: &'static str,
}

impl Config {
    /// Checks the command line.
    ///
    /// # Errors
    /// A value that is not allowed.
    pub fn from_args(args: Args) -> Result<Self, Error> {
        let refuse = |flag, value: &str, problem| Error { flag, value: value.to_owned(), problem };
        if args.node_name.is_empty() {
            return Err(refuse("--node-name", "", "must not be empty"));
        }
        // The kernel's limit of an interface name is 15 bytes; a slash would lead out of /sys/class/net.
        if args.bridge_name.is_empty() || args.bridge_name.len() > 15 || args.bridge_name.contains(['/', ' '])
        {
            return Err(refuse(
                "--bridge-name",
                &args.bridge_name,
                "must be an interface name of at most 15 bytes",
            ));
        }
        let cluster_cidrs = args
            .cluster_cidr
            .iter()
            .map(|c| {
                c.trim()
                    .parse::<IpNet>()
                    .map_err(|_| refuse("--cluster-cidr", c, "must be a valid CIDR block"))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            kubeconfig: args.kubeconfig,
            node_name: args.node_name,
            cluster_cidrs,
            cni_conf_dir: args.cni_conf_dir,
            bridge_name: args.bridge_name,
        })
    }
}
