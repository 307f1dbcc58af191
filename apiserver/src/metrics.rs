//! The server's own metrics: requests, their durations, and how many are in flight.
//!
//! Upstream: `apiserver/pkg/endpoints/metrics`.

use std::sync::Arc;
use std::time::Duration;

use component_base::metrics::Registry;
use http::StatusCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use crate::request::RequestInfo;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    verb: String,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    scope: &'static str,
    component: &'static str,
    code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DurationLabels {
    verb: String,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    scope: &'static str,
    component: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    request_kind: &'static str,
}

/// The registry and what requests count. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    pub registry: Registry,
    requests: Family<RequestLabels, Counter>,
    durations: Family<DurationLabels, Histogram, fn() -> Histogram>,
    in_flight: Family<KindLabels, Gauge>,
    long_running: Family<DurationLabels, Gauge>,
}

fn histogram() -> Histogram {
    Histogram::new([
        0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0,
        15.0, 20.0, 30.0, 45.0, 60.0,
    ])
}

impl Metrics {
    pub fn new(registry: Registry) -> Self {
        let metrics = Self {
            registry,
            requests: Family::default(),
            durations: Family::new_with_constructor(histogram as fn() -> Histogram),
            in_flight: Family::default(),
            long_running: Family::default(),
        };
        let registry = &metrics.registry;
        registry.register(
            "apiserver_request_total",
            "Requests by verb, group, version, resource, subresource, scope, component and HTTP response code",
            metrics.requests.clone(),
        );
        registry.register(
            "apiserver_request_duration_seconds",
            "Response latency in seconds by verb, group, version, resource, subresource, scope and component",
            metrics.durations.clone(),
        );
        registry.register(
            "apiserver_current_inflight_requests",
            "Requests being served now, that are not long-running, by whether they change anything",
            metrics.in_flight.clone(),
        );
        registry.register(
            "apiserver_longrunning_requests",
            "Long-running requests being served now",
            metrics.long_running.clone(),
        );
        metrics
    }

    /// Counts a request that begins.
    pub fn begin(&self, info: &RequestInfo) -> Measured {
        let verb = info.verb.to_uppercase();
        let resource = |text: &str| if info.is_resource { text.to_owned() } else { String::new() };
        let scope = match (info.is_resource, info.name.is_empty(), info.namespace.is_empty()) {
            (false, _, _) => "",
            (true, false, _) => "resource",
            (true, true, false) => "namespace",
            (true, true, true) => "cluster",
        };
        let labels = DurationLabels {
            verb,
            group: resource(&info.group),
            version: resource(&info.version),
            resource: resource(&info.resource),
            subresource: if info.is_resource { info.subresource.clone() } else { health_path(&info.path) },
            scope,
            component: "apiserver",
        };
        let mutating =
            matches!(info.verb.as_str(), "create" | "update" | "patch" | "delete" | "deletecollection");
        let gauge = if info.is_long_running() {
            self.long_running.get_or_create_owned(&labels)
        } else {
            let kind = KindLabels { request_kind: if mutating { "mutating" } else { "readOnly" } };
            self.in_flight.get_or_create_owned(&kind)
        };
        gauge.inc();
        Measured { metrics: self.clone(), labels, in_flight: Arc::new(InFlight(gauge)) }
    }
}

/// The few paths outside the API that are worth a label of their own; others could be anything.
fn health_path(path: &str) -> String {
    let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    if matches!(first, "healthz" | "livez" | "readyz" | "metrics" | "openapi" | "version") {
        format!("/{first}")
    } else {
        String::new()
    }
}

/// A request that has begun.
#[derive(Debug)]
pub struct Measured {
    metrics: Metrics,
    labels: DurationLabels,
    in_flight: Arc<InFlight>,
}

/// Counts down when the request is over, however it ends.
#[derive(Debug)]
pub struct InFlight(Gauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Measured {
    /// Counts a request that is answered.
    pub fn end(self, status: StatusCode, elapsed: Duration) {
        drop(self.answered(status, elapsed));
    }

    /// Counts a request whose answer begins; it is in flight until what is returned is dropped.
    pub fn answered(self, status: StatusCode, elapsed: Duration) -> Arc<InFlight> {
        let Self { metrics, labels, in_flight } = self;
        metrics.durations.get_or_create(&labels).observe(elapsed.as_secs_f64());
        let DurationLabels { verb, group, version, resource, subresource, scope, component } = labels;
        let code = status.as_u16();
        let labels = RequestLabels { verb, group, version, resource, subresource, scope, component, code };
        metrics.requests.get_or_create(&labels).inc();
        in_flight
    }
}
