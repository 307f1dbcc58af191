//! The figures that are measured, each with upstream's, with the most that any server could show, and with the goal.
//!
//! Upstream is kube-apiserver 1.36.2 over etcd 3.5.16 on a quiet machine of two cores, with the load from the same
//! cores. The ceiling was measured there too, against a server that sends canned bytes and makes one etcd transaction
//! for each write.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// What can be measured by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Group {
    /// From fork to ready
    Start,
    /// Memory and CPU of a server that nobody asks anything
    Idle,
    /// The same writes and reads straight at etcd: no API server can be faster
    Etcd,
    Create,
    Get,
    List,
    /// Patches seen by many watchers
    Fanout,
    Delete,
    /// The most memory under the whole load from create to delete
    Peak,
    /// Memory for thousands of watches that see nothing
    Watches,
    /// The fan-out over HTTP and over the gRPC watch service, each with a server of its own
    WatchTransports,
    /// As many pods as upstream allows in a cluster
    Large,
}

/// What a figure counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Unit {
    #[serde(rename = "s")]
    Seconds,
    #[serde(rename = "ms")]
    Millis,
    #[serde(rename = "µs")]
    Micros,
    #[serde(rename = "/s")]
    PerSecond,
    #[serde(rename = "MiB")]
    Mib,
    #[serde(rename = "KiB")]
    Kib,
    #[serde(rename = "%")]
    Percent,
}

impl Unit {
    pub(crate) fn symbol(self) -> &'static str {
        match self {
            Unit::Seconds => "s",
            Unit::Millis => "ms",
            Unit::Micros => "µs",
            Unit::PerSecond => "/s",
            Unit::Mib => "MiB",
            Unit::Kib => "KiB",
            Unit::Percent => "%",
        }
    }

    /// Of rates more is better; of everything else, less.
    pub(crate) fn more_is_better(self) -> bool {
        self == Unit::PerSecond
    }

    /// How many times better the first number is than the second.
    pub(crate) fn factor(self, measured: f64, other: f64) -> f64 {
        let (good, bad) = if self.more_is_better() { (measured, other) } else { (other, measured) };
        good / bad.max(f64::MIN_POSITIVE)
    }
}

/// One figure. Their order is the table's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Figure {
    Start,
    IdleMemory,
    IdleCpu,
    PeakMemory,
    EtcdPuts,
    EtcdGets,
    Create,
    CreateCpu,
    CreateClientCpu,
    Get,
    GetCpu,
    GetClientCpu,
    ListConsistent,
    ListCached,
    ListCpu,
    ListNone,
    Fanout,
    FanoutCpu,
    FanoutClientCpu,
    Delete,
    DeleteCpu,
    WatchOpen,
    WatchMemory,
    WatchDelivery,
    HttpEvents,
    GrpcEvents,
    HttpCpu,
    GrpcCpu,
    HttpMemory,
    GrpcMemory,
    LargeMemory,
    LargeCreate,
    LargeGet,
    LargeList,
    LargeListNone,
    LargeWatchList,
    LargeFanout,
    LargePeak,
}

/// What a figure is, and what it is compared with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spec {
    pub(crate) group: Group,
    pub(crate) unit: Unit,
    /// In `{}` stand the load's parameters on which the figure depends.
    pub(crate) work: &'static str,
    pub(crate) upstream: Option<f64>,
    pub(crate) ceiling: Option<f64>,
    pub(crate) goal: Option<f64>,
}

/// Stands in the table below where there is nothing to compare with.
const NONE: f64 = 0.0;

fn spec(group: Group, unit: Unit, work: &'static str, upstream: f64, ceiling: f64, goal: f64) -> Spec {
    let known = |figure: f64| (figure > NONE).then_some(figure);
    Spec { group, unit, work, upstream: known(upstream), ceiling: known(ceiling), goal: known(goal) }
}

impl Figure {
    /// The table: upstream, ceiling, goal.
    #[rustfmt::skip]
    pub(crate) fn spec(self) -> Spec {
        use Figure as F;
        use Group as G;
        use Unit::{Kib, Micros, Mib, Millis, Percent, PerSecond, Seconds};
        match self {
            F::Start => spec(G::Start, Seconds, "start to /readyz", 1.7, NONE, 0.3),
            F::IdleMemory => spec(G::Idle, Mib, "idle memory", 257.0, NONE, 26.0),
            F::IdleCpu => spec(G::Idle, Percent, "idle CPU, of a core", 1.3, NONE, 0.2),
            F::PeakMemory => spec(G::Peak, Mib, "peak memory, {pods} pods from create to delete", 667.0, NONE, 110.0),
            F::EtcdPuts => spec(G::Etcd, PerSecond, "bare etcd: create transactions, {clients} clients", 13_600.0, NONE, NONE),
            F::EtcdGets => spec(G::Etcd, PerSecond, "bare etcd: gets, {clients} clients", 21_000.0, NONE, NONE),
            F::Create => spec(G::Create, PerSecond, "create pods, {clients} clients", 1147.0, 7800.0, 5000.0),
            F::CreateCpu => spec(G::Create, Micros, "CPU for one create", 1270.0, 50.0, 150.0),
            F::CreateClientCpu => spec(G::Create, Micros, "(the client's CPU for one create)", NONE, NONE, NONE),
            F::Get => spec(G::Get, PerSecond, "get a pod, {clients} clients", 2930.0, 40_000.0, 25_000.0),
            F::GetCpu => spec(G::Get, Micros, "CPU for one get", 460.0, 14.0, 32.0),
            F::GetClientCpu => spec(G::Get, Micros, "(the client's CPU for one get)", NONE, NONE, NONE),
            F::ListConsistent => spec(G::List, Millis, "list {pods} pods, consistent", 220.0, 17.0, 22.0),
            F::ListCached => spec(G::List, Millis, "list {pods} pods, resourceVersion=0", 200.0, 14.0, 20.0),
            F::ListCpu => spec(G::List, Millis, "CPU for one consistent list of {pods} pods", 240.0, 7.0, 11.0),
            F::ListNone => spec(G::List, Millis, "list with a selector that matches none of {pods}", 3.0, 0.13, 0.5),
            F::Fanout => spec(G::Fanout, PerSecond, "events, {patches} patches to {watchers} watchers of {pods} pods", 70_000.0, 260_000.0, 220_000.0),
            F::FanoutCpu => spec(G::Fanout, Micros, "CPU for one such event to {watchers} watchers", 19.0, 3.0, 4.5),
            F::FanoutClientCpu => spec(G::Fanout, Micros, "(the client's CPU for one event)", NONE, NONE, NONE),
            F::Delete => spec(G::Delete, PerSecond, "delete pods, {clients} clients", 865.0, 8000.0, 4500.0),
            F::DeleteCpu => spec(G::Delete, Micros, "CPU for one delete", 1490.0, 50.0, 165.0),
            F::WatchOpen => spec(G::Watches, PerSecond, "open {watches} watches", NONE, NONE, NONE),
            F::WatchMemory => spec(G::Watches, Kib, "memory for one idle watch of {watches}", NONE, NONE, NONE),
            F::WatchDelivery => spec(G::Watches, Millis, "one event to {watches} watches", NONE, NONE, NONE),
            F::HttpEvents => spec(G::WatchTransports, PerSecond, "HTTP watch: events to {watchers} watchers of {pods} pods", NONE, NONE, NONE),
            F::GrpcEvents => spec(G::WatchTransports, PerSecond, "gRPC watch: the same", NONE, NONE, NONE),
            F::HttpCpu => spec(G::WatchTransports, Seconds, "HTTP watch: CPU for these events, {patches} patches", NONE, NONE, NONE),
            F::GrpcCpu => spec(G::WatchTransports, Seconds, "gRPC watch: the same", NONE, NONE, NONE),
            F::HttpMemory => spec(G::WatchTransports, Mib, "HTTP watch: peak memory", NONE, NONE, NONE),
            F::GrpcMemory => spec(G::WatchTransports, Mib, "gRPC watch: peak memory", NONE, NONE, NONE),
            F::LargeMemory => spec(G::Large, Mib, "memory after creating and getting {large_pods} pods", 6270.0, NONE, 700.0),
            F::LargeCreate => spec(G::Large, PerSecond, "create {large_pods} pods, {clients} clients", 1005.0, NONE, 4500.0),
            F::LargeGet => spec(G::Large, PerSecond, "get each of {large_pods} pods, {clients} clients", 2620.0, NONE, 24_000.0),
            F::LargeList => spec(G::Large, Seconds, "list {large_pods} pods", 7.2, 0.5, 0.6),
            F::LargeListNone => spec(G::Large, Millis, "list with a selector that matches none of {large_pods}", 194.0, NONE, 10.0),
            F::LargeWatchList => spec(G::Large, Seconds, "watch {large_pods} pods from their initial state", NONE, NONE, NONE),
            F::LargeFanout => spec(G::Large, PerSecond, "events, {patches} patches to {watchers} watchers of {large_pods} pods", NONE, NONE, NONE),
            F::LargePeak => spec(G::Large, Mib, "peak memory with {large_pods} pods", NONE, NONE, NONE),
        }
    }
}
