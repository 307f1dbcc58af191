//! The OpenAPI documents as clients ask for them.

use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::{Value, json};

use crate::server::Server;

/// As kubectl 1.32 asks when it validates by itself.
const KUBECTL: (&str, &str) = ("accept", "application/com.github.proto-openapi.spec.v2@v1.0+protobuf");
const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
const V2: &str = "/openapi/v2";

/// name → `yaml` of the kind of each definition that has one.
fn kinds(document: &DynamicMessage) -> Vec<(String, Value)> {
    let text = |message: &DynamicMessage, field: &str| {
        message.get_field_by_name(field).unwrap().as_str().unwrap().to_owned()
    };
    let inner = |message: &DynamicMessage, field: &str| {
        message.get_field_by_name(field).unwrap().as_message().unwrap().clone()
    };
    let list = |message: &DynamicMessage, field: &str| -> Vec<DynamicMessage> {
        let list = message.get_field_by_name(field).unwrap();
        list.as_list().unwrap().iter().map(|entry| entry.as_message().unwrap().clone()).collect()
    };
    let mut kinds = Vec::new();
    for definition in list(&inner(document, "definitions"), "additional_properties") {
        for extension in list(&inner(&definition, "value"), "vendor_extension") {
            if text(&extension, "name") == "x-kubernetes-group-version-kind" {
                let kind = text(&inner(&extension, "value"), "yaml");
                kinds.push((text(&definition, "name"), serde_json::from_str(&kind).unwrap()));
            }
        }
    }
    kinds
}

#[tokio::test]
async fn v2_comes_in_protobuf_for_kubectl() {
    let server = Server::start().await;
    let answer = server.call("GET", V2, &[KUBECTL], Vec::new()).await;
    assert_eq!((answer.status.as_u16(), &answer.headers["content-type"]), (200, &PROTOBUF.parse().unwrap()));
    assert_eq!(answer.headers["vary"], "Accept, Accept-Encoding");
    let pool = DescriptorPool::decode(proto::OPENAPI_DESCRIPTORS).unwrap();
    let descriptor = pool.get_message_by_name("openapi.v2.Document").unwrap();
    let document = DynamicMessage::decode(descriptor, answer.body).unwrap();

    let json = server.get(V2).await;
    assert_eq!(json.headers["content-type"], "application/json");
    for header in ["etag", "last-modified"] {
        assert_eq!(json.headers[header], answer.headers[header]);
    }
    let definitions = json.json()["definitions"].clone();
    let kind = |definition: &Value| definition.get("x-kubernetes-group-version-kind").cloned();
    let expected: Vec<(String, Value)> = definitions
        .as_object()
        .unwrap()
        .iter()
        .filter_map(|(name, definition)| Some((name.clone(), kind(definition)?)))
        .collect();
    assert_eq!(kinds(&document), expected);
    let pod = json!([{"group": "", "kind": "Pod", "version": "v1"}]);
    assert!(expected.contains(&("io.k8s.api.core.v1.Pod".to_owned(), pod)));

    let newer = server.call("GET", V2, &[("accept", PROTOBUF)], Vec::new()).await;
    assert_eq!((newer.status.as_u16(), &newer.headers["content-type"]), (200, &PROTOBUF.parse().unwrap()));
    let refused = server.call("GET", V2, &[("accept", "application/test")], Vec::new()).await.expect(406);
    assert_eq!(refused["reason"], "NotAcceptable");
}

#[tokio::test]
async fn a_document_that_the_client_has_is_not_sent_again() {
    let server = Server::start().await;
    let first = server.call("GET", V2, &[KUBECTL], Vec::new()).await;
    let etag = first.headers["etag"].to_str().unwrap().to_owned();
    let modified = first.headers["last-modified"].to_str().unwrap().to_owned();
    for (name, value, status) in [
        ("if-none-match", etag.clone(), 304),
        ("if-none-match", format!("\"other\", W/{etag}"), 304),
        ("if-none-match", "*".to_owned(), 304),
        ("if-none-match", "\"other\"".to_owned(), 200),
        ("if-modified-since", modified, 304),
        ("if-modified-since", "Sat, 01 Jan 2000 00:00:00 GMT".to_owned(), 200),
        ("if-modified-since", "yesterday".to_owned(), 200),
    ] {
        let answer = server.call("GET", V2, &[KUBECTL, (name, &value)], Vec::new()).await;
        assert_eq!(answer.status.as_u16(), status, "{name}: {value}");
        assert_eq!(answer.body.is_empty(), status == 304);
        assert_eq!(answer.headers["etag"], etag.as_str());
    }
    let head = server.call("HEAD", V2, &[KUBECTL], Vec::new()).await;
    assert_eq!(head.headers["content-length"], first.body.len().to_string().as_str());
}

#[tokio::test]
async fn documents_are_packed_for_who_can_unpack() {
    let server = Server::start().await;
    for (path, accept) in [(V2, KUBECTL.1), (V2, "*/*"), ("/openapi/v3/apis/apps/v1", "application/json")] {
        let plain = server.call("GET", path, &[("accept", accept)], Vec::new()).await;
        assert!(!plain.headers.contains_key("content-encoding"));
        let headers = [("accept", accept), ("accept-encoding", "deflate, gzip")];
        let packed = server.call("GET", path, &headers, Vec::new()).await;
        assert_eq!(packed.headers["content-encoding"], "gzip");
        assert!(packed.body.len() * 4 < plain.body.len(), "{} of {}", packed.body.len(), plain.body.len());
        let mut unpacked = Vec::new();
        std::io::copy(&mut flate2::read::GzDecoder::new(&*packed.body), &mut unpacked).unwrap();
        assert_eq!(plain.body, unpacked, "{path}");
    }
}

#[tokio::test]
async fn a_v3_document_with_its_hash_never_changes() {
    let server = Server::start().await;
    let index = server.get("/openapi/v3").await.expect(200);
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap();
    let document = server.get(url).await;
    assert!(document.expect(200)["components"]["schemas"].get("io.k8s.api.apps.v1.Deployment").is_some());
    assert_eq!(document.headers["cache-control"], "public, immutable");
    assert!(document.headers["expires"].to_str().unwrap().ends_with(" GMT"));
    let other = server.get("/openapi/v3/apis/apps/v1?hash=0").await;
    assert_eq!((other.status.as_u16(), other.headers["location"].to_str().unwrap()), (301, url));
    let without = server.get("/openapi/v3/apis/apps/v1").await;
    assert_eq!(
        (without.text, &without.headers["cache-control"]),
        (document.text, &"no-cache, private".parse().unwrap())
    );
}
