//! What is malformed, unknown, too large or in the wrong place is refused with upstream's code, and nothing is stored.

use serde_json::json;

use crate::server::{CONFIG_MAPS, PODS, Server, pod};

const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test]
async fn bad_bodies_are_refused() {
    let server = Server::start().await;
    for (content_type, body, code) in [
        ("application/json", "", 400),
        ("application/json", "{", 400),
        ("application/json", "[]", 400),
        ("application/json", r#"{"metadata":{"name":"a"}} trailing"#, 400),
        ("application/json", r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a"}}"#, 400),
        ("application/json", r#"{"kind":"ConfigMap","apiVersion":"v2","metadata":{"name":"a"}}"#, 400),
        ("application/json", r#"{"metadata":{"name":"a"},"data":{"x":1}}"#, 400),
        ("application/json", r#"{"metadata":{"name":"a","namespace":"other"}}"#, 400),
        ("application/json", r#"{"metadata":{}}"#, 422),
        ("application/json", r#"{"metadata":{"name":"Not_A_Name"}}"#, 422),
        ("application/json", r#"{"metadata":{"name":"a","labels":{"x":"not valid!"}}}"#, 422),
        ("application/yaml", "a: [", 400),
        ("text/plain", "{}", 415),
        ("application/vnd.kubernetes.protobuf", "k8s", 400),
        ("application/cbor", "\u{a0}", 415),
    ] {
        let answer = server
            .call("POST", CONFIG_MAPS, &[("content-type", content_type)], body.as_bytes().to_vec())
            .await;
        assert_eq!(answer.status.as_u16(), code, "{content_type} {body}: {}", answer.text);
        let status = answer.json();
        assert_eq!(
            (status["kind"].as_str(), status["status"].as_str()),
            (Some("Status"), Some("Failure")),
            "{body}"
        );
        assert_eq!(status["code"], code);
    }
    // Deep nesting is bounded where it would be kept, and read without recursion where it is ignored.
    let nested = format!("{}1{}", "{\"a\":".repeat(50_000), "}".repeat(50_000));
    let revisions = "/apis/apps/v1/namespaces/test/controllerrevisions";
    let deep = format!("{{\"metadata\":{{\"name\":\"a\"}},\"revision\":1,\"data\":{nested}}}");
    server.call("POST", revisions, &[JSON], deep.into_bytes()).await.expect(400);
    let deep = format!("{{\"metadata\":{{\"ignored\":{nested}}}}}");
    server.call("POST", CONFIG_MAPS, &[JSON], deep.into_bytes()).await.expect(422);
    let large = json!({"metadata": {"name": "a"}, "data": {"x": "y".repeat(3 * 1024 * 1024)}}).to_string();
    let answer = server.call("POST", CONFIG_MAPS, &[JSON], large.into_bytes()).await.expect(413);
    assert_eq!(answer["reason"], "RequestEntityTooLarge");
    server.get(&format!("{CONFIG_MAPS}/a")).await.expect(404);
}

#[tokio::test]
async fn unknown_fields_are_ignored_warned_of_or_refused() {
    let server = Server::start().await;
    let mut body = pod("p");
    body["spec"]["containers"][0]["imagee"] = json!("typo");
    let strict = server.post(&format!("{PODS}?fieldValidation=Strict"), &body).await.expect(400);
    assert_eq!(
        strict["message"],
        "Pod in version \"v1\" cannot be handled as a Pod: strict decoding error: unknown field \"spec.containers[0].imagee\""
    );
    let warned = server.post(PODS, &body).await;
    assert_eq!(warned.status, 201);
    assert_eq!(warned.headers["warning"], "299 - \"unknown field \\\"spec.containers[0].imagee\\\"\"");
    body["metadata"]["name"] = json!("q");
    let ignored = server.post(&format!("{PODS}?fieldValidation=Ignore"), &body).await;
    assert!(ignored.status == 201 && ignored.headers.get("warning").is_none());
    server.post(&format!("{PODS}?fieldValidation=Maybe"), &body).await.expect(422);
    server.post(&format!("{PODS}?dryRun=Some"), &body).await.expect(422);
    let twice = r#"{"metadata":{"name":"r"},"data":{"a":"1","a":"2"}}"#.as_bytes().to_vec();
    let path = format!("{CONFIG_MAPS}?fieldValidation=Strict");
    let answer = server.call("POST", &path, &[JSON], twice).await.expect(400);
    assert!(answer["message"].as_str().unwrap().contains("duplicate field \"data.a\""), "{answer}");
}

#[tokio::test]
async fn wrong_places_and_methods_are_refused() {
    let server = Server::start().await;
    server.config_map("a", &json!({})).await;
    for (method, path, code) in [
        ("GET", "/api/v1/nothing", 404),
        ("GET", "/nothing", 404),
        ("POST", "/version", 405),
        ("POST", "/api/v1/configmaps", 405),
        ("POST", "/api/v1/namespaces/test/configmaps/a", 405),
        ("PUT", "/api/v1/namespaces/test/configmaps", 405),
        ("GET", "/api/v1/namespaces/test/configmaps/a/status", 404),
        ("GET", "/api/v1/namespaces/test/configmaps/a/nothing", 404),
        ("GET", "/api/v1/namespaces/test/nodes", 404),
        ("GET", "/api/v1/namespaces/test/namespaces", 404),
        ("POST", "/api/v1/namespaces/test/namespaces", 404),
        ("DELETE", "/api/v1/namespaces/test/namespaces", 404),
        ("DELETE", "/api/v1/namespaces/test/namespaces/default", 404),
        ("PUT", "/api/v1/namespaces/test/namespaces/default/finalize", 404),
        ("OPTIONS", "/api/v1/namespaces/test/configmaps", 405),
    ] {
        let answer = server.call(method, path, &[JSON], Vec::new()).await;
        assert_eq!(answer.status.as_u16(), code, "{method} {path}: {}", answer.text);
    }
    let answer = server.call("GET", CONFIG_MAPS, &[("accept", "text/html")], Vec::new()).await;
    assert_eq!(answer.status, 406);
    assert!(answer.headers.get("audit-id").is_some());
    let mut other = server.get(&format!("{CONFIG_MAPS}/a")).await.expect(200);
    other["metadata"]["name"] = json!("b");
    let refused = server.put(&format!("{CONFIG_MAPS}/a"), &other).await.expect(400);
    assert_eq!(refused["message"], "the name of the object (b) does not match the name on the URL (a)");
}
