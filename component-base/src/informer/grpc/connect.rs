//! Opens a stream of the watch service through a `kube::Client`: the same connection, credentials and headers as every
//! other request of the daemon.

use std::{
    error::Error,
    future::ready,
    sync::Arc,
    task::{Context, Poll},
};

use futures::future::BoxFuture;
use http::{Request, Response, StatusCode, header::CONTENT_TYPE};
use hyper_util::client::legacy;
use kube::{Client, client::Body};
use proto::watch_v1::watch_client::WatchClient;
use tokio::sync::mpsc;
use tonic::{Code, Status};
use tower::{BoxError, Service, service_fn};

use super::session::Session;

/// A response larger than this is not waited for: etcd holds no object of that size.
const MAX_RESPONSE: usize = 16 << 20;

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
pub(in crate::informer) enum ConnectError {
    /// Nobody is there.
    #[error("connect")]
    Unreachable(#[source] Arc<dyn Error + Send + Sync>),
    /// The server is there and does not have the service.
    #[error("the server has no watch service")]
    NotOffered(#[source] Box<Status>),
    /// Whether the server has the service could not be found out.
    #[error("open a stream of the watch service")]
    Failed(#[source] Box<Status>),
}

impl ConnectError {
    fn of(status: Status) -> Self {
        let refusal = cause::<NotGrpc>(&status).map(|refusal| refusal.0);
        let overloaded = |code: StatusCode| code.is_server_error() || code == StatusCode::TOO_MANY_REQUESTS;
        if cause::<legacy::Error>(&status).is_some_and(legacy::Error::is_connect) {
            Self::Unreachable(Arc::new(status))
        } else if status.code() == Code::Unimplemented || refusal.is_some_and(|code| !overloaded(code)) {
            Self::NotOffered(Box::new(status))
        } else {
            Self::Failed(Box::new(status))
        }
    }
}

/// The first error of a type among the causes of a status.
fn cause<E: Error + 'static>(status: &Status) -> Option<&E> {
    let mut causes = std::iter::successors(status.source(), |&error| error.source());
    causes.find_map(|error| error.downcast_ref())
}

/// Opens a stream; returns when the server has accepted it.
pub(in crate::informer) async fn connect(client: &Client) -> Result<Arc<Session>, ConnectError> {
    let mut service = WatchClient::new(OverClient(client.clone())).max_decoding_message_size(MAX_RESPONSE);
    let (requests, mut receiver) = mpsc::unbounded_channel();
    let outgoing = futures::stream::poll_fn(move |context| receiver.poll_recv(context));
    let responses = service.watch(outgoing).await.map_err(ConnectError::of)?;
    Ok(Session::start(requests, responses.into_inner()))
}

/// An answer that does not come from a gRPC service.
#[derive(Debug, thiserror::Error)]
#[error("the answer is not gRPC: {0}")]
struct NotGrpc(StatusCode);

/// Lets tonic speak through the daemon's client.
#[derive(Clone)]
struct OverClient(Client);

impl Service<Request<tonic::body::Body>> for OverClient {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<Body>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        // The client is made ready for each request when it is sent.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> Self::Future {
        let client = self.0.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let request = Request::from_parts(parts, client_body(body).await?);
            let response = client.send(request).await?;
            let kind = response.headers().get(CONTENT_TYPE);
            if kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc")) {
                Ok(response)
            } else {
                Err(NotGrpc(response.status()).into())
            }
        })
    }
}

/// kube has no public way to make a streaming body but one: a client wraps the bodies that its service answers with.
async fn client_body(body: tonic::body::Body) -> Result<Body, kube::Error> {
    let mut body = Some(body);
    let answers = service_fn(move |_: Request<Body>| {
        ready(Ok::<_, BoxError>(Response::new(body.take().unwrap_or_default())))
    });
    Ok(Client::new(answers, "").send(Request::new(Body::empty())).await?.into_body())
}
