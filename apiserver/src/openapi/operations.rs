//! What the documents say of a path, in a form that both versions are rendered from.

use serde_json::{Value, json};

use super::parameters::Parameter;

/// A group, version and kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) group: String,
    pub(super) version: String,
    pub(super) kind: String,
}

impl Kind {
    pub(super) fn new(group: &str, version: &str, kind: &str) -> Self {
        Self { group: group.to_owned(), version: version.to_owned(), kind: kind.to_owned() }
    }

    /// As `x-kubernetes-group-version-kind` has it.
    pub(super) fn to_value(&self) -> Value {
        json!({"group": self.group, "kind": self.kind, "version": self.version})
    }
}

/// One path and its methods.
#[derive(Debug)]
pub(super) struct PathItem {
    pub(super) path: String,
    /// The v3 document it belongs to: `api/v1`.
    pub(super) document: String,
    pub(super) parameters: Vec<Parameter>,
    pub(super) operations: Vec<Operation>,
}

/// A request body: which definition, and whether it must be there.
#[derive(Debug, Clone)]
pub(super) struct RequestBody {
    pub(super) definition: String,
    pub(super) required: bool,
}

/// One method of a path.
#[derive(Debug)]
pub(super) struct Operation {
    /// In lower case, as both versions of the documents have it.
    pub(super) method: &'static str,
    pub(super) id: String,
    pub(super) tag: String,
    pub(super) description: String,
    /// `x-kubernetes-action`.
    pub(super) action: &'static str,
    pub(super) kind: Kind,
    pub(super) consumes: &'static [&'static str],
    pub(super) produces: &'static [&'static str],
    pub(super) parameters: Vec<Parameter>,
    pub(super) body: Option<RequestBody>,
    /// Codes of success, all of which answer with the same definition; `None`: text.
    pub(super) codes: &'static [(&'static str, &'static str)],
    pub(super) response: Option<String>,
}

impl Operation {
    /// The definitions that the operation refers to.
    pub(super) fn definitions(&self) -> impl Iterator<Item = &str> {
        let body = self.body.as_ref().map(|body| body.definition.as_str());
        body.into_iter().chain(self.response.as_deref())
    }
}
