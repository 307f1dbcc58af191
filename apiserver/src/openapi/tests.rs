//! Tests of the OpenAPI documents.

use super::*;
use crate::registry::all::all;

fn openapi() -> OpenApi {
    OpenApi::new(Resources::new(all()))
}

fn parse(document: &Document) -> Value {
    serde_json::from_slice(&document.body).unwrap()
}

#[test]
fn kinds_are_named_and_merge_as_upstreams() {
    let document = parse(openapi().v2());
    let definitions = &document["definitions"];
    let pod = &definitions["io.k8s.api.core.v1.Pod"];
    assert_eq!(
        pod["x-kubernetes-group-version-kind"],
        json!([{"group": "", "kind": "Pod", "version": "v1"}])
    );
    assert_eq!(pod.get("required"), None);
    let spec = &definitions["io.k8s.api.core.v1.PodSpec"];
    assert_eq!(spec["required"], json!(["containers"]));
    let containers = &spec["properties"]["containers"];
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(containers["x-kubernetes-patch-strategy"], "merge");
    assert_eq!(containers["items"]["$ref"], "#/definitions/io.k8s.api.core.v1.Container");
    assert_eq!(
        definitions["io.k8s.api.apps.v1.DeploymentList"]["x-kubernetes-group-version-kind"],
        json!([{"group": "apps", "kind": "DeploymentList", "version": "v1"}])
    );
    let required = |name: &str| definitions[format!("io.k8s.api.{name}")].get("required").cloned();
    assert_eq!(required("core.v1.LocalObjectReference"), None);
    assert_eq!(required("core.v1.SecretKeySelector"), Some(json!(["key"])));
    assert_eq!(required("events.v1.Event"), Some(json!(["eventTime"])));
    let quantity = &definitions["io.k8s.apimachinery.pkg.api.resource.Quantity"];
    assert_eq!((&quantity["type"], quantity.get("x-kubernetes-int-or-string")), (&json!("string"), None));
    let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    assert_eq!(patch["operationId"], "patchAppsV1NamespacedDeployment");
    assert_eq!(patch["x-kubernetes-action"], "patch");
}

#[test]
fn every_reference_leads_somewhere() {
    fn check(value: &Value, prefix: &str, known: &Value, place: &str) {
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    match (key.as_str(), value.as_str()) {
                        ("$ref", Some(target)) => {
                            let name = target.strip_prefix(prefix).unwrap();
                            assert!(known.get(name).is_some(), "{place}: {target} is missing");
                        }
                        _ => check(value, prefix, known, place),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| check(item, prefix, known, place)),
            _ => {}
        }
    }
    let openapi = openapi();
    let v2 = parse(openapi.v2());
    check(&v2, "#/definitions/", &v2["definitions"], "v2");
    for (name, document) in &openapi.v3().documents {
        let document = parse(document);
        check(&document, "#/components/schemas/", &document["components"]["schemas"], name);
    }
}

#[test]
fn v3_has_what_kubectl_looks_for() {
    let openapi = openapi();
    let index = parse(&openapi.v3().index);
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap();
    assert!(url.starts_with("/openapi/v3/apis/apps/v1?hash="), "{url}");
    let core = parse(&openapi.v3().documents["api/v1"]);
    let patch = &core["paths"]["/api/v1/namespaces/{namespace}/configmaps/{name}"]["patch"];
    // Server-side validation and strategic merge patch are looked up here.
    assert!(patch["parameters"].as_array().unwrap().iter().any(|p| p["name"] == "fieldValidation"));
    assert!(patch["requestBody"]["content"].get("application/strategic-merge-patch+json").is_some());
    assert_eq!(
        patch["x-kubernetes-group-version-kind"],
        json!({"group": "", "kind": "ConfigMap", "version": "v1"})
    );
    let int_or_string = &core["components"]["schemas"]["io.k8s.apimachinery.pkg.util.intstr.IntOrString"];
    assert_eq!(int_or_string["oneOf"], json!([{"type": "integer"}, {"type": "string"}]));
}

#[test]
fn negotiation() {
    let openapi = openapi();
    let get = |path: &str, name: &'static str, value: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_str(value).unwrap());
        openapi.answer(path, &headers)
    };
    let protobuf = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    let refused = get("/openapi/v2", "accept", protobuf).unwrap().map(|_| ()).unwrap_err();
    assert_eq!(refused.code(), 406);
    let answered = get("/openapi/v2", "accept", &format!("{protobuf},application/json")).unwrap().unwrap();
    assert_eq!(answered.status(), StatusCode::OK);
    let etag = answered.headers()[ETAG].to_str().unwrap().to_owned();
    let again = get("/openapi/v2", "if-none-match", &etag).unwrap().unwrap();
    assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
    assert!(get("/openapi/v3/apis/none/v1", "accept", "*/*").is_none());
    assert!(get("/healthz", "accept", "*/*").is_none());
}
