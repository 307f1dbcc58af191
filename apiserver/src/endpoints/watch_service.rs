//! The gRPC watch service (`proto/watch/v1/watch.proto`): any number of watches on one stream.
//!
//! `session` owns a stream: it takes requests and starts a task for each watch. `open` turns an Open into an allowed place
//! in storage, `tell` sends what happens there, and `window` holds it back. All tasks of a stream send into one short
//! queue, so a client that does not read stops its own watches and nothing else; storage closes those that fall too far
//! behind.

use std::sync::Arc;

use proto::watch_v1::watch_server::Watch;
use proto::watch_v1::{WatchRequest, WatchResponse};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::request::RequestContext;
use crate::server::ApiContext;

mod open;
mod session;
mod tell;
mod window;

/// Responses that wait for a client; each is at most [`tell::BATCH`] and one object.
const QUEUE: usize = 8;

/// Responses to one stream, or the error that it ends with.
type Responses = mpsc::Sender<Result<WatchResponse, Status>>;

/// Serves the streams of one call, as the user of its context.
#[derive(Debug)]
pub struct WatchService(Caller);

/// Who opened a stream.
#[derive(Debug, Clone)]
struct Caller {
    api: Arc<ApiContext>,
    ctx: Arc<RequestContext>,
}

impl WatchService {
    pub fn new(api: Arc<ApiContext>, ctx: Arc<RequestContext>) -> Self {
        Self(Caller { api, ctx })
    }
}

#[tonic::async_trait]
impl Watch for WatchService {
    type WatchStream = ReceiverStream<Result<WatchResponse, Status>>;

    async fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (responses, receiver) = mpsc::channel(QUEUE);
        tokio::spawn(session::run(self.0.clone(), request.into_inner(), responses));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}
