//! `robustness run` breaks things around real API servers under traffic and judges what they answered;
//! `robustness check` judges a history that was kept.

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use robustness::checker::Property;
use robustness::reduce::reduce;
use robustness::report::{self, Report};
use robustness::run::{self, Options};
use robustness::{checker, history};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run traffic and faults, and judge the history
    Run(RunArgs),
    /// Judge a history that was kept
    Check {
        /// The history
        file: PathBuf,
        /// Directory for cases: of each broken property the smallest part of the history that shows it
        #[arg(long)]
        cases: Option<PathBuf>,
    },
}

#[derive(Debug, clap::Args)]
struct RunArgs {
    /// The kube-apiserver to run
    #[arg(long)]
    apiserver: PathBuf,
    /// How long faults come, at least
    #[arg(long, default_value_t = 120)]
    seconds: u64,
    /// How long traffic runs before the first fault
    #[arg(long, default_value_t = 5)]
    calm: u64,
    /// What decides the faults and the traffic
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// API servers
    #[arg(long, default_value_t = 2)]
    servers: usize,
    /// Members of etcd
    #[arg(long, default_value_t = 3)]
    etcd_members: usize,
    /// Clients
    #[arg(long, default_value_t = 8)]
    clients: u32,
    /// Requests to be answered each second before the first fault, or the run does not count
    #[arg(long, default_value_t = 200.0)]
    min_rate: f64,
    /// Shortest pause between faults, and shortest fault, in milliseconds
    #[arg(long, default_value_t = 500)]
    shortest: u64,
    /// Longest
    #[arg(long, default_value_t = 4000)]
    longest: u64,
    /// Kinds of faults to do, comma separated, as reports name them; without it, all
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// File for the history, and beside it the logs; without it, they are kept only if a promise was broken
    #[arg(long)]
    history: Option<PathBuf>,
}

fn main() -> Result<()> {
    match Args::parse().command {
        Command::Run(args) => {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
            runtime.block_on(run(&args))
        }
        Command::Check { file, cases } => {
            let records = history::read(&file)?;
            if let Some(dir) = cases {
                make_cases(&records, &dir)?;
            }
            judge(&records).map(drop)
        }
    }
}

async fn run(args: &RunArgs) -> Result<()> {
    let name = format!("robustness-{}-{}.jsonl", args.seed, std::process::id());
    let history = args.history.clone().unwrap_or_else(|| std::env::temp_dir().join(name));
    let options = Options {
        apiserver: args.apiserver.clone(),
        seed: args.seed,
        servers: args.servers,
        etcd_members: args.etcd_members,
        clients: args.clients,
        calm: Duration::from_secs(args.calm),
        faults: Duration::from_secs(args.seconds),
        pace: (args.shortest, args.longest),
        only: args.only.clone(),
        history: history.clone(),
    };
    println!("seed {}, history in {}", args.seed, history.display());
    let setup = Box::pin(run::run(&options)).await?;
    let records = history::read(&history)?;
    let judged = judge(&records);
    if judged.is_err() || args.history.is_some() {
        let logs = history.with_extension("logs");
        setup.copy_logs(&logs)?;
        println!("logs in {}", logs.display());
    }
    let report = judged?;
    if report.calm_rate() < args.min_rate {
        bail!("the run does not count: {:.0} requests/s, not {}", report.calm_rate(), args.min_rate);
    }
    if args.history.is_none() {
        discard(&history);
    }
    Ok(())
}

/// Prints what is in a history; fails if it breaks a promise.
fn judge(records: &[history::Record]) -> Result<Report> {
    let report = Report::of(records);
    print!("{report}");
    let violations = checker::check(records)?;
    print!("{}", report::violations(&violations));
    if !violations.is_empty() {
        bail!("{} violations", violations.len());
    }
    Ok(report)
}

/// Writes a case for each broken property that can be shown apart.
fn make_cases(records: &[history::Record], dir: &Path) -> Result<()> {
    let mut smallest: BTreeMap<Property, Vec<history::Record>> = BTreeMap::new();
    for violation in checker::check(records)? {
        let Some(case) = reduce(records, &violation) else { continue };
        let known = smallest.get(&violation.property);
        if known.is_none_or(|known| case.len() < known.len()) {
            smallest.insert(violation.property, case);
        }
    }
    std::fs::create_dir_all(dir)?;
    for (property, case) in smallest {
        let path = dir.join(format!("{property}.jsonl"));
        let lines: Vec<String> = case.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
        std::fs::write(&path, lines.join("\n") + "\n")?;
        println!("{property}: {} lines in {}", case.len(), path.display());
    }
    Ok(())
}

fn discard(history: &Path) {
    if let Err(error) = std::fs::remove_file(history) {
        eprintln!("{}: {error}", history.display());
    }
}
