//! A small supervisor for machines without systemd: it keeps one process running, restarts it with back-off when it
//! ends, and ends with it on SIGTERM. It does nothing else; systemd does this job where it is there.

use crate::cli::SuperviseArgs;
use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

const FIRST_DELAY: Duration = Duration::from_millis(200);
const LONGEST_DELAY: Duration = Duration::from_secs(20);
/// A process that has lived this long starts over with the shortest delay.
const STEADY: Duration = Duration::from_secs(30);
/// How long the process may take to end before it is killed.
const GRACE: Duration = Duration::from_secs(8);

/// Runs until SIGTERM or SIGINT.
pub(crate) fn run(args: &SuperviseArgs) -> Result<()> {
    // A session of its own: the terminal that `up` was typed in may go away.
    match nix::unistd::setsid() {
        Ok(_) | Err(Errno::EPERM) => {}
        Err(error) => return Err(error).context("cannot start a session"),
    }
    write_pid(&pid_file(&args.run_dir, &args.name, "pid"), std::process::id())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(keep_running(args))?;
    forget(&args.run_dir, &args.name);
    Ok(())
}

async fn keep_running(args: &SuperviseArgs) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut stop = std::pin::pin!(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    });
    let (program, words) = args.command.split_first().context("nothing to run")?;
    let mut delay = FIRST_DELAY;
    loop {
        let started = Instant::now();
        match Command::new(program).args(words).stdin(Stdio::null()).spawn() {
            Ok(mut child) => {
                let pid = child.id().context("a process that was just started has no number")?;
                write_pid(&pid_file(&args.run_dir, &args.name, "child.pid"), pid)?;
                tokio::select! {
                    status = child.wait() => eprintln!("supervise: process {pid} ended: {}", status?),
                    () = &mut stop => return end_child(&mut child, pid).await,
                }
            }
            Err(error) => eprintln!("supervise: cannot start {program}: {error}"),
        }
        delay = next_delay(delay, started.elapsed());
        eprintln!("supervise: starting {} again in {} ms", args.name, delay.as_millis());
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = &mut stop => return Ok(()),
        }
    }
}

fn next_delay(last: Duration, lived: Duration) -> Duration {
    if lived >= STEADY { FIRST_DELAY } else { (last * 2).min(LONGEST_DELAY) }
}

/// Ends the process: gently, and with force when its grace is over.
async fn end_child(child: &mut Child, pid: u32) -> Result<()> {
    send(as_pid(pid)?, Signal::SIGTERM)?;
    if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
        child.kill().await?;
    }
    Ok(())
}

fn pid_file(dir: &Path, name: &str, kind: &str) -> PathBuf {
    dir.join(format!("{name}.{kind}"))
}

/// A pid is written with the start time of its process: a number that another process has by now is not ours.
fn write_pid(path: &Path, pid: u32) -> Result<()> {
    let started = start_time(as_pid(pid)?).context("the process is gone already")?;
    crate::journal::write_atomically(path, format!("{pid} {started}\n").as_bytes(), 0o644)
}

fn read_pid(path: &Path) -> Option<Pid> {
    let text = std::fs::read_to_string(path).ok()?;
    let (pid, started) = text.trim().split_once(' ')?;
    let pid = Pid::from_raw(pid.parse().ok()?);
    (start_time(pid)?.to_string() == started).then_some(pid)
}

/// When a process was started, in clock ticks since boot; none when it is gone or a zombie.
fn start_time(pid: Pid) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold anything, so count from its end: state is the first field after it.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    if state == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

fn as_pid(pid: u32) -> Result<Pid> {
    Ok(Pid::from_raw(i32::try_from(pid).context("no process has such a number")?))
}

fn send(pid: Pid, signal: Signal) -> Result<()> {
    match kill(pid, signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot send {signal} to {pid}")),
    }
}

/// The running supervisor of a service.
pub(crate) fn supervisor_pid(dir: &Path, name: &str) -> Option<Pid> {
    read_pid(&pid_file(dir, name, "pid"))
}

/// The process under supervision.
pub(crate) fn child_pid(dir: &Path, name: &str) -> Option<Pid> {
    read_pid(&pid_file(dir, name, "child.pid"))
}

/// Ends a process: SIGTERM, and SIGKILL when the grace is over. Returns when it is gone.
pub(crate) fn end(pid: Pid, grace: Duration) -> Result<()> {
    let Some(started) = start_time(pid) else { return Ok(()) };
    let gone = || start_time(pid) != Some(started);
    for (signal, patience) in [(Signal::SIGTERM, grace), (Signal::SIGKILL, Duration::from_secs(5))] {
        send(pid, signal)?;
        let until = Instant::now() + patience;
        while Instant::now() < until {
            if gone() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    bail!("process {pid} does not end, not even on SIGKILL")
}

/// Removes the pid files.
pub(crate) fn forget(dir: &Path, name: &str) {
    for kind in ["pid", "child.pid"] {
        // Already gone is as good; a stale file is recognised by its start time anyway.
        drop(std::fs::remove_file(pid_file(dir, name, kind)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_off_grows_and_is_forgiven() {
        assert_eq!(next_delay(FIRST_DELAY, Duration::ZERO), FIRST_DELAY * 2);
        assert_eq!(next_delay(LONGEST_DELAY, Duration::ZERO), LONGEST_DELAY);
        assert_eq!(next_delay(LONGEST_DELAY, STEADY), FIRST_DELAY);
    }

    #[test]
    fn pid_file_names_the_very_process() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        write_pid(&pid_file(dir.path(), "x", "pid"), child.id()).unwrap();
        let pid = supervisor_pid(dir.path(), "x").unwrap();
        std::fs::write(pid_file(dir.path(), "y", "pid"), format!("{} 1\n", child.id())).unwrap();
        assert_eq!(supervisor_pid(dir.path(), "y"), None);
        end(pid, Duration::from_secs(5)).unwrap();
        assert_eq!(supervisor_pid(dir.path(), "x"), None);
        child.wait().unwrap();
    }
}
