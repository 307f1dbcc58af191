//! `down`: stops the cluster and undoes what `up` and the node's daemons did to the machine. It ends only processes
//! that are the cluster's: known by pid file, by their cgroup, or by the address of our containerd in their arguments.
//! At the end it looks again, and says what is left.

use crate::checks::leftovers;
use crate::cli::DownArgs;
use crate::command::{run as command, which};
use crate::containerd;
use crate::context;
use crate::journal::{Entry, Journal};
use crate::layout;
use crate::network;
use crate::services;
use crate::stages::{Remedy, Stage, Stages};
use crate::supervise;
use anyhow::{Context, Result, bail};
use nix::unistd::Pid;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long pods may take to end by themselves.
const GRACE: Duration = Duration::from_secs(5);

/// Takes the cluster down.
pub(crate) fn run(args: &DownArgs) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        return Err(anyhow::anyhow!("not root")).remedy("run it as root, or with sudo");
    }
    let stages = Stages::new();
    println!("Taking the Keelson cluster on this machine down");
    stages.run("kubeconfig", |_| undo(|entry| matches!(entry, Entry::Context { .. }), context::remove))?;
    stages.run("kubelet", |_| services::stop("kubelet"))?;
    stages.run("pods", stop_pods)?;
    stages.run("containerd", |_| stop_containerd())?;
    stages.run("mounts", |_| unmount())?;
    stages.run("cgroups", |_| remove_cgroups())?;
    stages.run("network", |_| remove_network())?;
    stages.run("routes and parameters", |_| undo_machine_settings())?;
    stages.run(if args.purge { "files and state" } else { "files" }, |_| remove_files(args.purge))?;
    stages.run("look again", |_| {
        let left = leftovers::find();
        let journal = Journal::open()?;
        if left.is_empty() && journal.entries().is_empty() {
            return Ok("nothing is left".to_owned());
        }
        let undone = journal.entries().iter().map(|entry| format!("not undone: {entry:?}"));
        Err(anyhow::anyhow!("still there: {}", left.into_iter().chain(undone).collect::<Vec<_>>().join(", ")))
            .remedy("run `cargo xtask down` again; what a process still uses cannot go")
    })?;
    if !args.purge {
        println!("The cluster's state is kept for the next `up`; `cargo xtask down --purge` removes it.");
    }
    Ok(())
}

/// Undoes the journal's entries of one kind, last one first.
fn undo(which: impl Fn(&Entry) -> bool, act: impl Fn(&Entry) -> Result<()>) -> Result<()> {
    let mut journal = Journal::open()?;
    for entry in journal.entries().to_vec().iter().rev().filter(|entry| which(entry)) {
        act(entry)?;
        journal.strike(entry)?;
    }
    Ok(())
}

/// Ends every container, gently first, and forgets it in containerd's books.
fn stop_pods(stage: &Stage) -> Result<String> {
    if !containerd::is_up() {
        // Nobody to ask: the cgroups and shims are dealt with below.
        return Ok("containerd is not running".to_owned());
    }
    let ids = |words: &[&str]| -> Result<Vec<String>> {
        Ok(containerd::ctr(words)?
            .lines()
            .map(str::trim)
            .filter(|id| !id.is_empty())
            .map(str::to_owned)
            .collect())
    };
    let tasks = ids(&["tasks", "ls", "-q"])?;
    stage.busy(&format!("ending {} containers", tasks.len()));
    for (signal, patience) in [("SIGTERM", GRACE), ("SIGKILL", GRACE)] {
        let alive = running_tasks()?;
        for id in &alive {
            // One that ended by itself in between cannot be signalled, and need not be.
            let words = ["tasks", "kill", "--signal", signal, id.as_str()];
            let words: Vec<&str> = if signal == "SIGKILL" {
                [&words[..2], &["--all"], &words[2..]].concat()
            } else {
                words.to_vec()
            };
            drop(containerd::ctr(words));
        }
        let until = Instant::now() + patience;
        while !running_tasks()?.is_empty() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    for id in &tasks {
        drop(containerd::ctr(["tasks", "delete", "--force", id.as_str()]));
    }
    let containers = ids(&["containers", "ls", "-q"])?;
    for chunk in containers.chunks(50) {
        containerd::ctr(["containers", "rm"].into_iter().chain(chunk.iter().map(String::as_str)))?;
    }
    Ok(format!("{} containers ended", tasks.len()))
}

/// Tasks whose process still runs.
fn running_tasks() -> Result<Vec<String>> {
    let table = containerd::ctr(["tasks", "ls"])?;
    Ok(table
        .lines()
        .skip(1)
        .filter(|line| line.split_whitespace().last() == Some("RUNNING"))
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .collect())
}

fn stop_containerd() -> Result<String> {
    services::stop(containerd::SERVICE)?;
    let shims = containerd::shims();
    for pid in &shims {
        supervise::end(Pid::from_raw(*pid), Duration::from_secs(3))?;
    }
    // What a shim left behind, if it was killed before its container.
    for pid in processes_in_pods() {
        supervise::end(pid, Duration::from_secs(2))?;
    }
    Ok(if shims.is_empty() { String::new() } else { format!("{} shims ended", shims.len()) })
}

fn processes_in_pods() -> Vec<Pid> {
    let mut found: Vec<i32> =
        leftovers::cgroups().iter().flat_map(|top| leftovers::processes_below(top)).collect();
    found.sort_unstable();
    found.dedup();
    found.into_iter().filter(|pid| leftovers::is_our_container(*pid)).map(Pid::from_raw).collect()
}

fn unmount() -> Result<String> {
    let mut count = 0;
    for path in leftovers::mounts() {
        // Lazily when it is busy: the last user of a container's file may take a moment to go.
        if !command("umount").arg(&path).succeeds() {
            command("umount").arg("--lazy").arg(&path).ok()?;
        }
        count += 1;
    }
    Ok(if count == 0 { String::new() } else { format!("{count} unmounted") })
}

fn remove_cgroups() -> Result<String> {
    let mut count = 0;
    for top in leftovers::cgroups() {
        for dir in leftovers::directories(&top) {
            let until = Instant::now() + Duration::from_secs(5);
            loop {
                match std::fs::remove_dir(&dir) {
                    Ok(()) => count += 1,
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    // A process that has just ended is still counted for a moment.
                    Err(_) if Instant::now() < until => {
                        std::thread::sleep(Duration::from_millis(20));
                        continue;
                    }
                    Err(error) => {
                        return Err(error)
                            .with_context(|| format!("cannot remove the cgroup {}", dir.display()));
                    }
                }
                break;
            }
        }
    }
    Ok(if count == 0 { String::new() } else { format!("{count} removed") })
}

fn remove_network() -> Result<String> {
    let mut removed = Vec::new();
    for (family, name) in leftovers::tables() {
        command("nft").args(["delete", "table", family, name]).ok()?;
        removed.push(format!("table {family} {name}"));
    }
    for name in leftovers::interfaces() {
        // Deleting one end of a pair takes the other with it, which may be the next in the list.
        if Path::new("/sys/class/net").join(&name).exists() {
            command("ip").args(["link", "delete", &name]).ok()?;
            removed.push(name);
        }
    }
    for program in ["iptables", "ip6tables"] {
        remove_cni_chains(program)?;
    }
    for dir in ["/var/lib/cni/networks", "/var/lib/cni/results", "/var/lib/cni/cache/results"] {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            // host-local keeps a directory per network; libcni a file per attachment, prefixed with the network.
            if name == leftovers::CNI_NETWORK {
                std::fs::remove_dir_all(entry.path())?;
            } else if name.starts_with(&format!("{}-", leftovers::CNI_NETWORK)) {
                std::fs::remove_file(entry.path())?;
            }
        }
    }
    match std::fs::remove_file(Path::new(layout::CNI_CONF).join(layout::CNI_CONF_FILE)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    Ok(removed.join(", "))
}

/// Chains that the portmap plugin shares between networks; they go when no rule of another network is in them.
const PORTMAP_CHAINS: [&str; 3] = ["CNI-HOSTPORT-DNAT", "CNI-HOSTPORT-MASQ", "CNI-HOSTPORT-SETMARK"];

/// Removes portmap's rules for our network, the chains that they jump to, and the shared chains when nobody else
/// uses them.
fn remove_cni_chains(program: &str) -> Result<()> {
    if which(program).is_none() {
        return Ok(());
    }
    let nat = |words: &[&str]| command(program).args(["-w", "5", "-t", "nat"]).args(words);
    for rule in leftovers::cni_rules(program) {
        let words = split_words(&rule);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let Some(("-A", rest)) = words.split_first().map(|(first, rest)| (*first, rest)) else { continue };
        nat(&[&["-D"], rest].concat()).ok()?;
        if let Some(at) = rest.iter().position(|word| *word == "-j").and_then(|at| rest.get(at + 1))
            && at.starts_with("CNI-DN-")
        {
            nat(&["-F", at]).ok()?;
            nat(&["-X", at]).ok()?;
        }
    }
    let text = nat(&["-S"]).stdout().unwrap_or_default();
    let exists = |chain: &str| text.lines().any(|line| line == format!("-N {chain}"));
    let others = text.lines().any(|line| line.starts_with("-A CNI-HOSTPORT-DNAT"));
    if others || !exists(PORTMAP_CHAINS[0]) {
        return Ok(());
    }
    for line in text.lines().filter(|line| {
        line.starts_with("-A ") && PORTMAP_CHAINS.iter().any(|chain| line.contains(&format!("-j {chain}")))
    }) {
        let words = split_words(line);
        let rest: Vec<&str> = words.iter().skip(1).map(String::as_str).collect();
        nat(&[&["-D"], rest.as_slice()].concat()).ok()?;
    }
    for chain in PORTMAP_CHAINS.into_iter().filter(|chain| exists(chain)) {
        nat(&["-F", chain]).ok()?;
        nat(&["-X", chain]).ok()?;
    }
    Ok(())
}

/// Splits a line of `iptables -S` into words as a shell would: it quotes comments.
fn split_words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let (mut quoted, mut any) = (false, false);
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '"' => {
                quoted = !quoted;
                any = true;
            }
            '\\' => word.extend(letters.next()),
            ' ' if !quoted => {
                if any || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                any = false;
            }
            other => word.push(other),
        }
    }
    if any || !word.is_empty() {
        words.push(word);
    }
    words
}

fn undo_machine_settings() -> Result<()> {
    undo(|entry| matches!(entry, Entry::Route { .. }), network::undo_route)?;
    undo(
        |entry| matches!(entry, Entry::Sysctl { .. }),
        |entry| match entry {
            Entry::Sysctl { key, before } => network::write_sysctl(key, before),
            _ => Ok(()),
        },
    )
}

fn remove_files(purge: bool) -> Result<()> {
    undo(|entry| matches!(entry, Entry::Unit { .. }), |_| Ok(()))?;
    undo(
        |entry| matches!(entry, Entry::File { .. }),
        |entry| match entry {
            Entry::File { path } => remove(path),
            _ => Ok(()),
        },
    )?;
    if crate::machine::has_systemd() {
        command("systemctl").arg("daemon-reload").ok()?;
    }
    remove(Path::new(layout::RUN))?;
    // Static pods would be started by the next kubelet on this machine, whoever starts it.
    remove(Path::new(layout::STATIC_PODS))?;
    if purge {
        for dir in [layout::ETCD_DATA, layout::KUBELET_ROOT, layout::KUBERNETES, layout::LOGS] {
            remove(Path::new(dir))?;
        }
        for dir in [layout::POD_LOGS, layout::CONTAINER_LOGS] {
            remove(Path::new(dir))?;
        }
        // Not the journal: what could not be undone must stay known.
        for entry in std::fs::read_dir(layout::STATE).into_iter().flatten().flatten() {
            if entry.path() != Path::new(layout::JOURNAL) {
                remove(&entry.path())?;
            }
        }
        if Journal::open()?.entries().is_empty() {
            remove(Path::new(layout::STATE))?;
        }
    }
    Ok(())
}

fn remove(path: &Path) -> Result<()> {
    let result = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Ok(data) if data.is_dir() => {
            if has_mount_below(path) {
                bail!("{} has something mounted below it", path.display());
            }
            std::fs::remove_dir_all(path)
        }
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    result.with_context(|| format!("cannot remove {}", path.display()))
}

/// A directory with a mount in it is never removed: what is mounted there may be somebody's data.
fn has_mount_below(path: &Path) -> bool {
    std::fs::read_to_string("/proc/self/mountinfo")
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .any(|point| Path::new(point).starts_with(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_split_as_a_shell_would() {
        let line =
            r#"-A CNI-HOSTPORT-DNAT -m comment --comment "dnat name: \"keelson\" id: \"1\"" -j CNI-DN-1"#;
        assert_eq!(
            split_words(line),
            [
                "-A",
                "CNI-HOSTPORT-DNAT",
                "-m",
                "comment",
                "--comment",
                "dnat name: \"keelson\" id: \"1\"",
                "-j",
                "CNI-DN-1"
            ]
        );
    }
}
