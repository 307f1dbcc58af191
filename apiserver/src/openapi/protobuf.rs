//! The v2 document in protobuf, for clients that ask for it: kubectl when it validates by itself.
//!
//! The document's JSON and the descriptor of gnostic's `openapi.v2.Document` are walked side by side and the bytes
//! written straight down: messages as objects would take many times the document's size. Upstream: `ToProtoBinary` of
//! `kube-openapi/pkg/handler`, and gnostic's `openapiv2`.

use prost_reflect::prost::encoding::{WireType, encode_key, encode_varint};
use prost_reflect::{DescriptorError, DescriptorPool, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::Value;
use thiserror::Error;

#[cfg(test)]
mod tests;

const DOCUMENT: &str = "openapi.v2.Document";
/// Messages that stand for a JSON list, or for a single element.
const LISTS: &[&str] = &["ItemsItem", "StringArray", "TypeItem"];
/// Fields of the entries of a JSON object whose keys are free.
const ENTRIES: &[&str] = &["additional_properties", "path", "response_code"];

/// Why a document has no protobuf form.
#[derive(Debug, Error)]
pub(super) enum EncodeError {
    #[error("the descriptors of OpenAPI v2 are unusable")]
    Descriptors(#[from] DescriptorError),
    #[error("the descriptors of OpenAPI v2 lack {0}")]
    Missing(&'static str),
    #[error("{message} has no place for {key}")]
    NoPlace { message: String, key: String },
    #[error("{field} cannot hold {value}")]
    Type { field: String, value: Value },
}

/// The document in protobuf.
pub(super) fn encode(document: &Value) -> Result<Vec<u8>, EncodeError> {
    let pool = DescriptorPool::decode(proto::OPENAPI_DESCRIPTORS)?;
    let descriptor = pool.get_message_by_name(DOCUMENT).ok_or(EncodeError::Missing(DOCUMENT))?;
    message(&descriptor, document)
}

fn message(of: &MessageDescriptor, value: &Value) -> Result<Vec<u8>, EncodeError> {
    let mut out = Vec::new();
    if of.name() == "Any" {
        // JSON is YAML too.
        write(&place(of, "yaml")?, &Value::String(value.to_string()), &mut out)?;
    } else if LISTS.contains(&of.name()) {
        let field = of.fields().next().ok_or(EncodeError::Missing("the elements of a list"))?;
        write(&field, value, &mut out)?;
    } else if of.oneofs().len() > 0 {
        write(&variant(of, value)?, value, &mut out)?;
    } else {
        object(of, value, &mut out)?;
    }
    Ok(out)
}

/// The field of a union that this value is for.
fn variant(of: &MessageDescriptor, value: &Value) -> Result<FieldDescriptor, EncodeError> {
    let place_of_parameter = value.get("in").and_then(Value::as_str).unwrap_or_default();
    match of.name() {
        "AdditionalPropertiesItem" => place(of, if value.is_boolean() { "boolean" } else { "schema" }),
        "Parameter" if place_of_parameter == "body" => place(of, "body_parameter"),
        "Parameter" => place(of, "non_body_parameter"),
        "NonBodyParameter" => place(of, &format!("{place_of_parameter}_parameter_sub_schema")),
        // Of the others, Kubernetes' documents use one.
        _ => of.fields().next().ok_or(EncodeError::Missing("the fields of a union")),
    }
}

fn place(of: &MessageDescriptor, name: &str) -> Result<FieldDescriptor, EncodeError> {
    let missing = || EncodeError::NoPlace { message: of.name().to_owned(), key: name.to_owned() };
    of.get_field_by_name(name).ok_or_else(missing)
}

fn object(of: &MessageDescriptor, value: &Value, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let Value::Object(map) = value else {
        return Err(EncodeError::Type { field: of.name().to_owned(), value: value.clone() });
    };
    let extensions = of.get_field_by_name("vendor_extension");
    let entries = ENTRIES.iter().find_map(|name| of.get_field_by_name(name)).filter(FieldDescriptor::is_list);
    for (key, value) in map {
        let extension = extensions.as_ref().filter(|_| key.starts_with("x-"));
        match (extension.or(entries.as_ref()), key.as_str()) {
            (Some(named), _) => entry(named, key, value, out)?,
            (None, "$ref") => write(&place(of, "_ref")?, value, out)?,
            (None, _) => {
                let missing = || EncodeError::NoPlace { message: of.name().to_owned(), key: key.clone() };
                write(&of.get_field_by_json_name(key).ok_or_else(missing)?, value, out)?;
            }
        }
    }
    Ok(())
}

/// An entry of an object whose keys are free: a message of name and value.
fn entry(field: &FieldDescriptor, key: &str, value: &Value, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let Kind::Message(of) = field.kind() else {
        return Err(EncodeError::Missing("the entries of an object"));
    };
    let mut pair = Vec::new();
    write(&place(&of, "name")?, &Value::String(key.to_owned()), &mut pair)?;
    write(&place(&of, "value")?, value, &mut pair)?;
    write_bytes(field, &pair, out);
    Ok(())
}

/// A field, once for each element if it is repeated.
fn write(field: &FieldDescriptor, value: &Value, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    match value {
        Value::Array(elements) if field.is_list() => {
            elements.iter().try_for_each(|element| write_one(field, element, out))
        }
        _ => write_one(field, value, out),
    }
}

fn write_one(field: &FieldDescriptor, value: &Value, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    match (field.kind(), value) {
        (Kind::Message(of), _) => write_bytes(field, &message(&of, value)?, out),
        (Kind::String, Value::String(text)) => write_bytes(field, text.as_bytes(), out),
        (Kind::Bool, Value::Bool(set)) => {
            encode_key(field.number(), WireType::Varint, out);
            encode_varint(u64::from(*set), out);
        }
        (Kind::Int64, Value::Number(number)) if number.is_i64() => {
            encode_key(field.number(), WireType::Varint, out);
            // As protobuf has it: a negative number in two's complement.
            encode_varint(number.as_i64().unwrap_or_default().cast_unsigned(), out);
        }
        (Kind::Double, Value::Number(number)) => {
            encode_key(field.number(), WireType::SixtyFourBit, out);
            out.extend(number.as_f64().unwrap_or_default().to_le_bytes());
        }
        _ => return Err(EncodeError::Type { field: field.full_name().to_owned(), value: value.clone() }),
    }
    Ok(())
}

fn write_bytes(field: &FieldDescriptor, bytes: &[u8], out: &mut Vec<u8>) {
    encode_key(field.number(), WireType::LengthDelimited, out);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}
