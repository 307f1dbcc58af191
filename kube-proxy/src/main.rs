//! kube-proxy: makes Services reachable on this node by nftables rules.

use std::process::ExitCode;

use component_base::cli::{self, Component};

const COMPONENT: Component = Component::new("kube-proxy").about(
    "The Kubernetes network proxy runs on each node and reflects Services as defined in the Kubernetes API, \
     forwarding TCP, UDP and SCTP connections to their endpoints by nftables rules.",
);

fn main() -> ExitCode {
    cli::main(COMPONENT, kube_proxy::config::Config::from_args, kube_proxy::run)
}
