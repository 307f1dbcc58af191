//! Label and field selectors over stored bytes: what a list or watch shows.
//!
//! Names and namespaces are read from the key and labels by a partial decode; only a selector on other fields decodes
//! the object. Upstream: `apiserver/pkg/storage/selection_predicate.go`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use apimachinery::status::ApiError;
use apimachinery::{fields, labels};
use serde::Deserialize;

use crate::registry::{Object, Resource};
use crate::request::Query;
use crate::storage::{name_of_key, namespace_of_key};

/// The selectors of one request.
#[derive(Debug, Clone)]
pub struct Selection {
    labels: labels::Selector,
    fields: fields::Selector,
    /// Whether a field other than name and namespace is selected on.
    needs_object: bool,
}

#[derive(Deserialize)]
struct Labelled {
    #[serde(default)]
    metadata: LabelledMeta,
}

#[derive(Deserialize, Default)]
struct LabelledMeta {
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
}

fn is_key_field(field: &str) -> bool {
    matches!(field, "metadata.name" | "metadata.namespace")
}

impl Selection {
    /// Parses `labelSelector` and `fieldSelector`, refusing fields that the resource does not select on.
    pub fn parse(resource: &dyn Resource, query: &Query) -> Result<Self, ApiError> {
        let labels = match query.text("labelSelector") {
            Some(text) => labels::Selector::parse(text)
                .map_err(|error| ApiError::bad_request(format!("unable to parse requirement: {error}")))?,
            None => labels::Selector::everything(),
        };
        let fields = match query.text("fieldSelector") {
            Some(text) => {
                fields::Selector::parse(text).map_err(|error| ApiError::bad_request(error.to_string()))?
            }
            None => fields::Selector::everything(),
        };
        let info = resource.info();
        for requirement in fields.requirements() {
            let field = requirement.field.as_str();
            let known = field == "metadata.name"
                || (field == "metadata.namespace" && info.namespaced)
                || resource.selectable_fields().contains(&field);
            if !known {
                return Err(ApiError::bad_request(format!("field label not supported: {field}")));
            }
        }
        let needs_object = fields.requirements().iter().any(|requirement| !is_key_field(&requirement.field));
        Ok(Self { labels, fields, needs_object })
    }

    /// Whether everything matches.
    pub fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// The one name that can match, if the field selector names it.
    pub fn single_name(&self) -> Option<&str> {
        self.fields.exact("metadata.name")
    }

    /// Whether a stored object matches.
    pub fn matches(&self, resource: &dyn Resource, key: &str, value: &[u8]) -> Result<bool, ApiError> {
        if self.is_everything() {
            return Ok(true);
        }
        if self.needs_object {
            let object = resource.decode_stored(value).map_err(ApiError::internal)?;
            return Ok(self.matches_object(resource, key, &*object));
        }
        if !self.fields.is_empty() && !self.fields.matches(|field| Some(key_field(key, field).to_owned())) {
            return Ok(false);
        }
        if self.labels.is_empty() {
            return Ok(true);
        }
        let labelled: Labelled = serde_json::from_slice(value).map_err(ApiError::internal)?;
        Ok(self.labels.matches_opt(labelled.metadata.labels.as_ref()))
    }

    /// Whether a decoded object matches.
    pub fn matches_object(&self, resource: &dyn Resource, key: &str, object: &dyn Object) -> bool {
        let field = |field: &str| -> Option<String> {
            Some(if is_key_field(field) {
                key_field(key, field).to_owned()
            } else {
                match resource.field(object, field) {
                    Cow::Borrowed(value) => value.to_owned(),
                    Cow::Owned(value) => value,
                }
            })
        };
        (self.fields.is_empty() || self.fields.matches(field))
            && (self.labels.is_empty() || self.labels.matches_opt(object.meta().labels.as_ref()))
    }
}

fn key_field<'a>(key: &'a str, field: &str) -> &'a str {
    if field == "metadata.name" { name_of_key(key) } else { namespace_of_key(key) }
}
