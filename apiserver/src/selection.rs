//! Label and field selectors over stored objects: what a list or watch shows.
//!
//! Names and namespaces are read from the key; labels and other fields from what the object's [`Selectable`] holds, so
//! that no question decodes an object twice. Upstream: `apiserver/pkg/storage/selection_predicate.go`.

use apimachinery::labels::Operator;
use apimachinery::status::ApiError;
use apimachinery::{fields, labels};

use crate::registry::Resource;
use crate::request::Query;
use crate::storage::{Selectable, Stored, field_bits, label_bits};

/// The selectors of one request. Equal selections see the same of every object of their resource.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Selection {
    labels: labels::Selector,
    fields: Vec<FieldTerm>,
    /// Signature bits that every match has.
    required: u64,
}

/// One term of a field selector.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct FieldTerm {
    place: FieldPlace,
    equals: bool,
    value: String,
}

/// Where a field is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum FieldPlace {
    Name,
    Namespace,
    /// Index among the resource's selectable fields.
    Selectable(usize),
}

impl Selection {
    /// Selects every object.
    pub fn everything() -> Self {
        Self { labels: labels::Selector::everything(), fields: Vec::new(), required: 0 }
    }

    /// Parses `labelSelector` and `fieldSelector`, refusing fields that the resource does not select on.
    pub fn parse(resource: &dyn Resource, query: &Query) -> Result<Self, ApiError> {
        Self::of(resource, query.text("labelSelector"), query.text("fieldSelector"))
    }

    /// As [`Self::parse`], from the selectors' texts.
    pub fn of(
        resource: &dyn Resource,
        label_selector: Option<&str>,
        field_selector: Option<&str>,
    ) -> Result<Self, ApiError> {
        let labels = match label_selector {
            Some(text) => labels::Selector::parse(text)
                .map_err(|error| ApiError::bad_request(format!("unable to parse requirement: {error}")))?,
            None => labels::Selector::everything(),
        };
        let fields = match field_selector {
            Some(text) => {
                fields::Selector::parse(text).map_err(|error| ApiError::bad_request(error.to_string()))?
            }
            None => fields::Selector::everything(),
        };
        let terms = fields.requirements().iter().map(|requirement| {
            Ok(FieldTerm {
                place: place(resource, &requirement.field)?,
                equals: requirement.equals,
                value: requirement.value.clone(),
            })
        });
        let fields = terms.collect::<Result<Vec<_>, ApiError>>()?;
        let required = required_bits(&labels, &fields);
        Ok(Self { labels, fields, required })
    }

    /// Whether everything matches.
    pub fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// The one name that can match, if the field selector names it.
    pub fn single_name(&self) -> Option<&str> {
        self.exact(FieldPlace::Name)
    }

    /// The one namespace that can match, if the field selector names it.
    pub fn single_namespace(&self) -> Option<&str> {
        self.exact(FieldPlace::Namespace)
    }

    /// The one value that the resource's selectable field at `index` can have in a match, if the field selector names it.
    pub fn exact_field(&self, index: usize) -> Option<&str> {
        self.exact(FieldPlace::Selectable(index))
    }

    fn exact(&self, place: FieldPlace) -> Option<&str> {
        let term = self.fields.iter().find(|term| term.equals && term.place == place)?;
        Some(&term.value)
    }

    /// Whether an object with this signature can match: false only where [`Self::matches`] is false.
    pub fn may_match(&self, signature: u64) -> bool {
        signature & self.required == self.required
    }

    /// Whether a stored object matches.
    pub fn matches(&self, resource: &dyn Resource, stored: &Stored) -> bool {
        if !self.fields.iter().all(|term| term.matches(resource, stored)) {
            return false;
        }
        if self.labels.is_empty() {
            return true;
        }
        let selectable = selectable(resource, stored);
        self.labels.matches_by(|key| selectable.label(key))
    }
}

impl FieldTerm {
    fn matches(&self, resource: &dyn Resource, stored: &Stored) -> bool {
        let value = match self.place {
            FieldPlace::Name => stored.name(),
            FieldPlace::Namespace => stored.namespace(),
            FieldPlace::Selectable(index) => selectable(resource, stored).field(index),
        };
        (value == self.value) == self.equals
    }
}

fn place(resource: &dyn Resource, field: &str) -> Result<FieldPlace, ApiError> {
    match field {
        "metadata.name" => Ok(FieldPlace::Name),
        "metadata.namespace" if resource.info().namespaced => Ok(FieldPlace::Namespace),
        _ => match resource.selectable_fields().iter().position(|known| *known == field) {
            Some(index) => Ok(FieldPlace::Selectable(index)),
            None => Err(ApiError::bad_request(format!("field label not supported: {field}"))),
        },
    }
}

fn required_bits(labels: &labels::Selector, fields: &[FieldTerm]) -> u64 {
    let label =
        |requirement: &labels::Requirement| match (requirement.operator, requirement.values.as_slice()) {
            (Operator::In, [value]) => label_bits(&requirement.key, Some(value)),
            (Operator::In | Operator::Exists | Operator::GreaterThan | Operator::LessThan, _) => {
                label_bits(&requirement.key, None)
            }
            (Operator::NotIn | Operator::DoesNotExist, _) => 0,
        };
    let field = |term: &FieldTerm| match term.place {
        FieldPlace::Selectable(index) if term.equals => field_bits(index, &term.value),
        _ => 0,
    };
    labels.requirements().iter().map(label).chain(fields.iter().map(field)).fold(0, |all, bits| all | bits)
}

/// What selectors need of an object. One that cannot be decoded has neither labels nor fields: it must not hide others.
pub fn selectable<'a>(resource: &dyn Resource, stored: &'a Stored) -> &'a Selectable {
    stored.selectable(|value| match resource.decode_stored(value) {
        Ok(object) => selectable_of(resource, &*object),
        Err(error) => {
            tracing::error!(key = %stored.key, %error, "stored object cannot be decoded; selectors see nothing of it");
            Selectable::new([].into_iter(), [""; 0].into_iter())
        }
    })
}

/// [`selectable`] of a decoded object.
pub fn selectable_of(resource: &dyn Resource, object: &dyn crate::registry::Object) -> Selectable {
    let labels = object.meta().labels.iter().flatten().map(|(key, value)| (key.as_str(), value.as_str()));
    let fields = resource.selectable_fields().iter().map(|field| resource.field(object, field));
    Selectable::new(labels, fields)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::all::all;
    use crate::registry::resources::Resources;

    fn pod() -> Stored {
        let json = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","labels":{"app":"web","n":"7"}},
            "spec":{"nodeName":"n1","containers":[]},"status":{"phase":"Running"}}"#;
        Stored::new("/registry/pods/default/a", json.into(), 5)
    }

    #[test]
    fn selectors_match_labels_and_fields_and_never_outrun_the_signature() {
        let resources = Resources::new(all());
        let resource = resources.get("", "v1", "pods").unwrap();
        let pod = pod();
        let signature = selectable(resource, &pod).signature();
        for (labels, fields, want) in [
            ("", "", true),
            ("app=web", "", true),
            ("app=db", "", false),
            ("app", "", true),
            ("!app", "", false),
            ("app in (db,web),n>3", "", true),
            ("n<3", "", false),
            ("app notin (db)", "spec.nodeName=n1", true),
            ("", "spec.nodeName=n2", false),
            ("", "spec.nodeName!=n2,status.phase=Running", true),
            ("", "metadata.name=a,metadata.namespace=default", true),
            ("", "metadata.name=b", false),
            ("", "spec.hostNetwork=false", true),
        ] {
            let selection = Selection::of(resource, Some(labels), Some(fields)).unwrap();
            assert_eq!(selection.matches(resource, &pod), want, "{labels} {fields}");
            assert!(!want || selection.may_match(signature), "{labels} {fields}");
        }
        assert!(!Selection::of(resource, Some("app=none"), None).unwrap().may_match(signature));
        assert!(Selection::of(resource, None, Some("spec.nothing=1")).is_err());
    }

    /// The watch cache works out one [`Selectable`] for all views of what is stored.
    #[test]
    fn converted_resources_select_on_the_fields_of_the_stored_one_in_its_order() {
        let resources = Resources::new(all());
        for converted in resources.iter().filter(|resource| resource.info().converted) {
            let native = resources
                .iter()
                .find(|native| {
                    !native.info().converted
                        && native.info().storage_prefix == converted.info().storage_prefix
                })
                .unwrap();
            let json = r#"{"apiVersion":"v1","kind":"Event","metadata":{"name":"e","namespace":"d"},
                "involvedObject":{"kind":"Pod","namespace":"d","name":"p","uid":"u","apiVersion":"v1",
                "resourceVersion":"3","fieldPath":"spec"},"reason":"Started","reportingComponent":"kubelet",
                "reportingInstance":"n","source":{"component":"kubelet"},"type":"Normal"}"#;
            let seen = |resource| selectable(resource, &Stored::new("k", json.into(), 1)).clone();
            let (native, seen_converted) = (seen(native), seen(converted));
            assert!(!converted.selectable_fields().is_empty());
            for index in 0..converted.selectable_fields().len() {
                assert_eq!(native.field(index), seen_converted.field(index), "field {index}");
            }
        }
    }
}
