//! What a client looks at, judged by plain code of its own, so that the server's selectors are judged too.

use kube_apiserver::registry::resources::Resources;
use kube_apiserver::selection::Selection;
use kube_apiserver::storage::{name_of_key, namespace_of_key};
use rand::Rng;
use rand::seq::IndexedRandom;

/// What selectors can ask of an object, read from its JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Facts {
    node: String,
    label: Option<String>,
}

impl Facts {
    /// Of what is no object there are none.
    pub(super) fn of(value: &[u8]) -> Self {
        let json: serde_json::Value = serde_json::from_slice(value).unwrap_or_default();
        let text = |pointer| json.pointer(pointer).and_then(serde_json::Value::as_str).map(str::to_owned);
        Self { node: text("/spec/nodeName").unwrap_or_default(), label: text("/metadata/labels/l") }
    }
}

/// A prefix with selectors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct View {
    pub(super) resource: &'static str,
    pub(super) prefix: String,
    labels: &'static str,
    fields: &'static str,
}

const LABELS: [&str; 7] = ["", "", "", "l=0", "l!=1", "l in (1,2)", "!l"];
const FIELDS: [&str; 4] = ["", "", "metadata.name=x1", "metadata.name!=x2"];
const POD_FIELDS: [&str; 3] =
    ["spec.nodeName=n1", "spec.nodeName!=n1", "spec.nodeName=n2,metadata.namespace=a"];

impl View {
    /// Everything of a resource.
    pub(super) fn all(resource: &'static str) -> Self {
        Self { resource, prefix: format!("/registry/{resource}/"), labels: "", fields: "" }
    }

    pub(super) fn random(rng: &mut impl Rng) -> Self {
        let mut view = Self::all(if rng.random_bool(0.6) { "pods" } else { "configmaps" });
        if rng.random_bool(0.4) {
            view.prefix += if rng.random_bool(0.5) { "a/" } else { "b/" };
        }
        view.labels = LABELS.choose(rng).copied().unwrap();
        let by_node = view.resource == "pods" && rng.random_bool(0.4);
        let fields = if by_node { &POD_FIELDS[..] } else { &FIELDS[..] };
        view.fields = fields.choose(rng).copied().unwrap();
        view
    }

    pub(super) fn selection(&self, resources: &Resources) -> Selection {
        let resource = resources.get("", "v1", self.resource).unwrap();
        Selection::of(resource, Some(self.labels), Some(self.fields)).unwrap()
    }

    pub(super) fn sees(&self, key: &str, facts: &Facts) -> bool {
        let (namespace, name) = (namespace_of_key(key), name_of_key(key));
        let (node, label) = (facts.node.as_str(), facts.label.as_deref());
        let labels = match self.labels {
            "" => true,
            "l=0" => label == Some("0"),
            "l!=1" => label != Some("1"),
            "l in (1,2)" => matches!(label, Some("1" | "2")),
            "!l" => label.is_none(),
            other => unreachable!("{other}"),
        };
        let fields = match self.fields {
            "" => true,
            "metadata.name=x1" => name == "x1",
            "metadata.name!=x2" => name != "x2",
            "spec.nodeName=n1" => node == "n1",
            "spec.nodeName!=n1" => node != "n1",
            "spec.nodeName=n2,metadata.namespace=a" => node == "n2" && namespace == "a",
            other => unreachable!("{other}"),
        };
        key.starts_with(&self.prefix) && labels && fields
    }
}
