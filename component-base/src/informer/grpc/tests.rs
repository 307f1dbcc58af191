//! The stream itself: what the behaviour that all transports share does not show.

use std::time::Duration;

use futures::FutureExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use tower::{BoxError, service_fn};

use super::*;
use crate::informer::behaviour::{Fake, Offers};

fn open(session: &Arc<Session>, selector: &str) -> EventStream<ConfigMap> {
    let mut query = Query::of::<ConfigMap>();
    query.label_selector = Some(selector.to_owned());
    watch(session, &query, &WatchFrom::InitialEvents, Arc::default()).unwrap().expect("the stream is open")
}

async fn next(events: &mut EventStream<ConfigMap>) -> Event<ConfigMap> {
    let next = tokio::time::timeout(Duration::from_secs(30), events.next()).await;
    next.expect("an event in time").expect("an open watch").unwrap()
}

#[tokio::test]
async fn a_watch_that_nobody_reads_holds_up_no_other() {
    const WINDOW: usize = 1 << 20;
    let fake = Fake::new(Offers::Grpc);
    let large = "x".repeat(100_000);
    for number in 0..40 {
        fake.put(&format!("large{number:02}"), "slow", large.as_str());
    }
    fake.put("small", "quick", "1");
    let session = connect(&fake.client()).await.unwrap();
    let mut slow = open(&session, "on=slow");
    let mut quick = open(&session, "on=quick");
    assert!(matches!(next(&mut quick).await, Event::Added(_)));
    assert!(matches!(next(&mut quick).await, Event::Bookmark { initial_events_end: true, .. }));
    for change in 0..10 {
        fake.put("small", "quick", change.to_string());
        assert!(matches!(next(&mut quick).await, Event::Modified(_)));
    }
    let ahead = fake.sent("on=slow");
    assert!((WINDOW..WINDOW + 101_000).contains(&ahead), "{ahead} bytes were sent without a reader");
    // Once it is read, it is granted the rest.
    for _ in 0..40 {
        assert!(matches!(next(&mut slow).await, Event::Added(_)));
    }
    assert!(matches!(next(&mut slow).await, Event::Bookmark { initial_events_end: true, .. }));
    assert!(fake.sent("on=slow") > 4_000_000);
}

#[tokio::test]
async fn versions_that_are_no_numbers_lead_to_the_whole_state() {
    let session = connect(&Fake::new(Offers::Grpc).client()).await.unwrap();
    for version in ["0", "-1", "abc", ""] {
        let from = WatchFrom::Version(version.to_owned());
        let watch = watch::<ConfigMap>(&session, &Query::of::<ConfigMap>(), &from, Arc::default());
        assert!(matches!(watch, Err(SourceError::Expired(_))), "{version:?}");
    }
}

/// What a server that answers so is taken for.
async fn taken_for(code: u16, content_type: &'static str, grpc_status: Option<&'static str>) -> &'static str {
    let answers = service_fn(move |_| {
        let mut answer = http::Response::builder().status(code).header("content-type", content_type);
        if let Some(status) = grpc_status {
            answer = answer.header("grpc-status", status);
        }
        std::future::ready(Ok::<_, BoxError>(answer.body(kube::client::Body::empty()).unwrap()))
    });
    match connect(&Client::new(answers, "")).await {
        Ok(_) => "has it",
        Err(ConnectError::NotOffered(_)) => "lacks it",
        Err(ConnectError::Failed(_)) => "unknown",
        Err(ConnectError::Unreachable(_)) => "away",
    }
}

#[tokio::test]
async fn answers_tell_whether_the_service_is_there() {
    let json = "application/json";
    for code in [200, 401, 403, 404, 405, 415] {
        assert_eq!(taken_for(code, json, None).await, "lacks it", "{code}");
    }
    for code in [429, 500, 502, 503, 504] {
        assert_eq!(taken_for(code, json, None).await, "unknown", "{code}");
    }
    let grpc = "application/grpc+proto";
    assert_eq!(taken_for(200, grpc, None).await, "has it");
    assert_eq!(taken_for(200, grpc, Some("12")).await, "lacks it", "UNIMPLEMENTED");
    assert_eq!(taken_for(200, grpc, Some("16")).await, "unknown", "UNAUTHENTICATED");
    assert_eq!(taken_for(200, grpc, Some("14")).await, "unknown", "UNAVAILABLE");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_no_server_without_the_service() {
    // Bound and dropped: nobody listens there.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = kube::Config::new(format!("https://127.0.0.1:{port}").parse().unwrap());
    let client = crate::client::from_config(config, "test").unwrap();
    let connected = connect(&client).boxed().await;
    assert!(matches!(connected, Err(ConnectError::Unreachable(_))), "{connected:?}");
}
