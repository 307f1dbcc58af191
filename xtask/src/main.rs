//! The commands of people who run and work on Keelson: `cargo xtask up | down | doctor | test | bench`.
//!
//! Nothing here is needed to run the daemons: what a cluster consists of stands in `manifests/`, and this program
//! puts it on a machine. Upstream's concept: kubeadm, and the scripts under `hack/`.

mod bench;
mod bench_pods;
mod binaries;
mod checks;
mod cli;
mod command;
mod containerd;
mod context;
mod credentials;
mod doctor;
mod down;
mod etcd_package;
mod images;
mod journal;
mod kubectl;
mod layout;
mod machine;
mod network;
mod packages;
mod self_check;
mod services;
mod stages;
mod supervise;
mod templates;
mod test;
mod up;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let result = match cli::Cli::parse().command {
        cli::Command::Up(args) => up::run(&args),
        cli::Command::Down(args) => down::run(&args),
        cli::Command::Doctor => doctor::run(),
        cli::Command::Test(args) => test::run(&args),
        cli::Command::Bench(args) => bench::run(&args),
        cli::Command::BenchPods => bench_pods::run(),
        cli::Command::Supervise(args) => supervise::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            stages::print_failure(&error);
            ExitCode::FAILURE
        }
    }
}
