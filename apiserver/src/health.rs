//! `/healthz`, `/livez` and `/readyz`: named checks, together or one by one.
//!
//! Upstream: `apiserver/pkg/server/healthz`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Response, StatusCode};

use crate::body::Body;
use crate::request::Query;
use crate::storage::Storage;

/// `--etcd-healthcheck-timeout`.
const ETCD_TIMEOUT: Duration = Duration::from_secs(2);

/// A named question with a yes or a reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Check {
    Ping,
    Etcd,
    /// Bootstrap objects are there.
    Bootstrapped,
    /// The watch cache holds what etcd holds.
    Storage,
    /// The server is not going down.
    Shutdown,
}

const HEALTHZ: &[(&str, Check)] = &[
    ("ping", Check::Ping),
    ("etcd", Check::Etcd),
    ("poststarthook/rbac/bootstrap-roles", Check::Bootstrapped),
];
const LIVEZ: &[(&str, Check)] = &[("ping", Check::Ping), ("etcd", Check::Etcd)];
const READYZ: &[(&str, Check)] = &[
    ("ping", Check::Ping),
    ("etcd", Check::Etcd),
    ("etcd-readiness", Check::Etcd),
    ("poststarthook/storage-readiness", Check::Storage),
    ("poststarthook/rbac/bootstrap-roles", Check::Bootstrapped),
    ("shutdown", Check::Shutdown),
];

/// The server's health. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Health {
    storage: Storage,
    bootstrapped: Arc<AtomicBool>,
    shutdown: component_base::Shutdown,
}

impl Health {
    pub fn new(storage: Storage, shutdown: component_base::Shutdown) -> Self {
        Self { storage, bootstrapped: Arc::default(), shutdown }
    }

    /// Says that the objects every cluster has are in place.
    pub fn set_bootstrapped(&self) {
        self.bootstrapped.store(true, Ordering::Release);
    }

    /// Answers `/readyz`, `/readyz/etcd`, `/readyz?verbose&exclude=etcd` and their like; `None` for another path.
    pub async fn answer(&self, path: &str, query: &Query) -> Option<Response<Body>> {
        let path = path.trim_start_matches('/');
        let (endpoint, only) = path.split_once('/').unwrap_or((path, ""));
        let checks = match endpoint {
            "healthz" => HEALTHZ,
            "livez" => LIVEZ,
            "readyz" => READYZ,
            _ => return None,
        };
        if only.is_empty() {
            return Some(self.all(endpoint, checks, query).await);
        }
        let (_, check) = checks.iter().find(|(name, _)| *name == only)?;
        Some(match self.run(*check).await {
            Ok(()) => text(StatusCode::OK, "ok".to_owned()),
            Err(reason) => {
                text(StatusCode::INTERNAL_SERVER_ERROR, format!("internal server error: {reason}\n"))
            }
        })
    }

    async fn all(&self, endpoint: &str, checks: &[(&str, Check)], query: &Query) -> Response<Body> {
        let mut lines = String::new();
        let mut failed = false;
        for (name, check) in checks {
            if query.all("exclude").any(|excluded| excluded == *name) {
                lines.push_str(&format!("[+]{name} excluded: ok\n"));
                continue;
            }
            match self.run(*check).await {
                Ok(()) => lines.push_str(&format!("[+]{name} ok\n")),
                Err(reason) => {
                    tracing::warn!(endpoint, check = name, reason, "health check failed");
                    lines.push_str(&format!("[-]{name} failed: reason withheld\n"));
                    failed = true;
                }
            }
        }
        if failed {
            return text(StatusCode::INTERNAL_SERVER_ERROR, format!("{lines}{endpoint} check failed\n"));
        }
        let body =
            if query.flag("verbose") { format!("{lines}{endpoint} check passed\n") } else { "ok".to_owned() };
        text(StatusCode::OK, body)
    }

    async fn run(&self, check: Check) -> Result<(), String> {
        match check {
            Check::Ping => Ok(()),
            Check::Etcd => match tokio::time::timeout(ETCD_TIMEOUT, self.storage.revision()).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err("etcd did not answer in time".to_owned()),
            },
            Check::Bootstrapped if self.bootstrapped.load(Ordering::Acquire) => Ok(()),
            Check::Bootstrapped => Err("not finished".to_owned()),
            Check::Storage if self.storage.is_ready() => Ok(()),
            Check::Storage => Err("the watch cache is not filled yet".to_owned()),
            Check::Shutdown if self.shutdown.is_cancelled() => Err("process is shutting down".to_owned()),
            Check::Shutdown => Ok(()),
        }
    }
}

fn text(status: StatusCode, body: String) -> Response<Body> {
    let mut response = Response::new(Body::full(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));
    response
}
