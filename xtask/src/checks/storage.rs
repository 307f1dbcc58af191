//! The disk under etcd: its room, and how long it takes to make a write durable, which every change of the cluster
//! waits for.

use super::Check;
use crate::layout;
use anyhow::{Context, Result};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

/// Room and speed of the disks.
pub(super) fn disks() -> Vec<Check> {
    let mut checks = Vec::new();
    for (name, path, least) in [("disk of etcd", layout::ETCD_DATA, 2), ("disk of images", layout::STATE, 3)]
    {
        match room(nearest(Path::new(path))) {
            Ok(gib) if gib < least => checks.push(Check::fail(
                name,
                format!("{gib} GiB free at {path}"),
                format!("make room: {least} GiB are needed"),
            )),
            Ok(gib) => checks.push(Check::ok(name, format!("{gib} GiB free at {path}"))),
            Err(error) => checks.push(Check::warn(name, format!("{error:#}"), "look at the file system")),
        }
    }
    // The kubelet's threshold, in upstream's words nodefs.available<10%.
    match free_percent(nearest(Path::new(layout::KUBELET_ROOT))) {
        Ok(percent) if percent < 10 => checks.push(Check::warn(
            "disk pressure",
            format!("only {percent} % of the disk of {} is free", layout::KUBELET_ROOT),
            "below 10 % the kubelet reports DiskPressure and no pod is scheduled: make room",
        )),
        Ok(percent) => checks.push(Check::ok("disk pressure", format!("{percent} % free"))),
        Err(error) => {
            checks.push(Check::warn("disk pressure", format!("{error:#}"), "look at the file system"))
        }
    }
    match sync_times(nearest(Path::new(layout::ETCD_DATA)), 30) {
        Ok(times) => checks.push(judge(&times)),
        Err(error) => checks.push(Check::warn("fdatasync", format!("{error:#}"), "look at the file system")),
    }
    checks
}

/// The directory itself, or the nearest one above it that exists.
fn nearest(path: &Path) -> &Path {
    path.ancestors().find(|path| path.is_dir()).unwrap_or_else(|| Path::new("/"))
}

fn room(path: &Path) -> Result<u64> {
    let stat = nix::sys::statvfs::statvfs(path)
        .with_context(|| format!("cannot ask for room at {}", path.display()))?;
    Ok(stat.blocks_available() * stat.fragment_size() / (1 << 30))
}

fn free_percent(path: &Path) -> Result<u64> {
    let stat = nix::sys::statvfs::statvfs(path)
        .with_context(|| format!("cannot ask for room at {}", path.display()))?;
    Ok(stat.blocks_available() * 100 / stat.blocks().max(1))
}

/// Times of writes as etcd's log makes them: a few KiB appended, then fdatasync.
fn sync_times(dir: &Path, count: usize) -> Result<Vec<Duration>> {
    let mut file =
        tempfile::tempfile_in(dir).with_context(|| format!("cannot write in {}", dir.display()))?;
    let block = [0_u8; 2300];
    let mut times = Vec::with_capacity(count);
    let until = Instant::now() + Duration::from_secs(3);
    while times.len() < count && Instant::now() < until {
        let begun = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        times.push(begun.elapsed());
    }
    times.sort();
    Ok(times)
}

fn judge(times: &[Duration]) -> Check {
    let ms = |index: usize| times.get(index).map_or(0.0, |time| time.as_secs_f64() * 1000.0);
    let (median, worst) = (ms(times.len() / 2), ms(times.len().saturating_sub(1)));
    let found = format!("median {median:.1} ms, slowest {worst:.1} ms of {}", times.len());
    if median > 10.0 {
        // etcd's own advice is 10 ms at the 99th percentile.
        return Check::warn(
            "fdatasync",
            found,
            "etcd wants less than 10 ms: put /var/lib/etcd on a better disk (an SSD rather than an SD card)",
        );
    }
    Check::ok("fdatasync", found)
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn a_slow_disk_is_named() {
        assert_eq!(judge(&[Duration::from_millis(1); 9]).level, Level::Ok);
        assert_eq!(judge(&[Duration::from_millis(40); 9]).level, Level::Warn);
        assert_eq!(sync_times(&std::env::temp_dir(), 3).unwrap().len(), 3);
    }
}
