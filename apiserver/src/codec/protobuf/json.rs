//! Messages as JSON values, as Go's types would marshal them. The fields' names are JSON's. Go's generated code writes a
//! scalar that is no pointer even when it is zero, and JSON's `omitempty` leaves it out again: so zero stays only where
//! Go has a pointer (`Schema::is_pointer`), and defaulting sees what it sees of a JSON body.
//!
//! Upstream: the `json` tags of `k8s.io/api` and the marshallers of Time, Quantity, IntOrString, RawExtension.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use jiff::Timestamp;
use prost_reflect::{DynamicMessage, MapKey, ReflectMessage, Value as Field};
use serde_json::{Map, Number, Value};

use super::schema::Schema;
use super::{Error, MAGIC};

/// Go's second resolution, and `MicroTime`'s.
const SECONDS: &str = "%Y-%m-%dT%H:%M:%SZ";
const MICROSECONDS: &str = "%Y-%m-%dT%H:%M:%S%.6fZ";

#[derive(Debug, Clone, Copy)]
pub(super) struct Writer<'a> {
    pub schema: &'a Schema,
    pub nesting: usize,
}

impl Writer<'_> {
    /// The fields of a message. Recursion is bounded by the decoder's limit of 100 levels.
    pub(super) fn object(self, message: &DynamicMessage) -> Result<Map<String, Value>, Error> {
        let mut object = Map::new();
        self.fill(&mut object, message)?;
        Ok(object)
    }

    fn fill(self, object: &mut Map<String, Value>, message: &DynamicMessage) -> Result<(), Error> {
        for (field, value) in message.fields() {
            if let Field::Message(inner) = value
                && self.schema.is_inline(&field)
            {
                self.fill(object, inner)?;
                continue;
            }
            if is_zero(value) && !self.schema.is_pointer(&field) {
                continue;
            }
            let value = self.value(value).map_err(|error| within(field.name(), error))?;
            if !value.is_null() {
                object.insert(field.name().to_owned(), value);
            }
        }
        Ok(())
    }

    fn value(self, value: &Field) -> Result<Value, Error> {
        Ok(match value {
            Field::Bool(value) => Value::Bool(*value),
            Field::I32(value) | Field::EnumNumber(value) => (*value).into(),
            Field::I64(value) => (*value).into(),
            Field::U32(value) => (*value).into(),
            Field::U64(value) => (*value).into(),
            Field::F32(value) => number(f64::from(*value))?,
            Field::F64(value) => number(*value)?,
            Field::String(value) => value.clone().into(),
            Field::Bytes(value) => STANDARD.encode(value).into(),
            Field::Message(message) => self.message(message)?,
            Field::List(values) => {
                Value::Array(values.iter().map(|value| self.value(value)).collect::<Result<_, _>>()?)
            }
            Field::Map(entries) => {
                let mut map = Map::new();
                for (key, value) in entries {
                    let MapKey::String(key) = key else { return Err(problem("a key is no string")) };
                    map.insert(key.clone(), self.value(value)?);
                }
                Value::Object(map)
            }
        })
    }

    /// A message, some of which are no objects in JSON. Null stands for one that JSON leaves out.
    fn message(self, message: &DynamicMessage) -> Result<Value, Error> {
        let descriptor = message.descriptor();
        match descriptor.full_name() {
            "k8s.io.apimachinery.pkg.apis.meta.v1.Time" => time(message, SECONDS),
            "k8s.io.apimachinery.pkg.apis.meta.v1.MicroTime" => time(message, MICROSECONDS),
            "k8s.io.apimachinery.pkg.api.resource.Quantity" => {
                let text = super::text(message, "string");
                Ok(if text.is_empty() { "0".into() } else { text.into() })
            }
            "k8s.io.apimachinery.pkg.util.intstr.IntOrString" => match integer(message, "type") {
                0 => Ok(integer(message, "intVal").into()),
                1 => Ok(super::text(message, "strVal").into()),
                other => Err(problem(format!("impossible IntOrString.Type {other}"))),
            },
            "k8s.io.apimachinery.pkg.runtime.RawExtension"
            | "k8s.io.apimachinery.pkg.apis.meta.v1.FieldsV1" => self.raw(message),
            // A named list in Go.
            "k8s.io.api.authentication.v1.ExtraValue"
            | "k8s.io.api.authorization.v1.ExtraValue"
            | "k8s.io.api.certificates.v1.ExtraValue"
            | "k8s.io.apimachinery.pkg.apis.meta.v1.Verbs" => match message.get_field_by_name("items") {
                Some(items) => self.value(&items),
                None => Ok(Value::Array(Vec::new())),
            },
            _ => self.object(message).map(Value::Object),
        }
    }

    /// Bytes that hold JSON, or another enveloped object.
    fn raw(self, message: &DynamicMessage) -> Result<Value, Error> {
        let raw = match message.get_field_by_name("raw").as_deref() {
            Some(Field::Bytes(raw)) => raw.clone(),
            _ => Bytes::new(),
        };
        if raw.is_empty() {
            return Ok(Value::Null);
        }
        if raw.starts_with(MAGIC) {
            return super::decode(raw, self.nesting + 1).map_err(|failure| failure.error);
        }
        serde_json::from_slice(&raw).map_err(|error| problem(format!("no JSON: {error}")))
    }
}

fn is_zero(value: &Field) -> bool {
    match value {
        Field::Bool(value) => !value,
        Field::I32(value) | Field::EnumNumber(value) => *value == 0,
        Field::I64(value) => *value == 0,
        Field::U32(value) => *value == 0,
        Field::U64(value) => *value == 0,
        Field::F32(value) => *value == 0.0,
        Field::F64(value) => *value == 0.0,
        Field::String(value) => value.is_empty(),
        Field::Bytes(value) => value.is_empty(),
        // Presence is meaning: `emptyDir: {}`.
        Field::Message(_) | Field::List(_) | Field::Map(_) => false,
    }
}

fn number(value: f64) -> Result<Value, Error> {
    Number::from_f64(value).map(Value::Number).ok_or_else(|| problem("not a finite number"))
}

/// An integer field; 0 if it is not set.
fn integer(message: &DynamicMessage, name: &str) -> i64 {
    match message.get_field_by_name(name).as_deref() {
        Some(Field::I64(value)) => *value,
        Some(Field::I32(value)) => i64::from(*value),
        _ => 0,
    }
}

/// A time in RFC 3339; zero means none.
fn time(message: &DynamicMessage, format: &str) -> Result<Value, Error> {
    let (seconds, nanos) = (integer(message, "seconds"), integer(message, "nanos"));
    if (seconds, nanos) == (0, 0) {
        return Ok(Value::Null);
    }
    let nanos = i32::try_from(nanos).map_err(problem)?;
    let time = Timestamp::new(seconds, nanos).map_err(problem)?;
    Ok(time.strftime(format).to_string().into())
}

fn problem(problem: impl ToString) -> Error {
    Error::Field { field: String::new(), problem: problem.to_string() }
}

/// Names the field of a problem, outermost first.
fn within(name: &str, error: Error) -> Error {
    match error {
        Error::Field { field, problem } if field.is_empty() => {
            Error::Field { field: name.to_owned(), problem }
        }
        Error::Field { field, problem } => Error::Field { field: format!("{name}.{field}"), problem },
        other => other,
    }
}
