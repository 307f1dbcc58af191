//! The metrics of a daemon, passed to whoever counts something, and their text exposition.
//!
//! prometheus-client underneath, with upstream's metric names kept exact: a counter is registered and exposed under
//! the name given here, whether or not it ends in `_total`. The exposition is Prometheus' text format 0.0.4, which
//! every scraper takes. No registry is global.

mod exposition;
mod process;

use std::{collections::HashMap, fmt, sync::Arc};

use parking_lot::RwLock;
use prometheus_client::{
    collector::Collector,
    encoding::text,
    metrics::{MetricType, family::Family, gauge::Gauge},
    registry::{Metric, Registry as Inner},
};

use crate::version;

/// The content type of [`Registry::encode`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The metrics of one daemon; clones share them.
#[derive(Clone)]
pub struct Registry {
    shared: Arc<RwLock<Shared>>,
}

struct Shared {
    inner: Inner,
    /// prometheus-client's name of a counter to the one it was registered with.
    counters: HashMap<String, String>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

impl Registry {
    /// A registry with the metrics that every component has: `process_*` and `kubernetes_build_info`.
    #[must_use]
    pub fn new() -> Self {
        let shared = Shared { inner: Inner::default(), counters: HashMap::new() };
        let registry = Self { shared: Arc::new(RwLock::new(shared)) };
        registry.register_collector(process::ProcessCollector);
        registry
            .shared
            .write()
            .counters
            .insert("process_cpu_seconds".into(), "process_cpu_seconds_total".into());
        registry.register(
            "kubernetes_build_info",
            "A metric with a constant '1' value labeled by the version this binary was built from.",
            build_info(),
        );
        registry
    }

    /// Registers `metric` (keep a clone of it to count with) under upstream's name for it.
    pub fn register(&self, name: &str, help: &str, metric: impl Metric) {
        let mut shared = self.shared.write();
        // prometheus-client adds `_total` to counters, and a full stop to every help text.
        let base = match metric.metric_type() {
            MetricType::Counter => {
                let base = name.strip_suffix("_total").unwrap_or(name);
                shared.counters.insert(base.to_owned(), name.to_owned());
                base
            }
            _ => name,
        };
        shared.inner.register(base, help.trim_end_matches('.'), metric);
    }

    /// Registers something that computes its metrics when they are asked for.
    pub fn register_collector(&self, collector: impl Collector) {
        self.shared.write().inner.register_collector(Box::new(collector));
    }

    /// All metrics as text, of type [`CONTENT_TYPE`].
    #[must_use]
    pub fn encode(&self) -> String {
        let shared = self.shared.read();
        let mut open_metrics = String::new();
        if let Err(error) = text::encode_registry(&mut open_metrics, &shared.inner) {
            // Only a collector of ours can fail here; what was written before it is still right.
            tracing::error!(%error, "a metrics collector failed");
        }
        exposition::plain(&open_metrics, &shared.counters)
    }
}

type BuildInfoLabels = Vec<(&'static str, String)>;

fn build_info() -> Family<BuildInfoLabels, Gauge> {
    let info = version::info();
    let family = Family::<BuildInfoLabels, Gauge>::default();
    family
        .get_or_create(&vec![
            ("build_date", info.build_date),
            ("compiler", info.compiler),
            ("git_commit", info.git_commit),
            ("git_tree_state", info.git_tree_state),
            ("git_version", info.git_version),
            ("go_version", info.go_version),
            ("major", info.major),
            ("minor", info.minor),
            ("platform", info.platform),
        ])
        .set(1);
    family
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::{counter::Counter, histogram::Histogram};

    use super::*;

    #[test]
    fn names_are_exactly_those_registered() {
        let registry = Registry::new();
        let total = Counter::<u64>::default();
        let bare = Family::<Vec<(&'static str, String)>, Counter>::default();
        let seconds = Histogram::new([0.5, 1.0]);
        registry.register("workqueue_adds_total", "Adds.", total.clone());
        registry.register("odd_count", "Has no suffix", bare.clone());
        registry.register("duration_seconds", "How long", seconds.clone());
        total.inc();
        bare.get_or_create(&vec![("name", "x_total 1".to_owned())]).inc_by(2);
        seconds.observe(0.7);
        let text = registry.encode();
        for line in [
            "# HELP workqueue_adds_total Adds.",
            "# TYPE workqueue_adds_total counter",
            "workqueue_adds_total 1",
            "# TYPE odd_count counter",
            "odd_count{name=\"x_total 1\"} 2",
            "duration_seconds_bucket{le=\"+Inf\"} 1",
            "# TYPE process_cpu_seconds_total counter",
            "# TYPE process_resident_memory_bytes gauge",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\nin\n{text}");
        }
        assert!(!text.contains("# EOF") && !text.contains("_total_total"), "{text}");
        assert!(text.contains("git_version=\"v1.36.2+keelson.1\""), "{text}");
    }
}
