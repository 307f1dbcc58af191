//! Workers: take an item, run the handler, give it back, and decide when it comes again.

use std::{future::Future, panic::AssertUnwindSafe, sync::Arc};

use futures::FutureExt as _;
use tokio::task::JoinSet;

use super::{Item, WorkQueue};
use crate::{Shutdown, cli::BoxError, error_chain::Chain};

/// Runs `handler` for every item on `n` workers until `shutdown`, then lets each worker finish the item it has.
///
/// Success forgets the item's failures. An error is logged once, with its causes, and the item comes again after
/// its back-off. A panic in the handler counts as such an error: it ends neither the worker nor the process. To be
/// called back without an error, the handler uses [`WorkQueue::add_after`] on its own clone of the queue.
pub async fn run_workers<T, F, Fut, E>(queue: WorkQueue<T>, n: usize, shutdown: Shutdown, handler: F)
where
    T: Item,
    F: Fn(T) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), E>> + Send + 'static,
    E: Into<BoxError> + Send + 'static,
{
    let handler = Arc::new(handler);
    let mut workers = JoinSet::new();
    for _ in 0..n.max(1) {
        workers.spawn(work(queue.clone(), shutdown.clone(), Arc::clone(&handler)));
    }
    while let Some(ended) = workers.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "worker ended early");
        }
    }
}

async fn work<T, F, Fut, E>(queue: WorkQueue<T>, shutdown: Shutdown, handler: Arc<F>)
where
    T: Item,
    F: Fn(T) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), E>> + Send + 'static,
    E: Into<BoxError> + Send + 'static,
{
    while let Some(Some(item)) = shutdown.run_until_cancelled(queue.get()).await {
        // The handler's first, synchronous, part may panic as well as its future.
        let attempt = AssertUnwindSafe(async { handler(item.clone()).await }).catch_unwind().await;
        match attempt {
            Ok(Ok(())) => queue.forget(&item),
            Ok(Err(error)) => {
                let error = error.into();
                tracing::warn!(?item, error = %Chain(&*error), "sync failed, will retry");
                queue.add_rate_limited(item.clone());
            }
            Err(panic) => {
                let what = panic_message(&*panic);
                queue.count_panic();
                tracing::error!(?item, error = what, "sync panicked, will retry");
                queue.add_rate_limited(item.clone());
            }
        }
        queue.done(&item);
    }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("panic of unknown kind")
}
