//! A whole informer over a transport of the test's own.

use std::{sync::Mutex, time::Duration};

use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream};
use k8s_openapi::api::core::v1::ConfigMap;
use tokio::sync::mpsc;

use super::*;
use source::{Event, EventStream, ListRequest, ListWatch, Page, SourceError, WatchFrom, WatchRequest};

/// Refuses initial events, lists in two pages, then sends what the test gives it.
struct Scripted {
    events: Mutex<Option<mpsc::UnboundedReceiver<Event<ConfigMap>>>>,
    watched_from: Mutex<Vec<WatchFrom>>,
}

fn object(name: &str, version: u64) -> ConfigMap {
    let mut object = ConfigMap::default();
    object.metadata.name = Some(name.to_owned());
    object.metadata.resource_version = Some(version.to_string());
    object
}

impl ListWatch<ConfigMap> for Scripted {
    fn describe(&self) -> String {
        "configmaps".to_owned()
    }

    fn list(&self, request: ListRequest) -> BoxFuture<'_, Result<Page<ConfigMap>, SourceError>> {
        let page = match request.continue_token.as_deref() {
            None => Page {
                objects: vec![object("a", 1), object("panics in transform", 2)],
                resource_version: "9".into(),
                continue_token: Some("more".into()),
            },
            Some(_) => Page {
                objects: vec![object("b", 3), object("panics in index", 4)],
                resource_version: "9".into(),
                continue_token: None,
            },
        };
        std::future::ready(Ok(page)).boxed()
    }

    fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<EventStream<ConfigMap>, SourceError>> {
        self.watched_from.lock().unwrap().push(request.from.clone());
        let answer = match request.from {
            WatchFrom::InitialEvents => {
                Err(SourceError::from_status(422, "sendInitialEvents is forbidden".into(), 0))
            }
            WatchFrom::Version(_) => {
                let events = self.events.lock().unwrap().take().expect("one watch");
                let next = |mut events: mpsc::UnboundedReceiver<_>| async move {
                    Some((Ok(events.recv().await?), events))
                };
                Ok(stream::unfold(events, next).boxed())
            }
        };
        std::future::ready(answer).boxed()
    }

    fn take_malformed(&self) -> u64 {
        0
    }
}

#[tokio::test]
async fn objects_that_make_the_daemons_functions_panic_are_left_out() {
    let (send, receive) = mpsc::unbounded_channel();
    let source = Arc::new(Scripted { events: Mutex::new(Some(receive)), watched_from: Mutex::default() });
    let name = |object: &ConfigMap| object.metadata.name.clone().unwrap();
    let index: IndexFunction<ConfigMap> = Box::new(move |object| {
        assert_ne!(name(object), "panics in index");
        vec![name(object)]
    });
    let transform: Transform<ConfigMap> =
        Box::new(move |object| assert_ne!(name(object), "panics in transform"));
    let shutdown = Shutdown::new();
    let informer = start_with(Arc::clone(&source) as _, vec![("name", index)], transform, &shutdown);
    let mut changes = informer.subscribe();
    let patience = Duration::from_secs(10);
    assert!(tokio::time::timeout(patience, informer.wait_synced()).await.unwrap());
    let held: Vec<String> = informer.store().list().iter().map(|object| name(object)).collect();
    assert_eq!((held, informer.malformed_objects()), (vec!["a".to_owned(), "b".to_owned()], 2));

    send.send(Event::Added(object("panics in index", 10))).unwrap();
    send.send(Event::Added(object("c", 11))).unwrap();
    let mut told = Vec::new();
    while told.len() < 3 {
        told.push(tokio::time::timeout(patience, changes.recv()).await.unwrap().unwrap().key().name);
    }
    assert_eq!((told, informer.malformed_objects()), (vec!["a".into(), "b".into(), "c".into()], 3));
    let watched = source.watched_from.lock().unwrap().clone();
    assert_eq!(watched, [WatchFrom::InitialEvents, WatchFrom::Version("9".into())]);
    shutdown.cancel();
    assert!(tokio::time::timeout(patience, changes.recv()).await.unwrap().is_none());
}
