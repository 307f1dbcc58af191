//! The discovery documents as JSON values.

use serde_json::{Map, Value, json};

use super::entries::{Entry, Group, Subentry, Version};

/// APIGroupList.
pub(super) fn group_list(groups: &[Group]) -> Value {
    let groups: Vec<Value> =
        groups.iter().filter(|group| !group.name.is_empty()).map(|entry| group(entry, false)).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// APIGroup; `typed` adds kind and apiVersion, which items of a list lack.
pub(super) fn group(group: &Group, typed: bool) -> Value {
    let version = |version: &Version| json!({"groupVersion": format!("{}/{}", group.name, version.name), "version": version.name});
    let versions: Vec<Value> = group.versions.iter().map(version).collect();
    let mut value = json!({"name": group.name, "versions": versions, "preferredVersion": versions.first()});
    if typed {
        value["kind"] = "APIGroup".into();
        value["apiVersion"] = "v1".into();
    }
    value
}

/// APIResourceList.
pub(super) fn resource_list(group: &Group, version: &Version) -> Value {
    let mut resources = Vec::new();
    for entry in &version.resources {
        let mut value = json!({"name": entry.plural, "singularName": entry.singular, "namespaced": entry.namespaced,
            "kind": entry.kind, "verbs": entry.verbs});
        add_names(&mut value, entry);
        if entry.verbs.contains(&"watch") {
            value["storageVersionHash"] = storage_version_hash(group, version, entry).into();
        }
        resources.push(value);
        for sub in &entry.subresources {
            let mut value = json!({"name": format!("{}/{}", entry.plural, sub.name), "singularName": "",
                "namespaced": entry.namespaced, "kind": sub.kind, "verbs": sub.verbs});
            if !sub.version.is_empty() {
                value["group"] = sub.group.into();
                value["version"] = sub.version.into();
            }
            resources.push(value);
        }
    }
    let group_version =
        if group.name.is_empty() { version.name.clone() } else { format!("{}/{}", group.name, version.name) };
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources})
}

/// Identifies group, version and kind of the stored form, as upstream's.
fn storage_version_hash(group: &Group, version: &Version, entry: &Entry) -> String {
    use base64::Engine;
    use sha2::Digest;
    let digest = sha2::Sha256::digest(format!("{}/{}/{}", group.name, version.name, entry.kind));
    base64::engine::general_purpose::STANDARD.encode(&digest[..8])
}

fn add_names(value: &mut Value, entry: &Entry) {
    if !entry.short_names.is_empty() {
        value["shortNames"] = entry.short_names.into();
    }
    if !entry.categories.is_empty() {
        value["categories"] = entry.categories.into();
    }
}

/// APIGroupDiscoveryList.
pub(super) fn aggregated<'a>(groups: impl Iterator<Item = &'a Group>, version: &str) -> Value {
    let items: Vec<Value> = groups.map(aggregated_group).collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"), "metadata": {},
        "items": items})
}

fn aggregated_group(group: &Group) -> Value {
    let mut metadata = Map::new();
    if !group.name.is_empty() {
        metadata.insert("name".to_owned(), group.name.clone().into());
    }
    let versions: Vec<Value> = group
        .versions
        .iter()
        .map(|version| {
            let resources: Vec<Value> = version.resources.iter().map(aggregated_resource).collect();
            json!({"version": version.name, "resources": resources, "freshness": "Current"})
        })
        .collect();
    json!({"metadata": metadata, "versions": versions})
}

fn aggregated_resource(entry: &Entry) -> Value {
    let mut value = json!({"resource": entry.plural, "responseKind": response_kind("", "", entry.kind),
        "scope": if entry.namespaced { "Namespaced" } else { "Cluster" }, "singularResource": entry.singular,
        "verbs": entry.verbs});
    add_names(&mut value, entry);
    if !entry.subresources.is_empty() {
        let subresource = |sub: &Subentry| {
            json!({"subresource": sub.name, "responseKind": response_kind(sub.group, sub.version, sub.kind),
                "verbs": sub.verbs})
        };
        value["subresources"] = entry.subresources.iter().map(subresource).collect();
    }
    value
}

fn response_kind(group: &str, version: &str, kind: &str) -> Value {
    json!({"group": group, "version": version, "kind": kind})
}
