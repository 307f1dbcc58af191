//! Security contexts: what pod and container ask for, merged and checked, as CRI wants it. A profile that can't be
//! honoured is refused, never weakened. Upstream's concept: `kuberuntime/security_context.go`, `pkg/securitycontext`.

use std::path::Path;

use k8s_openapi::api::core::v1::{
    AppArmorProfile, Capabilities, Container, PodSecurityContext, PodSpec, SeccompProfile, SecurityContext,
};
use proto::runtime_v1 as v1;
use proto::runtime_v1::security_profile::ProfileType;

/// Paths of /proc and /sys hidden from a container unless `procMount: Unmasked`.
const MASKED_PATHS: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// Paths of /proc made read-only unless `procMount: Unmasked`.
const READONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The largest uid the kernel can be asked for: more would wrap, perhaps to root.
const MAX_UID: i64 = (1 << 31) - 1;

/// A security context that can't be honoured. The text becomes the container's CreateContainerConfigError.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SecurityError(String);

/// Who the image would run as.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageUser {
    /// The numeric uid, if the image gives one; neither uid nor name means root.
    pub uid: Option<i64>,
    /// The user's name, if the image gives a name.
    pub username: String,
}

impl ImageUser {
    /// Reads an image's user.
    #[must_use]
    pub fn of(image: &v1::Image) -> Self {
        match (&image.uid, image.username.as_str()) {
            (Some(uid), _) => Self { uid: Some(uid.value), username: String::new() },
            (None, "") => Self { uid: Some(0), username: String::new() },
            (None, name) => Self { uid: None, username: name.to_owned() },
        }
    }
}

/// The namespaces of a pod's containers.
#[must_use]
pub fn namespace_options(spec: &PodSpec) -> v1::NamespaceOption {
    let node_or_pod = |node: Option<bool>| {
        if node.unwrap_or(false) { v1::NamespaceMode::Node } else { v1::NamespaceMode::Pod }
    };
    let pid = if spec.host_pid.unwrap_or(false) {
        v1::NamespaceMode::Node
    } else if spec.share_process_namespace.unwrap_or(false) {
        v1::NamespaceMode::Pod
    } else {
        v1::NamespaceMode::Container
    };
    v1::NamespaceOption {
        network: node_or_pod(spec.host_network).into(),
        pid: pid.into(),
        ipc: node_or_pod(spec.host_ipc).into(),
        ..Default::default()
    }
}

fn int64(value: i64) -> v1::Int64Value {
    v1::Int64Value { value }
}

fn supplemental_groups(context: &PodSecurityContext) -> Vec<i64> {
    context.fs_group.into_iter().chain(context.supplemental_groups.iter().flatten().copied()).collect()
}

fn groups_policy(context: &PodSecurityContext) -> i32 {
    match context.supplemental_groups_policy.as_deref() {
        Some("Strict") => v1::SupplementalGroupsPolicy::Strict.into(),
        _ => v1::SupplementalGroupsPolicy::Merge.into(),
    }
}

/// All of a pod's containers, init containers first.
pub fn all_containers(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    spec.init_containers.iter().flatten().chain(&spec.containers)
}

fn is_privileged(container: &Container) -> bool {
    container.security_context.as_ref().and_then(|c| c.privileged).unwrap_or(false)
}

/// The sandbox's own context. Its only process is the pause binary, so it gets the strictest seccomp profile.
#[must_use]
pub fn sandbox_context(spec: &PodSpec) -> v1::LinuxSandboxSecurityContext {
    let empty = PodSecurityContext::default();
    let pod = spec.security_context.as_ref().unwrap_or(&empty);
    v1::LinuxSandboxSecurityContext {
        namespace_options: Some(namespace_options(spec)),
        selinux_options: pod.se_linux_options.as_ref().map(selinux),
        run_as_user: pod.run_as_user.map(int64),
        // A group without a user is an error to the runtime.
        run_as_group: pod.run_as_group.filter(|_| pod.run_as_user.is_some()).map(int64),
        supplemental_groups: supplemental_groups(pod),
        supplemental_groups_policy: groups_policy(pod),
        privileged: all_containers(spec).any(is_privileged),
        seccomp: Some(v1::SecurityProfile {
            profile_type: ProfileType::RuntimeDefault.into(),
            localhost_ref: String::new(),
        }),
        ..Default::default()
    }
}

fn selinux(options: &k8s_openapi::api::core::v1::SELinuxOptions) -> v1::SeLinuxOption {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    v1::SeLinuxOption {
        user: text(&options.user),
        role: text(&options.role),
        r#type: text(&options.type_),
        level: text(&options.level),
    }
}

fn seccomp(profile: Option<&SeccompProfile>, root_dir: &Path) -> Result<v1::SecurityProfile, SecurityError> {
    let plain =
        |kind: ProfileType| v1::SecurityProfile { profile_type: kind.into(), localhost_ref: String::new() };
    let Some(profile) = profile else { return Ok(plain(ProfileType::Unconfined)) };
    match profile.type_.as_str() {
        "RuntimeDefault" => Ok(plain(ProfileType::RuntimeDefault)),
        "Unconfined" => Ok(plain(ProfileType::Unconfined)),
        "Localhost" => {
            let name = profile.localhost_profile.as_deref().unwrap_or_default();
            // An empty name would come out as "unconfined" in the runtime (CVE-2023-2431).
            if name.is_empty() {
                return Err(SecurityError(
                    "localhostProfile must be set if seccompProfile type is Localhost.".to_owned(),
                ));
            }
            if name.starts_with('/') || name.split('/').any(|part| part == "..") {
                return Err(SecurityError(format!(
                    "localhostProfile {name:?} must be a descending relative path"
                )));
            }
            let path = root_dir.join("seccomp").join(name);
            Ok(v1::SecurityProfile {
                profile_type: ProfileType::Localhost.into(),
                localhost_ref: path.to_string_lossy().into_owned(),
            })
        }
        other => Err(SecurityError(format!("unknown seccompProfile type {other:?}"))),
    }
}

fn apparmor(profile: Option<&AppArmorProfile>) -> Result<Option<v1::SecurityProfile>, SecurityError> {
    let Some(profile) = profile else { return Ok(None) };
    let (kind, localhost_ref) = match (profile.type_.as_str(), profile.localhost_profile.as_deref()) {
        ("RuntimeDefault", _) => (ProfileType::RuntimeDefault, String::new()),
        ("Unconfined", _) => (ProfileType::Unconfined, String::new()),
        ("Localhost", Some(name)) if !name.is_empty() => (ProfileType::Localhost, name.to_owned()),
        ("Localhost", _) => {
            return Err(SecurityError(
                "localhostProfile must be set if appArmorProfile type is Localhost.".to_owned(),
            ));
        }
        (other, _) => return Err(SecurityError(format!("unknown appArmorProfile type {other:?}"))),
    };
    Ok(Some(v1::SecurityProfile { profile_type: kind.into(), localhost_ref }))
}

fn capabilities(asked: &Capabilities) -> v1::Capability {
    v1::Capability {
        add_capabilities: asked.add.clone().unwrap_or_default(),
        drop_capabilities: asked.drop.clone().unwrap_or_default(),
        ..Default::default()
    }
}

/// A container's context after the pod's has filled its gaps.
#[derive(Debug)]
struct Effective<'a> {
    pod: &'a PodSecurityContext,
    own: &'a SecurityContext,
}

impl Effective<'_> {
    fn run_as_user(&self) -> Option<i64> {
        self.own.run_as_user.or(self.pod.run_as_user)
    }

    fn run_as_group(&self) -> Option<i64> {
        self.own.run_as_group.or(self.pod.run_as_group)
    }

    fn run_as_non_root(&self) -> bool {
        self.own.run_as_non_root.or(self.pod.run_as_non_root).unwrap_or(false)
    }
}

/// `runAsNonRoot`, judged by number: neither an image's user name nor a uid that wraps to 0 is taken on trust.
fn verify_non_root(effective: &Effective<'_>, user: &ImageUser, place: &str) -> Result<(), SecurityError> {
    if !effective.run_as_non_root() {
        return Ok(());
    }
    let refuse = |why: String| Err(SecurityError(format!("{why} ({place})")));
    match (effective.run_as_user(), user.uid) {
        (Some(0), _) => refuse("container's runAsUser breaks non-root policy".to_owned()),
        (Some(_), _) => Ok(()),
        (None, Some(0)) => refuse("container has runAsNonRoot and image will run as root".to_owned()),
        (None, Some(uid)) if !(0..=MAX_UID).contains(&uid) => {
            refuse(format!("container has runAsNonRoot and image has user id {uid}, which is out of range"))
        }
        (None, Some(_)) => Ok(()),
        (None, None) => refuse(format!(
            "container has runAsNonRoot and image has non-numeric user ({}), cannot verify user is non-root",
            user.username
        )),
    }
}

/// A container's security context, or why it can't run with it. `place` names pod and container in messages.
pub fn container_context(
    spec: &PodSpec,
    container: &Container,
    user: &ImageUser,
    root_dir: &Path,
    place: &str,
) -> Result<v1::LinuxContainerSecurityContext, SecurityError> {
    let no_pod = PodSecurityContext::default();
    let no_own = SecurityContext::default();
    let effective = Effective {
        pod: spec.security_context.as_ref().unwrap_or(&no_pod),
        own: container.security_context.as_ref().unwrap_or(&no_own),
    };
    verify_non_root(&effective, user, place)?;
    let Effective { pod, own } = &effective;
    let run_as_user = effective.run_as_user().or(user.uid);
    let run_as_username = if run_as_user.is_none() { user.username.clone() } else { String::new() };
    let (masked, readonly): (&[&str], &[&str]) = match own.proc_mount.as_deref() {
        Some("Unmasked") => (&[], &[]),
        _ => (&MASKED_PATHS, &READONLY_PATHS),
    };
    let owned = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect();
    Ok(v1::LinuxContainerSecurityContext {
        capabilities: own.capabilities.as_ref().map(capabilities),
        privileged: own.privileged.unwrap_or(false),
        namespace_options: Some(namespace_options(spec)),
        selinux_options: own.se_linux_options.as_ref().or(pod.se_linux_options.as_ref()).map(selinux),
        run_as_user: run_as_user.map(int64),
        run_as_username,
        run_as_group: effective.run_as_group().map(int64),
        readonly_rootfs: own.read_only_root_filesystem.unwrap_or(false),
        supplemental_groups: supplemental_groups(pod),
        supplemental_groups_policy: groups_policy(pod),
        no_new_privs: own.allow_privilege_escalation == Some(false),
        masked_paths: owned(masked),
        readonly_paths: owned(readonly),
        seccomp: Some(seccomp(own.seccomp_profile.as_ref().or(pod.seccomp_profile.as_ref()), root_dir)?),
        apparmor: apparmor(own.app_armor_profile.as_ref().or(pod.app_armor_profile.as_ref()))?,
        ..Default::default()
    })
}

#[cfg(test)]
#[path = "security/tests.rs"]
mod tests;
