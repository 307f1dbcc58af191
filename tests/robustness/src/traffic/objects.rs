//! The objects that traffic touches: few, so that clients meet on them.
//!
//! Each carries who wrote it last (annotation `write`), what each client wrote last (annotations `c0`, `c1`…), and a
//! label that selectors look at and writes change.

use crate::history::{Key, Resource, Scope, Selector};
use serde_json::{Value, json};

/// Where the objects live.
pub const NAMESPACES: [&str; 2] = ["robust-a", "robust-b"];

/// The values of the label.
pub(super) const SHADES: [&str; 2] = ["dark", "light"];

/// Names for each kind and namespace.
const NAMES: [&str; 5] = ["apple", "birch", "cedar", "elder", "fir"];

/// All places.
pub(super) fn keys() -> Vec<Key> {
    let mut keys = Vec::new();
    for (resource, counts) in [(Resource::ConfigMaps, [5, 3]), (Resource::Pods, [3, 2])] {
        for (namespace, count) in NAMESPACES.into_iter().zip(counts) {
            keys.extend(NAMES[..count].iter().map(|name| Key {
                resource,
                namespace: namespace.to_owned(),
                name: (*name).to_owned(),
            }));
        }
    }
    keys
}

/// Scopes of lists and watches, of each kind one.
pub(super) fn scopes(resource: Resource) -> Vec<Scope> {
    let scope = |namespace: Option<&str>, selector| Scope {
        resource,
        namespace: namespace.map(str::to_owned),
        selector,
    };
    let shade = || Selector::Shade(SHADES[0].to_owned());
    vec![
        scope(Some(NAMESPACES[0]), Selector::Everything),
        scope(None, Selector::Everything),
        scope(Some(NAMESPACES[0]), shade()),
        scope(None, shade()),
        scope(Some(NAMESPACES[0]), Selector::Name(NAMES[0].to_owned())),
    ]
}

/// The path of a collection, in one namespace or in all.
pub(super) fn collection(resource: Resource, namespace: Option<&str>) -> String {
    match namespace {
        Some(namespace) => format!("/api/v1/namespaces/{namespace}/{}", resource.plural()),
        None => format!("/api/v1/{}", resource.plural()),
    }
}

/// The path of a scope, with its selector.
pub(super) fn path(scope: &Scope) -> String {
    let collection = collection(scope.resource, scope.namespace.as_deref());
    let (labels, fields) = selectors(scope);
    let (labels, fields) = (labels.replace('=', "%3D"), fields.replace('=', "%3D"));
    format!("{collection}?labelSelector={labels}&fieldSelector={fields}&")
}

/// The selectors of a scope: of labels and of fields.
pub(super) fn selectors(scope: &Scope) -> (String, String) {
    match &scope.selector {
        Selector::Everything => (String::new(), String::new()),
        Selector::Shade(shade) => (format!("shade={shade}"), String::new()),
        Selector::Name(name) => (String::new(), format!("metadata.name={name}")),
    }
}

/// A write's mark on an object.
#[derive(Debug, Clone)]
pub(super) struct Mark {
    pub(super) write: String,
    /// The client's own annotation.
    pub(super) slot: String,
    pub(super) shade: &'static str,
}

/// A new object.
pub(super) fn new(key: &Key, mark: &Mark) -> Value {
    let mut object = match key.resource {
        Resource::ConfigMaps => json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": key.name}, "data": {"text": "some text"}
        }),
        Resource::Pods => json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": key.name},
            "spec": {"containers": [{"name": "main", "image": "busybox"}]}
        }),
    };
    stamp(&mut object, mark);
    object
}

/// Puts a write's mark on an object that was read.
pub(super) fn stamp(object: &mut Value, mark: &Mark) {
    object["metadata"]["annotations"]["write"] = json!(mark.write);
    object["metadata"]["annotations"][mark.slot.as_str()] = json!(mark.write);
    object["metadata"]["labels"]["shade"] = json!(mark.shade);
}

/// The merge patch that does the same.
pub(super) fn patch(mark: &Mark) -> Value {
    let mut patch = json!({"metadata": {}});
    stamp(&mut patch, mark);
    patch
}
