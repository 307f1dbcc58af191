//! Prints every check of the machine and of its cluster, each with its cause and its remedy.

use crate::checks::{self, Check, Level};
use anyhow::{Result, bail};
use console::style;

/// Runs all checks; fails when one of them does.
pub(crate) fn run() -> Result<()> {
    println!("{}", style("This machine").bold());
    let mut all = checks::machine();
    print(&all);
    println!("{}", style("Its cluster").bold());
    if checks::cluster::exists() {
        let cluster = checks::cluster::all();
        print(&cluster);
        all.extend(cluster);
    } else {
        println!("  none is up: `cargo xtask up` makes one");
    }
    let count = |level: Level| all.iter().filter(|check| check.level == level).count();
    let (failed, warned) = (count(Level::Fail), count(Level::Warn));
    println!("{} checks, {warned} warnings, {failed} failed", all.len());
    if failed > 0 {
        bail!("{failed} checks failed");
    }
    Ok(())
}

fn print(checks: &[Check]) {
    for check in checks {
        let mark = match check.level {
            Level::Ok => style("ok  ").green(),
            Level::Warn => style("warn").yellow(),
            Level::Fail => style("fail").red(),
        };
        println!("  {mark}  {:<24} {}", check.name, check.found);
        if !check.remedy.is_empty() {
            println!("        {:<24} {} {}", "", style("remedy:").bold(), check.remedy);
        }
    }
}
