//! The protobuf form against what gnostic writes, and decoded again against the JSON it was made from.

use prost_reflect::{DynamicMessage, ReflectMessage, Value as Field};
use serde_json::{Map, json};

use super::*;
use crate::openapi::{Definitions, paths, v2};
use crate::registry::all::all;
use crate::registry::resources::Resources;

/// The JSON of a document in protobuf.
fn decode(bytes: &[u8]) -> Value {
    let pool = DescriptorPool::decode(proto::OPENAPI_DESCRIPTORS).unwrap();
    let descriptor = pool.get_message_by_name(DOCUMENT).unwrap();
    to_json(&DynamicMessage::decode(descriptor, bytes).unwrap())
}

fn to_json(message: &DynamicMessage) -> Value {
    let descriptor = message.descriptor();
    let name = descriptor.name();
    assert_eq!(message.unknown_fields().count(), 0, "{name}");
    if name == "Any" {
        let yaml = message.get_field_by_name("yaml").unwrap();
        return serde_json::from_str(yaml.as_str().unwrap()).unwrap();
    }
    let only = message.fields().next().map(|(_, value)| field_to_json(value));
    if LISTS.contains(&name) {
        return match only {
            Some(Value::Array(mut list)) if list.len() == 1 && name != "StringArray" => list.remove(0),
            list => list.unwrap_or(json!([])),
        };
    }
    if descriptor.oneofs().len() > 0 {
        return only.unwrap();
    }
    let mut object = Map::new();
    for (field, value) in message.fields() {
        match field.name() {
            "_ref" => assert!(object.insert("$ref".to_owned(), field_to_json(value)).is_none()),
            "vendor_extension" | "path" | "response_code" => entries(value, &mut object),
            "additional_properties" if field.is_list() => entries(value, &mut object),
            _ => assert!(object.insert(field.json_name().to_owned(), field_to_json(value)).is_none()),
        }
    }
    Value::Object(object)
}

fn entries(named: &Field, object: &mut Map<String, Value>) {
    for entry in named.as_list().unwrap() {
        let entry = entry.as_message().unwrap();
        let name = entry.get_field_by_name("name").unwrap().as_str().unwrap().to_owned();
        let value = field_to_json(&entry.get_field_by_name("value").unwrap());
        assert!(object.insert(name.clone(), value).is_none(), "{name} is there twice");
    }
}

fn field_to_json(field: &Field) -> Value {
    match field {
        Field::Bool(set) => json!(set),
        Field::I64(number) => json!(number),
        Field::F64(number) => json!(number),
        Field::String(text) => json!(text),
        Field::Message(message) => to_json(message),
        Field::List(list) => list.iter().map(field_to_json).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_document_of_all_resources_loses_nothing() {
    let resources = Resources::new(all());
    let document = v2::document(&paths::all(&resources), &Definitions::of(&resources));
    let decoded = decode(&encode(&document).unwrap());
    for part in ["paths", "definitions"] {
        let (entries, decoded) = (document[part].as_object().unwrap(), decoded[part].as_object().unwrap());
        assert!(entries.len() > 100, "{part}: {}", entries.len());
        for (name, value) in entries {
            assert_eq!(decoded.get(name), Some(value), "{part}: {name}");
        }
    }
    assert_eq!(decoded, document);
}

/// What built-in kinds do not use, but kinds with a schema of their own may.
#[test]
fn schemas_lose_nothing() {
    let document = json!({"definitions": {
        "x-definition": {"type": ["string", "null"], "enum": ["a", 1, null], "default": {"a": [1.5]}},
        "bounds": {"minimum": -0.5, "maxLength": 9_007_199_254_740_993_i64, "minItems": -1, "uniqueItems": true},
        "maps": {"additionalProperties": true, "x-extension": true, "allOf": [{"$ref": "#/definitions/bounds"}]},
        "names": {"properties": {
            "additionalProperties": {"additionalProperties": {"type": "integer", "format": "int64"}},
            "x-property": {"items": {"readOnly": true}},
            "$ref": {"title": "\u{7f}\n\"'ü: {}"},
            "properties": {"properties": {}},
        }},
    }});
    assert_eq!(decode(&encode(&document).unwrap()), document);
}

/// A field as protobuf has it, if it is not long.
fn tagged(number: u16, body: &[u8]) -> Vec<u8> {
    let key = number << 3 | 2;
    let mut out = match key {
        0..128 => vec![key.to_le_bytes()[0]],
        _ => vec![(key & 127 | 128).to_le_bytes()[0], (key >> 7).to_le_bytes()[0]],
    };
    out.push(u8::try_from(body.len()).ok().filter(|length| *length < 128).unwrap());
    out.extend(body);
    out
}

/// The numbers here are gnostic's, written down apart from our definition.
#[test]
fn fields_have_the_numbers_of_gnostic() {
    let text = |number: u16, text: &str| tagged(number, text.as_bytes());
    let list = |number: u16, inner: Vec<u8>| tagged(number, &inner);
    let named = |name: &str, value: Vec<u8>| [text(1, name), tagged(2, &value)].concat();
    let check =
        |document: Value, expected: Vec<u8>| assert_eq!(encode(&document).unwrap(), expected, "{document}");

    check(json!({"swagger": "2.0"}), text(1, "2.0"));
    check(json!({"info": {"version": "v1"}}), list(2, text(2, "v1")));
    check(json!({"security": [{"B": ["s"]}]}), list(12, list(1, named("B", text(1, "s")))));
    let api_key = tagged(2, &[text(1, "apiKey"), text(3, "header")].concat());
    check(
        json!({"securityDefinitions": {"B": {"type": "apiKey", "in": "header"}}}),
        list(13, list(1, named("B", api_key))),
    );
    let path = |item: Vec<u8>| list(8, list(2, named("/p", item)));
    check(json!({"paths": {"/p": {"get": {"operationId": "i"}}}}), path(list(2, text(5, "i"))));
    check(json!({"paths": {"/p": {"patch": {"consumes": ["c"]}}}}), path(list(8, text(7, "c"))));
    check(
        json!({"paths": {"/p": {"patch": {"x-a": {"kind": "K"}}}}}),
        path(list(8, list(13, named("x-a", text(2, r#"{"kind":"K"}"#))))),
    );
    let parameter = |inner: Vec<u8>| path(list(8, list(8, list(1, inner))));
    check(
        json!({"paths": {"/p": {"patch": {"parameters": [{"in": "query", "name": "n"}]}}}}),
        parameter(list(2, list(3, [text(2, "query"), text(4, "n")].concat()))),
    );
    check(
        json!({"paths": {"/p": {"patch": {"parameters": [{"in": "path", "type": "t"}]}}}}),
        parameter(list(2, list(4, [text(2, "path"), text(5, "t")].concat()))),
    );
    check(
        json!({"paths": {"/p": {"patch": {"parameters": [{"in": "body", "schema": {"$ref": "r"}}]}}}}),
        parameter(list(1, [text(3, "body"), list(5, text(1, "r"))].concat())),
    );
    check(
        json!({"paths": {"/p": {"put": {"responses": {"200": {"schema": {"$ref": "r"}}}}}}}),
        path(list(3, list(9, list(1, named("200", list(1, list(2, list(1, text(1, "r"))))))))),
    );
    let definition = |schema: Vec<u8>| list(9, list(1, named("D", schema)));
    check(json!({"definitions": {"D": {"type": "object"}}}), definition(list(22, text(1, "object"))));
    check(json!({"definitions": {"D": {"required": ["a"]}}}), definition(text(19, "a")));
    check(json!({"definitions": {"D": {"enum": ["a"]}}}), definition(list(20, text(2, r#""a""#))));
    check(
        json!({"definitions": {"D": {"additionalProperties": {"format": "f"}}}}),
        definition(list(21, list(1, text(2, "f")))),
    );
    check(
        json!({"definitions": {"D": {"additionalProperties": false}}}),
        definition(tagged(21, &[2 << 3, 0])),
    );
    check(
        json!({"definitions": {"D": {"items": {"description": "d"}}}}),
        definition(list(23, list(1, text(4, "d")))),
    );
    check(
        json!({"definitions": {"D": {"properties": {"p": {"x-b": 1}}}}}),
        definition(list(25, list(1, named("p", list(31, named("x-b", text(2, "1"))))))),
    );
}

#[test]
fn what_has_no_place_is_an_error() {
    for (document, message) in [
        (json!({"definitions": {"D": {"oneOf": []}}}), "Schema has no place for oneOf"),
        (json!({"definitions": {"D": {"format": 1}}}), "openapi.v2.Schema.format cannot hold 1"),
        (json!({"definitions": []}), "Definitions cannot hold []"),
        (
            json!({"paths": {"/p": {"parameters": [{"in": "cookie"}]}}}),
            "NonBodyParameter has no place for cookie_parameter_sub_schema",
        ),
    ] {
        assert_eq!(encode(&document).unwrap_err().to_string(), message);
    }
}
