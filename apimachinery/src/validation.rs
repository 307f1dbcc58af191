//! Field paths and validation errors with upstream's texts.
//!
//! Upstream: `k8s.io/apimachinery/pkg/util/validation/field`. The rules of each kind live beside the kind.

use std::fmt;

pub mod names;

/// The path of a field within an object, such as `spec.containers[0].name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path(String);

impl Path {
    /// A path that starts at a top-level field.
    pub fn new(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// The path of the object itself.
    pub fn root() -> Self {
        Self(String::new())
    }

    /// A field of what this path leads to.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        if self.0.is_empty() { Self(name.to_owned()) } else { self.join(&[".", name]) }
    }

    /// An element of the list that this path leads to.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.join(&["[", itoa::Buffer::new().format(index), "]"])
    }

    /// A value of the map that this path leads to.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        self.join(&["[", key, "]"])
    }

    /// Validation makes many paths and shows few: this is several times cheaper than formatting.
    fn join(&self, parts: &[&str]) -> Self {
        let mut path =
            String::with_capacity(self.0.len() + parts.iter().map(|part| part.len()).sum::<usize>());
        path.push_str(&self.0);
        parts.iter().for_each(|part| path.push_str(part));
        Self(path)
    }

    /// The text of the path.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "<nil>" } else { &self.0 })
    }
}

/// What kind of rule was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The value is missing.
    Required,
    /// The value breaks a rule.
    Invalid,
    /// The value is not one of those allowed.
    NotSupported,
    /// The value stands there twice.
    Duplicate,
    /// The value may not be set here, or not by this request.
    Forbidden,
    /// The string is too long.
    TooLong,
    /// The list or map has too many items.
    TooMany,
    /// What the value names does not exist.
    NotFound,
    /// The value is of another type.
    TypeInvalid,
    /// Validation itself failed.
    Internal,
}

impl ErrorKind {
    /// The `reason` of the cause in a `Status`.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::NotFound => "FieldValueNotFound",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::Internal => "InternalError",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Required => "Required value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Duplicate => "Duplicate value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::NotFound => "Not found",
            Self::Internal => "Internal error",
        }
    }
}

/// One broken rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// What kind of rule.
    pub kind: ErrorKind,
    /// The field, such as `spec.replicas`.
    pub field: String,
    /// The offending value as printed in the message, where the message shows it.
    pub value: Option<String>,
    /// What is wrong, for people.
    pub detail: String,
}

/// Every rule that an object breaks.
pub type ErrorList = Vec<Error>;

impl Error {
    fn make(kind: ErrorKind, path: &Path, value: Option<String>, detail: impl Into<String>) -> Self {
        Self { kind, field: path.to_string(), value, detail: detail.into() }
    }

    /// `path: Required value: detail`.
    pub fn required(path: &Path, detail: impl Into<String>) -> Self {
        Self::make(ErrorKind::Required, path, None, detail)
    }

    /// `path: Invalid value: value: detail`; strings are printed quoted.
    pub fn invalid(path: &Path, value: impl ShowValue, detail: impl Into<String>) -> Self {
        Self::make(ErrorKind::Invalid, path, Some(value.show()), detail)
    }

    /// `path: Unsupported value: value: supported values: "a", "b"`.
    pub fn not_supported(path: &Path, value: impl ShowValue, supported: &[&str]) -> Self {
        let list: Vec<String> = supported.iter().map(|s| format!("{s:?}")).collect();
        let detail =
            if list.is_empty() { String::new() } else { format!("supported values: {}", list.join(", ")) };
        Self::make(ErrorKind::NotSupported, path, Some(value.show()), detail)
    }

    /// `path: Duplicate value: value`.
    pub fn duplicate(path: &Path, value: impl ShowValue) -> Self {
        Self::make(ErrorKind::Duplicate, path, Some(value.show()), "")
    }

    /// `path: Forbidden: detail`.
    pub fn forbidden(path: &Path, detail: impl Into<String>) -> Self {
        Self::make(ErrorKind::Forbidden, path, None, detail)
    }

    /// `path: Too long: may not be more than N bytes`.
    pub fn too_long(path: &Path, max: usize) -> Self {
        Self::make(ErrorKind::TooLong, path, None, format!("may not be more than {max} bytes"))
    }

    /// `path: Too many: N: must have at most M items`.
    pub fn too_many(path: &Path, actual: usize, max: usize) -> Self {
        let items = if max == 1 { "item" } else { "items" };
        Self::make(
            ErrorKind::TooMany,
            path,
            Some(actual.to_string()),
            format!("must have at most {max} {items}"),
        )
    }

    /// `path: Not found: value`.
    pub fn not_found(path: &Path, value: impl ShowValue) -> Self {
        Self::make(ErrorKind::NotFound, path, Some(value.show()), "")
    }

    /// `path: Internal error: detail`.
    pub fn internal(path: &Path, detail: impl Into<String>) -> Self {
        Self::make(ErrorKind::Internal, path, None, detail)
    }

    /// The error without its field: what a `Status` cause's message says.
    pub fn body(&self) -> String {
        let mut text = self.kind.text().to_owned();
        if let Some(value) = &self.value {
            text.push_str(": ");
            text.push_str(value);
        }
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.body())
    }
}

/// How a value is printed inside a validation message: strings quoted, the rest as JSON.
pub trait ShowValue {
    /// The printed value.
    fn show(&self) -> String;
}

impl ShowValue for &str {
    fn show(&self) -> String {
        format!("{self:?}")
    }
}

impl ShowValue for &String {
    fn show(&self) -> String {
        format!("{self:?}")
    }
}

impl ShowValue for String {
    fn show(&self) -> String {
        format!("{self:?}")
    }
}

impl ShowValue for serde_json::Value {
    fn show(&self) -> String {
        self.to_string()
    }
}

macro_rules! show_plain {
    ($($kind:ty),*) => {
        $(impl ShowValue for $kind {
            fn show(&self) -> String {
                self.to_string()
            }
        })*
    };
}
show_plain!(i32, i64, u16, u32, u64, usize, bool);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_print_as_upstream() {
        let path = Path::new("spec").child("ports").index(1).child("port");
        for (error, text) in [
            (Error::required(&path, ""), "spec.ports[1].port: Required value"),
            (
                Error::invalid(&path, 0, "must be between 1 and 65535, inclusive"),
                "spec.ports[1].port: Invalid value: 0: must be between 1 and 65535, inclusive",
            ),
            (
                Error::not_supported(&path, "X", &["TCP", "UDP"]),
                "spec.ports[1].port: Unsupported value: \"X\": supported values: \"TCP\", \"UDP\"",
            ),
            (Error::duplicate(&path, "a"), "spec.ports[1].port: Duplicate value: \"a\""),
            (Error::forbidden(&path, "no"), "spec.ports[1].port: Forbidden: no"),
            (Error::too_long(&path, 63), "spec.ports[1].port: Too long: may not be more than 63 bytes"),
            (Error::too_many(&path, 3, 1), "spec.ports[1].port: Too many: 3: must have at most 1 item"),
            (Error::not_found(&Path::new("a").key("b"), "c"), "a[b]: Not found: \"c\""),
        ] {
            assert_eq!(error.to_string(), text);
        }
    }
}
