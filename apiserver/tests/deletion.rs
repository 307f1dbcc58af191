//! Deletion: grace, finalizers, propagation, preconditions, collections.

use serde_json::json;

use crate::server::{CONFIG_MAPS, PODS, Server, pod};

async fn bind(server: &Server, name: &str) {
    let binding = json!({"metadata": {"name": name}, "target": {"kind": "Node", "name": "n1"}});
    server.post(&format!("{PODS}/{name}/binding"), &binding).await.expect(201);
}

#[tokio::test]
async fn a_bound_pod_goes_gracefully() {
    let server = Server::start().await;
    let path = format!("{PODS}/p");
    // One without a node goes at once.
    server.post(PODS, &pod("p")).await.expect(201);
    assert_eq!(server.delete(&path).await.expect(200)["kind"], "Pod");
    server.get(&path).await.expect(404);

    server.post(PODS, &pod("p")).await.expect(201);
    bind(&server, "p").await;
    let marked = server.delete(&path).await.expect(200);
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 30);
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    // Again changes nothing; a shorter period does; a longer one does not.
    let version = |value: &serde_json::Value| value["metadata"]["resourceVersion"].clone();
    assert_eq!(version(&server.delete(&path).await.expect(200)), version(&marked));
    let shorter = server.delete(&format!("{path}?gracePeriodSeconds=5")).await.expect(200);
    assert_eq!(shorter["metadata"]["deletionGracePeriodSeconds"], 5);
    let longer = server.delete(&format!("{path}?gracePeriodSeconds=50")).await.expect(200);
    assert_eq!(longer["metadata"]["deletionGracePeriodSeconds"], 5);
    // The kubelet's last word.
    server.delete(&format!("{path}?gracePeriodSeconds=0")).await.expect(200);
    server.get(&path).await.expect(404);
}

#[tokio::test]
async fn finalizers_hold_until_they_are_gone() {
    let server = Server::start().await;
    let body = json!({"metadata": {"name": "f", "finalizers": ["example.com/hold"]}});
    server.post(CONFIG_MAPS, &body).await.expect(201);
    let path = format!("{CONFIG_MAPS}/f");
    let marked = server.delete(&path).await.expect(200);
    assert_eq!(
        (marked["kind"].as_str(), marked["metadata"]["deletionGracePeriodSeconds"].as_i64()),
        (Some("ConfigMap"), Some(0))
    );
    let again = server.post(CONFIG_MAPS, &body).await.expect(409);
    assert_eq!(again["message"], "object is being deleted: configmaps \"f\" already exists");
    let more = json!({"metadata": {"finalizers": ["example.com/hold", "example.com/more"]}});
    server.patch(&path, "merge-patch", &more).await.expect(422);
    server.patch(&path, "merge-patch", &json!({"metadata": {"finalizers": null}})).await.expect(200);
    server.get(&path).await.expect(404);
}

#[tokio::test]
async fn propagation_becomes_a_finalizer() {
    let server = Server::start().await;
    for (policy, code, finalizer) in [("Foreground", 202, "foregroundDeletion"), ("Orphan", 200, "orphan")] {
        let name = policy.to_lowercase();
        server.config_map(&name, &json!({})).await;
        let path = format!("{CONFIG_MAPS}/{name}");
        let marked = server.delete(&format!("{path}?propagationPolicy={policy}")).await.expect(code);
        assert_eq!(marked["metadata"]["finalizers"], json!([finalizer]));
    }
    server.config_map("background", &json!({})).await;
    let path = format!("{CONFIG_MAPS}/background");
    server.delete(&format!("{path}?propagationPolicy=Sideways")).await.expect(422);
    server.delete(&format!("{path}?propagationPolicy=Background")).await.expect(200);
    server.get(&path).await.expect(404);
}

#[tokio::test]
async fn preconditions_protect() {
    let server = Server::start().await;
    let created = server.config_map("a", &json!({})).await;
    let path = format!("{CONFIG_MAPS}/a");
    let options = |preconditions: &serde_json::Value| {
        json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": preconditions})
            .to_string()
            .into_bytes()
    };
    let headers = [("content-type", "application/json")];
    for bad in [json!({"uid": "other"}), json!({"resourceVersion": "1"})] {
        server.call("DELETE", &path, &headers, options(&bad)).await.expect(409);
    }
    let good = json!({"uid": created["metadata"]["uid"]});
    server.call("DELETE", &path, &headers, options(&good)).await.expect(200);
}

#[tokio::test]
async fn collections_go_by_selector() {
    let server = Server::start().await;
    for (name, tier) in [("a", "front"), ("b", "back"), ("c", "front")] {
        server.config_map(name, &json!({"tier": tier})).await;
    }
    let deleted = server.delete(&format!("{CONFIG_MAPS}?labelSelector=tier%3Dfront")).await.expect(200);
    assert_eq!(deleted["items"].as_array().unwrap().len(), 2);
    let left = server.get(&format!("{CONFIG_MAPS}?labelSelector=tier")).await.expect(200);
    assert_eq!(left["items"][0]["metadata"]["name"], "b");
    assert_eq!(left["items"].as_array().unwrap().len(), 1);
    server.delete("/api/v1/configmaps").await.expect(405);
}

#[tokio::test]
async fn a_namespace_waits_for_its_finalizer() {
    let server = Server::start().await;
    let created = server.post("/api/v1/namespaces", &json!({"metadata": {"name": "n"}})).await.expect(201);
    assert_eq!(created["spec"]["finalizers"], json!(["kubernetes"]));
    let marked = server.delete("/api/v1/namespaces/n").await.expect(200);
    assert_eq!(marked["status"]["phase"], "Terminating");
    let mut finalized = server.get("/api/v1/namespaces/n").await.expect(200);
    finalized["spec"]["finalizers"] = json!([]);
    server.put("/api/v1/namespaces/n/finalize", &finalized).await.expect(200);
    server.get("/api/v1/namespaces/n").await.expect(404);
}
