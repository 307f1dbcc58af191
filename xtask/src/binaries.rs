//! Builds the daemons, or takes them from where they have been built.

use crate::command::run;
use crate::layout;
use crate::stages::{Remedy, Stage};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

/// Every program of ours that a cluster runs; the packages carry the same names.
pub(crate) const PROGRAMS: [&str; 8] = [
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "kubelet",
    "pod-network",
    "hello-web",
    "pause",
];

/// Where the programs come from.
#[derive(Debug)]
pub(crate) enum Source<'a> {
    /// Build them now.
    Build,
    /// The release build of an earlier run.
    Built,
    /// A directory of the user's.
    Directory(&'a Path),
}

/// Cargo, as the one that runs this program.
pub(crate) fn cargo() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned())
}

/// The directory in which Cargo puts its builds.
pub(crate) fn target_directory() -> Result<PathBuf> {
    let text = run(cargo())
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .dir(layout::workspace())
        .stdout()?;
    let metadata: serde_json::Value =
        serde_json::from_str(&text).context("`cargo metadata` printed no JSON")?;
    metadata["target_directory"]
        .as_str()
        .map(PathBuf::from)
        .context("`cargo metadata` names no target directory")
}

/// Makes sure that all programs are there, and returns the directory they lie in.
pub(crate) fn provide(stage: &Stage, source: &Source<'_>) -> Result<(String, PathBuf)> {
    let (detail, dir) = match source {
        Source::Directory(dir) => (format!("taken from {}", dir.display()), (*dir).to_owned()),
        Source::Built => ("as built before".to_owned(), target_directory()?.join(RELEASE)),
        Source::Build => {
            let compiled = build(stage, &PROGRAMS, RELEASE)?;
            let detail =
                if compiled == 0 { "up to date".to_owned() } else { format!("{compiled} crates compiled") };
            (detail, target_directory()?.join(RELEASE))
        }
    };
    let missing: Vec<&str> = PROGRAMS.into_iter().filter(|name| !dir.join(name).is_file()).collect();
    if !missing.is_empty() {
        return Err(anyhow::anyhow!("not in {}: {}", dir.display(), missing.join(", ")))
            .remedy("build them: `cargo xtask up` without --skip-build and --bin-dir");
    }
    Ok((detail, dir))
}

/// The profile that `up` builds with.
pub(crate) const RELEASE: &str = "release";

/// Builds these programs with a profile; returns how many crates had to be compiled.
pub(crate) fn build(stage: &Stage, programs: &[&str], profile: &str) -> Result<usize> {
    let mut compiled = 0;
    let mut cargo_run = |words: &[&str]| {
        let mut other = Vec::new();
        let result = run(cargo()).args(words).dir(layout::workspace()).watch_stderr(|line| {
            let line = line.trim();
            if let Some(what) = line.strip_prefix("Compiling ") {
                compiled += 1;
                stage.busy(&format!("compiling {what} ({compiled} done)"));
            } else {
                other.push(line.to_owned());
            }
        });
        result.remedy(
            "the compiler's message above says what is wrong; `rustup update` if the toolchain is too old",
        )
    };
    let mut words = vec!["build", "--profile", profile];
    for program in programs.iter().filter(|name| **name != "pause") {
        words.extend(["-p", program]);
    }
    if words.len() > 3 {
        cargo_run(&words)?;
    }
    if programs.contains(&"pause") {
        // Linked statically it needs no loader and next to no memory, and there is one in every pod.
        let words = ["rustc", "--profile", profile, "-p", "pause", "--", "-C", "target-feature=+crt-static"];
        cargo_run(&words)?;
    }
    if programs.is_empty() {
        bail!("nothing to build");
    }
    Ok(compiled)
}
