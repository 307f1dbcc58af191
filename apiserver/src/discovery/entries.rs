//! What is served, gathered from the registry: groups in upstream's order, versions, resources with subresources.

use crate::registry::resources::Resources;
use crate::registry::{ResourceInfo, SubresourceInfo};

/// A group with its versions, preferred first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) name: String,
    pub(super) versions: Vec<Version>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) name: String,
    pub(super) resources: Vec<Entry>,
}

impl Version {
    /// `/api/v1` or `/apis/apps/v1`.
    pub(super) fn path(&self, group: &Group) -> String {
        if group.name.is_empty() {
            format!("/api/{}", self.name)
        } else {
            format!("/apis/{}/{}", group.name, self.name)
        }
    }
}

/// A resource in discovery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) plural: &'static str,
    pub(super) singular: &'static str,
    pub(super) kind: &'static str,
    pub(super) namespaced: bool,
    pub(super) verbs: Vec<&'static str>,
    pub(super) short_names: &'static [&'static str],
    pub(super) categories: &'static [&'static str],
    /// Sorted by name.
    pub(super) subresources: Vec<Subentry>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Subentry {
    pub(super) name: &'static str,
    pub(super) kind: &'static str,
    /// Empty when they are the parent's.
    pub(super) group: &'static str,
    pub(super) version: &'static str,
    pub(super) verbs: Vec<&'static str>,
}

/// Upstream's order of groups by priority; others follow by name.
const ORDER: &[&str] = &[
    "",
    "apiregistration.k8s.io",
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
    "discovery.k8s.io",
    "resource.k8s.io",
    "flowcontrol.apiserver.k8s.io",
];

const READ_WRITE: &[&str] = &["get", "patch", "update"];

/// Subresources that the endpoints serve for pods without a handler of their own.
const POD_SUBRESOURCES: &[(&str, &str, &str, &str)] =
    &[("binding", "Binding", "", ""), ("eviction", "Eviction", "policy", "v1")];

/// Resources that answer a create and store nothing: (group, version, kind, plural, singular, namespaced).
const REVIEWS: &[(&str, &str, &str, &str, &str, bool)] = &[
    ("authentication.k8s.io", "v1", "TokenReview", "tokenreviews", "tokenreview", false),
    ("authentication.k8s.io", "v1", "SelfSubjectReview", "selfsubjectreviews", "selfsubjectreview", false),
    (
        "authorization.k8s.io",
        "v1",
        "LocalSubjectAccessReview",
        "localsubjectaccessreviews",
        "localsubjectaccessreview",
        true,
    ),
    (
        "authorization.k8s.io",
        "v1",
        "SelfSubjectAccessReview",
        "selfsubjectaccessreviews",
        "selfsubjectaccessreview",
        false,
    ),
    (
        "authorization.k8s.io",
        "v1",
        "SelfSubjectRulesReview",
        "selfsubjectrulesreviews",
        "selfsubjectrulesreview",
        false,
    ),
    (
        "authorization.k8s.io",
        "v1",
        "SubjectAccessReview",
        "subjectaccessreviews",
        "subjectaccessreview",
        false,
    ),
];

/// What the registry and the special endpoints serve.
pub(super) fn groups(resources: &Resources, special: &[(&str, &str, &str)]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for resource in resources.iter() {
        let info = resource.info();
        add(&mut groups, info.group, info.version, entry(info, special));
    }
    for (group, version, kind, plural, singular, namespaced) in REVIEWS {
        if special.contains(&(*group, *plural, "")) {
            let entry = Entry {
                plural,
                singular,
                kind,
                namespaced: *namespaced,
                verbs: vec!["create"],
                short_names: &[],
                categories: &[],
                subresources: Vec::new(),
            };
            add(&mut groups, group, version, entry);
        }
    }
    let rank = |name: &str| ORDER.iter().position(|known| *known == name).unwrap_or(ORDER.len());
    groups.sort_by(|a, b| (rank(&a.name), &a.name).cmp(&(rank(&b.name), &b.name)));
    for group in &mut groups {
        group.versions.sort_by_key(|version| std::cmp::Reverse(version_rank(&version.name)));
        for version in &mut group.versions {
            version.resources.sort_by_key(|entry| entry.plural);
        }
    }
    groups
}

fn add(groups: &mut Vec<Group>, group: &str, version: &str, entry: Entry) {
    let group = match groups.iter().position(|known| known.name == group) {
        Some(index) => &mut groups[index],
        None => {
            groups.push(Group { name: group.to_owned(), versions: Vec::new() });
            let last = groups.len() - 1;
            &mut groups[last]
        }
    };
    match group.versions.iter_mut().find(|known| known.name == version) {
        Some(version) => version.resources.push(entry),
        None => group.versions.push(Version { name: version.to_owned(), resources: vec![entry] }),
    }
}

/// GA over beta over alpha, then the higher number.
fn version_rank(version: &str) -> (u8, u32, u32) {
    let Some(rest) = version.strip_prefix('v') else { return (0, 0, 0) };
    let number = |text: &str| text.parse().unwrap_or(0);
    for (stage, rank) in [("alpha", 1), ("beta", 2)] {
        if let Some((major, minor)) = rest.split_once(stage) {
            return (rank, number(major), number(minor));
        }
    }
    (3, number(rest), 0)
}

fn entry(info: &ResourceInfo, special: &[(&str, &str, &str)]) -> Entry {
    let mut subresources: Vec<Subentry> = Vec::new();
    let own = |name: &'static str, verbs: &[&'static str]| Subentry {
        name,
        kind: info.kind,
        group: "",
        version: "",
        verbs: verbs.to_vec(),
    };
    if info.status {
        subresources.push(own("status", READ_WRITE));
    }
    if info.scale {
        subresources.push(Subentry {
            kind: "Scale",
            group: "autoscaling",
            version: "v1",
            ..own("scale", READ_WRITE)
        });
    }
    for SubresourceInfo { name, kind, group, version, verbs, updates_parent } in
        info.subresources.iter().copied()
    {
        // What is declared but has no handler in this server is not served, so it is not shown.
        if updates_parent || special.contains(&(info.group, info.plural, name)) {
            let same = group == info.group && version == info.version;
            let (group, version) = if same { ("", "") } else { (group, version) };
            subresources.push(Subentry { name, kind, group, version, verbs: sorted(verbs) });
        }
    }
    if info.group.is_empty() && info.plural == "pods" {
        for (name, kind, group, version) in POD_SUBRESOURCES {
            subresources.push(Subentry { name, kind, group, version, verbs: vec!["create"] });
        }
    }
    subresources.sort_by_key(|sub| sub.name);
    subresources.dedup_by_key(|sub| sub.name);
    Entry {
        plural: info.plural,
        singular: info.singular,
        kind: info.kind,
        namespaced: info.namespaced,
        verbs: sorted(info.verbs),
        short_names: info.short_names,
        categories: info.categories,
        subresources,
    }
}

fn sorted(verbs: &[&'static str]) -> Vec<&'static str> {
    let mut verbs = verbs.to_vec();
    verbs.sort_unstable();
    verbs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preferred_versions_come_first() {
        let mut versions = ["v1alpha1", "v2", "v1beta2", "v1", "v1beta1", "v10", "odd"];
        versions.sort_by_key(|version| std::cmp::Reverse(version_rank(version)));
        assert_eq!(versions, ["v10", "v2", "v1", "v1beta2", "v1beta1", "v1alpha1", "odd"]);
    }
}
