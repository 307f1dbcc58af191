//! `etcd_request_duration_seconds`, by operation and resource.

use std::time::Instant;

use component_base::metrics::Registry;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    operation: &'static str,
    r#type: String,
}

/// Durations of requests to etcd.
#[derive(Debug, Clone)]
pub struct StorageMetrics {
    durations: Family<Labels, Histogram>,
}

impl Default for StorageMetrics {
    fn default() -> Self {
        Self {
            durations: Family::new_with_constructor(|| {
                Histogram::new([
                    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0,
                    8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0,
                ])
            }),
        }
    }
}

impl StorageMetrics {
    pub fn register(&self, registry: &Registry) {
        registry.register(
            "etcd_request_duration_seconds",
            "Latency of requests to etcd, by operation and by type of object",
            self.durations.clone(),
        );
    }

    pub(super) fn observe(&self, operation: &'static str, resource: &str, started: Instant) {
        let labels = Labels { operation, r#type: resource.to_owned() };
        self.durations.get_or_create(&labels).observe(started.elapsed().as_secs_f64());
    }
}
