//! The kubelet's process: flags, configuration, run, exit code.

use std::process::ExitCode;

use component_base::cli::{self, Component};

fn main() -> ExitCode {
    let component =
        Component::new("kubelet").about("The kubelet runs the pods of one node over a container runtime.");
    cli::main(component, kubelet::config::configure, kubelet::kubelet::run)
}
