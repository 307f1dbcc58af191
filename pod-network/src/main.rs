//! pod-network: gives the pods of this node their network.

use std::process::ExitCode;

use component_base::cli::{self, Component};

const COMPONENT: Component = Component::new("pod-network").about(
    "Writes the CNI configuration of this node from its podCIDR, and masquerades what pods send out of the cluster.",
);

fn main() -> ExitCode {
    cli::main(COMPONENT, pod_network::config::Config::from_args, pod_network::run)
}
