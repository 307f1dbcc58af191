//! The scheduler's metrics, under upstream's names.

use component_base::metrics::Registry;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use crate::queue::Lengths;

type Labels = Vec<(&'static str, String)>;

/// Handles to count with; clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    attempts: Family<Labels, Counter>,
    attempt_seconds: Family<Labels, Histogram>,
    sli_seconds: Histogram,
    pending: Family<Labels, Gauge>,
}

impl Metrics {
    /// Registers all of them.
    pub fn new(registry: &Registry) -> Self {
        let metrics = Self {
            attempts: Family::default(),
            attempt_seconds: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.0001, 2.0, 20))
            }),
            sli_seconds: Histogram::new(exponential_buckets(0.01, 2.0, 20)),
            pending: Family::default(),
        };
        registry.register(
            "scheduler_schedule_attempts_total",
            "Number of attempts to schedule pods, by the result",
            metrics.attempts.clone(),
        );
        registry.register(
            "scheduler_scheduling_attempt_duration_seconds",
            "Scheduling attempt latency in seconds",
            metrics.attempt_seconds.clone(),
        );
        registry.register(
            "scheduler_pod_scheduling_sli_duration_seconds",
            "E2e latency for a pod being scheduled, from the time the pod enters the scheduling queue",
            metrics.sli_seconds.clone(),
        );
        registry.register(
            "scheduler_pending_pods",
            "Number of pending pods, by the queue type",
            metrics.pending.clone(),
        );
        metrics
    }

    /// Counts one try: `scheduled`, `unschedulable` or `error`.
    pub fn attempt(&self, result: &'static str, profile: &str, seconds: f64) {
        let labels = vec![("profile", profile.to_owned()), ("result", result.to_owned())];
        self.attempt_seconds.get_or_create(&labels).observe(seconds);
        self.attempts.get_or_create(&labels).inc();
    }

    /// Notes how long a pod took from its first sight to its binding.
    pub fn scheduled_after(&self, seconds: f64) {
        self.sli_seconds.observe(seconds);
    }

    /// Shows how many pods wait.
    pub fn pending(&self, lengths: Lengths) {
        for (queue, length) in [
            ("active", lengths.active),
            ("backoff", lengths.backoff),
            ("unschedulable", lengths.unschedulable),
            ("gated", lengths.gated),
        ] {
            let labels = vec![("queue", queue.to_owned())];
            self.pending.get_or_create(&labels).set(i64::try_from(length).unwrap_or(i64::MAX));
        }
    }
}
