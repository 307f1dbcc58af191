//! Watches: order, selectors, initial events, expiry, bookmarks, tables.

use std::sync::Arc;

use serde_json::json;

use crate::server::{CONFIG_MAPS, Server};

#[tokio::test]
async fn events_come_in_order_from_a_version() {
    for server in Server::cached_and_direct().await {
        let first = server.config_map("a", &json!({})).await;
        let version = first["metadata"]["resourceVersion"].as_str().unwrap();
        let mut watch =
            server.watch(&format!("{CONFIG_MAPS}?watch=true&resourceVersion={version}"), &[]).await;
        server.config_map("b", &json!({})).await;
        server
            .patch(&format!("{CONFIG_MAPS}/a"), "merge-patch", &json!({"data": {"x": "y"}}))
            .await
            .expect(200);
        server.delete(&format!("{CONFIG_MAPS}/b")).await.expect(200);
        let mut last: i64 = version.parse().unwrap();
        for (kind, name) in [("ADDED", "b"), ("MODIFIED", "a"), ("DELETED", "b")] {
            let event = watch.next().await.unwrap();
            assert_eq!(
                (event["type"].as_str(), event["object"]["metadata"]["name"].as_str()),
                (Some(kind), Some(name))
            );
            assert_eq!(event["object"]["kind"], "ConfigMap");
            let revision: i64 =
                event["object"]["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
            assert!(revision > last, "revisions rise");
            last = revision;
        }
    }
}

#[tokio::test]
async fn selectors_see_objects_come_and_go() {
    for server in Server::cached_and_direct().await {
        server.config_map("old", &json!({"on": "yes"})).await;
        let query = "?watch=true&labelSelector=on%3Dyes";
        let mut watch = server.watch(&format!("{CONFIG_MAPS}{query}"), &[]).await;
        assert_eq!(watch.summary().await, "ADDED old");
        server.config_map("new", &json!({"on": "no"})).await;
        let on = |value: &str| json!({"metadata": {"labels": {"on": value}}});
        let path = format!("{CONFIG_MAPS}/new");
        server.patch(&path, "merge-patch", &on("yes")).await.expect(200);
        server.patch(&path, "merge-patch", &json!({"data": {"z": "z"}})).await.expect(200);
        server.patch(&path, "merge-patch", &on("no")).await.expect(200);
        server.delete(&path).await.expect(200);
        server.delete(&format!("{CONFIG_MAPS}/old")).await.expect(200);
        for want in ["ADDED new", "MODIFIED new", "DELETED new", "DELETED old"] {
            assert_eq!(watch.summary().await, want);
        }
    }
}

#[tokio::test]
async fn initial_events_end_with_a_bookmark() {
    for server in Server::cached_and_direct().await {
        for name in ["a", "b"] {
            server.config_map(name, &json!({})).await;
        }
        let query =
            "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
        let mut watch = server.watch(&format!("{CONFIG_MAPS}?{query}"), &[]).await;
        assert_eq!(watch.summary().await, "ADDED a");
        assert_eq!(watch.summary().await, "ADDED b");
        let bookmark = watch.next().await.unwrap();
        assert_eq!(bookmark["type"], "BOOKMARK");
        assert_eq!(bookmark["object"]["kind"], "ConfigMap");
        assert_eq!(bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
        server.config_map("c", &json!({})).await;
        assert_eq!(watch.summary().await, "ADDED c");
    }
}

#[tokio::test]
async fn a_watch_from_compacted_history_is_told_so() {
    for (cached, server) in [true, false].into_iter().zip(Server::cached_and_direct().await) {
        let first = server.config_map("a", &json!({})).await;
        server.config_map("b", &json!({})).await;
        let latest = server.config_map("c", &json!({})).await;
        let latest: i64 = latest["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
        server.compact(latest).await;
        // What this server has seen happen it can still tell; another one, started now, can't.
        let server = Server::start_on(Arc::clone(&server.etcd), cached).await;
        let version = first["metadata"]["resourceVersion"].as_str().unwrap();
        let mut watch =
            server.watch(&format!("{CONFIG_MAPS}?watch=true&resourceVersion={version}"), &[]).await;
        let event = watch.next().await.unwrap();
        assert_eq!((event["type"].as_str(), event["object"]["code"].as_i64()), (Some("ERROR"), Some(410)));
        assert_eq!(event["object"]["reason"], "Expired");
        assert!(watch.next().await.is_none(), "the stream ends");
    }
}

#[tokio::test]
async fn a_watch_ends_at_its_timeout() {
    for server in Server::cached_and_direct().await {
        let mut watch = server.watch(&format!("{CONFIG_MAPS}?watch=true&timeoutSeconds=1"), &[]).await;
        while let Some(event) = watch.next().await {
            assert_eq!(event["type"], "ADDED");
        }
    }
}

#[tokio::test]
async fn tables_and_metadata_are_watched_too() {
    for server in Server::cached_and_direct().await {
        server.config_map("a", &json!({})).await;
        let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json")];
        let mut watch = server.watch(&format!("{CONFIG_MAPS}?watch=true"), &table).await;
        let event = watch.next().await.unwrap();
        assert_eq!(
            (event["object"]["kind"].as_str(), event["object"]["rows"][0]["cells"][0].as_str()),
            (Some("Table"), Some("a"))
        );
        assert!(!event["object"]["columnDefinitions"].as_array().unwrap().is_empty());
        let metadata = [("accept", "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io")];
        let mut watch = server.watch(&format!("{CONFIG_MAPS}?watch=true"), &metadata).await;
        let event = watch.next().await.unwrap();
        assert_eq!(
            (event["object"]["kind"].as_str(), event["object"].get("data")),
            (Some("PartialObjectMetadata"), None)
        );
    }
}
