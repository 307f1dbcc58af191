//! `as=Table`: what `kubectl get` shows.

use serde_json::json;

use crate::server::{PODS, Server, pod};

const TABLE: (&str, &str) = ("accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json");

#[tokio::test]
async fn a_table_has_columns_cells_and_metadata() {
    let server = Server::start().await;
    server.post(PODS, &pod("p")).await.expect(201);
    let table = server.call("GET", PODS, &[TABLE], Vec::new()).await.expect(200);
    assert_eq!(
        (table["kind"].as_str(), table["apiVersion"].as_str()),
        (Some("Table"), Some("meta.k8s.io/v1"))
    );
    let columns: Vec<&str> = table["columnDefinitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|column| column["name"].as_str().unwrap())
        .collect();
    assert_eq!(columns[..5], ["Name", "Ready", "Status", "Restarts", "Age"]);
    let row = &table["rows"][0];
    assert_eq!(row["cells"].as_array().unwrap()[..3], [json!("p"), json!("0/1"), json!("Pending")]);
    assert_eq!(
        (row["object"]["kind"].as_str(), row["object"]["metadata"]["name"].as_str()),
        (Some("PartialObjectMetadata"), Some("p"))
    );
    assert!(row["object"].get("spec").is_none());
    let whole =
        server.call("GET", &format!("{PODS}?includeObject=Object"), &[TABLE], Vec::new()).await.expect(200);
    assert_eq!(whole["rows"][0]["object"]["spec"]["containers"][0]["name"], "c");
    let none =
        server.call("GET", &format!("{PODS}?includeObject=None"), &[TABLE], Vec::new()).await.expect(200);
    assert!(none["rows"][0].get("object").is_none());
    let one = server.call("GET", &format!("{PODS}/p"), &[TABLE], Vec::new()).await.expect(200);
    assert_eq!(one["rows"].as_array().unwrap().len(), 1);
}
