//! The three patch formats on stored objects, and the refusal of the fourth.

use serde_json::json;

use crate::server::{CONFIG_MAPS, PODS, Server, pod};

#[tokio::test]
async fn three_kinds_of_patches() {
    let server = Server::start().await;
    server.config_map("a", &json!({"x": "1"})).await;
    let path = format!("{CONFIG_MAPS}/a");
    let merge = json!({"data": {"key": null, "new": "n"}});
    let patched = server.patch(&path, "merge-patch", &merge).await.expect(200);
    assert_eq!(patched["data"], json!({"new": "n"}));
    let json_patch = json!([{"op": "test", "path": "/data/new", "value": "n"}, {"op": "add", "path": "/data/b", "value": "c"}]);
    let patched = server.patch(&path, "json-patch", &json_patch).await.expect(200);
    assert_eq!(patched["data"], json!({"new": "n", "b": "c"}));

    server.post(PODS, &pod("p")).await.expect(201);
    let strategic = json!({"spec": {"containers": [{"name": "c", "image": "other"}]}, "metadata": {"labels": {"l": "m"}}});
    let patched = server.patch(&format!("{PODS}/p"), "strategic-merge-patch", &strategic).await.expect(200);
    assert_eq!(patched["spec"]["containers"].as_array().unwrap().len(), 1);
    assert_eq!(patched["spec"]["containers"][0]["image"], "other");
    assert_eq!(patched["metadata"]["labels"], json!({"app": "web", "l": "m"}));
    // A condition merges by its type.
    for reason in ["One", "Two"] {
        let status =
            json!({"status": {"conditions": [{"type": "Ready", "status": "False", "reason": reason}]}});
        let patched =
            server.patch(&format!("{PODS}/p/status"), "strategic-merge-patch", &status).await.expect(200);
        let conditions = patched["status"]["conditions"].as_array().unwrap();
        assert_eq!(conditions.iter().filter(|condition| condition["type"] == "Ready").count(), 1);
    }
}

#[tokio::test]
async fn patches_that_fail_change_nothing() {
    let server = Server::start().await;
    let created = server.config_map("a", &json!({})).await;
    let path = format!("{CONFIG_MAPS}/a");
    for (kind, patch, code) in [
        ("json-patch", json!([{"op": "test", "path": "/data/key", "value": "other"}]), 422),
        ("json-patch", json!({"op": "nonsense"}), 400),
        ("merge-patch", json!({"metadata": {"resourceVersion": "1"}, "data": {"x": "y"}}), 409),
        ("merge-patch", json!({"metadata": {"name": "b"}}), 400),
        ("merge-patch", json!({"metadata": {"labels": {"bad key!": "v"}}}), 422),
        ("merge-patch", json!({"data": {"x": 1}}), 400),
        ("apply-patch", json!({}), 415),
    ] {
        let answer = server.patch(&path, kind, &patch).await;
        assert_eq!(answer.status.as_u16(), code, "{kind} {patch}: {}", answer.text);
    }
    assert_eq!(server.get(&path).await.expect(200), created);
    server.patch(&format!("{CONFIG_MAPS}/missing"), "merge-patch", &json!({})).await.expect(404);
}

#[tokio::test]
async fn concurrent_patches_all_land() {
    let server = Server::start().await;
    server.config_map("a", &json!({})).await;
    let path = format!("{CONFIG_MAPS}/a");
    let patches = (0..20).map(|index| {
        let (server, path) = (&server, &path);
        async move {
            let patch = json!({"data": {format!("k{index}"): "v"}});
            server.patch(path, "merge-patch", &patch).await.expect(200);
        }
    });
    futures::future::join_all(patches).await;
    let data = server.get(&path).await.expect(200)["data"].as_object().unwrap().len();
    assert_eq!(data, 21);
}
