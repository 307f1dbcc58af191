//! The Debian packages that a node needs. Each is asked for by what it brings, not by its name: a machine that has
//! containerd from elsewhere keeps that one.

use crate::command::{run, which};
use crate::layout;
use crate::machine;
use crate::stages::{Remedy, Stage};
use anyhow::Result;
use std::path::Path;

/// Something that must be on the machine, and the package that brings it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Need {
    pub(crate) package: &'static str,
    present: fn() -> bool,
}

const fn need(package: &'static str, present: fn() -> bool) -> Need {
    Need { package, present }
}

fn programs(names: &[&str]) -> bool {
    names.iter().all(|name| which(name).is_some())
}

/// A busybox without a dynamic loader: only that one runs in an image of its own.
pub(crate) fn static_busybox() -> Option<std::path::PathBuf> {
    let path = which("busybox")?;
    let text = run("ldd").arg(&path).output().ok()?;
    let said = [text.stdout, text.stderr].concat();
    String::from_utf8_lossy(&said).contains("not a dynamic executable").then_some(path)
}

/// What a node needs.
pub(crate) const NODE: &[Need] = &[
    need("etcd-server", || programs(&["etcd"])),
    need("containerd", || programs(&["containerd", "ctr", "containerd-shim-runc-v2"])),
    need("runc", || programs(&["runc"])),
    need("containernetworking-plugins", || {
        ["bridge", "host-local", "portmap", "loopback"]
            .iter()
            .all(|p| Path::new(layout::CNI_BIN).join(p).is_file())
    }),
    need("nftables", || programs(&["nft"])),
    need("iproute2", || programs(&["ip"])),
    need("iptables", || programs(&["iptables"])),
    need("conntrack", || programs(&["conntrack"])),
    // Only where a module has to be loaded.
    need("kmod", || {
        programs(&["modprobe"]) || Path::new("/proc/sys/net/bridge/bridge-nf-call-iptables").exists()
    }),
    need("mount", || programs(&["mount", "umount"])),
    need("busybox-static", || static_busybox().is_some()),
    need("ca-certificates", || Path::new("/etc/ssl/certs/ca-certificates.crt").is_file()),
    need("kubernetes-client", || programs(&["kubectl"])),
];

/// What building the daemons needs beside a Rust toolchain.
pub(crate) const BUILD: &[Need] = &[
    need("gcc", || programs(&["cc"])),
    need("libc6-dev", || Path::new("/usr/include/stdlib.h").is_file()),
    need("protobuf-compiler", || programs(&["protoc"])),
    need("libprotobuf-dev", || Path::new("/usr/include/google/protobuf/any.proto").is_file()),
];

/// What the tests need on top.
pub(crate) const TEST: &[Need] = &[need("curl", || programs(&["curl"])), need("git", || programs(&["git"]))];

/// Installs what is missing, and says what that was.
pub(crate) fn install(stage: &Stage, needs: &[&[Need]]) -> Result<String> {
    let missing: Vec<&str> =
        needs.iter().flat_map(|list| list.iter()).filter(|n| !(n.present)()).map(|n| n.package).collect();
    if missing.is_empty() {
        return Ok("nothing missing".to_owned());
    }
    let list = missing.join(" ");
    let remedy = format!("run `apt-get update && apt-get install {list}` by hand and look at what it says");
    if which("apt-get").is_none() {
        return Err(anyhow::anyhow!("missing: {list}, and this machine has no apt-get"))
            .remedy("install what brings these by your distribution's means, then start again");
    }
    stage.busy("apt-get update");
    apt(&["update"]).remedy(remedy.as_str())?;
    stage.busy(&format!("apt-get install {list}"));
    let hold = ServiceHold::new()?;
    let mut words = vec!["install", "--yes", "--no-install-recommends"];
    words.extend(&missing);
    apt(&words).remedy(remedy)?;
    drop(hold);
    // Its service would take the port that the cluster's own etcd needs. It came with us, so it is ours to stop.
    if missing.contains(&"etcd-server") && machine::has_systemd() {
        run("systemctl").args(["disable", "--now", "etcd.service"]).ok()?;
        stage.note("disabled etcd.service, which came with etcd-server: the cluster runs its own etcd");
    }
    Ok(format!("installed {list}"))
}

fn apt(words: &[&str]) -> Result<()> {
    // A package service may hold the lock for a while after a machine has started.
    run("apt-get")
        .args(["-q", "-o", "DPkg::Lock::Timeout=180", "-o", "Dpkg::Use-Pty=0"])
        .args(words)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .ok()
}

/// Keeps packages from starting their services while this value lives, by Debian's policy-rc.d.
#[derive(Debug)]
struct ServiceHold {
    ours: bool,
}

const POLICY: &str = "/usr/sbin/policy-rc.d";

impl ServiceHold {
    fn new() -> Result<ServiceHold> {
        // A policy that stands there already is the owner's word and stays.
        if !machine::has_systemd() || Path::new(POLICY).exists() {
            return Ok(ServiceHold { ours: false });
        }
        crate::journal::write_atomically(Path::new(POLICY), b"#!/bin/sh\nexit 101\n", 0o755)?;
        Ok(ServiceHold { ours: true })
    }
}

impl Drop for ServiceHold {
    fn drop(&mut self) {
        if self.ours
            && let Err(error) = std::fs::remove_file(POLICY)
        {
            eprintln!("cannot remove {POLICY}: {error}: remove it by hand, or no package starts its service");
        }
    }
}
