//! A small supervisor for machines without systemd: it keeps one process running, restarts it with back-off when it
//! ends, and ends with it on SIGTERM. It does nothing else; systemd does this job where it is there.

use crate::cli::SuperviseArgs;
use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const FIRST_DELAY: Duration = Duration::from_millis(200);
const LONGEST_DELAY: Duration = Duration::from_secs(20);
/// A process that has lived this long starts over with the shortest delay.
const STEADY: Duration = Duration::from_secs(30);
/// How long the process may take to end before it is killed.
const GRACE: Duration = Duration::from_secs(8);

/// Why the supervisor woke up.
#[derive(Debug, PartialEq, Eq)]
enum Wake {
    Stop,
    ChildEnded,
    TimedOut,
}

/// Runs until SIGTERM or SIGINT.
pub(crate) fn run(args: &SuperviseArgs) -> Result<()> {
    // A session of its own: the terminal that `up` was typed in may go away.
    match nix::unistd::setsid() {
        Ok(_) | Err(Errno::EPERM) => {}
        Err(error) => return Err(error).context("cannot start a session"),
    }
    let mut mask = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD] {
        mask.add(signal);
    }
    mask.thread_block().context("cannot block signals")?;
    let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    write_pid(&pid_file(&args.run_dir, &args.name, "pid"), std::process::id())?;
    let (program, words) = args.command.split_first().context("nothing to run")?;
    let mut delay = FIRST_DELAY;
    loop {
        let started = Instant::now();
        match Command::new(program).args(words).stdin(Stdio::null()).spawn() {
            Ok(mut child) => {
                write_pid(&pid_file(&args.run_dir, &args.name, "child.pid"), child.id())?;
                if attend(&signals, &mut child)? {
                    forget(&args.run_dir, &args.name);
                    return Ok(());
                }
            }
            Err(error) => eprintln!("supervise: cannot start {program}: {error}"),
        }
        delay = next_delay(delay, started.elapsed());
        eprintln!("supervise: starting {} again in {} ms", args.name, delay.as_millis());
        let until = Instant::now() + delay;
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            if wait(&signals, left)? == Wake::Stop {
                forget(&args.run_dir, &args.name);
                return Ok(());
            }
        }
    }
}

fn next_delay(last: Duration, lived: Duration) -> Duration {
    if lived >= STEADY { FIRST_DELAY } else { (last * 2).min(LONGEST_DELAY) }
}

/// Waits for the child or for the order to stop; true when stopping.
fn attend(signals: &SignalFd, child: &mut Child) -> Result<bool> {
    loop {
        if let Some(status) = child.try_wait()? {
            eprintln!("supervise: process {} ended: {status}", child.id());
            return Ok(false);
        }
        if wait(signals, Duration::from_secs(3600))? == Wake::Stop {
            break;
        }
    }
    let pid = as_pid(child.id())?;
    let until = Instant::now() + GRACE;
    send(pid, Signal::SIGTERM)?;
    while child.try_wait()?.is_none() {
        match until.checked_duration_since(Instant::now()) {
            Some(left) => {
                wait(signals, left)?;
            }
            None => {
                send(pid, Signal::SIGKILL)?;
                child.wait()?;
            }
        }
    }
    Ok(true)
}

fn wait(signals: &SignalFd, at_most: Duration) -> Result<Wake> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let timeout = PollTimeout::try_from(at_most).unwrap_or(PollTimeout::MAX);
    let mut fds = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
    match poll(&mut fds, timeout) {
        Ok(0) | Err(Errno::EINTR) => return Ok(Wake::TimedOut),
        Ok(_) => {}
        Err(error) => return Err(error).context("cannot wait for signals"),
    }
    let child = Signal::SIGCHLD as u32;
    Ok(match signals.read_signal()? {
        Some(info) if info.ssi_signo == child => Wake::ChildEnded,
        Some(_) => Wake::Stop,
        None => Wake::TimedOut,
    })
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
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        write_pid(&pid_file(dir.path(), "x", "pid"), child.id()).unwrap();
        let pid = supervisor_pid(dir.path(), "x").unwrap();
        std::fs::write(pid_file(dir.path(), "y", "pid"), format!("{} 1\n", child.id())).unwrap();
        assert_eq!(supervisor_pid(dir.path(), "y"), None);
        end(pid, Duration::from_secs(5)).unwrap();
        assert_eq!(supervisor_pid(dir.path(), "x"), None);
        child.wait().unwrap();
    }
}
