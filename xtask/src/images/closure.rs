//! The files that a program needs to run in an image of its own: itself and the shared libraries that the dynamic
//! loader would load for it.

use crate::command::run;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

/// The shared libraries of a program, the loader included; none for a static one.
pub(crate) fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let output = run("ldd").arg(program).output().context("cannot ask ldd for shared libraries")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = format!("{text}{}", String::from_utf8_lossy(&output.stderr));
    if said.contains("not a dynamic executable") || said.contains("statically linked") {
        return Ok(Vec::new());
    }
    if !output.status.success() {
        bail!("`ldd {}` failed: {}", program.display(), said.trim());
    }
    parse(&text).with_context(|| format!("in what ldd says of {}", program.display()))
}

fn parse(text: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if line.contains("not found") {
            bail!("a shared library is missing: {line}");
        }
        let path = line.split(" => ").last().unwrap_or(line);
        let path = path.split(" (").next().unwrap_or(path).trim();
        // The kernel's own page (linux-vdso) has no file.
        if path.starts_with('/') {
            found.push(PathBuf::from(path));
        }
    }
    found.sort();
    found.dedup();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_taken_from_every_kind_of_line() {
        let text = "\tlinux-vdso.so.1 (0x00007f52)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        assert_eq!(
            parse(text).unwrap(),
            [PathBuf::from("/lib/x86_64-linux-gnu/libc.so.6"), PathBuf::from("/lib64/ld-linux-x86-64.so.2")]
        );
        assert!(parse("\tlibx.so.1 => not found\n").is_err());
    }
}
