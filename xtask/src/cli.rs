//! The command line.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::net::Ipv4Addr;
use std::path::PathBuf;

/// Keelson: Kubernetes in Rust.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make this machine a Kubernetes node with its own control plane.
    Up(UpArgs),
    /// Stop the cluster and leave nothing behind but its state.
    Down(DownArgs),
    /// Check this machine and, if there is one, its cluster.
    Doctor,
    /// Run every test: style, unit, component and cluster tests.
    Test(TestArgs),
    /// Measure kube-apiserver and compare with upstream.
    Bench(BenchArgs),
    /// Measure how long pods take to start and to go on the cluster that `up` made
    BenchPods,
    /// Keep one host process running, where there is no systemd.
    #[command(hide = true)]
    Supervise(SuperviseArgs),
}

#[derive(Debug, Args, Default)]
pub(crate) struct UpArgs {
    /// Name of the node [default: the host name, in lower case]
    #[arg(long)]
    pub(crate) node_name: Option<String>,
    /// Address of the node [default: that of the interface with the default route]
    #[arg(long)]
    pub(crate) node_ip: Option<Ipv4Addr>,
    /// Use the release binaries that the last build left
    #[arg(long)]
    pub(crate) skip_build: bool,
    /// Use the binaries in this directory and build nothing
    #[arg(long, conflicts_with = "skip_build")]
    pub(crate) bin_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct DownArgs {
    /// Also remove the cluster's state: etcd's data, certificates, images, logs
    #[arg(long)]
    pub(crate) purge: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TestArgs {
    /// Run only this part (may be given several times)
    #[arg(long, value_enum)]
    pub(crate) only: Vec<Part>,
    /// Cluster tests whose name contains this
    #[arg(long)]
    pub(crate) filter: Option<String>,
    /// Run the cluster tests on the cluster that is up, and leave it up
    #[arg(long)]
    pub(crate) keep_cluster: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Formatting, clippy, documentation and house rules
    Lint,
    /// Tests inside the crates' sources
    Unit,
    /// Tests of one daemon with the real programs it talks to
    Component,
    /// Tests of the whole on a real cluster on this machine
    Cluster,
}

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// Use the release binaries that the last build left
    #[arg(long)]
    pub(crate) skip_build: bool,
    /// Build profile: `release`, as `up` builds, or `dist`, as packages are to be built
    #[arg(long, default_value = "release")]
    pub(crate) profile: String,
    /// Measure a server that does next to nothing beside kube-apiserver: what no server on this machine can be faster than
    #[arg(long)]
    pub(crate) floor: bool,
    /// What to measure and how often, after the flags above: `cargo xtask bench -- --help` lists it
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "FLAGS")]
    pub(crate) flags: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct SuperviseArgs {
    /// Directory for the pid files
    #[arg(long)]
    pub(crate) run_dir: PathBuf,
    /// Name of the service
    #[arg(long)]
    pub(crate) name: String,
    /// The program and its arguments
    #[arg(last = true, required = true)]
    pub(crate) command: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bench_hands_on_what_is_not_its_own() {
        let flags = |words: &[&str]| {
            let cli = Cli::try_parse_from([&["cargo xtask", "bench"], words].concat()).unwrap();
            let Command::Bench(args) = cli.command else { panic!("not bench") };
            (args.skip_build, args.flags)
        };
        let onward = ["--only", "get,list", "--runs=1"].map(str::to_owned).to_vec();
        assert_eq!(flags(&["--skip-build", "--only", "get,list", "--runs=1"]), (true, onward));
        assert_eq!(flags(&["--", "--help"]), (false, vec!["--help".to_owned()]));
        assert_eq!(flags(&[]), (false, vec![]));
    }
}
