//! Versions of the programs that the cluster is built on.

use super::Check;
use crate::command::{run, which};
use std::path::Path;

/// Programs, how to ask for their version, and the oldest one that works.
const PROGRAMS: [(&str, &[&str], (u32, u32)); 5] = [
    ("containerd", &["--version"], (1, 6)),
    ("runc", &["--version"], (1, 0)),
    ("etcd", &["--version"], (3, 4)),
    ("nft", &["--version"], (1, 0)),
    ("kubectl", &["version", "--client"], (1, 27)),
];

/// Checks what is installed; what is missing is installed by `up`.
pub(super) fn programs() -> Vec<Check> {
    PROGRAMS
        .into_iter()
        .map(|(name, words, least)| match which(name) {
            None => Check::ok(name, "not installed yet: `up` installs it"),
            Some(path) => match ask(&path, words) {
                Some(version) if version.numbers >= least => Check::ok(name, version.text),
                Some(version) => Check::fail(
                    name,
                    format!("{} at {}", version.text, path.display()),
                    format!("{}.{} or later is needed: upgrade it", least.0, least.1),
                ),
                None => Check::warn(
                    name,
                    format!("{} does not tell its version", path.display()),
                    "run it by hand and look at what it says",
                ),
            },
        })
        .collect()
}

#[derive(Debug, PartialEq, Eq)]
struct Version {
    text: String,
    numbers: (u32, u32),
}

fn ask(program: &Path, words: &[&str]) -> Option<Version> {
    let text = run(program).args(words).stdout().ok()?;
    find_version(&text)
}

/// The first word that looks like a version.
fn find_version(text: &str) -> Option<Version> {
    text.split_whitespace().find_map(|word| {
        let mut numbers =
            word.trim_start_matches('v').split(['.', '-', '~', '+']).map_while(|n| n.parse::<u32>().ok());
        Some(Version { text: word.to_owned(), numbers: (numbers.next()?, numbers.next()?) })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_programs_print() {
        for (text, numbers) in [
            ("containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u3", (1, 6)),
            ("runc version 1.1.5+ds1\ncommit: 1", (1, 1)),
            ("etcd Version: 3.4.23\nGit SHA: x", (3, 4)),
            ("nftables v1.0.6 (Lester Gooch #5)", (1, 0)),
            ("Client Version: v1.32.4-dispatcher", (1, 32)),
        ] {
            assert_eq!(find_version(text).map(|v| v.numbers), Some(numbers), "{text}");
        }
        assert_eq!(find_version("no version here"), None);
    }
}
