//! Subjects and role references, which both kinds of bindings share.

use apimachinery::validation::names::is_dns1123_subdomain;
use apimachinery::validation::{Error, ErrorList, Path};
use jiff::Timestamp;
use k8s_openapi::api::rbac::v1::{RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{GROUP, validate_rbac_name};
use crate::registry::cells;
use crate::table::{self, AGE, Cell, Column, NAME};

/// The columns of bindings.
pub(super) const COLUMNS: &[Column] = &[
    NAME,
    Column::string("Role", "Role that the binding grants."),
    AGE,
    Column::string("Users", "Users that get the role.").wide(),
    Column::string("Groups", "Groups that get the role.").wide(),
    Column::string("ServiceAccounts", "Service accounts that get the role.").wide(),
];

/// The cells of [`COLUMNS`].
pub(super) fn row(
    meta: &ObjectMeta,
    role: &RoleRef,
    subjects: Option<&Vec<Subject>>,
    now: Timestamp,
) -> Vec<Cell> {
    let of_kind = |kind: &str| {
        let all = subjects.into_iter().flatten().filter(|s| s.kind == kind);
        let names = all.map(|s| match (kind, s.namespace.as_deref()) {
            ("ServiceAccount", Some(namespace)) => format!("{namespace}/{}", s.name),
            _ => s.name.clone(),
        });
        Cell::from(names.collect::<Vec<_>>().join(", "))
    };
    vec![
        cells::name(meta),
        Cell::from(format!("{}/{}", role.kind, role.name)),
        table::age(meta.creation_timestamp.as_ref(), now),
        of_kind("User"),
        of_kind("Group"),
        of_kind("ServiceAccount"),
    ]
}

pub(super) fn set_defaults(role: &mut RoleRef, subjects: Option<&mut Vec<Subject>>) {
    if role.api_group.as_deref().unwrap_or_default().is_empty() {
        role.api_group = Some(GROUP.to_owned());
    }
    for subject in subjects.into_iter().flatten() {
        if subject.api_group.as_deref().unwrap_or_default().is_empty() {
            let group = matches!(subject.kind.as_str(), "User" | "Group");
            subject.api_group = group.then(|| GROUP.to_owned());
        }
    }
}

/// Validates a binding; `in_cluster`: the binding is cluster-scoped, so it may grant cluster roles only.
pub(super) fn validate(role: &RoleRef, subjects: Option<&Vec<Subject>>, in_cluster: bool) -> ErrorList {
    let mut errors = ErrorList::new();
    let path = Path::new("roleRef");
    let group = role.api_group.as_deref().unwrap_or_default();
    if group != GROUP {
        errors.push(Error::not_supported(&path.child("apiGroup"), group, &[GROUP]));
    }
    let kinds: &[&str] = if in_cluster { &["ClusterRole"] } else { &["Role", "ClusterRole"] };
    if !kinds.contains(&role.kind.as_str()) {
        errors.push(Error::not_supported(&path.child("kind"), &role.kind, kinds));
    }
    if role.name.is_empty() {
        errors.push(Error::required(&path.child("name"), ""));
    } else {
        for problem in validate_rbac_name(&role.name) {
            errors.push(Error::invalid(&path.child("name"), &role.name, problem));
        }
    }
    for (i, subject) in subjects.into_iter().flatten().enumerate() {
        validate_subject(subject, in_cluster, &Path::new("subjects").index(i), &mut errors);
    }
    errors
}

fn validate_subject(subject: &Subject, in_cluster: bool, path: &Path, errors: &mut ErrorList) {
    if subject.name.is_empty() {
        errors.push(Error::required(&path.child("name"), ""));
    }
    let group = subject.api_group.as_deref().unwrap_or_default();
    match subject.kind.as_str() {
        "ServiceAccount" => {
            if !subject.name.is_empty() {
                for problem in is_dns1123_subdomain(&subject.name) {
                    errors.push(Error::invalid(&path.child("name"), &subject.name, problem));
                }
            }
            if !group.is_empty() {
                errors.push(Error::not_supported(&path.child("apiGroup"), group, &[""]));
            }
            if in_cluster && subject.namespace.as_deref().unwrap_or_default().is_empty() {
                errors.push(Error::required(&path.child("namespace"), ""));
            }
        }
        "User" | "Group" => {
            if group != GROUP {
                errors.push(Error::not_supported(&path.child("apiGroup"), group, &[GROUP]));
            }
        }
        other => {
            let all = ["ServiceAccount", "User", "Group"];
            errors.push(Error::not_supported(&path.child("kind"), other, &all));
        }
    }
}

/// The role that a binding grants is what it is; another grant is another binding.
pub(super) fn validate_same_role(new: &RoleRef, old: &RoleRef, errors: &mut ErrorList) {
    if new != old {
        let shown = serde_json::to_value(new).unwrap_or_default();
        errors.push(Error::invalid(&Path::new("roleRef"), shown, "cannot change roleRef"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(role: Value, subjects: Value, in_cluster: bool, want: &[&str]) {
        let mut role: RoleRef = serde_json::from_value(role).unwrap();
        let mut subjects: Vec<Subject> = serde_json::from_value(subjects).unwrap();
        set_defaults(&mut role, Some(&mut subjects));
        let texts: Vec<String> =
            validate(&role, Some(&subjects), in_cluster).iter().map(ToString::to_string).collect();
        assert_eq!(texts, want);
    }

    #[test]
    fn bindings() {
        let user = json!([{"kind": "User", "name": "u"}]);
        check(json!({"kind": "Role", "name": "r"}), user.clone(), false, &[]);
        check(
            json!({"kind": "Role", "name": "r"}),
            user.clone(),
            true,
            &["roleRef.kind: Unsupported value: \"Role\": supported values: \"ClusterRole\""],
        );
        check(json!({"kind": "ClusterRole"}), user, true, &["roleRef.name: Required value"]);
        check(
            json!({"kind": "ClusterRole", "name": "r"}),
            json!([{"kind": "ServiceAccount", "name": "a"}, {"kind": "X", "name": "a"}]),
            true,
            &[
                "subjects[0].namespace: Required value",
                "subjects[1].kind: Unsupported value: \"X\": supported values: \"ServiceAccount\", \"User\", \"Group\"",
            ],
        );
    }
}
