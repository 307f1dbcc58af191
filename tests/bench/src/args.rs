//! The command line.

use crate::figures::Group;
use clap::{Args as ClapArgs, Parser};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Measures a kube-apiserver over a real etcd on this machine.
#[derive(Debug, Parser)]
#[command(name = "bench", args_override_self = true)]
pub(crate) struct Args {
    /// The kube-apiserver to measure: ours or another
    #[arg(long, required_unless_present = "from")]
    pub(crate) apiserver: Option<PathBuf>,
    /// A server that does next to nothing, as `canned`: what it takes stands beside what the kube-apiserver takes, measured in
    /// turns with it
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) floor: Option<PathBuf>,
    /// Measure only these
    #[arg(long, value_enum, value_delimiter = ',', value_name = "NAMES")]
    pub(crate) only: Vec<Group>,
    /// Runs, each with a new server and a new etcd, of which the median counts; `large` has one
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) runs: u32,
    #[command(flatten)]
    pub(crate) load: Load,
    /// File for the figures, as JSON
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
    /// File for a chart, as SVG
    #[arg(long)]
    pub(crate) chart: Option<PathBuf>,
    /// Measure nothing: print and draw the figures of this JSON file
    #[arg(long, conflicts_with_all = ["out", "only", "floor"])]
    pub(crate) from: Option<PathBuf>,
}

impl Args {
    pub(crate) fn wants(&self, group: Group) -> bool {
        self.only.is_empty() || self.only.contains(&group)
    }

    pub(crate) fn wants_any(&self, groups: &[Group]) -> bool {
        groups.iter().any(|group| self.wants(*group))
    }
}

/// How much load. Upstream's figures and the goals hold for the defaults.
#[derive(Debug, Clone, PartialEq, Eq, ClapArgs, Serialize, Deserialize)]
pub(crate) struct Load {
    /// Pods to create, get, list, watch and delete
    #[arg(long, default_value_t = 5000, value_parser = pods())]
    pub(crate) pods: u32,
    /// Concurrent clients
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) clients: u32,
    /// Watchers in the fan-out
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) watchers: u32,
    /// Patches in the fan-out
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) patches: u32,
    /// Watches that see nothing, in `watches`
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) watches: u32,
    /// Pods in `large`
    #[arg(long, default_value_t = 150_000, value_parser = pods())]
    pub(crate) large_pods: u32,
}

/// A pod's number has six digits.
fn pods() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=1_000_000)
}

impl Default for Load {
    fn default() -> Load {
        Load { pods: 5000, clients: 32, watchers: 200, patches: 1000, watches: 10_000, large_pods: 150_000 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Args {
        Args::try_parse_from([&["bench", "--apiserver=a"], words].concat()).unwrap()
    }

    #[test]
    fn defaults_are_what_the_goals_are_for() {
        assert_eq!(parse(&[]).load, Load::default());
    }

    #[test]
    fn parts_are_chosen_by_name() {
        assert!(parse(&[]).wants(Group::Large));
        let args = parse(&["--only", "get,fanout", "--only", "watches"]);
        assert!(args.wants(Group::Get) && args.wants(Group::Watches) && !args.wants(Group::List));
        assert!(args.wants_any(&[Group::List, Group::Fanout]));
    }

    #[test]
    fn the_last_of_a_repeated_flag_counts() {
        assert_eq!(parse(&["--runs=1", "--runs=3"]).runs, 3);
    }
}
