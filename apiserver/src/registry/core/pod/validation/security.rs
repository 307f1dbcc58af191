//! Security contexts, and what a pod shares with its host.

use apimachinery::validation::{Error, ErrorList, Path};
use k8s_openapi::api::core::v1::{PodSpec, SeccompProfile, SecurityContext};

const MAX_ID: i64 = i32::MAX as i64;

fn validate_id(id: Option<i64>, path: &Path, errors: &mut ErrorList) {
    if let Some(id) = id
        && !(0..=MAX_ID).contains(&id)
    {
        errors.push(Error::invalid(path, id, "must be between 0 and 2147483647, inclusive"));
    }
}

pub(super) fn validate_pod_context(spec: &PodSpec, path: &Path, errors: &mut ErrorList) {
    if spec.share_process_namespace == Some(true) && spec.host_pid == Some(true) {
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.push(Error::invalid(&path.child("shareProcessNamespace"), true, detail));
    }
    if spec.host_users == Some(false) {
        for (field, set) in
            [("hostNetwork", spec.host_network), ("hostPID", spec.host_pid), ("hostIPC", spec.host_ipc)]
        {
            if set == Some(true) {
                let detail = "when `hostUsers` is false";
                errors.push(Error::forbidden(&path.child(field), detail));
            }
        }
    }
    let Some(context) = &spec.security_context else { return };
    let path = path.child("securityContext");
    validate_id(context.fs_group, &path.child("fsGroup"), errors);
    validate_id(context.run_as_user, &path.child("runAsUser"), errors);
    validate_id(context.run_as_group, &path.child("runAsGroup"), errors);
    for (i, group) in context.supplemental_groups.iter().flatten().enumerate() {
        validate_id(Some(*group), &path.child("supplementalGroups").index(i), errors);
    }
    validate_one_of(
        context.fs_group_change_policy.as_deref(),
        &["Always", "OnRootMismatch"],
        &path.child("fsGroupChangePolicy"),
        errors,
    );
    validate_one_of(
        context.supplemental_groups_policy.as_deref(),
        &["Merge", "Strict"],
        &path.child("supplementalGroupsPolicy"),
        errors,
    );
    validate_seccomp(context.seccomp_profile.as_ref(), &path.child("seccompProfile"), errors);
    let mut names = std::collections::BTreeSet::new();
    for (i, sysctl) in context.sysctls.iter().flatten().enumerate() {
        let path = path.child("sysctls").index(i).child("name");
        if sysctl.name.is_empty() {
            errors.push(Error::required(&path, ""));
        } else if !is_sysctl_name(&sysctl.name) {
            let detail = "must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
            errors.push(Error::invalid(&path, &sysctl.name, detail));
        } else if !names.insert(sysctl.name.replace('/', ".")) {
            errors.push(Error::duplicate(&path, &sysctl.name));
        }
    }
}

fn is_sysctl_name(name: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let part = |part: &str| {
        let bytes = part.as_bytes();
        edge(bytes.first())
            && edge(bytes.last())
            && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(b))
    };
    name.len() <= 253 && name.split(['.', '/']).all(part)
}

fn validate_one_of(value: Option<&str>, all: &[&str], path: &Path, errors: &mut ErrorList) {
    if let Some(value) = value
        && !all.contains(&value)
    {
        errors.push(Error::not_supported(path, value, all));
    }
}

fn validate_seccomp(profile: Option<&SeccompProfile>, path: &Path, errors: &mut ErrorList) {
    let Some(profile) = profile else { return };
    let file = profile.localhost_profile.as_deref().unwrap_or_default();
    match profile.type_.as_str() {
        "" => {
            errors.push(Error::required(&path.child("type"), "type is required when seccompProfile is set"))
        }
        "Localhost" => {
            if file.is_empty() {
                let detail = "must be set when seccomp type is Localhost";
                errors.push(Error::required(&path.child("localhostProfile"), detail));
            }
        }
        "RuntimeDefault" | "Unconfined" => {
            if !file.is_empty() {
                let detail = "can only be set when seccomp type is Localhost";
                errors.push(Error::invalid(&path.child("localhostProfile"), file, detail));
            }
        }
        other => {
            let all = ["Localhost", "RuntimeDefault", "Unconfined"];
            errors.push(Error::not_supported(&path.child("type"), other, &all));
        }
    }
}

pub(super) fn validate_container_context(
    context: &SecurityContext,
    host_users: Option<bool>,
    path: &Path,
    errors: &mut ErrorList,
) {
    validate_id(context.run_as_user, &path.child("runAsUser"), errors);
    validate_id(context.run_as_group, &path.child("runAsGroup"), errors);
    match context.proc_mount.as_deref() {
        None | Some("Default") => {}
        Some("Unmasked") => {
            if host_users != Some(false) {
                let detail = "`hostUsers` must be false to use `Unmasked`";
                errors.push(Error::invalid(&path.child("procMount"), "Unmasked", detail));
            }
        }
        Some(other) => {
            let path = path.child("procMount");
            errors.push(Error::not_supported(&path, other, &["Default", "Unmasked"]));
        }
    }
    validate_seccomp(context.seccomp_profile.as_ref(), &path.child("seccompProfile"), errors);
    if context.allow_privilege_escalation == Some(false) {
        let shown = || serde_json::to_value(context).unwrap_or_default();
        if context.privileged == Some(true) {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.push(Error::invalid(path, shown(), detail));
        }
        let added = context.capabilities.iter().flat_map(|c| c.add.iter().flatten());
        if added.into_iter().any(|c| c == "CAP_SYS_ADMIN") {
            let detail =
                "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.push(Error::invalid(path, shown(), detail));
        }
    }
}
