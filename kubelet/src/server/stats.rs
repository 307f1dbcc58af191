//! `/stats/summary`: processor and memory use of the node, its pods and containers, as metrics-server reads them.
//! Networks, file systems and volumes are not in it. Upstream's concept: `pkg/kubelet/server/stats`.

use std::collections::BTreeMap;
use std::io;

use jiff::Timestamp;
use proto::runtime_v1 as v1;
use serde_json::{Value, json};

use crate::runtime::labels::{CONTAINER_NAME, POD_NAME, POD_NAMESPACE, POD_UID};

/// The kernel counts processor time in hundredths of a second, whatever its own tick is.
const TICK_NANOS: u64 = 10_000_000;

fn cpu(time: Timestamp, nano_cores: Option<u64>, core_nanos: Option<u64>) -> Value {
    let mut out = json!({"time": time.to_string()});
    if let Some(value) = nano_cores {
        out["usageNanoCores"] = value.into();
    }
    if let Some(value) = core_nanos {
        out["usageCoreNanoSeconds"] = value.into();
    }
    out
}

fn of_nanos(nanos: i64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(nanos)).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn value(value: Option<&v1::UInt64Value>) -> Option<u64> {
    value.map(|v| v.value)
}

fn container(stats: &v1::ContainerStats) -> Option<(Value, u64, u64)> {
    let name = stats.attributes.as_ref()?.labels.get(CONTAINER_NAME)?;
    let mut out = json!({"name": name});
    let (mut core_nanos, mut working_set) = (0, 0);
    if let Some(used) = &stats.cpu {
        core_nanos = value(used.usage_core_nano_seconds.as_ref()).unwrap_or(0);
        out["cpu"] = cpu(of_nanos(used.timestamp), value(used.usage_nano_cores.as_ref()), Some(core_nanos));
    }
    if let Some(used) = &stats.memory {
        working_set = value(used.working_set_bytes.as_ref()).unwrap_or(0);
        let mut memory =
            json!({"time": of_nanos(used.timestamp).to_string(), "workingSetBytes": working_set});
        for (key, bytes) in [
            ("availableBytes", &used.available_bytes),
            ("usageBytes", &used.usage_bytes),
            ("rssBytes", &used.rss_bytes),
            ("pageFaults", &used.page_faults),
            ("majorPageFaults", &used.major_page_faults),
        ] {
            if let Some(bytes) = value(bytes.as_ref()) {
                memory[key] = bytes.into();
            }
        }
        out["memory"] = memory;
    }
    Some((out, core_nanos, working_set))
}

/// Puts the runtime's statistics together by pod.
fn pods(all: &[v1::ContainerStats], now: Timestamp) -> Vec<Value> {
    let mut pods: BTreeMap<String, (Value, Vec<Value>, u64, u64)> = BTreeMap::new();
    for stats in all {
        let Some(attributes) = &stats.attributes else { continue };
        let label = |key: &str| attributes.labels.get(key).cloned().unwrap_or_default();
        let (uid, Some((container, core_nanos, working_set))) = (label(POD_UID), container(stats)) else {
            continue;
        };
        let reference = json!({"name": label(POD_NAME), "namespace": label(POD_NAMESPACE), "uid": uid});
        let pod = pods.entry(uid).or_insert_with(|| (reference, Vec::new(), 0, 0));
        pod.1.push(container);
        pod.2 = pod.2.saturating_add(core_nanos);
        pod.3 = pod.3.saturating_add(working_set);
    }
    pods.into_values()
        .map(|(reference, containers, core_nanos, working_set)| {
            json!({
                "podRef": reference,
                "containers": containers,
                "cpu": cpu(now, None, Some(core_nanos)),
                "memory": {"time": now.to_string(), "workingSetBytes": working_set},
            })
        })
        .collect()
}

/// Busy time of all processors since boot, from `/proc/stat`.
fn busy_nanos(stat: &str) -> Option<u64> {
    let fields: Vec<u64> = stat
        .lines()
        .next()?
        .strip_prefix("cpu ")?
        .split_whitespace()
        .filter_map(|f| f.parse().ok())
        .collect();
    // user nice system idle iowait irq softirq steal; guest time is within user.
    let busy = [0, 1, 2, 5, 6, 7].iter().filter_map(|index| fields.get(*index)).sum::<u64>();
    Some(busy.saturating_mul(TICK_NANOS))
}

fn boot_time(stat: &str) -> Option<Timestamp> {
    let seconds = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    Timestamp::from_second(seconds.trim().parse().ok()?).ok()
}

fn meminfo(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib.saturating_mul(1024))
}

fn node(name: &str, stat: &str, memory: &str, now: Timestamp) -> Value {
    let total = meminfo(memory, "MemTotal").unwrap_or(0);
    let available = meminfo(memory, "MemAvailable").unwrap_or(0);
    let free = meminfo(memory, "MemFree").unwrap_or(0);
    json!({
        "nodeName": name,
        "startTime": boot_time(stat).map(|time| time.to_string()),
        "cpu": cpu(now, None, busy_nanos(stat)),
        "memory": {
            "time": now.to_string(),
            "availableBytes": available,
            "usageBytes": total.saturating_sub(free),
            "workingSetBytes": total.saturating_sub(available),
            "rssBytes": meminfo(memory, "AnonPages").unwrap_or(0),
        },
    })
}

/// The summary.
pub fn summary(node_name: &str, containers: &[v1::ContainerStats]) -> io::Result<Value> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let memory = std::fs::read_to_string("/proc/meminfo")?;
    let now = Timestamp::now();
    Ok(json!({"node": node(node_name, &stat, &memory, now), "pods": pods(containers, now)}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn containers_are_summed_by_pod() {
        let stats = |pod: &str, name: &str, cpu: u64| v1::ContainerStats {
            attributes: Some(v1::ContainerAttributes {
                labels: HashMap::from([
                    (POD_UID.to_owned(), pod.to_owned()),
                    (CONTAINER_NAME.to_owned(), name.to_owned()),
                ]),
                ..Default::default()
            }),
            cpu: Some(v1::CpuUsage {
                usage_core_nano_seconds: Some(v1::UInt64Value { value: cpu }),
                ..Default::default()
            }),
            ..Default::default()
        };
        let all = [stats("u", "a", 1), stats("u", "b", 2), stats("w", "a", 4), v1::ContainerStats::default()];
        let got = pods(&all, Timestamp::UNIX_EPOCH);
        assert_eq!(got.len(), 2);
        assert_eq!(got[0]["cpu"]["usageCoreNanoSeconds"], 3);
        assert_eq!(got[0]["containers"][1]["name"], "b");
    }

    #[test]
    fn the_node() {
        let stat = "cpu  1 2 3 100 50 4 5 6 0 0\ncpu0 1\nbtime 1767225600\n";
        let memory = "MemTotal: 100 kB\nMemFree: 20 kB\nMemAvailable: 60 kB\nAnonPages: 5 kB\n";
        let got = node("n", stat, memory, Timestamp::UNIX_EPOCH);
        assert_eq!(got["cpu"]["usageCoreNanoSeconds"], 21 * TICK_NANOS);
        assert_eq!(got["memory"]["workingSetBytes"], 40 * 1024);
        assert_eq!(got["startTime"], "2026-01-01T00:00:00Z");
    }
}
