//! One stream: which watches are open on it, and when it ends.

use std::any::Any;
use std::collections::HashMap;
use std::future::pending;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use apimachinery::status::ApiError;
use futures::FutureExt as _;
use proto::watch_v1::watch_request::Request;
use proto::watch_v1::watch_response::Response;
use proto::watch_v1::{Closed, Open, WatchRequest, WatchResponse};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::tell::tell;
use super::window::Window;
use super::{Caller, Responses};
use crate::endpoints::watch;

/// Watches that a stream may have open.
const MAX_WATCHES: usize = 1_000;

/// Serves a stream until the client has gone, the server stops, or it is time to authenticate again.
pub(super) async fn run(caller: Caller, requests: Streaming<WatchRequest>, responses: Responses) {
    let shutdown = caller.api.shutdown.clone();
    let session =
        Session { caller, responses: responses.clone(), watches: HashMap::new(), tasks: JoinSet::new() };
    let served = async {
        let outcome = timeout(watch::timeout(None), session.serve(requests)).await;
        if let Ok(Err(status)) = outcome {
            // Fails when the client is gone.
            let _ = responses.send(Err(status)).await;
        }
    };
    tokio::select! {
        () = served => {}
        () = shutdown.cancelled() => {}
        () = responses.closed() => {}
    }
}

struct Session {
    caller: Caller,
    responses: Responses,
    watches: HashMap<u64, Handle>,
    tasks: JoinSet<Ended>,
}

/// What the session keeps of a watch.
struct Handle {
    window: Arc<Window>,
    cancel: CancellationToken,
}

/// A watch that is over, and why, unless the client cancelled it.
struct Ended {
    id: u64,
    error: Option<ApiError>,
}

impl Session {
    /// Ends with an error when the client has broken the protocol.
    async fn serve(mut self, mut requests: Streaming<WatchRequest>) -> Result<(), Status> {
        let mut more = true;
        while more || !self.tasks.is_empty() {
            tokio::select! {
                request = requests.message(), if more => match request? {
                    Some(request) => self.take(request).await?,
                    // The watches go on: some clients say at once that they will not ask for more.
                    None => more = false,
                },
                Some(ended) = self.tasks.join_next() => match ended {
                    Ok(ended) => self.close(ended).await,
                    Err(error) => return Err(Status::internal(error.to_string())),
                },
            }
        }
        Ok(())
    }

    async fn take(&mut self, request: WatchRequest) -> Result<(), Status> {
        match request.request {
            Some(Request::Open(open)) if self.watches.contains_key(&open.watch_id) => {
                return Err(Status::invalid_argument(format!("watch id {} is in use", open.watch_id)));
            }
            Some(Request::Open(open)) if self.watches.len() >= MAX_WATCHES => {
                let problem = format!("a stream can have {MAX_WATCHES} watches");
                let error = ApiError::too_many_requests(problem, 0);
                self.close(Ended { id: open.watch_id, error: Some(error) }).await;
            }
            Some(Request::Open(open)) => self.open(open),
            Some(Request::Cancel(cancel)) => {
                if let Some(handle) = self.watches.get(&cancel.watch_id) {
                    handle.cancel.cancel();
                }
            }
            Some(Request::Credit(credit)) => {
                if let Some(handle) = self.watches.get(&credit.watch_id) {
                    handle.window.grant(credit.bytes);
                }
            }
            None => return Err(Status::invalid_argument("a request without content")),
        }
        Ok(())
    }

    fn open(&mut self, open: Open) {
        let id = open.watch_id;
        let (window, cancel) = (Arc::new(Window::new(open.window_bytes)), CancellationToken::new());
        let telling = tell(self.caller.clone(), open, Arc::clone(&window), self.responses.clone());
        let cancelled = cancel.clone().cancelled_owned();
        self.tasks.spawn(async move {
            let telling = AssertUnwindSafe(Box::pin(telling)).catch_unwind();
            let error = tokio::select! {
                error = telling => Some(error.unwrap_or_else(|panic| panicked(&*panic))),
                () = cancelled => None,
            };
            Ended { id, error }
        });
        self.watches.insert(id, Handle { window, cancel });
    }

    /// Tells the end of a watch; its id can be used again.
    async fn close(&mut self, Ended { id, error }: Ended) {
        self.watches.remove(&id);
        let closed = error.map_or_else(Closed::default, |error| closed(&error));
        let response = WatchResponse { watch_id: id, response: Some(Response::Closed(closed)) };
        if self.responses.send(Ok(response)).await.is_err() {
            // The client is gone, and the session is about to be dropped.
            pending::<()>().await;
        }
    }
}

fn closed(error: &ApiError) -> Closed {
    let status = error.status();
    let retry_after = status.details.as_ref().and_then(|details| details.retry_after_seconds);
    Closed {
        code: error.code().into(),
        reason: status.reason.clone().unwrap_or_default(),
        message: error.message().to_owned(),
        retry_after_seconds: retry_after.and_then(|seconds| u32::try_from(seconds).ok()).unwrap_or(0),
    }
}

fn panicked(panic: &(dyn Any + Send)) -> ApiError {
    tracing::error!(panic = crate::pipeline::panic_text(panic), "watch panicked");
    ApiError::internal("This request caused apiserver to panic. Look in the logs for details.")
}
