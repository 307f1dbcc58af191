//! The gRPC watch service: what one stream carries, who may open what on it, and how watches and streams end.

use std::sync::Arc;

use proto::watch_v1::watch_request::Request;
use proto::watch_v1::{Open, WatchRequest};
use serde_json::json;
use tonic::Code;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::server::{CONFIG_MAPS, PODS, Server, identity, pod};
use stream::{Stream, channel, core};

mod stream;

#[tokio::test]
async fn one_stream_carries_many_watches() {
    for server in Server::cached_and_direct().await {
        server.config_map("a", &json!({})).await;
        server.config_map("b", &json!({})).await;
        let mut stream = Stream::start(&server.config).await.unwrap();
        stream.open(core(7, "configmaps", "test"));
        assert_eq!(stream.told().await, ["7 ADDED a", "7 ADDED b", "7 synced"]);
        stream.open(core(8, "pods", ""));
        assert_eq!(stream.told().await, ["8 synced"]);

        server.post(PODS, &pod("p")).await.expect(201);
        assert_eq!(stream.told().await, ["8 ADDED p"]);
        let change = json!({"data": {"x": "y"}});
        server.patch(&format!("{CONFIG_MAPS}/a"), "merge-patch", &change).await.expect(200);
        server.delete(&format!("{CONFIG_MAPS}/b")).await.expect(200);
        assert_eq!(stream.told().await, ["7 MODIFIED a", "7 DELETED b"]);
        let version = stream.version;

        // A cancelled watch is answered and ends alone; its id can be used again.
        stream.cancel(7);
        stream.cancel(100);
        assert_eq!(stream.told().await, ["7 closed 0"]);
        server.config_map("c", &json!({})).await;
        server.patch(&format!("{PODS}/p"), "merge-patch", &json!({"metadata": {"labels": {"x": "y"}}})).await;
        assert_eq!(stream.told().await, ["8 MODIFIED p"]);

        // From a version: what came after it and nothing else.
        stream.open(Open { resource_version: version, ..core(7, "configmaps", "test") });
        assert_eq!(stream.told().await, ["7 ADDED c"]);
        assert!(stream.is_silent().await);
    }
}

#[tokio::test]
async fn selectors_see_objects_come_and_go() {
    for server in Server::cached_and_direct().await {
        let mut stream = Stream::start(&server.config).await.unwrap();
        stream.open(Open { label_selector: "on=yes".to_owned(), ..core(1, "configmaps", "test") });
        stream.open(Open { field_selector: "metadata.name=b".to_owned(), ..core(2, "configmaps", "test") });
        let mut synced: [String; 2] = stream.told().await;
        synced.sort();
        assert_eq!(synced, ["1 synced", "2 synced"]);
        server.config_map("a", &json!({"on": "no"})).await;
        for (on, want) in [("yes", "1 ADDED a"), ("yes!", "1 MODIFIED a"), ("no", "1 DELETED a")] {
            let labels = json!({"metadata": {"labels": {"on": on.trim_end_matches('!'), "round": on.len().to_string()}}});
            server.patch(&format!("{CONFIG_MAPS}/a"), "merge-patch", &labels).await.expect(200);
            assert_eq!(stream.told().await, [want]);
        }
        server.config_map("b", &json!({})).await;
        assert_eq!(stream.told().await, ["2 ADDED b"]);
    }
}

#[tokio::test]
async fn an_object_is_sent_in_the_version_that_was_asked_for() {
    let server = Server::start().await;
    let event = json!({"metadata": {"name": "e", "namespace": "test"}, "reason": "Started", "type": "Normal",
        "involvedObject": {"kind": "Pod", "namespace": "test", "name": "p"}});
    server.post("/api/v1/namespaces/test/events", &event).await.expect(201);
    let mut stream = Stream::start(&server.config).await.unwrap();
    stream.open(Open { group: "events.k8s.io".to_owned(), ..core(1, "events", "test") });
    assert_eq!(stream.told().await, ["1 ADDED e", "1 synced"]);
    let event = json!({"metadata": {"name": "f", "namespace": "test"}, "reason": "Started", "type": "Normal",
        "involvedObject": {"kind": "Pod", "namespace": "test", "name": "p"}});
    server.post("/api/v1/namespaces/test/events", &event).await.expect(201);
    assert_eq!(stream.told().await, ["1 ADDED f"]);
}

#[tokio::test]
async fn what_cannot_be_watched_is_refused_on_its_id() {
    let server = Server::start().await;
    let mut stream = Stream::start(&server.config).await.unwrap();
    stream.open(core(1, "configmaps", "test"));
    assert_eq!(stream.told().await, ["1 synced"]);
    let maps = core(2, "configmaps", "test");
    for (open, code, reason) in [
        (core(2, "nothings", ""), 404, "NotFound"),
        (core(2, "pods/status", "test"), 404, "NotFound"),
        (Open { group: "apps".to_owned(), ..core(2, "pods", "") }, 404, "NotFound"),
        (core(2, "nodes", "test"), 404, "NotFound"),
        (core(2, "namespaces", "test"), 404, "NotFound"),
        (Open { label_selector: "a in".to_owned(), ..maps.clone() }, 400, "BadRequest"),
        (Open { field_selector: "data.x=1".to_owned(), ..maps.clone() }, 400, "BadRequest"),
        (Open { resource_version: -1, ..maps.clone() }, 400, "BadRequest"),
        (Open { representation: 99, ..maps.clone() }, 406, "NotAcceptable"),
    ] {
        stream.open(open.clone());
        assert_eq!(stream.told().await, [format!("2 closed {code}")], "{open:?}");
        assert_eq!(stream.closed.reason, reason);
        assert!(!stream.closed.message.is_empty(), "{open:?}");
    }
    server.config_map("a", &json!({})).await;
    assert_eq!(stream.told().await, ["1 ADDED a"]);
}

#[tokio::test]
async fn a_version_that_is_gone_closes_its_watch_with_410() {
    for (cached, server) in [true, false].into_iter().zip(Server::cached_and_direct().await) {
        let first = server.config_map("a", &json!({})).await;
        server.config_map("b", &json!({})).await;
        let version = |object: &serde_json::Value| -> i64 {
            object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
        };
        server.compact(version(&server.config_map("c", &json!({})).await)).await;
        // What this server has seen happen it can still tell; another one, started now, can't.
        let server = Server::start_on(Arc::clone(&server.etcd), cached).await;
        let mut stream = Stream::start(&server.config).await.unwrap();
        stream.open(core(1, "namespaces", ""));
        while stream.next().await.unwrap() != "1 synced" {}
        stream.open(Open { resource_version: version(&first), ..core(2, "configmaps", "test") });
        assert_eq!(stream.told().await, ["2 closed 410"]);
        assert_eq!(stream.closed.reason, "Expired");
        stream.open(core(2, "configmaps", "test"));
        assert_eq!(stream.told().await, ["2 ADDED a", "2 ADDED b", "2 ADDED c", "2 synced"]);
    }
}

#[tokio::test]
async fn a_watch_waits_for_its_window_and_holds_up_no_other() {
    for server in Server::cached_and_direct().await {
        for name in ["a", "b", "c"] {
            server.config_map(name, &json!({})).await;
        }
        let mut stream = Stream::start(&server.config).await.unwrap();
        stream.open(Open { window_bytes: 1, ..core(1, "configmaps", "test") });
        assert_eq!(stream.told().await, ["1 ADDED a"]);
        stream.open(core(2, "configmaps", "test"));
        assert_eq!(stream.told().await, ["2 ADDED a", "2 ADDED b", "2 ADDED c", "2 synced"]);
        assert!(stream.is_silent().await, "the window is overdrawn");
        stream.credit(1, 1);
        assert!(stream.is_silent().await, "the object was larger than what was granted");
        stream.credit(1, 100_000);
        assert_eq!(stream.told().await, ["1 ADDED b", "1 ADDED c", "1 synced"]);
        server.config_map("d", &json!({})).await;
        let mut told: [String; 2] = stream.told().await;
        told.sort();
        assert_eq!(told, ["1 ADDED d", "2 ADDED d"]);
    }
}

#[tokio::test]
async fn a_stream_that_breaks_the_protocol_is_ended() {
    let server = Server::start().await;
    let cases: [(Vec<Option<Request>>, Code); 3] = [
        (vec![None], Code::InvalidArgument),
        (
            vec![Some(Request::Open(core(1, "pods", ""))), Some(Request::Open(core(1, "nodes", "")))],
            Code::InvalidArgument,
        ),
        (
            vec![Some(Request::Open(Open { label_selector: "x".repeat(70_000), ..core(1, "pods", "") }))],
            Code::OutOfRange,
        ),
    ];
    for (requests, code) in cases {
        let mut stream = Stream::start(&server.config).await.unwrap();
        for request in requests {
            stream.send_any(WatchRequest { request });
        }
        let ended = loop {
            match stream.next().await {
                Ok(line) => assert_eq!(line, "1 synced"),
                Err(status) => break status,
            }
        };
        assert_eq!(ended.code(), code, "{ended:?}");
    }
}

#[tokio::test]
async fn a_stream_has_a_thousand_watches_and_no_more() {
    let server = Server::start().await;
    let mut stream = Stream::start(&server.config).await.unwrap();
    let none =
        |id| Open { field_selector: "metadata.name=none".to_owned(), ..core(id, "configmaps", "test") };
    for id in 0..1_001 {
        stream.open(none(id));
    }
    let mut synced = 0;
    let mut refused = Vec::new();
    for _ in 0..1_001 {
        let line = stream.next().await.unwrap();
        if line.ends_with(" synced") { synced += 1 } else { refused.push(line) }
    }
    assert_eq!((synced, refused), (1_000, vec!["1000 closed 429".to_owned()]));
    stream.cancel(5);
    assert_eq!(stream.told().await, ["5 closed 0"]);
    stream.open(none(1_000));
    assert_eq!(stream.told().await, ["1000 synced"]);
}

#[tokio::test]
async fn watches_outlive_the_requests_and_end_with_the_server() {
    let server = Server::start().await;
    let mut stream = Stream::start(&server.config).await.unwrap();
    stream.open(core(1, "configmaps", "test"));
    stream.end_requests();
    assert_eq!(stream.told().await, ["1 synced"]);
    server.config_map("a", &json!({})).await;
    assert_eq!(stream.told().await, ["1 ADDED a"]);
    let metrics = server.get("/metrics").await.text;
    let gauge = r#"apiserver_longrunning_requests{verb="WATCH",group="",version="v1",resource="configmaps""#;
    let counted = metrics.lines().find(|line| line.starts_with(gauge)).expect("a gauge");
    assert!(counted.ends_with(" 1"), "{counted}");
    server.stop();
    assert_eq!(stream.told().await, ["end"]);

    // Without requests and watches there is nothing to wait for.
    let server = Server::start().await;
    let mut stream = Stream::start(&server.config).await.unwrap();
    stream.open(core(1, "nothings", ""));
    stream.end_requests();
    assert_eq!(stream.told().await, ["1 closed 404", "end"]);
}

#[tokio::test]
async fn each_watch_is_authorized_by_itself() {
    let (server, ca) = Server::start_authorizing().await;
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/test";
    let role = json!({"metadata": {"name": "reader"}, "rules": [
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list", "watch"]},
        {"apiGroups": [""], "resources": ["services"], "verbs": ["watch"]},
        {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["one"], "verbs": ["list", "watch"]}]});
    server.post(&format!("{rbac}/roles"), &role).await.expect(201);
    let binding = json!({"metadata": {"name": "reader"}, "subjects": [{"kind": "User", "name": "anna"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"}});
    server.post(&format!("{rbac}/rolebindings"), &binding).await.expect(201);

    let mut config = server.config.clone();
    config.auth_info = identity(&ca, "anna", &[]);
    let named = |id, name: &str| Open {
        field_selector: format!("metadata.name={name}"),
        ..core(id, "secrets", "test")
    };
    let mut stream = Stream::start(&config).await.unwrap();
    // The rules reach the authorizer in their own time.
    loop {
        stream.open(core(1, "configmaps", "test"));
        match stream.next().await.unwrap().as_str() {
            "1 synced" => break,
            "1 closed 403" => {}
            other => panic!("{other}"),
        }
    }
    for (open, want) in [
        (core(2, "configmaps", ""), "2 closed 403"),
        (core(2, "pods", "test"), "2 closed 403"),
        (core(2, "nothings", "test"), "2 closed 403"),
        (core(2, "secrets", "test"), "2 closed 403"),
        (named(2, "two"), "2 closed 403"),
        // The state is a list, which is another verb.
        (core(2, "services", "test"), "2 closed 403"),
        (named(3, "one"), "3 synced"),
    ] {
        stream.open(open.clone());
        assert_eq!(stream.told().await, [want], "{open:?}");
    }
    assert_eq!(
        stream.closed.message,
        r#"services is forbidden: User "anna" cannot list resource "services" in API group "" in the namespace "test""#
    );
    stream.open(Open { resource_version: stream.version, ..core(4, "services", "test") });
    server.config_map("a", &json!({})).await;
    assert_eq!(stream.told().await, ["1 ADDED a"]);

    config.auth_info = identity(&ca, "system:node:n1", &["system:nodes"]);
    let pods_of =
        |id, node: &str| Open { field_selector: format!("spec.nodeName={node}"), ..core(id, "pods", "") };
    let mut stream = Stream::start(&config).await.unwrap();
    for (open, want) in [
        (pods_of(1, "n1"), "1 synced"),
        (pods_of(2, "n2"), "2 closed 403"),
        (core(2, "pods", ""), "2 closed 403"),
        (named(2, "one"), "2 closed 403"),
        (core(3, "services", ""), "3 ADDED kubernetes"),
    ] {
        stream.open(open.clone());
        assert_eq!(stream.told().await, [want], "{open:?}");
        if want.starts_with('3') {
            assert_eq!(stream.told().await, ["3 synced"]);
        }
    }
}

#[tokio::test]
async fn a_stream_needs_somebody_behind_it() {
    let (server, ca) = Server::start_authorizing().await;
    let mut config = server.config.clone();
    config.auth_info = kube::config::AuthInfo::default();
    let refused = Stream::start(&config).await.err().unwrap();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");
    let refused = Stream::start_with(&config, Some("nonsense")).await.err().unwrap();
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused:?}");
    config.auth_info = identity(&ca, "nobody", &[]);
    let mut stream = Stream::start(&config).await.unwrap();
    stream.open(core(1, "configmaps", "test"));
    assert_eq!(stream.told().await, ["1 closed 403"]);
}

#[tokio::test]
async fn reflection_shows_the_definition() {
    let server = Server::start().await;
    let mut client =
        ServerReflectionClient::with_origin(channel(&server.config), server.config.cluster_url.clone());
    let ask = [
        MessageRequest::ListServices(String::new()),
        MessageRequest::FileContainingSymbol("keelson.watch.v1.Watch".to_owned()),
    ];
    let requests = ask.map(|ask| ServerReflectionRequest { host: String::new(), message_request: Some(ask) });
    let mut answers = client.server_reflection_info(tokio_stream::iter(requests)).await.unwrap().into_inner();
    let mut next = async || answers.message().await.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::ListServicesResponse(list) = next().await else { panic!("a list") };
    let names: Vec<&str> = list.service.iter().map(|service| service.name.as_str()).collect();
    assert!(names.contains(&"keelson.watch.v1.Watch"), "{names:?}");
    let MessageResponse::FileDescriptorResponse(file) = next().await else { panic!("a file") };
    let text = String::from_utf8_lossy(&file.file_descriptor_proto[0]).into_owned();
    assert!(text.contains("watch/v1/watch.proto"));
    assert!(text.contains("# The life of a watch"), "the comments come with it");
}

#[tokio::test]
async fn what_is_no_call_is_a_request_like_any_other() {
    let server = Server::start().await;
    let path = "/keelson.watch.v1.Watch/Watch";
    let answer = server.call("POST", path, &[("content-type", "application/json")], Vec::new()).await;
    assert_eq!(answer.expect(404)["reason"], "NotFound");
    server.get(path).await.expect(404);
}
