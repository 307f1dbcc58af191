//! `bench`: builds the load generator and kube-apiserver with optimisation and lets the one measure the other.

use crate::binaries;
use crate::cli::BenchArgs;
use crate::etcd_package;
use crate::layout;
use crate::packages;
use crate::stages::Stages;
use anyhow::{Context, Result, bail};
use std::process::Command;

/// Runs the benchmark; its figures go to the terminal and, unless the flags say otherwise, to `_output/bench.json`.
pub(crate) fn run(args: &BenchArgs) -> Result<()> {
    let stages = Stages::new();
    if nix::unistd::geteuid().is_root() {
        stages.run("packages", |stage| packages::install(stage, &[packages::NODE, packages::BUILD]))?;
    }
    let (_, bin) = stages.run("build", |stage| {
        let compiled = if args.skip_build {
            0
        } else {
            binaries::build(stage, &["kube-apiserver", "bench"], &args.profile)?
        };
        Ok((format!("{compiled} crates compiled"), binaries::target_directory()?.join(&args.profile)))
    })?;
    // The one that a cluster gets, so that figures of two machines have the same etcd below them.
    let etcd = match std::env::var_os("KEELSON_ETCD") {
        Some(program) => program.into(),
        None => {
            stages.run("etcd", |stage| etcd_package::find(stage).map(|etcd| (etcd.version, etcd.path)))?.1
        }
    };
    let mut bench = Command::new(bin.join("bench"));
    if args.floor {
        bench.arg("--floor").arg(bin.join("canned"));
    }
    let status = bench
        .env("KEELSON_ETCD", etcd)
        .arg("--apiserver")
        .arg(bin.join("kube-apiserver"))
        .arg("--out")
        .arg(layout::workspace().join("_output/bench.json"))
        // The last of a repeated flag counts.
        .args(&args.flags)
        .status()
        .context("cannot start the load generator")?;
    if !status.success() {
        bail!("the benchmark failed ({status})");
    }
    Ok(())
}
