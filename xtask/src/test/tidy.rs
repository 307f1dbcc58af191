//! House rules that no other tool checks: every source file says what it is, none is long, none speaks of the machine
//! it was written on, and no module is called after nothing in particular.

use crate::command::run;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

const LONGEST: usize = 600;
const EMPTY_NAMES: [&str; 6] = ["util", "utils", "helper", "helpers", "common", "misc"];

/// Checks all tracked files and returns how many there are.
pub(super) fn check(root: &Path) -> Result<usize> {
    let list =
        run("git").args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).dir(root).stdout();
    let files: Vec<PathBuf> = match list {
        Ok(text) => text.split('\0').filter(|name| !name.is_empty()).map(PathBuf::from).collect(),
        // A source archive has no history to ask.
        Err(_) => walk(root, root)?,
    };
    let mut complaints = Vec::new();
    for file in &files {
        let Ok(bytes) = std::fs::read(root.join(file)) else { continue };
        let Ok(text) = String::from_utf8(bytes) else { continue };
        complaints.extend(judge(file, &text).into_iter().map(|what| format!("{}: {what}", file.display())));
    }
    if !complaints.is_empty() {
        bail!("{} complaints:\n{}", complaints.len(), complaints.join("\n"));
    }
    Ok(files.len())
}

fn judge(file: &Path, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    // Spelled in pieces, or this file would complain of itself.
    for place in [["/ho", "me/"].concat(), ["/Us", "ers/"].concat(), ["/wo", "rk/"].concat()] {
        let starts_word = |at: usize| at == 0 || !text.as_bytes()[at - 1].is_ascii_alphanumeric();
        if text.match_indices(&place).any(|(at, _)| starts_word(at)) {
            complaints.push(format!("names a path of somebody's machine: {place}"));
        }
    }
    if file.extension().is_none_or(|extension| extension != "rs") {
        return complaints;
    }
    if !text.starts_with("//!") {
        complaints.push(
            "does not open with `//!`: say what it does, what it does not, and upstream's concept".into(),
        );
    }
    let lines = text.lines().count();
    if lines > LONGEST {
        complaints.push(format!("{lines} lines: split it by verb or noun, {LONGEST} is the limit"));
    }
    let stem = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    if stem == "mod" {
        complaints.push("`mod.rs`: name the file after the module".into());
    }
    if EMPTY_NAMES.contains(&stem) {
        complaints.push(format!("`{stem}` says nothing: name the module by what it does"));
    }
    complaints
}

fn walk(root: &Path, dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?.flatten() {
        let path = entry.path();
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if !hidden && entry.file_name() != "target" && entry.file_name() != "_output" {
                files.extend(walk(root, &path)?);
            }
        } else {
            files.push(path.strip_prefix(root).unwrap_or(&path).to_owned());
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_applied() {
        let count = |file: &str, text: &str| judge(Path::new(file), text).len();
        assert_eq!(count("a.rs", "//! Fine.\n"), 0);
        assert_eq!(count("a.rs", "fn a() {}\n"), 1);
        assert_eq!(count("util.rs", "//! Fine.\n"), 1);
        assert_eq!(count("a/mod.rs", "//! Fine.\n"), 1);
        assert_eq!(count("a.rs", &format!("//! Long.\n{}", "\n".repeat(600))), 1);
        assert_eq!(count("a.md", &["see /ho", "me/me/x"].concat()), 1);
        assert_eq!(count("a.md", &["https://host/ho", "me/x"].concat()), 0);
    }
}
