//! Measures a real kube-apiserver over a real etcd, on loopback, and prints the figures beside upstream's.
//!
//! The load comes from the same machine over TLS and HTTP/2, each client on a connection of its own. Beside the rate
//! stands the server's CPU time for one operation: machines differ, and that differs least.

mod client;
mod load;
mod report;
mod usage;

use anyhow::{Context, Result};
use clap::Parser;
use client::Target;
use harness::apiserver::ApiServer;
use harness::etcd::Etcd;
use report::Row;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use usage::Usage;

/// What to measure.
#[derive(Debug, Parser)]
struct Args {
    /// The kube-apiserver to measure
    #[arg(long)]
    apiserver: PathBuf,
    /// Pods to create, get, list and delete
    #[arg(long, default_value_t = 5000)]
    pods: u32,
    /// Watchers in the fan-out
    #[arg(long, default_value_t = 200)]
    watchers: u32,
    /// Patches in the fan-out
    #[arg(long, default_value_t = 1000)]
    patches: u32,
    /// Concurrent clients
    #[arg(long, default_value_t = 32)]
    clients: u32,
    /// File for the figures, as JSON
    #[arg(long)]
    out: Option<PathBuf>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let rows = runtime.block_on(measure(&args))?;
    print!("{}", report::table(&rows));
    if let Some(out) = &args.out {
        if let Some(dir) = out.parent() {
            std::fs::create_dir_all(dir)?;
        }
        std::fs::write(out, serde_json::to_vec_pretty(&rows)?)
            .with_context(|| format!("cannot write {}", out.display()))?;
        println!("written to {}", out.display());
    }
    Ok(())
}

async fn measure(args: &Args) -> Result<Vec<Row>> {
    let etcd = Etcd::start()?;
    let begun = Instant::now();
    let mut server = ApiServer::start(&args.apiserver, &etcd)?;
    let target = Target::new(server.port, &server.ca.cert, &server.admin.cert, &server.admin.key)?;
    let until = begun + Duration::from_secs(60);
    while !target.is_ready().await {
        server.check_running()?;
        anyhow::ensure!(Instant::now() < until, "kube-apiserver is not ready after 60 s");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut rows = vec![Row::seconds("start to /readyz", begun.elapsed(), 1.7)];

    eprintln!("idle for 10 s");
    let before = Usage::of(server.pid())?;
    // What is measured here is doing nothing.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let idle = Usage::of(server.pid())?;
    rows.push(Row::mib("idle memory", idle.resident, 257.0));
    rows.push(Row::percent("idle CPU, of a core", (idle.cpu - before.cpu).as_secs_f64() * 10.0, 1.3));

    load::prepare(&target).await?;
    rows.extend(load::create(&target, server.pid(), args).await?);
    rows.extend(load::get(&target, server.pid(), args).await?);
    rows.extend(load::lists(&target, server.pid(), args).await?);
    rows.extend(load::fan_out(&target, server.pid(), args).await?);
    rows.extend(load::delete(&target, server.pid(), args).await?);
    rows.push(Row::mib("peak memory under this load", Usage::of(server.pid())?.peak, 667.0));
    Ok(rows)
}
