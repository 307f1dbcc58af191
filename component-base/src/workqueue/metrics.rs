//! The metrics of work queues, under upstream's names and labels.

use std::time::Duration;

use prometheus_client::metrics::{
    counter::Counter,
    family::Family,
    gauge::Gauge,
    histogram::{Histogram, exponential_buckets},
};

use crate::metrics::Registry;

type Name = [(&'static str, String); 1];

/// The metric families that all queues of a daemon share; make one per daemon.
#[derive(Debug, Clone)]
pub struct WorkqueueMetrics {
    depth: Family<Name, Gauge>,
    adds: Family<Name, Counter>,
    queue_duration: Family<Name, Histogram, fn() -> Histogram>,
    work_duration: Family<Name, Histogram, fn() -> Histogram>,
    retries: Family<Name, Counter>,
    panics: Family<Name, Counter>,
}

impl WorkqueueMetrics {
    /// Registers the families.
    #[must_use]
    pub fn register(registry: &Registry) -> Self {
        let metrics = Self {
            depth: Family::default(),
            adds: Family::default(),
            queue_duration: Family::new_with_constructor(histogram as fn() -> Histogram),
            work_duration: Family::new_with_constructor(histogram as fn() -> Histogram),
            retries: Family::default(),
            panics: Family::default(),
        };
        registry.register("workqueue_depth", "Current depth of workqueue", metrics.depth.clone());
        registry.register(
            "workqueue_adds_total",
            "Total number of adds handled by workqueue",
            metrics.adds.clone(),
        );
        registry.register(
            "workqueue_queue_duration_seconds",
            "How long in seconds an item stays in workqueue before being requested.",
            metrics.queue_duration.clone(),
        );
        registry.register(
            "workqueue_work_duration_seconds",
            "How long in seconds processing an item from workqueue takes.",
            metrics.work_duration.clone(),
        );
        registry.register(
            "workqueue_retries_total",
            "Total number of retries handled by workqueue",
            metrics.retries.clone(),
        );
        registry.register(
            "workqueue_panics_total",
            "Total number of items whose handler panicked and that were queued again",
            metrics.panics.clone(),
        );
        metrics
    }

    /// The metrics of the queue called `name`.
    pub(super) fn queue(&self, name: &str) -> QueueMetrics {
        let name = [("name", name.to_owned())];
        QueueMetrics {
            depth: self.depth.get_or_create(&name).clone(),
            adds: self.adds.get_or_create(&name).clone(),
            queue_duration: self.queue_duration.get_or_create(&name).clone(),
            work_duration: self.work_duration.get_or_create(&name).clone(),
            retries: self.retries.get_or_create(&name).clone(),
            panics: self.panics.get_or_create(&name).clone(),
        }
    }
}

/// Upstream's buckets: from 10 ns by tens.
fn histogram() -> Histogram {
    Histogram::new(exponential_buckets(1e-8, 10.0, 10))
}

/// One queue's.
#[derive(Debug)]
pub(super) struct QueueMetrics {
    depth: Gauge,
    adds: Counter,
    queue_duration: Histogram,
    work_duration: Histogram,
    retries: Counter,
    panics: Counter,
}

impl QueueMetrics {
    pub(super) fn added(&self) {
        self.adds.inc();
    }

    pub(super) fn depth(&self, depth: usize) {
        self.depth.set(i64::try_from(depth).unwrap_or(i64::MAX));
    }

    pub(super) fn taken(&self, waited: Duration) {
        self.queue_duration.observe(waited.as_secs_f64());
    }

    pub(super) fn worked(&self, worked: Duration) {
        self.work_duration.observe(worked.as_secs_f64());
    }

    pub(super) fn retried(&self) {
        self.retries.inc();
    }

    pub(super) fn panicked(&self) {
        self.panics.inc();
    }
}
