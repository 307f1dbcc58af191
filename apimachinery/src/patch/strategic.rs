//! Strategic merge patch: objects merge, lists marked so merge by key, directives in the patch do the rest.
//!
//! Directives: `$patch: replace|delete|merge`, `$retainKeys: [...]`, `$deleteFromPrimitiveList/FIELD: [...]`,
//! `$setElementOrder/FIELD: [...]`. Upstream: `k8s.io/apimachinery/pkg/util/strategicpatch/patch.go`.

use serde_json::{Map, Value};

use super::merge_keys::{PatchKind, Strategy, strategy};
use super::{Error, into_object};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const ELEMENT_ORDER: &str = "$setElementOrder/";

/// Deepest nesting that a patch may have; the request's JSON decoder bounds it too.
const MAX_DEPTH: usize = 128;

/// Applies a strategic merge patch to an object of the kind.
///
/// # Errors
/// A patch that is no object, an unknown directive, or a list element without its merge key.
pub fn strategic_merge_patch(original: Value, patch: Value, kind: PatchKind) -> Result<Value, Error> {
    let original = into_object(original)?;
    let patch = into_object(patch)?;
    let merged = merge_object(original, patch, Type { name: kind.type_name(), top: true, retain: false }, 0)?;
    Ok(Value::Object(merged.unwrap_or_default()))
}

#[derive(Clone, Copy)]
struct Type {
    name: &'static str,
    top: bool,
    retain: bool,
}

impl Type {
    fn named(name: &'static str, retain: bool) -> Self {
        Self { name, top: false, retain }
    }
}

fn directive(patch: &Map<String, Value>) -> Result<Option<&str>, Error> {
    match patch.get(PATCH) {
        None => Ok(None),
        Some(Value::String(text)) if matches!(text.as_str(), "replace" | "delete" | "merge") => {
            Ok(Some(text))
        }
        Some(other) => Err(Error::Malformed(format!("unknown patch type found: {other}"))),
    }
}

/// Merges `patch` into `original`; `None` when the patch deletes the object.
fn merge_object(
    mut original: Map<String, Value>,
    mut patch: Map<String, Value>,
    ty: Type,
    depth: usize,
) -> Result<Option<Map<String, Value>>, Error> {
    if depth > MAX_DEPTH {
        return Err(Error::Malformed(format!("patch is nested deeper than {MAX_DEPTH}")));
    }
    match directive(&patch)? {
        Some("replace") => {
            patch.remove(PATCH);
            return Ok(Some(patch));
        }
        Some("delete") => return Ok(None),
        _ => {
            patch.remove(PATCH);
        }
    }
    if let Some(keys) = patch.remove(RETAIN_KEYS) {
        retain_keys(&mut original, &patch, &keys, ty)?;
    }
    let (mut deletions, mut orders) = (Map::new(), Map::new());
    for (key, value) in std::mem::take(&mut patch) {
        if let Some(field) = key.strip_prefix(DELETE_FROM) {
            deletions.insert(field.to_owned(), value);
        } else if let Some(field) = key.strip_prefix(ELEMENT_ORDER) {
            orders.insert(field.to_owned(), value);
        } else {
            patch.insert(key, value);
        }
    }
    for (field, gone) in deletions {
        let gone = into_list(gone, DELETE_FROM)?;
        if let Some(Value::Array(list)) = original.get_mut(&field) {
            list.retain(|v| !gone.contains(v));
        }
    }
    for (field, value) in patch {
        let order = orders.remove(&field);
        merge_field(&mut original, &field, value, order, ty, depth)?;
    }
    // An order without a patch of the list itself only sorts it.
    for (field, order) in orders {
        if original.contains_key(&field) {
            merge_field(&mut original, &field, Value::Array(Vec::new()), Some(order), ty, depth)?;
        }
    }
    Ok(Some(original))
}

fn retain_keys(
    original: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    keys: &Value,
    ty: Type,
) -> Result<(), Error> {
    let keys = keys
        .as_array()
        .filter(|_| ty.retain)
        .ok_or_else(|| Error::Malformed("invalid patch format of retainKeys".to_owned()))?;
    if patch.keys().any(|k| !k.starts_with('$') && !keys.iter().any(|v| v == k)) {
        return Err(Error::Malformed("invalid patch format of retainKeys".to_owned()));
    }
    original.retain(|k, _| keys.iter().any(|v| v == k));
    Ok(())
}

fn into_list(value: Value, what: &str) -> Result<Vec<Value>, Error> {
    match value {
        Value::Array(list) => Ok(list),
        _ => Err(Error::Malformed(format!("invalid patch format of {}", what.trim_matches(['$', '/'])))),
    }
}

fn merge_field(
    original: &mut Map<String, Value>,
    field: &str,
    patch: Value,
    order: Option<Value>,
    ty: Type,
    depth: usize,
) -> Result<(), Error> {
    let how = strategy(ty.name, field, ty.top);
    match (patch, how) {
        (Value::Null, _) => {
            original.remove(field);
        }
        (Value::Object(patch), how) if how != Some(Strategy::Replace) => {
            let child = match how {
                Some(Strategy::Object(name)) => Type::named(name, false),
                Some(Strategy::RetainKeys(name)) => Type::named(name, true),
                _ => Type::named("", false),
            };
            let old = match original.remove(field) {
                Some(Value::Object(map)) => map,
                _ => Map::new(),
            };
            if let Some(merged) = merge_object(old, patch, child, depth + 1)? {
                original.insert(field.to_owned(), Value::Object(merged));
            }
        }
        (Value::Array(patch), Some(Strategy::List(name, key))) => {
            merge_keyed(original, field, patch, order, Keyed { ty: Type::named(name, false), key }, depth)?;
        }
        (Value::Array(patch), Some(Strategy::ListRetainKeys(name, key))) => {
            merge_keyed(original, field, patch, order, Keyed { ty: Type::named(name, true), key }, depth)?;
        }
        (Value::Array(patch), Some(Strategy::Set)) => {
            let mut list = take_list(original, field);
            for value in patch {
                if !list.contains(&value) {
                    list.push(value);
                }
            }
            if let Some(order) = order {
                let order = into_list(order, ELEMENT_ORDER)?;
                list = sort_by_order(list, &order, |v| Some(v.clone()));
            }
            original.insert(field.to_owned(), Value::Array(list));
        }
        (value, _) => {
            original.insert(field.to_owned(), value);
        }
    }
    Ok(())
}

fn take_list(original: &mut Map<String, Value>, field: &str) -> Vec<Value> {
    match original.remove(field) {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    }
}

#[derive(Clone, Copy)]
struct Keyed {
    ty: Type,
    key: &'static str,
}

fn merge_keyed(
    original: &mut Map<String, Value>,
    field: &str,
    patch: Vec<Value>,
    order: Option<Value>,
    keyed: Keyed,
    depth: usize,
) -> Result<(), Error> {
    let mut list = take_list(original, field);
    let mut elements = Vec::with_capacity(patch.len());
    for element in patch {
        let Value::Object(element) = element else {
            return Err(Error::Malformed(format!(
                "list {field} must hold objects to merge by {}",
                keyed.key
            )));
        };
        elements.push(element);
    }
    let mut replace_all = false;
    for element in &elements {
        replace_all |= directive(element)? == Some("replace");
    }
    if replace_all {
        list = elements.into_iter().filter(|e| !e.contains_key(PATCH)).map(Value::Object).collect();
        original.insert(field.to_owned(), Value::Array(list));
        return Ok(());
    }
    for element in elements {
        let Some(key) = element.get(keyed.key).cloned() else {
            let text = Value::Object(element).to_string();
            return Err(Error::Malformed(format!(
                "map: {text} does not contain declared merge key: {}",
                keyed.key
            )));
        };
        let at = list.iter().position(|v| v.get(keyed.key) == Some(&key));
        if directive(&element)? == Some("delete") {
            list.retain(|v| v.get(keyed.key) != Some(&key));
            continue;
        }
        let old = match at.map(|at| list[at].take()) {
            Some(Value::Object(map)) => map,
            _ => Map::new(),
        };
        let merged = Value::Object(merge_object(old, element, keyed.ty, depth + 1)?.unwrap_or_default());
        match at {
            Some(at) => list[at] = merged,
            None => list.push(merged),
        }
    }
    if let Some(order) = order {
        let order = into_list(order, ELEMENT_ORDER)?;
        let order: Vec<Value> = order.iter().filter_map(|v| v.get(keyed.key).cloned()).collect();
        list = sort_by_order(list, &order, |v| v.get(keyed.key).cloned());
    }
    original.insert(field.to_owned(), Value::Array(list));
    Ok(())
}

/// Puts the elements named by `order` into that order; the others keep their place relative to the elements
/// that followed them before.
fn sort_by_order(list: Vec<Value>, order: &[Value], key: impl Fn(&Value) -> Option<Value>) -> Vec<Value> {
    let place = |v: &Value| key(v).and_then(|k| order.iter().position(|o| *o == k));
    let (mut named, mut others) = (Vec::new(), Vec::new());
    for (index, value) in list.into_iter().enumerate() {
        match place(&value) {
            Some(rank) => named.push((rank, index, value)),
            None => others.push((index, value)),
        }
    }
    named.sort_by_key(|(rank, index, _)| (*rank, *index));
    let mut sorted = Vec::with_capacity(named.len() + others.len());
    let mut others = others.into_iter().peekable();
    for (_, index, value) in named {
        while let Some((_, other)) = others.next_if(|(at, _)| *at < index) {
            sorted.push(other);
        }
        sorted.push(value);
    }
    sorted.extend(others.map(|(_, value)| value));
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(kind: PatchKind, original: Value, patch: Value, want: Value) {
        assert_eq!(strategic_merge_patch(original, patch.clone(), kind), Ok(want), "{patch}");
    }

    fn deployment() -> PatchKind {
        PatchKind::for_kind("apps", "v1", "Deployment")
    }

    fn with_containers(containers: Value) -> Value {
        json!({"spec": {"template": {"spec": {"containers": containers}}}})
    }

    #[test]
    fn containers_merge_by_name() {
        check(
            deployment(),
            with_containers(
                json!([{"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]}, {"name": "b"}]),
            ),
            with_containers(
                json!([{"name": "a", "image": "2", "env": [{"name": "Y", "value": "2"}]}, {"name": "c"}]),
            ),
            with_containers(json!([
                {"name": "a", "image": "2", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]},
                {"name": "b"}, {"name": "c"}
            ])),
        );
    }

    #[test]
    fn directives_delete_replace_and_order() {
        let three = json!([{"name": "a"}, {"name": "b"}, {"name": "c"}]);
        check(
            deployment(),
            with_containers(three.clone()),
            with_containers(json!([{"name": "b", "$patch": "delete"}])),
            with_containers(json!([{"name": "a"}, {"name": "c"}])),
        );
        check(
            deployment(),
            with_containers(three.clone()),
            with_containers(json!([{"name": "z"}, {"$patch": "replace"}])),
            with_containers(json!([{"name": "z"}])),
        );
        check(
            deployment(),
            with_containers(three.clone()),
            json!({"spec": {"template": {"spec": {
                "$setElementOrder/containers": [{"name": "c"}, {"name": "a"}],
                "containers": [{"name": "c", "image": "1"}]
            }}}}),
            with_containers(json!([{"name": "b"}, {"name": "c", "image": "1"}, {"name": "a"}])),
        );
        check(
            deployment(),
            json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}),
            json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}),
            json!({"spec": {"strategy": {"type": "Recreate"}}}),
        );
        check(
            deployment(),
            json!({"metadata": {"labels": {"a": "1", "b": "2"}, "annotations": {"x": "y"}}}),
            json!({"metadata": {"labels": {"$patch": "replace", "c": "3"}, "annotations": {"$patch": "delete"}}}),
            json!({"metadata": {"labels": {"c": "3"}}}),
        );
    }

    #[test]
    fn sets_unite_and_delete_from() {
        let pod = PatchKind::for_kind("", "v1", "Pod");
        check(
            pod,
            json!({"metadata": {"finalizers": ["a", "b"]}}),
            json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c", "b"]}}),
            json!({"metadata": {"finalizers": ["b", "c"]}}),
        );
        // Lists without a merge key are replaced.
        check(
            pod,
            json!({"spec": {"tolerations": [1]}}),
            json!({"spec": {"tolerations": [2]}}),
            json!({"spec": {"tolerations": [2]}}),
        );
        check(
            pod,
            json!({"spec": {"nodeName": "n"}}),
            json!({"spec": {"nodeName": null}}),
            json!({"spec": {}}),
        );
    }

    #[test]
    fn bad_patches_are_refused() {
        for patch in [
            json!([1]),
            with_containers(json!([{"image": "x"}])),
            with_containers(json!(["x"])),
            json!({"spec": {"$patch": "explode"}}),
            json!({"spec": {"template": {"$retainKeys": ["a"], "b": 1}}}),
            json!({"metadata": {"$deleteFromPrimitiveList/finalizers": "a"}}),
        ] {
            let result = strategic_merge_patch(with_containers(json!([])), patch.clone(), deployment());
            assert!(matches!(result, Err(Error::Malformed(_))), "{patch}");
        }
    }

    #[test]
    fn kinds_without_rules_still_merge_metadata() {
        check(
            PatchKind::for_kind("example.com", "v1", "Widget"),
            json!({"metadata": {"finalizers": ["a"]}, "list": [1]}),
            json!({"metadata": {"finalizers": ["b"]}, "list": [2]}),
            json!({"metadata": {"finalizers": ["a", "b"]}, "list": [2]}),
        );
    }
}
