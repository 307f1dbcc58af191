//! Lets the first request through alone, so that those started beside it share its connection.
//!
//! A dozen informers start at once. Each would find no connection, open one, and keep it for as long as its watch
//! lasts; with HTTP/2 one serves them all. Once a server has answered, requests go as they come.

use std::{
    future::Future,
    mem,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use tokio::sync::Mutex;
use tower::Service;

/// The service around an HTTP client; clones share the gate.
#[derive(Clone, Debug)]
pub(super) struct FirstAlone<S> {
    inner: S,
    gate: Arc<Gate>,
}

#[derive(Debug, Default)]
struct Gate {
    open: AtomicBool,
    turn: Mutex<()>,
}

impl<S> FirstAlone<S> {
    pub(super) fn new(inner: S) -> Self {
        Self { inner, gate: Arc::default() }
    }
}

impl<S, R> Service<R> for FirstAlone<S>
where
    S: Service<R> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
    S::Response: Send,
    R: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: R) -> Self::Future {
        // The service that was polled ready is the one to call.
        let clone = self.inner.clone();
        let mut inner = mem::replace(&mut self.inner, clone);
        let gate = Arc::clone(&self.gate);
        Box::pin(async move {
            if gate.open.load(Ordering::Acquire) {
                return inner.call(request).await;
            }
            let turn = gate.turn.lock().await;
            if gate.open.load(Ordering::Acquire) {
                drop(turn);
                return inner.call(request).await;
            }
            let answer = inner.call(request).await;
            gate.open.store(answer.is_ok(), Ordering::Release);
            answer
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tower::{ServiceExt as _, service_fn};

    use super::*;

    #[tokio::test]
    async fn nothing_goes_beside_the_first_request_that_is_answered() {
        let (under_way, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let service = FirstAlone::new(service_fn(move |fails: bool| {
            let (under_way, most) = (Arc::clone(&under_way), Arc::clone(&most));
            async move {
                most.fetch_max(under_way.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                under_way.fetch_sub(1, Ordering::SeqCst);
                if fails { Err(()) } else { Ok(most.load(Ordering::SeqCst)) }
            }
        }));
        let ask = |fails| service.clone().oneshot(fails);
        // A failure opens nothing; the next one is alone again.
        let (first, second, third) = tokio::join!(ask(true), ask(false), ask(false));
        assert_eq!((first, second), (Err(()), Ok(1)));
        assert!(third.is_ok());
        let (one, other) = tokio::join!(ask(false), ask(false));
        assert_eq!(one.max(other), Ok(2));
    }
}
