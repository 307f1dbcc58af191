//! Retries a request when, and only when, the server says when to come back.
//!
//! client-go's withRetry: 429 and 5xx answers that carry Retry-After are tried again after that many seconds, at
//! most ten times. Anything else (including a lost connection) goes to the caller, who alone knows whether the
//! request may be repeated.

use std::{future::Future, pin::Pin, time::Duration};

use http::{Request, Response, header::RETRY_AFTER};
use kube::client::Body;
use tower::retry::Policy;

const MAX_RETRIES: u32 = 10;
/// A server that asks for longer is not waited for: callers have their own, better informed, back-off.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// The policy; one value per request.
#[derive(Debug, Clone, Default)]
pub(super) struct AsServerAsks {
    attempts: u32,
}

impl<B, E> Policy<Request<Body>, Response<B>, E> for AsServerAsks {
    type Future = Pin<Box<dyn Future<Output = ()> + Send>>;

    fn retry(&mut self, _: &mut Request<Body>, result: &mut Result<Response<B>, E>) -> Option<Self::Future> {
        let response = result.as_ref().ok()?;
        let wait = wait(response.status().as_u16(), response.headers().get(RETRY_AFTER)?.to_str().ok()?)?;
        self.attempts += 1;
        if self.attempts > MAX_RETRIES {
            return None;
        }
        Some(Box::pin(tokio::time::sleep(wait)))
    }

    fn clone_request(&mut self, request: &Request<Body>) -> Option<Request<Body>> {
        let body = request.body().try_clone()?;
        let mut clone = Request::new(body);
        *clone.method_mut() = request.method().clone();
        *clone.uri_mut() = request.uri().clone();
        *clone.headers_mut() = request.headers().clone();
        *clone.extensions_mut() = request.extensions().clone();
        Some(clone)
    }
}

fn wait(status: u16, retry_after: &str) -> Option<Duration> {
    if status != 429 && !(500..600).contains(&status) {
        return None;
    }
    let wait = Duration::from_secs(retry_after.trim().parse().ok()?);
    (wait <= LONGEST_WAIT).then_some(wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_answers_with_retry_after_are_repeated() {
        for (status, header, want) in [
            (429, "1", Some(1)),
            (503, "0", Some(0)),
            (500, "2", Some(2)),
            (409, "1", None),
            (200, "1", None),
            (429, "Wed, 21 Oct 2026 07:28:00 GMT", None),
            (429, "3600", None),
        ] {
            assert_eq!(wait(status, header), want.map(Duration::from_secs), "{status} {header}");
        }
    }
}
