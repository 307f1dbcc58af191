//! kube-controller-manager's process.

use std::process::ExitCode;

use component_base::cli::{self, Component};
use kube_controller_manager::config::{Args, Config};

fn main() -> ExitCode {
    let component = Component::new("kube-controller-manager")
        .about("Runs the controllers that bring the state of a cluster to what was asked for.");
    cli::main(component, |args: Args| Config::new(args), kube_controller_manager::run)
}
