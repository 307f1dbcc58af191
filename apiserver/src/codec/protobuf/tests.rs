//! Protobuf bodies against the JSON they stand for, and against bytes that are none.

use bytes::Bytes;
use prost_reflect::prost::Message as _;
use prost_reflect::{DynamicMessage, MapKey, MessageDescriptor, Value as Field};
use serde_json::{Value, json};

use super::schema::Schema;
use super::{MAGIC, to_json};

const CORE: &str = "k8s.io.api.core.v1";
const APPS: &str = "k8s.io.api.apps.v1";
const META: &str = "k8s.io.apimachinery.pkg.apis.meta.v1";
const RUNTIME: &str = "k8s.io.apimachinery.pkg.runtime";

fn descriptor(package: &str, name: &str) -> MessageDescriptor {
    Schema::get().unwrap().message(&format!("{package}.{name}")).unwrap()
}

fn message(package: &str, name: &str, fields: Vec<(&str, Field)>) -> DynamicMessage {
    let mut message = DynamicMessage::new(descriptor(package, name));
    for (name, value) in fields {
        message.set_field_by_name(name, value);
    }
    message
}

fn msg(package: &str, name: &str, fields: Vec<(&str, Field)>) -> Field {
    Field::Message(message(package, name, fields))
}

fn text(text: &str) -> Field {
    Field::String(text.to_owned())
}

fn map(entries: Vec<(&str, Field)>) -> Field {
    Field::Map(entries.into_iter().map(|(key, value)| (MapKey::String(key.to_owned()), value)).collect())
}

fn quantity(value: &str) -> Field {
    msg("k8s.io.apimachinery.pkg.api.resource", "Quantity", vec![("string", text(value))])
}

fn int_or_string(kind: i64, number: i32, string: &str) -> Field {
    let fields = vec![("type", Field::I64(kind)), ("intVal", Field::I32(number)), ("strVal", text(string))];
    msg("k8s.io.apimachinery.pkg.util.intstr", "IntOrString", fields)
}

/// As a Go client writes it.
fn envelope(api_version: &str, kind: &str, raw: Vec<u8>) -> Vec<u8> {
    let meta = msg(RUNTIME, "TypeMeta", vec![("apiVersion", text(api_version)), ("kind", text(kind))]);
    let fields = vec![
        ("typeMeta", meta),
        ("raw", Field::Bytes(raw.into())),
        ("contentEncoding", text("")),
        ("contentType", text("")),
    ];
    [MAGIC, &message(RUNTIME, "Unknown", fields).encode_to_vec()].concat()
}

fn decode(body: Vec<u8>) -> Value {
    serde_json::from_slice(&to_json(Bytes::from(body)).unwrap()).unwrap()
}

fn refusal(body: Vec<u8>) -> String {
    let error = to_json(Bytes::from(body)).unwrap_err();
    assert_eq!(error.code(), 400);
    error.message().to_owned()
}

fn deployment(replicas: i32) -> Vec<u8> {
    let probe_handler = msg(
        CORE,
        "ProbeHandler",
        vec![(
            "httpGet",
            msg(CORE, "HTTPGetAction", vec![("path", text("/")), ("port", int_or_string(1, 0, "web"))]),
        )],
    );
    let container = msg(
        CORE,
        "Container",
        vec![
            ("name", text("c")),
            ("image", text("")),
            ("stdin", Field::Bool(false)),
            (
                "readinessProbe",
                msg(CORE, "Probe", vec![("handler", probe_handler), ("periodSeconds", Field::I32(0))]),
            ),
            (
                "env",
                Field::List(vec![msg(
                    CORE,
                    "EnvVar",
                    vec![
                        ("name", text("A")),
                        (
                            "valueFrom",
                            msg(
                                CORE,
                                "EnvVarSource",
                                vec![(
                                    "secretKeyRef",
                                    msg(
                                        CORE,
                                        "SecretKeySelector",
                                        vec![
                                            (
                                                "localObjectReference",
                                                msg(CORE, "LocalObjectReference", vec![("name", text("s"))]),
                                            ),
                                            ("key", text("k")),
                                            ("optional", Field::Bool(false)),
                                        ],
                                    ),
                                )],
                            ),
                        ),
                    ],
                )]),
            ),
            (
                "resources",
                msg(CORE, "ResourceRequirements", vec![("limits", map(vec![("cpu", quantity("100m"))]))]),
            ),
        ],
    );
    let volume = msg(
        CORE,
        "Volume",
        vec![
            ("name", text("v")),
            (
                "volumeSource",
                msg(
                    CORE,
                    "VolumeSource",
                    vec![("emptyDir", msg(CORE, "EmptyDirVolumeSource", vec![("medium", text(""))]))],
                ),
            ),
        ],
    );
    let pod = msg(
        CORE,
        "PodSpec",
        vec![
            ("containers", Field::List(vec![container])),
            ("volumes", Field::List(vec![volume])),
            ("hostNetwork", Field::Bool(false)),
            ("terminationGracePeriodSeconds", Field::I64(0)),
        ],
    );
    let object_meta = |fields: Vec<(&'static str, Field)>| {
        let mut fields = fields;
        fields.push(("creationTimestamp", msg(META, "Time", vec![])));
        fields.push(("generation", Field::I64(0)));
        msg(META, "ObjectMeta", fields)
    };
    let spec = vec![
        ("replicas", Field::I32(replicas)),
        ("template", msg(CORE, "PodTemplateSpec", vec![("metadata", object_meta(vec![])), ("spec", pod)])),
        ("minReadySeconds", Field::I32(0)),
        ("paused", Field::Bool(false)),
    ];
    let fields = vec![
        ("metadata", object_meta(vec![("name", text("d")), ("namespace", text(""))])),
        ("spec", msg(APPS, "DeploymentSpec", spec)),
    ];
    message(APPS, "Deployment", fields).encode_to_vec()
}

#[test]
fn a_deployment_is_what_its_json_would_be() {
    let value = decode(envelope("apps/v1", "Deployment", deployment(0)));
    let want = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "d"},
        "spec": {
            "replicas": 0,
            "template": {
                "metadata": {},
                "spec": {
                    "containers": [{
                        "name": "c",
                        "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": false}}}],
                        "resources": {"limits": {"cpu": "100m"}},
                        "readinessProbe": {"httpGet": {"path": "/", "port": "web"}},
                    }],
                    "volumes": [{"name": "v", "emptyDir": {}}],
                    "terminationGracePeriodSeconds": 0,
                },
            },
        },
    });
    assert_eq!(value, want);
}

#[test]
fn special_types_have_their_json_form() {
    let time = |name, seconds, nanos| {
        msg(META, name, vec![("seconds", Field::I64(seconds)), ("nanos", Field::I32(nanos))])
    };
    for (api_version, kind, package, field, value, want) in [
        (
            "v1",
            "Secret",
            CORE,
            "data",
            map(vec![("k", Field::Bytes(Bytes::from_static(b"\0v")))]),
            json!({"k": "AHY="}),
        ),
        ("v1", "ConfigMap", CORE, "data", map(vec![("k", text(""))]), json!({"k": ""})),
        ("v1", "ConfigMap", CORE, "immutable", Field::Bool(false), json!(false)),
        (
            "v1",
            "Event",
            CORE,
            "firstTimestamp",
            time("Time", 1_700_000_000, 999),
            json!("2023-11-14T22:13:20Z"),
        ),
        (
            "v1",
            "Event",
            CORE,
            "eventTime",
            time("MicroTime", 1_700_000_000, 1_000),
            json!("2023-11-14T22:13:20.000001Z"),
        ),
        ("v1", "Event", CORE, "count", Field::I32(0), Value::Null),
        (
            "policy/v1",
            "PodDisruptionBudget",
            "k8s.io.api.policy.v1",
            "spec",
            msg(
                "k8s.io.api.policy.v1",
                "PodDisruptionBudgetSpec",
                vec![("minAvailable", int_or_string(0, 0, ""))],
            ),
            json!({"minAvailable": 0}),
        ),
        (
            "apps/v1",
            "ControllerRevision",
            APPS,
            "data",
            msg(RUNTIME, "RawExtension", vec![("raw", Field::Bytes(Bytes::from_static(b"{\"a\":1}")))]),
            json!({"a": 1}),
        ),
        (
            "apps/v1",
            "ControllerRevision",
            APPS,
            "data",
            msg(
                RUNTIME,
                "RawExtension",
                vec![("raw", Field::Bytes(envelope("v1", "Namespace", Vec::new()).into()))],
            ),
            json!({"apiVersion": "v1", "kind": "Namespace"}),
        ),
        (
            "authentication.k8s.io/v1",
            "TokenReview",
            "k8s.io.api.authentication.v1",
            "status",
            msg(
                "k8s.io.api.authentication.v1",
                "TokenReviewStatus",
                vec![(
                    "user",
                    msg(
                        "k8s.io.api.authentication.v1",
                        "UserInfo",
                        vec![(
                            "extra",
                            map(vec![(
                                "e",
                                msg(
                                    "k8s.io.api.authentication.v1",
                                    "ExtraValue",
                                    vec![("items", Field::List(vec![text("x")]))],
                                ),
                            )]),
                        )],
                    ),
                )],
            ),
            json!({"user": {"extra": {"e": ["x"]}}}),
        ),
    ] {
        let raw = message(package, kind, vec![(field, value)]).encode_to_vec();
        let value = decode(envelope(api_version, kind, raw));
        assert_eq!(value.get(field).cloned().unwrap_or_default(), want, "{kind} {field}");
        assert_eq!(value["kind"], kind);
    }
}

#[test]
fn options_are_known_in_every_group() {
    let raw = message(META, "DeleteOptions", vec![("gracePeriodSeconds", Field::I64(0))]).encode_to_vec();
    for api_version in ["v1", "apps/v1", "example.com/v7"] {
        let want = json!({"apiVersion": api_version, "kind": "DeleteOptions", "gracePeriodSeconds": 0});
        assert_eq!(decode(envelope(api_version, "DeleteOptions", raw.clone())), want);
    }
}

/// Every kind that a client can write has a message; a package or message lost from the definitions would show here.
#[test]
fn every_served_kind_has_a_message() {
    let schema = Schema::get().unwrap();
    let missing: Vec<_> = crate::registry::all::all()
        .iter()
        .map(|resource| resource.info())
        .filter(|info| schema.object(&info.api_version(), info.kind).is_none())
        .map(|info| format!("{} {}", info.api_version(), info.kind))
        .collect();
    assert_eq!(missing, Vec::<String>::new());
    for (api_version, kind) in [
        ("v1", "Binding"),
        ("policy/v1", "Eviction"),
        ("autoscaling/v1", "Scale"),
        ("authentication.k8s.io/v1", "TokenRequest"),
        ("authentication.k8s.io/v1", "TokenReview"),
        ("authentication.k8s.io/v1", "SelfSubjectReview"),
        ("authorization.k8s.io/v1", "SubjectAccessReview"),
        ("authorization.k8s.io/v1", "LocalSubjectAccessReview"),
        ("authorization.k8s.io/v1", "SelfSubjectAccessReview"),
        ("authorization.k8s.io/v1", "SelfSubjectRulesReview"),
    ] {
        assert!(schema.object(api_version, kind).is_some(), "{api_version} {kind}");
    }
}

#[test]
fn what_cannot_be_read_is_400() {
    for (body, part) in [
        (Vec::new(), "expected prefix [107 56 115 0]"),
        (b"{\"kind\":\"Pod\"}".to_vec(), "(7b226b696e64223a22506f64227d)"),
        (MAGIC.to_vec(), "Object 'Kind' is missing"),
        (b"k8s\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(), "unrecognized"),
        (envelope("v1", "Nothing", Vec::new()), "no kind \"Nothing\" is registered for version \"v1\""),
        (envelope("v1", "Pod", vec![0x0a, 0xff]), "Pod in version \"v1\" cannot be handled as a Pod"),
        (
            envelope(
                "v1",
                "Event",
                vec![0x32, 0x0a, 0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 0x00],
            ),
            "cannot be handled as a Event",
        ),
    ] {
        let message = refusal(body);
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn truncated_and_garbled_bodies_never_panic() {
    let whole = envelope("apps/v1", "Deployment", deployment(1));
    let read = |length: &usize| match to_json(Bytes::copy_from_slice(&whole[..*length])) {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.code(), 400);
            false
        }
    };
    // Only a cut between the envelope's fields leaves an envelope: after its TypeMeta, its raw and its contentEncoding.
    let readable: Vec<_> = (0..whole.len()).filter(read).collect();
    assert_eq!(readable.len(), 3);
    assert_eq!(readable[1..], [whole.len() - 4, whole.len() - 2]);
    for at in 0..whole.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut body = whole.clone();
            body[at] ^= flip;
            if let Err(error) = to_json(Bytes::from(body)) {
                assert_eq!(error.code(), 400);
            }
        }
    }
}

#[test]
fn nesting_is_bounded() {
    let mut body = envelope("v1", "Namespace", Vec::new());
    for _ in 0..10 {
        let raw = msg(RUNTIME, "RawExtension", vec![("raw", Field::Bytes(body.into()))]);
        body = envelope(
            "apps/v1",
            "ControllerRevision",
            message(APPS, "ControllerRevision", vec![("data", raw)]).encode_to_vec(),
        );
    }
    assert!(refusal(body).contains("nested too deeply"));
    // No message that is served contains itself: depth comes from unknown groups only.
    let mut deep = vec![0x0b; 100_000];
    deep.extend(vec![0x0c; 100_000]);
    assert!(refusal(envelope("v1", "Pod", deep)).contains("Pod in version"));
}
