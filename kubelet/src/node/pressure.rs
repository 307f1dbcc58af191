//! Whether the node runs out of memory, disk or process ids, by upstream's default hard eviction thresholds.
//!
//! It only tells; evicting pods is not done here. Upstream's concept: `pkg/kubelet/eviction` (thresholds and signals).

use std::path::Path;

/// `memory.available<100Mi`.
pub(super) const MEMORY_AVAILABLE: u64 = 100 << 20;
/// `nodefs.available<10%`.
pub(super) const IMAGEFS_OR_NODEFS_PERCENT: u64 = 10;
/// `nodefs.inodesFree<5%`.
const INODES_FREE_PERCENT: u64 = 5;

/// The three pressures.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Pressure {
    pub(super) memory: bool,
    pub(super) disk: bool,
    pub(super) pid: bool,
}

/// What is measured; `None` where the system does not say.
#[derive(Debug, Clone, Copy, Default)]
struct Signals {
    memory_available: Option<u64>,
    bytes: Option<(u64, u64)>,
    inodes: Option<(u64, u64)>,
}

fn below(part: Option<(u64, u64)>, percent: u64) -> bool {
    // A total of 0 means that the file system does not count it.
    part.is_some_and(|(free, total)| total > 0 && free.saturating_mul(100) < total.saturating_mul(percent))
}

fn judge(signals: Signals) -> Pressure {
    Pressure {
        memory: signals.memory_available.is_some_and(|available| available < MEMORY_AVAILABLE),
        disk: below(signals.bytes, IMAGEFS_OR_NODEFS_PERCENT) || below(signals.inodes, INODES_FREE_PERCENT),
        // Upstream has no default threshold on pid.available.
        pid: false,
    }
}

impl Pressure {
    /// Measures the machine.
    pub(super) fn measure(root_dir: &Path) -> Self {
        let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let fs = nix::sys::statvfs::statvfs(root_dir).ok();
        judge(Signals {
            memory_available: super::capacity::meminfo(&meminfo, "MemAvailable"),
            bytes: fs.as_ref().map(|fs| (fs.blocks_available(), fs.blocks())),
            inodes: fs.as_ref().map(|fs| (fs.files_free(), fs.files())),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_upstreams_defaults() {
        let plenty =
            Signals { memory_available: Some(1 << 30), bytes: Some((50, 100)), inodes: Some((50, 100)) };
        assert_eq!(judge(plenty), Pressure::default());
        assert!(judge(Signals { memory_available: Some(99 << 20), ..plenty }).memory);
        assert!(judge(Signals { bytes: Some((9, 100)), ..plenty }).disk);
        assert!(!judge(Signals { bytes: Some((10, 100)), ..plenty }).disk);
        assert!(judge(Signals { inodes: Some((4, 100)), ..plenty }).disk);
        assert!(!judge(Signals { inodes: Some((0, 0)), ..plenty }).disk, "a file system without inodes");
    }
}
