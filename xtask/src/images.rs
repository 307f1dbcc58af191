//! Puts the cluster's images into its containerd: those that are not there yet, in one import.

mod archive;
mod catalogue;
mod closure;

pub(crate) use archive::digest;
pub(crate) use catalogue::{Image, all, placeholders};

/// The image whose pod shows that a node works.
pub(crate) const SELF_CHECK_IMAGE: &str = "keelson.local/hello-web:v1";

use crate::containerd;
use anyhow::{Context, Result, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};

/// Imports what is missing or differs; says how many images that were.
pub(crate) fn import(images: &[Image]) -> Result<String> {
    let present = present()?;
    let wanted: Vec<(String, &archive::Packed)> = images
        .iter()
        .map(|image| (image.reference(), &image.packed))
        .filter(|(name, packed)| present.get(name) != Some(&packed.digest))
        .collect();
    if wanted.is_empty() {
        return Ok(format!("{} unchanged", images.len()));
    }
    let mut words = vec!["images", "import"];
    if containerd::snapshotter() != containerd::OVERLAYFS {
        words.extend(["--snapshotter", containerd::snapshotter()]);
    }
    words.push("-");
    let mut child = Command::new("ctr")
        .args(containerd::CTR_FLAGS)
        .args(&words)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start ctr")?;
    let stdin = child.stdin.take().context("ctr has no stdin")?;
    let written = archive::write(&wanted, std::io::BufWriter::with_capacity(1 << 20, stdin));
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("`ctr images import` failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    written?;
    Ok(format!("{} imported, {} unchanged", wanted.len(), images.len() - wanted.len()))
}

/// Removes images of earlier builds: those of ours that are not among these.
pub(crate) fn remove_old(images: &[Image]) -> Result<usize> {
    let wanted: BTreeSet<String> = images.iter().map(Image::reference).collect();
    let prefix = format!("{}/", catalogue::REGISTRY);
    let ours: BTreeSet<&str> = images.iter().map(|image| image.name).collect();
    let old: Vec<String> = present()?
        .into_keys()
        .filter(|name| {
            let made_here = name.strip_prefix(&prefix).and_then(|rest| rest.split(':').next());
            made_here.is_some_and(|name| ours.contains(name)) && !wanted.contains(name)
        })
        .collect();
    if !old.is_empty() {
        containerd::ctr(["images", "rm"].into_iter().chain(old.iter().map(String::as_str)))?;
    }
    Ok(old.len())
}

/// The images in the cluster's containerd, with their digests.
fn present() -> Result<BTreeMap<String, String>> {
    let table = containerd::ctr(["images", "ls"])?;
    Ok(parse_table(&table))
}

fn parse_table(table: &str) -> BTreeMap<String, String> {
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let name = line.split_whitespace().next()?;
            let digest = line.split_whitespace().find(|word| word.starts_with("sha256:"))?;
            Some((name.to_owned(), digest.to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_digests_are_read_from_the_table() {
        let table = "REF TYPE DIGEST SIZE PLATFORMS LABELS\n\
                     keelson.local/pause:v1 application/vnd.oci.image.manifest.v1+json sha256:abc 1.2 MiB linux/amd64 -\n";
        assert_eq!(parse_table(table).get("keelson.local/pause:v1").map(String::as_str), Some("sha256:abc"));
    }
}
