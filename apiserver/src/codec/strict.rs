//! A deserializer around another that keeps the path of the value being read, and notes fields that the type ignores
//! and keys that come twice. Switched off it costs a branch here and there.
//!
//! The path lives in one buffer that grows and shrinks with the nesting, so that noting nothing allocates nothing.

use std::collections::HashSet;
use std::fmt;
use std::hash::{BuildHasher, RandomState};

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, IntoDeserializer, MapAccess, SeqAccess, VariantAccess,
    Visitor,
};

/// Maps with more keys than this are searched for duplicates by a table.
const LINEAR: usize = 64;

/// Where the decoder is, and what it has noticed.
pub(super) struct Tracker {
    on: bool,
    path: String,
    /// Hashes of the keys of all open maps, innermost last.
    keys: Vec<u64>,
    hasher: RandomState,
    problems: Vec<String>,
}

impl Tracker {
    pub(super) fn new(on: bool) -> Self {
        Self { on, path: String::new(), keys: Vec::new(), hasher: RandomState::new(), problems: Vec::new() }
    }

    pub(super) fn into_problems(self) -> Vec<String> {
        self.problems
    }

    fn push_key(&mut self, key: &str) {
        if !self.path.is_empty() {
            self.path.push('.');
        }
        self.path.push_str(key);
    }

    fn push_index(&mut self, index: usize) {
        self.path.push('[');
        self.path.push_str(itoa::Buffer::new().format(index));
        self.path.push(']');
    }

    fn ignored(&mut self) {
        if self.on {
            self.problems.push(format!("unknown field \"{}\"", self.path));
        }
    }

    fn duplicate(&mut self) {
        self.problems.push(format!("duplicate field \"{}\"", self.path));
    }
}

/// The deserializer of a value.
pub(super) struct StrictDeserializer<'t, D> {
    inner: D,
    tracker: &'t mut Tracker,
}

impl<'t, D> StrictDeserializer<'t, D> {
    pub(super) fn new(inner: D, tracker: &'t mut Tracker) -> Self {
        Self { inner, tracker }
    }
}

macro_rules! forward_deserialize {
    ($($method:ident),* $(,)?) => {
        $(
            fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
                self.inner.$method(StrictVisitor { inner: visitor, tracker: self.tracker })
            }
        )*
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for StrictDeserializer<'_, D> {
    type Error = D::Error;

    forward_deserialize!(
        deserialize_any,
        deserialize_bool,
        deserialize_i8,
        deserialize_i16,
        deserialize_i32,
        deserialize_i64,
        deserialize_i128,
        deserialize_u8,
        deserialize_u16,
        deserialize_u32,
        deserialize_u64,
        deserialize_u128,
        deserialize_f32,
        deserialize_f64,
        deserialize_char,
        deserialize_str,
        deserialize_string,
        deserialize_bytes,
        deserialize_byte_buf,
        deserialize_option,
        deserialize_unit,
        deserialize_seq,
        deserialize_map,
        deserialize_identifier,
    );

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.tracker.ignored();
        self.inner.deserialize_ignored_any(visitor)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_unit_struct(name, StrictVisitor { inner: visitor, tracker: self.tracker })
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        if name == "Quantity" {
            let text = quantity(self.inner)?;
            return visitor.visit_newtype_struct(serde::de::value::StringDeserializer::new(text));
        }
        self.inner.deserialize_newtype_struct(name, StrictVisitor { inner: visitor, tracker: self.tracker })
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_tuple(len, StrictVisitor { inner: visitor, tracker: self.tracker })
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_tuple_struct(
            name,
            len,
            StrictVisitor { inner: visitor, tracker: self.tracker },
        )
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_struct(name, fields, StrictVisitor { inner: visitor, tracker: self.tracker })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_enum(name, variants, StrictVisitor { inner: visitor, tracker: self.tracker })
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

/// The visitor of a value: wraps what is inside it.
struct StrictVisitor<'t, V> {
    inner: V,
    tracker: &'t mut Tracker,
}

macro_rules! forward_visit {
    ($($method:ident: $type:ty),* $(,)?) => {
        $(
            fn $method<E: Error>(self, value: $type) -> Result<V::Value, E> {
                self.inner.$method(value)
            }
        )*
    };
}

impl<'de, V: Visitor<'de>> Visitor<'de> for StrictVisitor<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    forward_visit!(
        visit_bool: bool,
        visit_i8: i8,
        visit_i16: i16,
        visit_i32: i32,
        visit_i64: i64,
        visit_i128: i128,
        visit_u8: u8,
        visit_u16: u16,
        visit_u32: u32,
        visit_u64: u64,
        visit_u128: u128,
        visit_f32: f32,
        visit_f64: f64,
        visit_char: char,
        visit_str: &str,
        visit_borrowed_str: &'de str,
        visit_string: String,
        visit_bytes: &[u8],
        visit_borrowed_bytes: &'de [u8],
        visit_byte_buf: Vec<u8>,
    );

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, de: D) -> Result<V::Value, D::Error> {
        self.inner.visit_some(StrictDeserializer { inner: de, tracker: self.tracker })
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, de: D) -> Result<V::Value, D::Error> {
        self.inner.visit_newtype_struct(StrictDeserializer { inner: de, tracker: self.tracker })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<V::Value, A::Error> {
        self.inner.visit_seq(StrictSeq { inner: seq, tracker: self.tracker, index: 0 })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        let (base, first_key) = (self.tracker.path.len(), self.tracker.keys.len());
        let map = StrictMap { inner: map, tracker: self.tracker, base, first_key, many: None };
        self.inner.visit_map(map)
    }

    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<V::Value, A::Error> {
        self.inner.visit_enum(StrictEnum { inner: data, tracker: self.tracker })
    }
}

struct StrictSeq<'t, A> {
    inner: A,
    tracker: &'t mut Tracker,
    index: usize,
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for StrictSeq<'_, A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        let base = self.tracker.path.len();
        if self.tracker.on {
            self.tracker.push_index(self.index);
            self.index += 1;
        }
        let element = self.inner.next_element_seed(StrictSeed { inner: seed, tracker: self.tracker });
        self.tracker.path.truncate(base);
        element
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

struct StrictMap<'t, A> {
    inner: A,
    tracker: &'t mut Tracker,
    /// Length of the path of the map itself.
    base: usize,
    /// Where the map's keys begin among the tracker's.
    first_key: usize,
    /// The keys, once there are many.
    many: Option<HashSet<u64>>,
}

impl<A> StrictMap<'_, A> {
    /// Notes the key that was just put at the end of the path.
    fn note_key(&mut self, hash: u64) {
        let seen = &self.tracker.keys[self.first_key..];
        let twice = if let Some(many) = &mut self.many {
            !many.insert(hash)
        } else {
            let twice = seen.contains(&hash);
            if seen.len() >= LINEAR {
                self.many = Some(seen.iter().copied().chain([hash]).collect());
            }
            twice
        };
        if twice {
            self.tracker.duplicate();
        } else {
            self.tracker.keys.push(hash);
        }
    }
}

impl<A> Drop for StrictMap<'_, A> {
    fn drop(&mut self) {
        self.tracker.path.truncate(self.base);
        self.tracker.keys.truncate(self.first_key);
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for StrictMap<'_, A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        if !self.tracker.on {
            return self.inner.next_key_seed(seed);
        }
        self.tracker.path.truncate(self.base);
        let mut hash = None;
        let key =
            self.inner.next_key_seed(KeySeed { inner: seed, tracker: self.tracker, hash: &mut hash })?;
        if let Some(hash) = hash {
            self.note_key(hash);
        }
        Ok(key)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        let value = self.inner.next_value_seed(StrictSeed { inner: seed, tracker: self.tracker });
        self.tracker.path.truncate(self.base);
        value
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

struct StrictSeed<'t, S> {
    inner: S,
    tracker: &'t mut Tracker,
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for StrictSeed<'_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, de: D) -> Result<S::Value, D::Error> {
        self.inner.deserialize(StrictDeserializer { inner: de, tracker: self.tracker })
    }
}

struct StrictEnum<'t, A> {
    inner: A,
    tracker: &'t mut Tracker,
}

impl<'de, 't, A: EnumAccess<'de>> EnumAccess<'de> for StrictEnum<'t, A> {
    type Error = A::Error;
    type Variant = StrictVariant<'t, A::Variant>;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self::Variant), A::Error> {
        let (value, variant) = self.inner.variant_seed(seed)?;
        Ok((value, StrictVariant { inner: variant, tracker: self.tracker }))
    }
}

struct StrictVariant<'t, A> {
    inner: A,
    tracker: &'t mut Tracker,
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for StrictVariant<'_, A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.inner.unit_variant()
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        self.inner.newtype_variant_seed(StrictSeed { inner: seed, tracker: self.tracker })
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        self.inner.tuple_variant(len, StrictVisitor { inner: visitor, tracker: self.tracker })
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.inner.struct_variant(fields, StrictVisitor { inner: visitor, tracker: self.tracker })
    }
}

/// Reads a key and puts it on the path: the text is read here and handed on to the key's own type.
struct KeySeed<'t, S> {
    inner: S,
    tracker: &'t mut Tracker,
    hash: &'t mut Option<u64>,
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for KeySeed<'_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, de: D) -> Result<S::Value, D::Error> {
        de.deserialize_str(self)
    }
}

impl<'de, S: DeserializeSeed<'de>> Visitor<'de> for KeySeed<'_, S> {
    type Value = S::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<S::Value, E> {
        *self.hash = Some(self.tracker.hasher.hash_one(key));
        self.tracker.push_key(key);
        self.inner.deserialize(key.into_deserializer())
    }
}

/// The text of a quantity, which may stand there as a number too (`cpu: 1`). Upstream refuses a bad one while it
/// decodes, so that is a bad request and not an invalid object.
fn quantity<'de, D: Deserializer<'de>>(de: D) -> Result<String, D::Error> {
    let text = match <serde_json::Value as serde::Deserialize>::deserialize(de)? {
        serde_json::Value::String(text) => text,
        serde_json::Value::Number(number) => number.to_string(),
        serde_json::Value::Null => "0".to_owned(),
        other => return Err(serde::de::Error::custom(format!("cannot unmarshal {other} into a quantity"))),
    };
    match apimachinery::quantity::Quantity::parse(&text) {
        Ok(_) => Ok(text),
        Err(error) => Err(serde::de::Error::custom(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::decode;
    use k8s_openapi::api::core::v1::{ConfigMap, Pod};

    fn problems<T: serde::de::DeserializeOwned>(json: &str) -> Vec<String> {
        let mut strict = Vec::new();
        decode::<T>(json.as_bytes(), Some(&mut strict)).unwrap();
        strict
    }

    #[test]
    fn unknown_fields_are_named_by_path() {
        let json = r#"{"apiVersion":"v1","kind":"Pod","extra":{"a":1},"metadata":{"name":"p","labels":{"any":"thing"}},
            "spec":{"containers":[{"name":"a"},{"name":"b","imagee":"x","ports":[{"containerPort":80,"nope":null}]}]}}"#;
        assert_eq!(
            problems::<Pod>(json),
            [
                "unknown field \"extra\"",
                "unknown field \"spec.containers[1].imagee\"",
                "unknown field \"spec.containers[1].ports[0].nope\"",
            ]
        );
    }

    #[test]
    fn duplicates_are_named_by_path() {
        let json =
            r#"{"metadata":{"name":"a","name":"b"},"data":{"k":"1","j":"2","k":"3"},"data":{"k":"1"}}"#;
        assert_eq!(
            problems::<ConfigMap>(json),
            ["duplicate field \"metadata.name\"", "duplicate field \"data.k\"", "duplicate field \"data\""]
        );
        let many: Vec<String> = (0..200).chain([150, 3]).map(|n| format!("\"k{n}\":\"v\"")).collect();
        let json = format!("{{\"data\":{{{}}}}}", many.join(","));
        assert_eq!(
            problems::<ConfigMap>(&json),
            ["duplicate field \"data.k150\"", "duplicate field \"data.k3\""]
        );
    }

    #[test]
    fn good_input_has_no_problems_and_the_last_duplicate_wins() {
        let json = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","creationTimestamp":null},"data":{"k":"\u00e9\n"}}"#;
        assert_eq!(problems::<ConfigMap>(json), [""; 0]);
        let map: ConfigMap = decode(br#"{"data":{"k":"1","k":"2"}}"#, None).unwrap();
        assert_eq!(map.data.unwrap()["k"], "2");
    }

    #[test]
    fn quantities_may_be_numbers_and_bad_ones_are_not_decoded() {
        let limits = |value: &str| {
            let body = format!(
                r#"{{"kind":"ResourceQuota","apiVersion":"v1","metadata":{{}},"spec":{{"hard":{{"cpu":{value}}}}}}}"#
            );
            crate::codec::decode_json::<k8s_openapi::api::core::v1::ResourceQuota>(body.as_bytes(), None)
                .map(|quota| quota.spec.and_then(|s| s.hard).unwrap_or_default()["cpu"].0.clone())
                .map_err(|error| (error.code(), error.to_string()))
        };
        assert_eq!(limits("2"), Ok("2".to_owned()));
        assert_eq!(limits("0.5"), Ok("0.5".to_owned()));
        assert_eq!(limits("\"1Gi\""), Ok("1Gi".to_owned()));
        let (code, text) = limits("\"much\"").expect_err("refused");
        assert_eq!(code, 400);
        assert!(text.contains("quantities must match the regular expression"), "{text}");
        assert!(limits("[1]").is_err() && limits("true").is_err());
    }
}
