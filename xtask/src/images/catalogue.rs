//! Which images the cluster has, and what is in each.

use super::archive::{Content, Item, KnownLayers, Layer, Packed, Start, pack};
use super::closure;
use crate::command::{run, which};
use crate::layout;
use crate::packages::static_busybox;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The registry host of images that are made on the machine; nothing answers there, so they are never pulled.
pub(crate) const REGISTRY: &str = "keelson.local";
const PATH_ENV: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// An image with its name.
#[derive(Debug)]
pub(crate) struct Image {
    /// As in `keelson.local/NAME:TAG`.
    pub(crate) name: &'static str,
    /// A tag that examples may rely on; images of the cluster's own parts are tagged by their content instead.
    fixed_tag: Option<String>,
    pub(crate) packed: Packed,
}

impl Image {
    /// The full reference.
    pub(crate) fn reference(&self) -> String {
        let tag = self.fixed_tag.clone().unwrap_or_else(|| {
            let hex = self.packed.digest.trim_start_matches("sha256:");
            format!("v{}-{}", env!("CARGO_PKG_VERSION"), &hex[..12])
        });
        format!("{REGISTRY}/{}:{tag}", self.name)
    }
}

fn item(path: &str, mode: u32, content: Content) -> Item {
    Item { path: path.trim_start_matches('/').to_owned(), mode, content }
}

fn file(path: &str, source: &Path) -> Item {
    item(path, 0o755, Content::File(source.to_owned()))
}

/// What every image has: users, and a place for temporary files.
fn base_items() -> Vec<Item> {
    let text = |path: &str, text: &str| item(path, 0o644, Content::Text(text.to_owned()));
    vec![
        text(
            "etc/passwd",
            "root:x:0:0:root:/root:/sbin/nologin\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n",
        ),
        text("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
        text("etc/nsswitch.conf", "hosts: files dns\n"),
        item("tmp", 0o1777, Content::Directory),
        item("root", 0o700, Content::Directory),
    ]
}

/// The shared libraries that nearly every program needs; they make a layer that images share.
fn is_libc(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| {
        ["libc.so.", "libm.so.", "libgcc_s.so.", "ld-linux", "libpthread.so.", "libdl.so."]
            .iter()
            .any(|known| name.starts_with(known))
    })
}

/// The layers of an image of these programs, each with its place in the image.
fn program_layers(known: &KnownLayers, programs: &[(&str, &Path)]) -> Result<Vec<Layer>> {
    let mut libraries: Vec<PathBuf> = Vec::new();
    for (_, source) in programs {
        libraries.extend(closure::libraries(source)?);
    }
    libraries.sort();
    libraries.dedup();
    let place = |path: &PathBuf| item(&path.to_string_lossy(), 0o755, Content::File(path.clone()));
    let mut layers = Vec::new();
    if !libraries.is_empty() {
        // All of libc's parts whatever the program asks for, so that the layer is the same everywhere.
        let dir = libraries
            .iter()
            .find(|p| p.file_name().is_some_and(|n| n == "libc.so.6"))
            .and_then(|p| p.parent());
        let mut libc: Vec<PathBuf> = libraries.iter().filter(|path| is_libc(path)).cloned().collect();
        for name in ["libm.so.6", "libgcc_s.so.1"] {
            libc.extend(dir.map(|dir| dir.join(name)).filter(|path| path.is_file()));
        }
        libc.sort();
        libc.dedup();
        layers.push(known.layer(base_items().into_iter().chain(libc.iter().map(place)))?);
    } else {
        layers.push(known.layer(base_items())?);
    }
    let own = programs.iter().map(|(path, source)| file(path, source));
    let own = own.chain(libraries.iter().filter(|path| !is_libc(path)).map(place));
    layers.push(known.layer(own)?);
    Ok(layers)
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|word| (*word).to_owned()).collect()
}

/// An image of one of our daemons, started by its name as in upstream's manifests.
fn daemon(known: &KnownLayers, name: &'static str, bin: &Path, tools: &[(&str, &Path)]) -> Result<Image> {
    let place = format!("usr/local/bin/{name}");
    let source = bin.join(name);
    let mut programs: Vec<(&str, &Path)> = vec![(&place, &source)];
    programs.extend(tools);
    let start = Start { entrypoint: words(&[name]), env: words(&[PATH_ENV]), ..Start::default() };
    Ok(Image { name, fixed_tag: None, packed: pack(program_layers(known, &programs)?, &start)? })
}

fn pause(known: &KnownLayers, bin: &Path) -> Result<Image> {
    let program = bin.join("pause");
    let mut items = vec![file("pause", &program)];
    for library in closure::libraries(&program)? {
        items.push(item(&library.to_string_lossy(), 0o755, Content::File(library.clone())));
    }
    let start = Start { entrypoint: words(&["/pause"]), user: "65535:65535".to_owned(), ..Start::default() };
    Ok(Image { name: "pause", fixed_tag: None, packed: pack(vec![known.layer(items)?], &start)? })
}

fn etcd(known: &KnownLayers, program: &Path) -> Result<Image> {
    let layers = program_layers(known, &[("usr/local/bin/etcd", program)])?;
    let start = Start { cmd: words(&["etcd"]), env: words(&[PATH_ENV]), ..Start::default() };
    Ok(Image { name: "etcd", fixed_tag: None, packed: pack(layers, &start)? })
}

fn busybox(known: &KnownLayers) -> Result<Image> {
    let program = static_busybox().context("busybox-static is not installed")?;
    let mut items = base_items();
    items.push(file("bin/busybox", &program));
    for applet in run(&program).arg("--list").stdout()?.lines().filter(|name| *name != "busybox") {
        items.push(item(&format!("bin/{applet}"), 0o777, Content::Link("busybox".to_owned())));
    }
    for (path, target) in [("usr/bin", "../bin"), ("usr/sbin", "../bin"), ("sbin", "bin")] {
        items.push(item(path, 0o777, Content::Link(target.to_owned())));
    }
    let start = Start { cmd: words(&["sh"]), env: words(&[PATH_ENV]), ..Start::default() };
    Ok(Image {
        name: "busybox",
        fixed_tag: Some("stable".to_owned()),
        packed: pack(vec![known.layer(items)?], &start)?,
    })
}

/// The example's web server, in two versions, so that there is something to roll out.
fn hello_web(known: &KnownLayers, bin: &Path, version: &str) -> Result<Image> {
    let program = bin.join("hello-web");
    let layers = program_layers(known, &[("usr/local/bin/hello-web", &program)])?;
    let start = Start {
        entrypoint: words(&["hello-web"]),
        env: vec![PATH_ENV.to_owned(), format!("HELLO_VERSION={version}")],
        user: "65534:65534".to_owned(),
        ..Start::default()
    };
    Ok(Image { name: "hello-web", fixed_tag: Some(version.to_owned()), packed: pack(layers, &start)? })
}

/// All images of the cluster.
pub(crate) fn all(bin: &Path, etcd_program: &Path) -> Result<Vec<Image>> {
    let tool = |name: &str| which(name).with_context(|| format!("{name} is not installed"));
    let (nft, conntrack) = (tool("nft")?, tool("conntrack")?);
    let nft_tool: (&str, &Path) = ("usr/sbin/nft", &nft);
    let conntrack_tool: (&str, &Path) = ("usr/sbin/conntrack", &conntrack);
    let known = &KnownLayers::read(Path::new(layout::KNOWN_LAYERS));
    let all = vec![
        pause(known, bin)?,
        etcd(known, etcd_program)?,
        daemon(known, "kube-apiserver", bin, &[])?,
        daemon(known, "kube-controller-manager", bin, &[])?,
        daemon(known, "kube-scheduler", bin, &[])?,
        daemon(known, "kube-proxy", bin, &[nft_tool, conntrack_tool])?,
        daemon(known, "pod-network", bin, &[nft_tool])?,
        busybox(known)?,
        hello_web(known, bin, "v1")?,
        hello_web(known, bin, "v2")?,
    ];
    known.write(Path::new(layout::KNOWN_LAYERS))?;
    Ok(all)
}

/// The names that templates know the images by, as `${KUBE_PROXY_IMAGE}`.
pub(crate) fn placeholders(images: &[Image]) -> BTreeMap<&'static str, String> {
    let known = [
        ("PAUSE_IMAGE", "pause"),
        ("ETCD_IMAGE", "etcd"),
        ("KUBE_APISERVER_IMAGE", "kube-apiserver"),
        ("KUBE_CONTROLLER_MANAGER_IMAGE", "kube-controller-manager"),
        ("KUBE_SCHEDULER_IMAGE", "kube-scheduler"),
        ("KUBE_PROXY_IMAGE", "kube-proxy"),
        ("POD_NETWORK_IMAGE", "pod-network"),
        ("BUSYBOX_IMAGE", "busybox"),
        ("HELLO_WEB_IMAGE", "hello-web"),
    ];
    known
        .into_iter()
        .filter_map(|(key, name)| images.iter().find(|i| i.name == name).map(|i| (key, i.reference())))
        .collect()
}
