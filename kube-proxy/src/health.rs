//! Health of the proxy: `/healthz` and `/livez` on 10256, `/metrics` and `/proxyMode` on 10249.
//!
//! Upstream: `pkg/proxy/healthcheck/proxy_health.go`. Healthy means that no change has waited longer than
//! twice the sync period; `/healthz` also fails on a Node that is being removed, so that load balancers turn
//! away from it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use component_base::Shutdown;
use component_base::metrics::Registry;
use component_base::serving::{
    Endpoints, Handler, HealthChecks, ServingConfig, ServingError, serve as serve_port, text_route,
};
use http::{Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use serde_json::json;
use std::sync::atomic::AtomicU64;

use crate::config::Config;

/// What the loop tells and the server asks.
#[derive(Debug)]
pub struct Health {
    state: Mutex<State>,
    /// How long a change may wait before the proxy counts as sick.
    patience: Duration,
    started: Instant,
    sync_duration: Histogram,
    last_sync: Gauge<f64, AtomicU64>,
}

#[derive(Debug, Default)]
struct State {
    /// When the oldest change that is not in the kernel yet arrived.
    oldest_queued: Option<Instant>,
    last_synced: Option<(Instant, Timestamp)>,
    node_leaving: bool,
}

impl Health {
    /// A proxy that has synced nothing yet; its metrics go into `metrics`.
    pub fn new(config: &Config, metrics: &Registry) -> Self {
        let sync_duration = Histogram::new(exponential_buckets(0.001, 2.0, 15));
        metrics.register(
            "kubeproxy_sync_proxy_rules_duration_seconds",
            "SyncProxyRules latency in seconds",
            sync_duration.clone(),
        );
        let last_sync = Gauge::<f64, AtomicU64>::default();
        metrics.register(
            "kubeproxy_sync_proxy_rules_last_timestamp_seconds",
            "The last time proxy rules were successfully synced",
            last_sync.clone(),
        );
        Self {
            state: Mutex::default(),
            patience: config.sync_period * 2,
            started: Instant::now(),
            sync_duration,
            last_sync,
        }
    }

    /// Notes a change that waits for a sync.
    pub fn queued(&self) {
        self.state.lock().oldest_queued.get_or_insert_with(Instant::now);
    }

    /// Notes that all changes are in the kernel.
    pub fn synced(&self, took: Duration) {
        let now = Timestamp::now();
        self.sync_duration.observe(took.as_secs_f64());
        self.last_sync.set(now.as_duration().as_secs_f64());
        let mut state = self.state.lock();
        state.oldest_queued = None;
        state.last_synced = Some((Instant::now(), now));
    }

    /// Notes the state of the own Node.
    pub fn set_node(&self, node: Option<&Node>) {
        self.state.lock().node_leaving = node.is_none_or(|n| n.metadata.deletion_timestamp.is_some());
    }

    /// Whether no change has waited too long, a first sync included.
    fn is_alive(&self, now: Instant) -> bool {
        let state = self.state.lock();
        let waiting_since = match (state.last_synced, state.oldest_queued) {
            (None, _) => Some(self.started),
            (Some(_), queued) => queued,
        };
        waiting_since.is_none_or(|since| now.saturating_duration_since(since) < self.patience)
    }

    /// Upstream's answer: the code, and a JSON body with both times.
    fn answer(&self, about_node: bool) -> (StatusCode, String) {
        let eligible = !self.state.lock().node_leaving;
        let healthy = self.is_alive(Instant::now()) && (eligible || !about_node);
        let current = Timestamp::now();
        let updated = if healthy { Some(current) } else { self.state.lock().last_synced.map(|(_, at)| at) };
        let body = json!({
            "lastUpdated": updated.unwrap_or_default().to_string(),
            "currentTime": current.to_string(),
            "nodeEligible": eligible,
        });
        (if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, body.to_string())
    }
}

fn health_route(health: &Arc<Health>, about_node: bool) -> Handler {
    let health = Arc::clone(health);
    Arc::new(move |_, _| {
        let (code, body) = health.answer(about_node);
        Box::pin(async move {
            let mut response = Response::new(Full::from(body).map_err(|never| match never {}).boxed());
            *response.status_mut() = code;
            let json = http::HeaderValue::from_static("application/json");
            response.headers_mut().insert(http::header::CONTENT_TYPE, json);
            response
        })
    })
}

/// Starts the servers that the configuration asks for.
///
/// # Errors
/// An address can't be bound.
pub async fn serve(
    config: &Config,
    health: &Arc<Health>,
    metrics: &Registry,
    shutdown: &Shutdown,
) -> Result<(), ServingError> {
    if let Some(address) = config.healthz {
        let endpoints = Endpoints::new(HealthChecks::new(), Registry::new())
            .open_route("/healthz", health_route(health, true))
            .open_route("/livez", health_route(health, false));
        serve_port(ServingConfig::plain(address), endpoints, shutdown).await?;
    }
    if let Some(address) = config.metrics {
        let mode = text_route("text/plain; charset=utf-8", || std::future::ready("nftables".to_owned()));
        let endpoints = Endpoints::new(HealthChecks::new(), metrics.clone()).open_route("/proxyMode", mode);
        serve_port(ServingConfig::plain(address), endpoints, shutdown).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::NodePortAddresses;

    fn health() -> Health {
        let config = Config {
            kubeconfig: None,
            node_name: "n".into(),
            cluster_cidrs: vec![],
            node_port_addresses: NodePortAddresses::Primary,
            healthz: None,
            metrics: None,
            masquerade_all: false,
            masquerade_mark: 0x4000,
            sync_period: Duration::from_secs(30),
            min_sync_period: Duration::ZERO,
        };
        Health::new(&config, &Registry::new())
    }

    #[test]
    fn a_change_that_waits_too_long_is_sick() {
        let health = health();
        let later = Instant::now() + Duration::from_secs(61);
        assert!(health.is_alive(Instant::now()) && !health.is_alive(later), "never synced");
        health.synced(Duration::from_millis(5));
        assert!(health.is_alive(later), "nothing waits");
        health.queued();
        assert!(!health.is_alive(later), "a change waits");
        health.synced(Duration::from_millis(5));
        assert!(health.is_alive(later));
    }

    #[test]
    fn a_leaving_node_is_not_eligible_but_alive() {
        let health = health();
        health.set_node(None);
        assert_eq!(health.answer(true).0, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(health.answer(false).0, StatusCode::OK);
        health.set_node(Some(&Node::default()));
        assert_eq!(health.answer(true).0, StatusCode::OK);
    }
}
