//! kube-scheduler: finds a node for every pod that has none.

use std::process::ExitCode;

use component_base::cli::{self, Component};

const COMPONENT: Component = Component::new("kube-scheduler").workers(2).about(
    "The Kubernetes scheduler is a control plane process which assigns Pods to Nodes: it determines which Nodes \
     are valid placements for each Pod in the scheduling queue, ranks them and binds the Pod to one.",
);

fn main() -> ExitCode {
    cli::main(COMPONENT, kube_scheduler::config::Config::from_args, kube_scheduler::run)
}
