//! CPU time and memory of a process, from the kernel.

use anyhow::{Context, Result};
use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use std::time::Duration;

/// CPU time that a process has used in all its threads, those that have ended too. /proc/PID/stat has ticks of 10 ms
/// and /proc/PID/schedstat only the first thread; the process's CPU clock is exact.
pub(crate) fn cpu(pid: u32) -> Result<Duration> {
    let clock = clock_getcpuclockid(Pid::from_raw(i32::try_from(pid)?)).context("the process is gone")?;
    Ok(clock_gettime(clock).context("the process is gone")?.into())
}

/// CPU time of this process.
pub(crate) fn own_cpu() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)?.into())
}

/// Memory of a process in MiB.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Memory {
    pub(crate) resident: f64,
    /// The most that was ever resident.
    pub(crate) peak: f64,
}

impl Memory {
    pub(crate) fn of(pid: u32) -> Result<Memory> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("the process is gone")?;
        Memory::parse(&status)
    }

    fn parse(status: &str) -> Result<Memory> {
        let mib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kib =
                line.and_then(|rest| rest.split_whitespace().next()).and_then(|kib| kib.parse::<f64>().ok());
            Ok::<_, anyhow::Error>(kib.with_context(|| format!("/proc/PID/status has no {name}"))? / 1024.0)
        };
        Ok(Memory { resident: mib("VmRSS:")?, peak: mib("VmHWM:")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_mib() {
        let status = "Name:\tx\nVmPeak:\t 9999 kB\nVmHWM:\t  4096 kB\nVmRSS:\t  2048 kB\n";
        assert_eq!(Memory::parse(status).unwrap(), Memory { resident: 2.0, peak: 4.0 });
        assert!(Memory::parse("Name:\tzombie\n").is_err());
    }

    #[test]
    fn cpu_of_a_process_grows_with_its_work() {
        let before = cpu(std::process::id()).unwrap();
        let mut sum = 0_u64;
        while cpu(std::process::id()).unwrap() < before + Duration::from_millis(5) {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(own_cpu().unwrap() >= before + Duration::from_millis(5));
    }
}
