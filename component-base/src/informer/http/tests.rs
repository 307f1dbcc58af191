//! Addresses and decoding.

use std::time::Duration;

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};

use super::*;

#[test]
fn addresses_ask_for_the_newest_state() {
    let mut query = Query::of::<Pod>();
    query.namespace = Some("default".into());
    query.field_selector = Some("spec.nodeName=n1".into());
    query.label_selector = Some("a in (x, y)".into());
    assert_eq!(
        list_uri(&query, &ListRequest { limit: Some(500), continue_token: Some("a+/=".into()) }),
        "/api/v1/namespaces/default/pods?fieldSelector=spec.nodeName%3Dn1&labelSelector=a%20in%20%28x%2C%20y%29\
         &limit=500&continue=a%2B%2F%3D"
    );
    let query = Query::of::<Deployment>();
    assert_eq!(
        list_uri(&query, &ListRequest { limit: None, continue_token: None }),
        "/apis/apps/v1/deployments"
    );
    let timeout = Duration::from_secs(300);
    assert_eq!(
        watch_uri(&query, &WatchRequest { from: WatchFrom::Version("7".into()), timeout }),
        "/apis/apps/v1/deployments?watch=true&allowWatchBookmarks=true&timeoutSeconds=300&resourceVersion=7"
    );
    let initial = watch_uri(&query, &WatchRequest { from: WatchFrom::InitialEvents, timeout });
    assert!(initial.ends_with("&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"), "{initial}");
}

#[test]
fn one_bad_object_costs_itself_only() {
    let malformed = AtomicU64::new(0);
    let body = br#"{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"9","continue":"x"},"items":[
        {"metadata":{"name":"a"}}, {"metadata":{"name":"b"},"spec":{"containers":"none"}}, {"metadata":{}}]}"#;
    let page: Page<Pod> = decode_page(body, &malformed).unwrap();
    assert_eq!((page.objects.len(), page.resource_version.as_str()), (1, "9"));
    assert_eq!(page.continue_token.as_deref(), Some("x"));
    assert_eq!(malformed.load(Ordering::Relaxed), 2);
    let empty: Page<Pod> =
        decode_page(br#"{"metadata":{"resourceVersion":"9"},"items":null}"#, &malformed).unwrap();
    assert!(empty.objects.is_empty() && empty.continue_token.is_none());
    assert!(decode_page::<Pod>(b"<html>", &malformed).is_err());
}

#[test]
fn events_are_decoded_by_type() {
    let malformed = AtomicU64::new(0);
    let decode = |text: &str| decode_event::<Pod>(text.as_bytes(), &malformed);
    let object = r#"{"metadata":{"name":"a","namespace":"n","resourceVersion":"5"}}"#;
    assert!(matches!(decode(&format!(r#"{{"type":"ADDED","object":{object}}}"#)), Ok(Event::Added(_))));
    assert!(matches!(decode(&format!(r#"{{"object":{object},"type":"DELETED"}}"#)), Ok(Event::Deleted(_))));
    match decode(
        r#"{"type":"BOOKMARK","object":{"kind":"Pod","metadata":{"resourceVersion":"7","creationTimestamp":null,
            "annotations":{"k8s.io/initial-events-end":"true"}}}}"#,
    ) {
        Ok(Event::Bookmark { resource_version, initial_events_end: true }) => {
            assert_eq!(resource_version, "7")
        }
        other => panic!("{other:?}"),
    }
    match decode(r#"{"type":"ERROR","object":{"kind":"Status","code":410,"message":"too old"}}"#) {
        Ok(Event::Error(SourceError::Expired(message))) => assert_eq!(message, "too old"),
        other => panic!("{other:?}"),
    }
    let bad = r#"{"metadata":{"name":"a","namespace":"n","resourceVersion":"8"},"spec":3}"#;
    match decode(&format!(r#"{{"type":"DELETED","object":{bad}}}"#)) {
        Ok(Event::Malformed { resource_version: Some(version), deleted: Some(key) }) => {
            assert_eq!((version.as_str(), key.to_string().as_str()), ("8", "n/a"));
        }
        other => panic!("{other:?}"),
    }
    assert!(decode(r#"{"type":"WHAT","object":{}}"#).is_err());
    assert!(decode("not json").is_err());
}
