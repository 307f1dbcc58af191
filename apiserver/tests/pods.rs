//! Pod subresources of the store: binding and eviction.

use serde_json::json;

use crate::server::{PODS, Server, pod};

#[tokio::test]
async fn a_pod_is_bound_once() {
    let server = Server::start().await;
    let created = server.post(PODS, &pod("p")).await.expect(201);
    let path = format!("{PODS}/p/binding");
    let binding = |node: &str, uid: &str| json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p", "uid": uid}, "target": {"kind": "Node", "name": node}});
    server.post(&path, &binding("n1", "other")).await.expect(409);
    server.post(&path, &binding("", "")).await.expect(422);
    let uid = created["metadata"]["uid"].as_str().unwrap();
    let bound = server.post(&path, &binding("n1", uid)).await.expect(201);
    assert_eq!((bound["kind"].as_str(), bound["status"].as_str()), (Some("Status"), Some("Success")));
    let stored = server.get(&format!("{PODS}/p")).await.expect(200);
    assert_eq!(stored["spec"]["nodeName"], "n1");
    let conditions = stored["status"]["conditions"].as_array().unwrap();
    assert!(
        conditions.iter().any(|c| c["type"] == "PodScheduled" && c["status"] == "True"),
        "{conditions:?}"
    );
    let again = server.post(&path, &binding("n2", uid)).await.expect(409);
    assert_eq!(
        again["message"],
        "Operation cannot be fulfilled on pods/binding \"p\": pod p is already assigned to node \"n1\""
    );
    server
        .post(&format!("{PODS}/missing/binding"), &json!({"metadata": {}, "target": {"name": "n1"}}))
        .await
        .expect(404);
}

#[tokio::test]
async fn an_eviction_deletes() {
    let server = Server::start().await;
    server.post(PODS, &pod("p")).await.expect(201);
    let path = format!("{PODS}/p/eviction");
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}});
    let dry = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}, "deleteOptions": {"dryRun": ["All"]}});
    server.post(&path, &dry).await.expect(201);
    server.get(&format!("{PODS}/p")).await.expect(200);
    server.post(&path, &eviction).await.expect(201);
    server.get(&format!("{PODS}/p")).await.expect(404);
    server.post(&path, &eviction).await.expect(404);
}
