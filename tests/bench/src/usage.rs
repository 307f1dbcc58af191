//! CPU time and memory of a process, from /proc.

use anyhow::{Context, Result};
use std::time::Duration;

/// What a process has used so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) cpu: Duration,
    /// Resident now, in MiB.
    pub(crate) resident: f64,
    /// The most that was ever resident, in MiB.
    pub(crate) peak: f64,
}

/// Linux counts CPU time in these for user space, whatever the kernel's own tick is.
const TICKS_PER_SECOND: u64 = 100;

impl Usage {
    pub(crate) fn of(pid: u32) -> Result<Usage> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("the process is gone")?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("the process is gone")?;
        let fields: Vec<&str> =
            stat.rsplit_once(')').context("a strange /proc/PID/stat")?.1.split_whitespace().collect();
        let ticks = |index: usize| fields.get(index).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        let mib = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name));
            let kib = line
                .and_then(|line| line.split_whitespace().nth(1))
                .and_then(|text| text.parse::<f64>().ok());
            kib.unwrap_or(0.0) / 1024.0
        };
        Ok(Usage {
            cpu: Duration::from_millis((ticks(11) + ticks(12)) * 1000 / TICKS_PER_SECOND),
            resident: mib("VmRSS:"),
            peak: mib("VmHWM:"),
        })
    }
}
