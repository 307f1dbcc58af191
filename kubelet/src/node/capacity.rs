//! What the node has and what pods may use of it. Upstream's concept: `pkg/kubelet/cm` (node allocatable) and cadvisor's machine info.

use std::collections::BTreeMap;
use std::path::Path;

use apimachinery::quantity::Quantity;

use crate::config::NodeConfig;

use super::pressure::{IMAGEFS_OR_NODEFS_PERCENT, MEMORY_AVAILABLE};

/// Capacity and allocatable by resource name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Capacity {
    pub(super) capacity: BTreeMap<String, Quantity>,
    pub(super) allocatable: BTreeMap<String, Quantity>,
}

/// What is measured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Measured {
    cpus: u64,
    memory: u64,
    storage: u64,
    /// Page size name (`2Mi`) and total bytes.
    huge_pages: BTreeMap<String, u64>,
}

fn bytes(value: u64) -> Quantity {
    Quantity::from_bytes(i64::try_from(value).unwrap_or(i64::MAX))
}

fn kibibytes(value: u64) -> Result<Quantity, String> {
    Quantity::parse(&format!("{}Ki", value / 1024)).map_err(|error| error.to_string())
}

/// `MemTotal` of /proc/meminfo, in bytes.
pub(super) fn meminfo(text: &str, field: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

fn huge_pages() -> BTreeMap<String, u64> {
    let mut pages = BTreeMap::new();
    let Ok(entries) = std::fs::read_dir("/sys/kernel/mm/hugepages") else { return pages };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(kilobytes) = name
            .strip_prefix("hugepages-")
            .and_then(|n| n.strip_suffix("kB"))
            .and_then(|n| n.parse::<u64>().ok())
        else {
            continue;
        };
        let count = std::fs::read_to_string(entry.path().join("nr_hugepages"))
            .ok()
            .and_then(|text| text.trim().parse::<u64>().ok())
            .unwrap_or(0);
        let size = if kilobytes >= 1 << 20 {
            format!("{}Gi", kilobytes >> 20)
        } else {
            format!("{}Mi", kilobytes >> 10)
        };
        pages.insert(size, count * kilobytes * 1024);
    }
    pages
}

fn measure(root_dir: &Path) -> Result<Measured, String> {
    let meminfo_text =
        std::fs::read_to_string("/proc/meminfo").map_err(|error| format!("/proc/meminfo: {error}"))?;
    let storage =
        nix::sys::statvfs::statvfs(root_dir).map_err(|error| format!("{}: {error}", root_dir.display()))?;
    Ok(Measured {
        cpus: std::thread::available_parallelism().map_or(1, |n| n.get() as u64),
        memory: meminfo(&meminfo_text, "MemTotal").ok_or("no MemTotal in /proc/meminfo")?,
        storage: storage.blocks() * storage.fragment_size(),
        huge_pages: huge_pages(),
    })
}

fn compute(
    measured: &Measured,
    max_pods: i64,
    reserved: &BTreeMap<String, String>,
) -> Result<Capacity, String> {
    let mut capacity = BTreeMap::new();
    capacity.insert("cpu".to_owned(), Quantity::from_value(i64::try_from(measured.cpus).unwrap_or(1)));
    capacity.insert("memory".to_owned(), kibibytes(measured.memory)?);
    capacity.insert("ephemeral-storage".to_owned(), kibibytes(measured.storage)?);
    capacity.insert("pods".to_owned(), Quantity::from_value(max_pods));
    let mut huge = 0;
    for (size, total) in &measured.huge_pages {
        capacity.insert(format!("hugepages-{size}"), bytes(*total));
        huge += total;
    }
    let mut allocatable = capacity.clone();
    // What upstream's default eviction thresholds keep free is not for pods.
    let memory = measured.memory.saturating_sub(huge).saturating_sub(MEMORY_AVAILABLE);
    allocatable.insert("memory".to_owned(), kibibytes(memory)?);
    let storage = measured.storage / 1024 * 1024 / 100 * (100 - IMAGEFS_OR_NODEFS_PERCENT);
    allocatable.insert("ephemeral-storage".to_owned(), bytes(storage));
    for (name, text) in reserved {
        let Some(held) = allocatable.remove(name) else { continue };
        let quantity = Quantity::parse(text).map_err(|error| error.to_string())?;
        let left = held - quantity;
        allocatable.insert(name.clone(), left.max(Quantity::from_value(0)));
    }
    Ok(Capacity { capacity, allocatable })
}

impl Capacity {
    /// Measures the machine.
    pub(super) fn measure(config: &NodeConfig) -> Result<Self, String> {
        compute(&measure(&config.root_dir)?, config.max_pods, &config.reserved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocatable_is_capacity_without_reservations_and_thresholds() {
        let measured = Measured {
            cpus: 2,
            memory: 1024 << 20,
            storage: 100 << 30,
            huge_pages: [("2Mi".to_owned(), 64 << 20)].into(),
        };
        let reserved =
            [("cpu".to_owned(), "500m".to_owned()), ("memory".to_owned(), "100Mi".to_owned())].into();
        let got = compute(&measured, 110, &reserved).unwrap();
        let text = |map: &BTreeMap<String, Quantity>| {
            map.iter().map(|(name, q)| format!("{name}={q}")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            text(&got.capacity),
            "cpu=2 ephemeral-storage=100Gi hugepages-2Mi=64Mi memory=1Gi pods=110"
        );
        assert_eq!(
            text(&got.allocatable),
            "cpu=1500m ephemeral-storage=90Gi hugepages-2Mi=64Mi memory=760Mi pods=110"
        );
    }

    #[test]
    fn meminfo_is_read_in_kilobytes() {
        assert_eq!(meminfo("MemTotal:       1024 kB\nMemFree: 1 kB\n", "MemTotal"), Some(1 << 20));
        assert_eq!(meminfo("", "MemTotal"), None);
    }
}
