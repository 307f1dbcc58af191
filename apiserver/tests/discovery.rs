//! Discovery documents, version, health and metrics.

use serde_json::Value;

use crate::server::Server;

#[tokio::test]
async fn groups_and_resources_are_discovered() {
    let server = Server::start().await;
    assert_eq!(server.get("/api").await.expect(200)["versions"], serde_json::json!(["v1"]));
    let groups = server.get("/apis").await.expect(200);
    let apps = groups["groups"].as_array().unwrap().iter().find(|group| group["name"] == "apps").unwrap();
    assert_eq!(apps["preferredVersion"]["groupVersion"], "apps/v1");
    assert_eq!(server.get("/apis/apps").await.expect(200)["kind"], "APIGroup");
    let resources = server.get("/apis/apps/v1").await.expect(200);
    let named =
        |name: &str| resources["resources"].as_array().unwrap().iter().find(|r| r["name"] == name).cloned();
    assert_eq!(named("deployments").unwrap()["shortNames"], serde_json::json!(["deploy"]));
    assert_eq!(named("deployments/scale").unwrap()["kind"], "Scale");
    assert!(named("deployments/status").is_some());
    server.get("/apis/none").await.expect(404);
    server.get("/apis/apps/v9").await.expect(404);
    server.get("/apis/apps/v1/nothing").await.expect(404);
}

#[tokio::test]
async fn aggregated_discovery_has_upstreams_shape() {
    let server = Server::start().await;
    let both = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;\
                g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
    let answer = server.call("GET", "/apis", &[("accept", both)], Vec::new()).await;
    assert_eq!(
        answer.headers["content-type"],
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    );
    let list = answer.expect(200);
    assert_eq!(
        (list["kind"].as_str(), list["apiVersion"].as_str()),
        (Some("APIGroupDiscoveryList"), Some("apidiscovery.k8s.io/v2"))
    );
    let apps =
        list["items"].as_array().unwrap().iter().find(|item| item["metadata"]["name"] == "apps").unwrap();
    let version = &apps["versions"][0];
    assert_eq!((version["version"].as_str(), version["freshness"].as_str()), (Some("v1"), Some("Current")));
    let deployments = version["resources"]
        .as_array()
        .unwrap()
        .iter()
        .find(|r| r["resource"] == "deployments")
        .cloned()
        .unwrap();
    // Upstream 1.36's entry, word for word.
    let upstream: Value = serde_json::from_str(
        r#"{"categories":["all"],"resource":"deployments","responseKind":{"group":"","kind":"Deployment","version":""},
        "scope":"Namespaced","shortNames":["deploy"],"singularResource":"deployment","subresources":[{"responseKind":
        {"group":"autoscaling","kind":"Scale","version":"v1"},"subresource":"scale","verbs":["get","patch","update"]},
        {"responseKind":{"group":"","kind":"Deployment","version":""},"subresource":"status","verbs":["get","patch",
        "update"]}],"verbs":["create","delete","deletecollection","get","list","patch","update","watch"]}"#,
    )
    .unwrap();
    assert_eq!(deployments, upstream);
    let beta = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";
    let core = server.call("GET", "/api", &[("accept", beta)], Vec::new()).await.expect(200);
    assert_eq!(core["apiVersion"], "apidiscovery.k8s.io/v2beta1");
    assert_eq!(core["items"].as_array().unwrap().len(), 1);
    let etag = answer.headers["etag"].to_str().unwrap();
    let again = server.call("GET", "/apis", &[("accept", both), ("if-none-match", etag)], Vec::new()).await;
    assert_eq!(again.status, 304);
}

#[tokio::test]
async fn health_version_and_metrics_answer() {
    let server = Server::start().await;
    for path in ["/healthz", "/livez", "/readyz", "/readyz/etcd", "/livez/ping"] {
        let answer = server.get(path).await;
        assert_eq!((answer.status.as_u16(), answer.text.as_str()), (200, "ok"), "{path}");
    }
    assert!(server.get("/readyz?verbose").await.text.contains("[+]etcd ok\n"));
    server.get("/readyz/unknown").await.expect(404);
    assert_eq!(server.get("/version").await.expect(200)["major"], "1");
    server.config_map("counted", &serde_json::json!({})).await;
    let metrics = server.get("/metrics").await.text;
    for wanted in [
        "apiserver_request_total{",
        "apiserver_request_duration_seconds_bucket",
        "apiserver_current_inflight_requests",
        "etcd_request_duration_seconds_bucket{le=\"0.005\",operation=\"create\",type=\"configmaps\"}",
    ] {
        assert!(metrics.contains(wanted), "{wanted}\n{metrics}");
    }
    let paths = server.get("/").await.expect(200);
    assert!(paths["paths"].as_array().unwrap().iter().any(|path| path == "/apis/apps/v1"));
}
