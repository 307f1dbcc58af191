//! Tests of the OpenAPI documents.

use http::header::{ACCEPT, CONTENT_TYPE};

use super::*;
use crate::registry::all::all;

fn openapi() -> OpenApi {
    OpenApi::new(Resources::new(all()))
}

fn parse(document: &Document) -> Value {
    serde_json::from_slice(&document.body()).unwrap()
}

#[test]
fn kinds_are_named_and_merge_as_upstreams() {
    let document = parse(&openapi().v2().json);
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
    let v2 = parse(&openapi.v2().json);
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

/// The cases of upstream's `TestRegisterOpenAPIVersionedService`.
#[test]
fn v2_has_the_form_that_the_client_prefers() {
    let openapi = openapi();
    for (accept, expected) in [
        ("", Some(JSON)),
        ("*/*", Some(JSON)),
        ("application/*", Some(JSON)),
        ("application/json", Some(JSON)),
        ("test/test", None),
        ("application/test", None),
        ("application/test, */*", Some(JSON)),
        ("application/test, application/json", Some(JSON)),
        (PROTOBUF, Some(PROTOBUF)),
        (&format!("application/json, {PROTOBUF}"), Some(JSON)),
        (&format!("{PROTOBUF}, application/json"), Some(PROTOBUF)),
        (&format!("{PROTOBUF}; q=0.5, application/json"), Some(JSON)),
        (PROTOBUF_DEPRECATED, Some(PROTOBUF)),
        (&format!("application/json, {PROTOBUF_DEPRECATED}"), Some(JSON)),
        (&format!("{PROTOBUF_DEPRECATED}, application/json"), Some(PROTOBUF)),
        (&format!("{PROTOBUF_DEPRECATED}; q=0.5, application/json"), Some(JSON)),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_str(accept).unwrap());
        match (openapi.answer("/openapi/v2", &Query::parse(None), &headers).unwrap(), expected) {
            (Ok(answer), Some(expected)) => assert_eq!(answer.headers()[CONTENT_TYPE], expected, "{accept}"),
            (Err(error), None) => assert_eq!(error.code(), 406, "{accept}"),
            (answer, _) => panic!("{accept}: {answer:?}"),
        }
    }
}

#[test]
fn other_paths_are_not_answered() {
    let openapi = openapi();
    for path in ["/openapi", "/openapi/v3/apis/none/v1", "/healthz"] {
        assert!(openapi.answer(path, &Query::parse(None), &HeaderMap::new()).is_none(), "{path}");
    }
}
