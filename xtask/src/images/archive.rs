//! Packs container images as an OCI image layout in a tar stream, which `ctr images import` and `docker load` read.
//!
//! The same content gives the same bytes, so that a digest says whether an image is already there.

use anyhow::{Context, Result};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Something in a layer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Content {
    /// A copy of a file on this machine.
    File(PathBuf),
    /// A small file written here.
    Text(String),
    /// A symbolic link to this target.
    Link(String),
    /// An empty directory.
    Directory,
}

/// A path in an image, without the leading slash, with what stands there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Item {
    pub(crate) path: String,
    pub(crate) mode: u32,
    pub(crate) content: Content,
}

/// A layer: its items, sorted, each directory named before what lies in it.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    items: Vec<Item>,
    pub(crate) digest: String,
    pub(crate) size: u64,
}

/// How a container of the image is started.
#[derive(Debug, Clone, Default)]
pub(crate) struct Start {
    pub(crate) entrypoint: Vec<String>,
    pub(crate) cmd: Vec<String>,
    pub(crate) env: Vec<String>,
    pub(crate) user: String,
}

/// An image, ready to be written.
#[derive(Debug, Clone)]
pub(crate) struct Packed {
    pub(crate) layers: Vec<Layer>,
    config: Vec<u8>,
    manifest: Vec<u8>,
    /// Digest of the manifest: the identity that the container runtime shows.
    pub(crate) digest: String,
}

/// What layers came out as last time, by what went into them: hashing a few hundred megabytes at every `up` would be
/// slow on a board.
#[derive(Debug, Default)]
pub(crate) struct KnownLayers {
    before: BTreeMap<String, (String, u64)>,
    now: RefCell<BTreeMap<String, (String, u64)>>,
}

impl KnownLayers {
    /// Reads the list; one that is missing or damaged is empty, and everything is hashed again.
    pub(crate) fn read(path: &Path) -> KnownLayers {
        let before = std::fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        KnownLayers { before: before.unwrap_or_default(), now: RefCell::default() }
    }

    /// Writes down the layers of this run.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        crate::journal::write_if_changed(path, &serde_json::to_vec(&*self.now.borrow())?, 0o644).map(drop)
    }

    /// Describes a layer, from the list when none of its files has changed since.
    pub(crate) fn layer(&self, items: impl IntoIterator<Item = Item>) -> Result<Layer> {
        let mut layer = Layer::unhashed(items);
        let key = layer.key()?;
        let found = self.before.get(&key).or(self.now.borrow().get(&key)).cloned();
        match found {
            Some((digest, size)) => (layer.digest, layer.size) = (digest, size),
            None => layer.hash()?,
        }
        self.now.borrow_mut().insert(key, (layer.digest.clone(), layer.size));
        Ok(layer)
    }
}

/// Counts and hashes what is written through it.
struct HashingSink {
    hash: Sha256,
    size: u64,
}

impl Write for HashingSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes bytes as hexadecimal digits.
struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The digest of some bytes, as OCI writes it.
pub(crate) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", Hex(&Sha256::digest(bytes)))
}

impl Layer {
    /// A layer of these items and the directories above them.
    fn unhashed(items: impl IntoIterator<Item = Item>) -> Layer {
        let mut all: BTreeSet<Item> = items.into_iter().collect();
        let named: BTreeSet<String> = all.iter().map(|item| item.path.clone()).collect();
        let parents: BTreeSet<String> = named
            .iter()
            .flat_map(|path| Path::new(path).ancestors().skip(1))
            .map(|path| path.to_string_lossy().into_owned())
            .filter(|path| !path.is_empty() && !named.contains(path))
            .collect();
        all.extend(parents.into_iter().map(|path| Item { path, mode: 0o755, content: Content::Directory }));
        Layer { items: all.into_iter().collect(), digest: String::new(), size: 0 }
    }

    /// Works out the digest.
    fn hash(&mut self) -> Result<()> {
        let mut sink = HashingSink { hash: Sha256::new(), size: 0 };
        self.write(&mut sink)?;
        self.digest = format!("sha256:{}", Hex(&sink.hash.finalize()));
        self.size = sink.size;
        Ok(())
    }

    /// Changes whenever the content may have: files are told by place, size and time.
    fn key(&self) -> Result<String> {
        use std::os::unix::fs::MetadataExt;
        let mut text = String::new();
        for item in &self.items {
            let stamp = match &item.content {
                Content::File(path) => {
                    let data = std::fs::metadata(path)
                        .with_context(|| format!("cannot look at {}", path.display()))?;
                    format!(
                        "{} {} {} {} {}",
                        path.display(),
                        data.len(),
                        data.mtime(),
                        data.mtime_nsec(),
                        data.ino()
                    )
                }
                other => format!("{other:?}"),
            };
            text.push_str(&format!("{} {:o} {stamp}\n", item.path, item.mode));
        }
        Ok(digest(text.as_bytes()))
    }

    fn write(&self, out: &mut impl Write) -> Result<()> {
        let mut tar = tar::Builder::new(out);
        for item in &self.items {
            let mut header = tar::Header::new_gnu();
            header.set_mode(item.mode);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            match &item.content {
                Content::File(source) => {
                    let file = std::fs::File::open(source)
                        .with_context(|| format!("cannot open {}", source.display()))?;
                    let size = file.metadata()?.len();
                    header.set_entry_type(tar::EntryType::Regular);
                    header.set_size(size);
                    tar.append_data(
                        &mut header,
                        &item.path,
                        io::BufReader::with_capacity(1 << 20, file.take(size)),
                    )
                    .with_context(|| format!("cannot pack {}", source.display()))?;
                }
                Content::Text(text) => {
                    header.set_entry_type(tar::EntryType::Regular);
                    header.set_size(text.len() as u64);
                    tar.append_data(&mut header, &item.path, text.as_bytes())?;
                }
                Content::Link(target) => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    header.set_size(0);
                    tar.append_link(&mut header, &item.path, target)?;
                }
                Content::Directory => {
                    header.set_entry_type(tar::EntryType::Directory);
                    header.set_size(0);
                    tar.append_data(&mut header, format!("{}/", item.path), io::empty())?;
                }
            }
        }
        tar.into_inner()?.flush()?;
        Ok(())
    }
}

/// The name that images use for this machine's processor.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Puts layers and a start description together.
pub(crate) fn pack(layers: Vec<Layer>, start: &Start) -> Result<Packed> {
    let diff_ids: Vec<&str> = layers.iter().map(|layer| layer.digest.as_str()).collect();
    let config = serde_json::to_vec(&json!({
        "created": "1970-01-01T00:00:00Z",
        "architecture": architecture(),
        "os": "linux",
        "config": {
            "Entrypoint": start.entrypoint,
            "Cmd": start.cmd,
            "Env": start.env,
            "User": start.user,
            "WorkingDir": "/",
        },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    }))?;
    let descriptors: Vec<_> = layers
        .iter()
        .map(|layer| {
            json!({
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": layer.digest,
                "size": layer.size,
            })
        })
        .collect();
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": digest(&config),
            "size": config.len(),
        },
        "layers": descriptors,
    }))?;
    Ok(Packed { digest: digest(&manifest), layers, config, manifest })
}

/// Writes images under their names as one archive; a layer that several share is written once.
pub(crate) fn write(images: &[(String, &Packed)], out: impl Write) -> Result<()> {
    let mut tar = tar::Builder::new(out);
    let mut written = BTreeSet::new();
    add(&mut tar, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    let index: Vec<_> = images
        .iter()
        .map(|(name, image)| {
            json!({
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": image.digest,
                "size": image.manifest.len(),
                "annotations": {
                    "io.containerd.image.name": name,
                    "org.opencontainers.image.ref.name": name.rsplit_once(':').map_or("latest", |(_, tag)| tag),
                },
            })
        })
        .collect();
    let index = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": index,
    }))?;
    add(&mut tar, "index.json", &index)?;
    for (_, image) in images {
        for layer in &image.layers {
            if written.insert(layer.digest.clone()) {
                let mut header = file_header(layer.size);
                let (reader, writer) = io::pipe()?;
                // The layer is produced while the archive takes it in: neither is ever held whole in memory.
                std::thread::scope(|scope| -> Result<()> {
                    let producer =
                        scope.spawn(move || layer.write(&mut io::BufWriter::with_capacity(1 << 20, writer)));
                    let taken = tar.append_data(&mut header, blob(&layer.digest), reader);
                    producer.join().map_err(|_| anyhow::anyhow!("packing a layer panicked"))??;
                    taken.context("cannot write a layer")
                })?;
            }
        }
        for bytes in [&image.config, &image.manifest] {
            let name = digest(bytes);
            if written.insert(name.clone()) {
                add(&mut tar, &blob(&name), bytes)?;
            }
        }
    }
    tar.into_inner()?.flush()?;
    Ok(())
}

fn blob(digest: &str) -> String {
    format!("blobs/{}", digest.replace(':', "/"))
}

fn file_header(size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    header
}

fn add(tar: &mut tar::Builder<impl Write>, path: &str, bytes: &[u8]) -> Result<()> {
    tar.append_data(&mut file_header(bytes.len() as u64), path, bytes)
        .with_context(|| format!("cannot write {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(path: &str, text: &str) -> Item {
        Item { path: path.into(), mode: 0o644, content: Content::Text(text.into()) }
    }

    #[test]
    fn archive_holds_what_the_manifests_promise() {
        let known = KnownLayers::default();
        let base = known.layer([text("etc/passwd", "root:x:0:0::/:\n")]).unwrap();
        let one =
            pack(vec![base.clone(), known.layer([text("a", "1")]).unwrap()], &Start::default()).unwrap();
        let two = pack(vec![base, known.layer([text("a", "2")]).unwrap()], &Start::default()).unwrap();
        assert_ne!(one.digest, two.digest);
        let mut bytes = Vec::new();
        write(&[("keelson.local/one:v1".into(), &one), ("keelson.local/two:v1".into(), &two)], &mut bytes)
            .unwrap();
        let mut blobs = 0;
        let mut index = String::new();
        for entry in tar::Archive::new(bytes.as_slice()).entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().to_string_lossy().into_owned();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            if let Some(name) = path.strip_prefix("blobs/sha256/") {
                assert_eq!(digest(&content), format!("sha256:{name}"));
                blobs += 1;
            } else if path == "index.json" {
                index = String::from_utf8(content).unwrap();
            }
        }
        // A shared layer, two layers, two configurations, two manifests.
        assert_eq!(blobs, 7);
        assert!(index.contains("keelson.local/two:v1") && index.contains(&two.digest));
    }

    #[test]
    fn same_content_has_the_same_digest() {
        let layer = || KnownLayers::default().layer([text("usr/bin/a", "1"), text("b", "2")]).unwrap();
        assert_eq!(layer().digest, layer().digest);
        assert_eq!(
            layer().items.iter().map(|i| i.path.as_str()).collect::<Vec<_>>(),
            ["b", "usr", "usr/bin", "usr/bin/a"]
        );
    }

    #[test]
    fn a_changed_file_is_hashed_again_and_an_unchanged_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (source, list) = (dir.path().join("program"), dir.path().join("layers.json"));
        let item = || Item { path: "program".into(), mode: 0o755, content: Content::File(source.clone()) };
        std::fs::write(&source, "one").unwrap();
        let known = KnownLayers::read(&list);
        let first = known.layer([item()]).unwrap();
        known.write(&list).unwrap();
        let known = KnownLayers::read(&list);
        assert_eq!(known.before.len(), 1);
        assert_eq!(known.layer([item()]).unwrap().digest, first.digest);
        std::fs::write(&source, "another").unwrap();
        assert_ne!(known.layer([item()]).unwrap().digest, first.digest);
    }
}
