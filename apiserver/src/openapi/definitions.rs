//! The definitions of all types, from k8s-openapi's schemas, with upstream's names and extensions.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::core::v1::Binding;
use k8s_openapi::api::policy::v1::Eviction;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, ListMeta, Status};
use k8s_openapi::schemars::SchemaGenerator;
use k8s_openapi::schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::operations::Kind;
use crate::registry::resources::Resources;

/// The definition of DELETE bodies.
pub(super) const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
/// The definition of errors.
pub(super) const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
/// The definition of PATCH bodies.
pub(super) const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";
const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";
const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const CORE_EVENT: &str = "io.k8s.api.core.v1.Event";
const EVENTS_EVENT: &str = "io.k8s.api.events.v1.Event";
/// References whose `name` may be left out, for which k8s-openapi asks.
const NAME_IS_OPTIONAL: &[&str] = &[
    "io.k8s.api.core.v1.ConfigMapEnvSource",
    "io.k8s.api.core.v1.ConfigMapKeySelector",
    "io.k8s.api.core.v1.ConfigMapProjection",
    "io.k8s.api.core.v1.ConfigMapVolumeSource",
    "io.k8s.api.core.v1.LocalObjectReference",
    "io.k8s.api.core.v1.SecretEnvSource",
    "io.k8s.api.core.v1.SecretKeySelector",
    "io.k8s.api.core.v1.SecretProjection",
];
const GVK: &str = "x-kubernetes-group-version-kind";
const REFERENCE: &str = "#/definitions/";

/// Definitions by name, in the form of OpenAPI v2.
#[derive(Debug)]
pub(super) struct Definitions {
    by_name: BTreeMap<String, Value>,
}

impl Definitions {
    /// The definitions that these resources lead to.
    pub(super) fn of(resources: &Resources) -> Self {
        let mut generator = SchemaGenerator::new(SchemaSettings::draft07());
        let mut kinds: Vec<(String, Kind)> = Vec::new();
        let mut groups = BTreeSet::new();
        for resource in resources.iter() {
            let info = resource.info();
            let name = resource.register_schema(&mut generator).into_owned();
            kinds.push((name, Kind::new(info.group, info.version, info.kind)));
            groups.insert((info.group, info.version));
        }
        generator.subschema_for::<DeleteOptions>();
        generator.subschema_for::<Status>();
        generator.subschema_for::<ListMeta>();
        for (name, kind) in [
            (schema_name::<Scale>(&mut generator), Kind::new("autoscaling", "v1", "Scale")),
            (schema_name::<Binding>(&mut generator), Kind::new("", "v1", "Binding")),
            (schema_name::<Eviction>(&mut generator), Kind::new("policy", "v1", "Eviction")),
            (
                schema_name::<TokenRequest>(&mut generator),
                Kind::new("authentication.k8s.io", "v1", "TokenRequest"),
            ),
        ] {
            kinds.push((name, kind));
        }
        let mut by_name: BTreeMap<String, Value> = generator.take_definitions(false).into_iter().collect();
        for (name, definition) in &mut by_name {
            add_merge_keys(name, definition);
        }
        for (name, kind) in &kinds {
            if let Some(definition) = by_name.get_mut(name) {
                mark_kind(definition, &json!([kind.to_value()]));
            }
        }
        for resource in resources.iter() {
            let info = resource.info();
            let kind = Kind::new(info.group, info.version, info.kind);
            if let Some((name, _)) = kinds.iter().find(|(_, k)| *k == kind) {
                by_name.insert(format!("{name}List"), list(name, &kind));
            }
        }
        add_well_known(&mut by_name, &groups);
        correct_required(&mut by_name);
        Self { by_name }
    }

    /// All definitions.
    pub(super) fn all(&self) -> &BTreeMap<String, Value> {
        &self.by_name
    }

    /// The definitions with these names and all that they refer to.
    pub(super) fn reachable<'a>(
        &'a self,
        roots: impl IntoIterator<Item = &'a str>,
    ) -> BTreeMap<&'a str, &'a Value> {
        let mut found = BTreeMap::new();
        let mut queue: Vec<&str> = roots.into_iter().collect();
        while let Some(name) = queue.pop() {
            let Some((name, definition)) = self.by_name.get_key_value(name) else { continue };
            if found.insert(name.as_str(), definition).is_none() {
                references(definition, &mut queue);
            }
        }
        found
    }
}

fn schema_name<T: k8s_openapi::schemars::JsonSchema>(generator: &mut SchemaGenerator) -> String {
    generator.subschema_for::<T>();
    T::schema_name().into_owned()
}

fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match (key.as_str(), value) {
                    ("$ref", Value::String(target)) => found.extend(target.strip_prefix(REFERENCE)),
                    _ => references(value, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

/// k8s-openapi asks for `metadata` in every kind; upstream asks for it in core events only.
fn mark_kind(definition: &mut Value, kinds: &Value) {
    not_required(definition, "metadata");
    if let Some(map) = definition.as_object_mut() {
        map.insert(GVK.to_owned(), kinds.clone());
    }
}

fn not_required(definition: &mut Value, name: &str) {
    let Some(map) = definition.as_object_mut() else { return };
    if let Some(Value::Array(required)) = map.get_mut("required") {
        required.retain(|field| field != name);
        if required.is_empty() {
            map.remove("required");
        }
    }
}

/// Where k8s-openapi and upstream differ in what must be there.
fn correct_required(by_name: &mut BTreeMap<String, Value>) {
    for name in NAME_IS_OPTIONAL {
        if let Some(definition) = by_name.get_mut(*name) {
            not_required(definition, "name");
        }
    }
    for (name, required) in
        [(CORE_EVENT, json!(["metadata", "involvedObject"])), (EVENTS_EVENT, json!(["eventTime"]))]
    {
        if let Some(Value::Object(map)) = by_name.get_mut(name) {
            map.insert("required".to_owned(), required);
        }
    }
}

fn add_merge_keys(name: &str, definition: &mut Value) {
    let Some(properties) = definition.get_mut("properties").and_then(Value::as_object_mut) else { return };
    for (field, schema) in properties {
        let Some((strategy, key)) = apimachinery::patch::merge_keys::openapi_extensions(name, field) else {
            continue;
        };
        let Some(schema) = schema.as_object_mut() else { continue };
        if let Some(key) = key {
            schema.insert("x-kubernetes-patch-merge-key".to_owned(), json!(key));
        }
        schema.insert("x-kubernetes-patch-strategy".to_owned(), json!(strategy));
    }
}

fn list(name: &str, kind: &Kind) -> Value {
    let text = |description: &str| json!({"description": description, "type": "string"});
    json!({
        "description": format!("{0}List is a list of {0}.", kind.kind),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": text("The version of the schema of this representation."),
            "kind": text("The kind of this object."),
            "metadata": {"$ref": format!("{REFERENCE}{LIST_META}"), "description": "Standard list metadata."},
            "items": {
                "description": "The objects of the list.",
                "type": "array",
                "items": {"$ref": format!("{REFERENCE}{name}")},
            },
        },
        GVK: [Kind { kind: format!("{}List", kind.kind), ..kind.clone() }.to_value()],
    })
}

/// The types whose form OpenAPI v2 has its own words for, and those that belong to every group.
fn add_well_known(by_name: &mut BTreeMap<String, Value>, groups: &BTreeSet<(&str, &str)>) {
    if let Some(Value::Object(map)) = by_name.get_mut(INT_OR_STRING) {
        map.remove("x-kubernetes-int-or-string");
        map.insert("type".to_owned(), json!("string"));
        map.insert("format".to_owned(), json!("int-or-string"));
    }
    if let Some(Value::Object(map)) = by_name.get_mut(QUANTITY) {
        map.remove("x-kubernetes-int-or-string");
        map.insert("type".to_owned(), json!("string"));
    }
    by_name.insert(
        PATCH.to_owned(),
        json!({"description": "The body of a PATCH request; its form depends on the content type.", "type": "object"}),
    );
    let every_group: Vec<Value> =
        groups.iter().map(|(group, version)| Kind::new(group, version, "DeleteOptions").to_value()).collect();
    if let Some(definition) = by_name.get_mut(DELETE_OPTIONS) {
        mark_kind(definition, &json!(every_group));
    }
    if let Some(definition) = by_name.get_mut(STATUS) {
        mark_kind(definition, &json!([Kind::new("", "v1", "Status").to_value()]));
    }
}

/// A v2 schema in the form of v3: references stand alone in `allOf`, and unions say what they unite.
pub(super) fn to_v3(name: &str, definition: &Value) -> Value {
    match name {
        INT_OR_STRING => one_of(definition, "integer", Some("int-or-string")),
        QUANTITY => one_of(definition, "number", None),
        _ => convert(definition),
    }
}

fn one_of(definition: &Value, other: &str, format: Option<&str>) -> Value {
    let mut map = Map::new();
    if let Some(description) = definition.get("description") {
        map.insert("description".to_owned(), description.clone());
    }
    if let Some(format) = format {
        map.insert("format".to_owned(), json!(format));
    }
    map.insert("oneOf".to_owned(), json!([{"type": other}, {"type": "string"}]));
    Value::Object(map)
}

fn convert(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(convert).collect(),
        Value::Object(map) => match map.get("$ref").and_then(Value::as_str) {
            Some(target) => {
                let target = target.strip_prefix(REFERENCE).unwrap_or(target);
                let reference = json!({"$ref": format!("#/components/schemas/{target}")});
                if map.len() == 1 {
                    return reference;
                }
                let mut rest = map.clone();
                rest.remove("$ref");
                rest.insert("allOf".to_owned(), json!([reference]));
                Value::Object(rest)
            }
            None => map.iter().map(|(key, value)| (key.clone(), convert(value))).collect(),
        },
        other => other.clone(),
    }
}
