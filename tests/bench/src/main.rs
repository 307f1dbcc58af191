//! Measures a real kube-apiserver over a real etcd, on loopback, and prints the figures beside upstream's.
//!
//! The load comes from the same machine over TLS and HTTP/2, each client on a connection of its own. Beside a rate
//! stands the server's CPU time for one operation: machines differ, and that differs least. `docs/benchmark.md` says
//! what each figure means.

mod args;
mod bare_etcd;
mod chart;
mod client;
mod crew;
mod figures;
mod grpc;
mod lists;
mod measure;
mod operations;
mod pod;
mod report;
mod samples;
mod server;
mod usage;
mod watches;

use anyhow::{Context, Result};
use args::Args;
use clap::Parser;
use harness::etcd::Etcd;
use report::Report;
use samples::Samples;
use std::path::Path;

fn main() -> Result<()> {
    let args = Args::parse();
    let (report, result) = match (&args.from, &args.apiserver) {
        (Some(from), _) => (read(from)?, Ok(())),
        (None, Some(program)) => measure(&args, program)?,
        (None, None) => unreachable!("the command line asks for one of them"),
    };
    // A failure late in a long measurement does not take away what came before it.
    print!("{}", report.table());
    println!("{}", report.notes());
    if let Some(out) = &args.out {
        write(out, &serde_json::to_vec_pretty(&report)?)?;
    }
    if let Some(chart) = &args.chart {
        write(chart, chart::svg(&report).as_bytes())?;
    }
    result
}

fn measure(args: &Args, program: &Path) -> Result<(Report, Result<()>)> {
    let (mut samples, mut floor) = (Samples::default(), Samples::default());
    // Programs are started in directories of their own.
    let absolute =
        |program: &Path| program.canonicalize().with_context(|| format!("cannot find {}", program.display()));
    let floor_program = args.floor.as_deref().map(absolute).transpose()?;
    let floor_of = floor_program.as_deref().map(|program| (program, &mut floor));
    let result = measure::all(args, &absolute(program)?, &mut samples, floor_of);
    let report = Report {
        apiserver: program.display().to_string(),
        etcd: Etcd::version()?,
        cores: std::thread::available_parallelism()?.get(),
        runs: args.runs,
        load: args.load.clone(),
        rows: report::rows(&samples, &floor, &args.load, |group| args.wants(group)),
    };
    Ok((report, result))
}

fn read(file: &Path) -> Result<Report> {
    let text = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} has no figures", file.display()))
}

fn write(file: &Path, text: &[u8]) -> Result<()> {
    if let Some(dir) = file.parent() {
        std::fs::create_dir_all(dir)?;
    }
    std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    eprintln!("written to {}", file.display());
    Ok(())
}
