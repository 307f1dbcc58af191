//! Create, read, update: metadata, conflicts, preconditions, dry run, representations.

use serde_json::json;

use crate::server::{CONFIG_MAPS, Server, pod};

#[tokio::test]
async fn an_object_lives_from_create_to_delete() {
    let server = Server::start().await;
    let created = server.config_map("a", &json!({"x": "y"})).await;
    assert_eq!((created["kind"].as_str(), created["apiVersion"].as_str()), (Some("ConfigMap"), Some("v1")));
    let metadata = &created["metadata"];
    assert_eq!(metadata["namespace"], "test");
    assert!(metadata["uid"].as_str().is_some_and(|uid| uid.len() == 36), "{metadata}");
    assert!(metadata["creationTimestamp"].as_str().is_some(), "{metadata}");
    let version: i64 = metadata["resourceVersion"].as_str().unwrap().parse().unwrap();

    let path = format!("{CONFIG_MAPS}/a");
    assert_eq!(server.get(&path).await.expect(200), created, "what create answered is what is stored");

    let mut changed = created.clone();
    changed["data"]["key"] = json!("other");
    let updated = server.put(&path, &changed).await.expect(200);
    let newer: i64 = updated["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    assert!(newer > version);
    assert_eq!(updated["metadata"]["uid"], metadata["uid"]);

    // The same again changes nothing, not even the version.
    let same = server.put(&path, &updated).await.expect(200);
    assert_eq!(same, updated);

    // The first version is stale now.
    let conflict = server.put(&path, &changed).await.expect(409);
    assert_eq!(conflict["reason"], "Conflict");
    assert_eq!(
        conflict["message"],
        "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to \
         the latest version and try again"
    );

    // Without a version the update is unconditional.
    changed["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    server.put(&path, &changed).await.expect(200);

    // A uid names one incarnation.
    changed["metadata"]["uid"] = json!("other");
    assert!(
        server.put(&path, &changed).await.expect(409)["message"]
            .as_str()
            .unwrap()
            .contains("Precondition failed")
    );

    let exists = server.post(CONFIG_MAPS, &json!({"metadata": {"name": "a"}})).await.expect(409);
    assert_eq!(
        (exists["reason"].as_str(), exists["message"].as_str()),
        (Some("AlreadyExists"), Some("configmaps \"a\" already exists"))
    );

    let gone = server.delete(&path).await.expect(200);
    assert_eq!((gone["kind"].as_str(), gone["status"].as_str()), (Some("Status"), Some("Success")));
    assert_eq!(gone["details"]["kind"], "configmaps");
    let missing = server.get(&path).await.expect(404);
    assert_eq!(missing["message"], "configmaps \"a\" not found");
    server.delete(&path).await.expect(404);
    server.put(&path, &json!({"metadata": {"name": "a"}})).await.expect(404);
}

#[tokio::test]
async fn names_are_generated_and_dry_runs_leave_nothing() {
    let server = Server::start().await;
    let generated =
        server.post(CONFIG_MAPS, &json!({"metadata": {"generateName": "web-"}})).await.expect(201);
    let name = generated["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("web-") && name.len() == 9, "{name}");

    let path = format!("{CONFIG_MAPS}/dry");
    let body = json!({"metadata": {"name": "dry"}});
    server.post(&format!("{CONFIG_MAPS}?dryRun=All"), &body).await.expect(201);
    server.get(&path).await.expect(404);
    server.config_map("dry", &json!({})).await;
    server.post(&format!("{CONFIG_MAPS}?dryRun=All"), &body).await.expect(409);
    let changed = json!({"metadata": {"name": "dry"}, "data": {"key": "changed"}});
    assert_eq!(
        server.put(&format!("{path}?dryRun=All"), &changed).await.expect(200)["data"]["key"],
        "changed"
    );
    assert_eq!(server.get(&path).await.expect(200)["data"]["key"], "value");
    server.delete(&format!("{path}?dryRun=All")).await.expect(200);
    server.get(&path).await.expect(200);
}

#[tokio::test]
async fn bodies_and_answers_may_be_yaml_or_metadata_only() {
    let server = Server::start().await;
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: doc\ndata:\n  number: \"1\"\n";
    let headers = [("content-type", "application/yaml"), ("accept", "application/yaml")];
    let answer = server.call("POST", CONFIG_MAPS, &headers, yaml.as_bytes().to_vec()).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    assert_eq!(answer.headers["content-type"], "application/yaml");
    assert!(answer.text.contains("name: doc\n"), "{}", answer.text);
    let partial = [("accept", "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1")];
    let answer = server.call("GET", &format!("{CONFIG_MAPS}/doc"), &partial, Vec::new()).await.expect(200);
    assert_eq!(
        (answer["kind"].as_str(), answer["metadata"]["name"].as_str()),
        (Some("PartialObjectMetadata"), Some("doc"))
    );
    assert!(answer["metadata"]["resourceVersion"].is_string() && answer.get("data").is_none(), "{answer}");
}

#[tokio::test]
async fn status_and_spec_are_written_apart() {
    let server = Server::start().await;
    let pods = crate::server::PODS;
    let mut created = server.post(pods, &pod("p")).await.expect(201);
    assert_eq!(created["status"]["phase"], "Pending");
    created["status"]["phase"] = json!("Running");
    created["metadata"]["labels"]["new"] = json!("label");
    let path = format!("{pods}/p");
    let updated = server.put(&path, &created).await.expect(200);
    assert_eq!(
        (updated["status"]["phase"].as_str(), updated["metadata"]["labels"]["new"].as_str()),
        (Some("Pending"), Some("label"))
    );
    let mut with_status = updated.clone();
    with_status["status"]["phase"] = json!("Running");
    with_status["spec"]["containers"][0]["image"] = json!("other");
    let updated = server.put(&format!("{path}/status"), &with_status).await.expect(200);
    assert_eq!(updated["status"]["phase"], "Running");
    assert_eq!(updated["spec"]["containers"][0]["image"], "busybox");
}

#[tokio::test]
async fn scale_sets_replicas_and_generation_counts_it() {
    let server = Server::start().await;
    let path = "/apis/apps/v1/namespaces/test/deployments";
    let template =
        json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}});
    let body = json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}});
    let created = server.post(path, &body).await.expect(201);
    assert_eq!(
        (created["spec"]["replicas"].as_i64(), created["metadata"]["generation"].as_i64()),
        (Some(1), Some(1))
    );
    let scale = server.get(&format!("{path}/d/scale")).await.expect(200);
    assert_eq!((scale["kind"].as_str(), scale["spec"]["replicas"].as_i64()), (Some("Scale"), Some(1)));
    let patch = json!({"spec": {"replicas": 3}});
    let scale = server.patch(&format!("{path}/d/scale"), "merge-patch", &patch).await.expect(200);
    assert_eq!(scale["spec"]["replicas"], 3);
    let stored = server.get(&format!("{path}/d")).await.expect(200);
    assert_eq!(
        (stored["spec"]["replicas"].as_i64(), stored["metadata"]["generation"].as_i64()),
        (Some(3), Some(2))
    );
    server
        .patch(&format!("{path}/d/scale"), "merge-patch", &json!({"spec": {"replicas": -1}}))
        .await
        .expect(422);
}
