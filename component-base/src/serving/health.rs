//! Named health checks and the text that /healthz, /livez and /readyz answer with.
//!
//! Upstream's healthz: `ok`, or with `?verbose` and on failure a line per check; reasons are logged, not shown,
//! since the paths are open to anybody. `?exclude=name` leaves checks out, `/healthz/name` asks one alone.

use std::{fmt, sync::Arc};

use futures::future::BoxFuture;
use parking_lot::RwLock;

/// Why a check fails.
pub type CheckError = String;

type Check = Arc<dyn Fn() -> BoxFuture<'static, Result<(), CheckError>> + Send + Sync>;

/// The checks of a daemon; clones share them. `ping`, which always passes, is there from the start.
#[derive(Clone)]
pub struct HealthChecks {
    checks: Arc<RwLock<Vec<(String, Check)>>>,
}

impl fmt::Debug for HealthChecks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.checks.read().iter().map(|(name, _)| name)).finish()
    }
}

impl Default for HealthChecks {
    fn default() -> Self {
        let checks = Self { checks: Arc::default() };
        checks.add("ping", || async { Ok(()) });
        checks
    }
}

/// An answer: whether it is well, and the body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) code: u16,
    pub(super) body: String,
}

impl HealthChecks {
    /// Checks with `ping` only.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a check, or replaces the one of the same name.
    pub fn add<F, Fut>(&self, name: &str, check: F)
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), CheckError>> + Send + 'static,
    {
        let mut checks = self.checks.write();
        checks.retain(|(existing, _)| existing != name);
        checks.push((name.to_owned(), Arc::new(move || Box::pin(check()))));
    }

    /// Answers for all checks (`only` is `None`) or for one.
    pub(super) async fn answer(&self, endpoint: &str, only: Option<&str>, query: Option<&str>) -> Answer {
        let checks: Vec<(String, Check)> = self.checks.read().clone();
        match only {
            Some(name) => {
                let Some((_, check)) = checks.iter().find(|(candidate, _)| candidate == name) else {
                    return Answer { code: 404, body: "404 page not found\n".to_owned() };
                };
                match check().await {
                    Ok(()) => Answer { code: 200, body: "ok".to_owned() },
                    Err(error) => Answer { code: 500, body: format!("internal server error: {error}\n") },
                }
            }
            None => all(endpoint, &checks, query.unwrap_or_default()).await,
        }
    }
}

async fn all(endpoint: &str, checks: &[(String, Check)], query: &str) -> Answer {
    let parameters = || query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let verbose = parameters().any(|(name, _)| name == "verbose");
    let mut excluded: Vec<&str> =
        parameters().filter(|(name, _)| *name == "exclude").map(|(_, value)| value).collect();
    let mut lines = String::new();
    let mut failed = Vec::new();
    for (name, check) in checks {
        if excluded.contains(&name.as_str()) {
            excluded.retain(|other| other != name);
            lines.push_str(&format!("[+]{name} excluded: ok\n"));
            continue;
        }
        match check().await {
            Ok(()) => lines.push_str(&format!("[+]{name} ok\n")),
            Err(error) => {
                tracing::warn!(endpoint, check = name, error, "health check failed");
                lines.push_str(&format!("[-]{name} failed: reason withheld\n"));
                failed.push(name.as_str());
            }
        }
    }
    if !excluded.is_empty() {
        let names: Vec<String> = excluded.iter().map(|name| format!("{name:?}")).collect();
        let names = names.join(",");
        lines.push_str(&format!("warn: some health checks cannot be excluded: no matches for {names}\n"));
    }
    if failed.is_empty() {
        let body = if verbose { format!("{lines}{endpoint} check passed\n") } else { "ok".to_owned() };
        Answer { code: 200, body }
    } else {
        Answer { code: 500, body: format!("{lines}{endpoint} check failed\n") }
    }
}
