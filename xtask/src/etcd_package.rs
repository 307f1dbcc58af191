//! Which etcd goes into the cluster's image: Debian 13's 3.5.16 when a mirror of Debian is in reach, or else the one
//! that is installed.
//!
//! The newer one is fetched beside the installed one, with a sources file and a lists folder of its own, so that the
//! machine's package state stays as it is.

use crate::command::{run, which};
use crate::journal::write_atomically;
use crate::layout;
use crate::stages::Stage;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The etcd program and its version.
#[derive(Debug, Clone)]
pub(crate) struct Etcd {
    pub(crate) path: PathBuf,
    pub(crate) version: String,
}

/// Finds or fetches the program. It falls back to the installed one with a note: a machine may have no mirror in
/// reach, and every version from 3.4 on serves the cluster rightly.
pub(crate) fn find(stage: &Stage) -> Result<Etcd> {
    let installed = which("etcd").context("etcd is not installed")?;
    let version = version_of(&installed)?;
    if trusted_progress(&version) {
        return Ok(Etcd { path: installed, version });
    }
    let kept = Path::new(layout::STATE).join("etcd-package");
    let fetched = kept.join("usr/bin/etcd");
    if !fetched.is_file() {
        stage.busy("fetching a newer etcd from Debian's archive");
        if let Err(error) = fetch(&kept) {
            stage.note(&format!("etcd stays at {version}, as installed: {error:#}"));
            return Ok(Etcd { path: installed, version });
        }
    }
    Ok(Etcd { version: version_of(&fetched)?, path: fetched })
}

fn version_of(etcd: &Path) -> Result<String> {
    let text = run(etcd).arg("--version").stdout()?;
    let line = text.lines().next().unwrap_or_default();
    Ok(line.trim_start_matches("etcd Version:").trim().to_owned())
}

/// Whether a progress notification that was asked for never overtakes events (etcd #15220): from 3.4.31 and 3.5.13 on.
fn trusted_progress(version: &str) -> bool {
    let mut numbers = version.split(['.', '-', '+', '~']).map_while(|part| part.parse::<u32>().ok());
    match (numbers.next(), numbers.next(), numbers.next()) {
        (Some(3), Some(4), Some(patch)) => patch >= 31,
        (Some(3), Some(5), Some(patch)) => patch >= 13,
        (Some(major), Some(minor), _) => major > 3 || (major == 3 && minor > 5),
        _ => false,
    }
}

fn fetch(kept: &Path) -> Result<()> {
    if !Path::new(KEYRING).is_file() {
        bail!("{KEYRING} is missing");
    }
    let mirror = mirrors().into_iter().next().context("no mirror of Debian in the machine's apt sources")?;
    let work = tempfile::Builder::new().prefix("keelson-etcd-").tempdir()?;
    let dir = work.path();
    for sub in ["lists/partial", "cache/archives/partial", "root"] {
        std::fs::create_dir_all(dir.join(sub))?;
    }
    let sources = dir.join("debian.sources");
    let text =
        format!("Types: deb\nURIs: {mirror}\nSuites: trixie\nComponents: main\nSigned-By: {KEYRING}\n");
    write_atomically(&sources, text.as_bytes(), 0o644)?;
    let options = [
        format!("Dir::Etc::sourcelist={}", sources.display()),
        "Dir::Etc::sourceparts=/dev/null".to_owned(),
        format!("Dir::State::lists={}", dir.join("lists").display()),
        format!("Dir::Cache={}", dir.join("cache").display()),
        "Acquire::Languages=none".to_owned(),
        "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
        "Acquire::Retries=1".to_owned(),
        "Acquire::http::Timeout=20".to_owned(),
        "APT::Sandbox::User=root".to_owned(),
    ];
    let apt = || {
        options
            .iter()
            .fold(run("apt-get").arg("-q").dir(dir), |command, option| command.arg("-o").arg(option))
    };
    apt().arg("update").ok()?;
    apt().args(["download", "etcd-server"]).ok()?;
    let package = std::fs::read_dir(dir)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|ext| ext == "deb"))
        .context("apt-get download left no package behind")?;
    let root = dir.join("root");
    run("dpkg").arg("-x").arg(&package).arg(&root).ok()?;
    // It must run with this machine's libc before it may replace the installed one.
    version_of(&root.join("usr/bin/etcd"))?;
    let target = kept.join("usr/bin");
    std::fs::create_dir_all(&target)?;
    let partial = target.join("etcd.part");
    std::fs::copy(root.join("usr/bin/etcd"), &partial).context("cannot keep the fetched etcd")?;
    std::fs::rename(&partial, target.join("etcd"))?;
    Ok(())
}

/// The mirrors of Debian that the machine's own apt sources name.
fn mirrors() -> Vec<String> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(dir) = std::fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(dir.flatten().map(|entry| entry.path()));
    }
    files
        .iter()
        .filter_map(|file| std::fs::read_to_string(file).ok())
        .flat_map(|text| mirrors_in(&text))
        .collect()
}

fn mirrors_in(text: &str) -> Vec<String> {
    text.lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .flat_map(str::split_whitespace)
        .filter(|word| word.starts_with("http://") || word.starts_with("https://"))
        .map(|url| url.trim_end_matches('/'))
        .filter(|url| url.ends_with("/debian"))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_with_trustworthy_progress_notifications() {
        for (version, trusted) in [
            ("3.4.23", false),
            ("3.4.30", false),
            ("3.4.31", true),
            ("3.5.12", false),
            ("3.5.16", true),
            ("3.6.0-rc.1", true),
            ("4.0.0", true),
            ("", false),
        ] {
            assert_eq!(trusted_progress(version), trusted, "{version}");
        }
    }

    #[test]
    fn mirrors_are_read_from_both_formats() {
        let text = "Types: deb\n# http://snapshot.example.org/debian/2025\nURIs: http://mirror.example.com/debian\n\
                    deb https://packages.example.org/apt main\ndeb [signed-by=/k] https://mirror.example.org/debian/ bookworm main\n";
        assert_eq!(
            mirrors_in(text),
            ["http://mirror.example.com/debian", "https://mirror.example.org/debian"]
        );
    }
}
