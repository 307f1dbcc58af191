//! The transport of every informer: gRPC watches where the server has them, HTTP for the rest.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::{FutureExt as _, StreamExt as _, TryFutureExt as _, future::BoxFuture};
use tokio::time::timeout;

use super::{
    Object,
    connection::Connection,
    grpc,
    http::HttpListWatch,
    source::{EventStream, ListRequest, ListWatch, Page, Query, SourceError, WatchRequest},
};

/// A server that does not begin to answer an HTTP watch in this time is taken for lost.
const HTTP_PATIENCE: Duration = Duration::from_secs(20);

/// The transport for one query.
#[derive(Debug)]
pub(super) struct Transport<K> {
    connection: Connection,
    query: Query,
    http: HttpListWatch<K>,
    malformed: Arc<AtomicU64>,
}

impl<K: Object> Transport<K> {
    pub(super) fn new(connection: Connection, query: Query) -> Self {
        let malformed = Arc::default();
        let http = HttpListWatch::new(connection.client().clone(), query.clone(), Arc::clone(&malformed));
        Self { connection, query, http, malformed }
    }

    async fn open(&self, request: WatchRequest) -> Result<EventStream<K>, SourceError> {
        // A stream that has just ended is replaced by a new one, or by none.
        while let Some(session) = self.connection.session().await? {
            let malformed = Arc::clone(&self.malformed);
            if let Some(events) = grpc::watch(&session, &self.query, &request.from, malformed)? {
                return Ok(events);
            }
        }
        let opened = timeout(HTTP_PATIENCE, self.http.watch(request)).await;
        let opened = opened.unwrap_or_else(|elapsed| Err(SourceError::Disconnected(Arc::new(elapsed))));
        let events = opened.inspect_err(|error| self.connection.note(error))?;
        let connection = self.connection.clone();
        Ok(events
            .inspect(move |event| {
                if let Err(error) = event {
                    connection.note(error)
                }
            })
            .boxed())
    }
}

impl<K: Object> ListWatch<K> for Transport<K> {
    fn describe(&self) -> String {
        self.http.describe()
    }

    fn list(&self, request: ListRequest) -> BoxFuture<'_, Result<Page<K>, SourceError>> {
        self.http.list(request).inspect_err(|error| self.connection.note(error)).boxed()
    }

    fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<EventStream<K>, SourceError>> {
        self.open(request).boxed()
    }

    fn take_malformed(&self) -> u64 {
        self.malformed.swap(0, Ordering::Relaxed)
    }
}
