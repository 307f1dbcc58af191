//! `test`: everything that must hold before a change goes in, on a clean machine too: it installs what the tests need.
//!
//! Four parts: style (`lint`), tests inside the sources (`unit`), tests of one daemon with the real programs around it
//! (`component`), and tests on a real cluster on this machine (`cluster`). Each ends in one line of the summary.

mod tidy;

use crate::binaries::cargo;
use crate::checks;
use crate::cli::{DownArgs, Part, TestArgs, UpArgs};
use crate::command::{run as command, which};
use crate::etcd_package;
use crate::layout;
use crate::packages;
use crate::stages::{Remedy, Stages};
use crate::{down, up};
use anyhow::{Context, Result, bail};
use std::io::BufRead;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Where the cluster tests find the cluster; they run only when it is set.
const KUBECONFIG_VARIABLE: &str = "KEELSON_CLUSTER_KUBECONFIG";

/// A part's work; it returns what the summary says of it.
type Work<'a> = dyn Fn() -> Result<String> + 'a;

/// How a part came out.
#[derive(Debug)]
struct Outcome {
    part: &'static str,
    took: Duration,
    result: Result<String>,
}

/// Runs the parts asked for.
pub(crate) fn run(args: &TestArgs) -> Result<()> {
    let wanted = |part: Part| args.only.is_empty() || args.only.contains(&part);
    Stages::new().run("packages", |stage| {
        let needs: &[&[packages::Need]] = &[packages::NODE, packages::BUILD, packages::TEST];
        if nix::unistd::geteuid().is_root() {
            packages::install(stage, needs)
        } else {
            Ok("not root: as they are".into())
        }
    })?;
    let parts: [(Part, &'static str, &Work<'_>); 4] = [
        (Part::Lint, "lint", &lint),
        (Part::Unit, "unit", &unit),
        (Part::Component, "component", &component),
        (Part::Cluster, "cluster", &|| cluster(args)),
    ];
    let mut outcomes = Vec::new();
    for (_, name, work) in parts.into_iter().filter(|(part, _, _)| wanted(*part)) {
        println!("\n== {name} ==");
        let begun = Instant::now();
        let result = work();
        if let Err(error) = &result {
            println!("{name}: {error:#}");
        }
        outcomes.push(Outcome { part: name, took: begun.elapsed(), result });
    }
    println!("\n== summary ==");
    let mut failed = Vec::new();
    for outcome in &outcomes {
        let (word, detail) = match &outcome.result {
            Ok(detail) => ("ok", detail.clone()),
            Err(error) => {
                failed.push(outcome.part);
                ("FAILED", format!("{error:#}").lines().next().unwrap_or_default().to_owned())
            }
        };
        println!("{:<10} {word:<7} {:>6.0} s  {detail}", outcome.part, outcome.took.as_secs_f64());
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

fn lint() -> Result<String> {
    for tool in ["fmt", "clippy"] {
        if !command(cargo()).args([tool, "--version"]).succeeds() {
            command("rustup")
                .args(["component", "add", if tool == "fmt" { "rustfmt" } else { tool }])
                .ok()
                .remedy("install the toolchain's rustfmt and clippy")?;
        }
    }
    let files = tidy::check(&layout::workspace())?;
    cargo_run(&["fmt", "--all", "--check"], &[])?;
    cargo_run(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"], &[])?;
    cargo_run(
        &["doc", "--workspace", "--no-deps", "--document-private-items"],
        &[("RUSTDOCFLAGS", "-D warnings")],
    )?;
    Ok(format!("{files} files tidy, formatted, without a warning from clippy and rustdoc"))
}

fn unit() -> Result<String> {
    cargo_run(&["test", "--workspace", "--lib", "--bins"], &[])?.verdict()
}

fn component() -> Result<String> {
    let counts = cargo_run(&["test", "--workspace", "--exclude", "tests", "--test", "*"], &[])?;
    // What talks to etcd must be right on the installed one and on the one that a cluster gets.
    let mut newer = None;
    Stages::new().run("a newer etcd", |stage| {
        let etcd = etcd_package::find(stage)?;
        let text = format!("etcd {}", etcd.version);
        newer = Some(etcd).filter(|etcd| which("etcd").as_ref() != Some(&etcd.path));
        Ok(text)
    })?;
    let Some(etcd) = newer else { return counts.verdict() };
    let words = ["test", "-p", "kube-apiserver", "-p", "etcd-model", "-p", "robustness", "--test", "main"];
    let path = etcd.path.display().to_string();
    (counts + cargo_run(&words, &[("KEELSON_ETCD", &path)])?).verdict()
}

/// Brings a cluster up, runs the tests of the whole on it, and takes it down. A cluster that is up already is the
/// user's: it is used, and left up.
fn cluster(args: &TestArgs) -> Result<String> {
    let was_up = checks::cluster::exists();
    let had_state = std::path::Path::new(layout::KUBERNETES).exists();
    if args.keep_cluster && !was_up {
        println!("no cluster is up yet: bringing one up, and leaving it up");
    }
    if !was_up || !args.keep_cluster {
        up::run(&UpArgs::default())?;
    }
    let mut words = vec!["test", "-p", "tests", "--test", "main"];
    if let Some(filter) = &args.filter {
        words.extend(["--", filter]);
    }
    let result = cargo_run(&words, &[(KUBECONFIG_VARIABLE, layout::ADMIN_CONF)]).and_then(|counts| {
        if counts.passed == 0 {
            bail!("no cluster test ran");
        }
        counts.verdict()
    });
    if let Err(error) = &result {
        println!("cluster tests: {error:#}");
        crate::doctor::run().unwrap_or_else(|error| println!("doctor: {error:#}"));
    }
    if !was_up && !args.keep_cluster {
        down::run(&DownArgs { purge: !had_state })?;
    }
    result
}

/// What the test programs reported.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Counts {
    passed: u32,
    failed: u32,
    ignored: u32,
}

impl std::ops::Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            ignored: self.ignored + other.ignored,
        }
    }
}

impl Counts {
    /// Adds up a line as `test result: ok. 3 passed; 0 failed; 1 ignored; ...`.
    fn add(&mut self, line: &str) {
        let Some(rest) = line.trim_start().strip_prefix("test result:") else { return };
        let number = |word: &str| {
            let before = rest.split(word).next().filter(|before| before.len() < rest.len())?;
            before.split_whitespace().last()?.parse::<u32>().ok()
        };
        self.passed += number(" passed").unwrap_or(0);
        self.failed += number(" failed").unwrap_or(0);
        self.ignored += number(" ignored").unwrap_or(0);
    }

    fn verdict(self) -> Result<String> {
        let text = format!("{} passed, {} failed, {} skipped", self.passed, self.failed, self.ignored);
        if self.failed > 0 { bail!(text) } else { Ok(text) }
    }
}

/// Runs cargo with its output shown, and adds up the results that test programs print.
fn cargo_run(words: &[&str], env: &[(&str, &str)]) -> Result<Counts> {
    let line = format!("cargo {}", words.join(" "));
    println!("$ {line}");
    let mut child = Command::new(cargo())
        .args(words)
        .envs(env.iter().copied())
        .current_dir(layout::workspace())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{line}`"))?;
    let mut counts = Counts::default();
    if let Some(stdout) = child.stdout.take() {
        for text in std::io::BufReader::new(stdout).split(b'\n') {
            let text = text?;
            let text = String::from_utf8_lossy(&text);
            counts.add(&text);
            println!("{text}");
        }
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("`{line}` failed ({status}): {} passed, {} failed", counts.passed, counts.failed);
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_added_up() {
        let mut counts = Counts::default();
        counts.add(
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        );
        counts.add("test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out");
        counts.add("test other ... ok");
        assert_eq!(counts, Counts { passed: 4, failed: 2, ignored: 1 });
        assert!(counts.verdict().is_err());
    }
}
