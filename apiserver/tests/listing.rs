//! Lists: selectors, paging, exact and minimum versions, expiry.

use std::sync::Arc;

use harness::etcd::Etcd;
use serde_json::{Value, json};

use crate::server::{CONFIG_MAPS, PODS, Server, pod};

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn selectors_choose() {
    for server in Server::cached_and_direct().await {
        for (name, tier) in [("a", "front"), ("b", "back"), ("c", "front")] {
            server.config_map(name, &json!({"tier": tier})).await;
        }
        for (query, want) in [
            ("", vec!["a", "b", "c"]),
            ("?labelSelector=tier%3Dfront", vec!["a", "c"]),
            ("?labelSelector=tier+in+(back)", vec!["b"]),
            ("?labelSelector=!tier", vec![]),
            ("?fieldSelector=metadata.name%3Db", vec!["b"]),
            ("?fieldSelector=metadata.name!%3Db", vec!["a", "c"]),
            ("?fieldSelector=metadata.namespace%3Dother", vec![]),
            ("?labelSelector=tier%3Dback&fieldSelector=metadata.name%3Da", vec![]),
        ] {
            let list = server.get(&format!("{CONFIG_MAPS}{query}")).await.expect(200);
            assert_eq!(names(&list), want, "{query}");
            assert_eq!(list["kind"], "ConfigMapList");
            assert!(list["metadata"]["resourceVersion"].is_string());
        }
        let everywhere = server.get("/api/v1/configmaps?labelSelector=tier").await.expect(200);
        assert_eq!(names(&everywhere), ["a", "b", "c"]);
        let item = &everywhere["items"][0];
        assert!(item.get("kind").is_none() && item["metadata"]["resourceVersion"].is_string(), "{item}");

        server.post(PODS, &pod("p")).await.expect(201);
        for (selector, count) in
            [("spec.nodeName%3D", 1), ("spec.nodeName%3Dn1", 0), ("status.phase%3DPending", 1)]
        {
            let list = server.get(&format!("/api/v1/pods?fieldSelector={selector}")).await.expect(200);
            assert_eq!(names(&list).len(), count, "{selector}");
        }
        for bad in [
            "labelSelector=a%3D%3D%3Db",
            "fieldSelector=spec.unknown%3Dx",
            "fieldSelector=a",
            "labelSelector=%2F%2F",
        ] {
            server.get(&format!("/api/v1/pods?{bad}")).await.expect(400);
        }
    }
}

#[tokio::test]
async fn pages_are_one_snapshot() {
    for server in Server::cached_and_direct().await {
        for index in 0..7 {
            server.config_map(&format!("m{index}"), &json!({"even": (index % 2 == 0).to_string()})).await;
        }
        let first = server.get(&format!("{CONFIG_MAPS}?limit=3")).await.expect(200);
        assert_eq!(names(&first), ["m0", "m1", "m2"]);
        assert_eq!(first["metadata"]["remainingItemCount"], 4);
        server.config_map("m3b", &json!({})).await;
        server.delete(&format!("{CONFIG_MAPS}/m4")).await.expect(200);

        let token = first["metadata"]["continue"].as_str().unwrap();
        let second = server.get(&format!("{CONFIG_MAPS}?limit=3&continue={token}")).await.expect(200);
        assert_eq!(names(&second), ["m3", "m4", "m5"]);
        assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
        let token = second["metadata"]["continue"].as_str().unwrap();
        let third = server.get(&format!("{CONFIG_MAPS}?limit=3&continue={token}")).await.expect(200);
        assert_eq!(names(&third), ["m6"]);
        assert!(third["metadata"].get("continue").is_none(), "{third}");

        let selected =
            server.get(&format!("{CONFIG_MAPS}?limit=2&labelSelector=even%3Dtrue")).await.expect(200);
        assert_eq!(names(&selected), ["m0", "m2"]);
        assert!(selected["metadata"].get("remainingItemCount").is_none());
        let token = selected["metadata"]["continue"].as_str().unwrap();
        let rest =
            server.get(&format!("{CONFIG_MAPS}?limit=2&labelSelector=even%3Dtrue&continue={token}")).await;
        assert_eq!(names(&rest.expect(200)), ["m6"]);
        server.get(&format!("{CONFIG_MAPS}?continue=nonsense")).await.expect(400);
    }
}

#[tokio::test]
async fn versions_are_exact_or_at_least() {
    for server in Server::cached_and_direct().await {
        let first = server.config_map("a", &json!({})).await;
        let version = first["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
        server.config_map("b", &json!({})).await;
        let exact = format!("{CONFIG_MAPS}?resourceVersion={version}&resourceVersionMatch=Exact");
        assert_eq!(names(&server.get(&exact).await.expect(200)), ["a"]);
        let least = format!("{CONFIG_MAPS}?resourceVersion={version}&resourceVersionMatch=NotOlderThan");
        assert_eq!(names(&server.get(&least).await.expect(200)), ["a", "b"]);
        let future = server.get(&format!("{CONFIG_MAPS}?resourceVersion=999999")).await.expect(504);
        assert_eq!(future["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");

        // Once history is compacted, an exact read and a page of it are told to start again.
        let page = server.get(&format!("{CONFIG_MAPS}?limit=1")).await.expect(200);
        let token = page["metadata"]["continue"].as_str().unwrap().to_owned();
        server.config_map("c", &json!({})).await;
        let latest = server.config_map("d", &json!({})).await;
        let latest: i64 = latest["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
        server.compact(latest).await;
        assert_eq!(server.get(&exact).await.expect(410)["reason"], "Expired");
        let expired = server.get(&format!("{CONFIG_MAPS}?limit=1&continue={token}")).await.expect(410);
        let token = expired["metadata"]["continue"].as_str().expect("a token for an inconsistent rest");
        let rest = server.get(&format!("{CONFIG_MAPS}?continue={token}")).await.expect(200);
        assert_eq!(names(&rest), ["b", "c", "d"]);
    }
}

#[tokio::test]
async fn a_key_that_is_no_text_hides_nothing() {
    for cached in [true, false] {
        let etcd = Arc::new(Etcd::start().unwrap());
        let mut raw = etcd_client::Client::connect([etcd.endpoint()], None).await.unwrap();
        let strange = |last: u8| [b"/registry/configmaps/test/".as_slice(), &[last]].concat();
        raw.put(strange(0xff), "{}", None).await.unwrap();
        let server = Server::start_on(Arc::clone(&etcd), cached).await;
        let from = server.config_map("a", &json!({})).await;
        let version = from["metadata"]["resourceVersion"].as_str().unwrap();
        let mut watch =
            server.watch(&format!("{CONFIG_MAPS}?watch=true&resourceVersion={version}"), &[]).await;
        raw.put(strange(b'\xfe'), "{}", None).await.unwrap();
        server.config_map("b", &json!({})).await;
        let list = server.get(CONFIG_MAPS).await.expect(200);
        assert_eq!(names(&list), ["a", "b"], "cached: {cached}");
        assert_eq!(watch.summary().await, "ADDED b");
    }
}
