//! Tables over security contexts.

use super::*;
use serde_json::json;

fn context(
    pod: serde_json::Value,
    own: serde_json::Value,
    user: ImageUser,
) -> Result<v1::LinuxContainerSecurityContext, SecurityError> {
    let spec: PodSpec = serde_json::from_value(
        json!({"securityContext": pod, "containers": [{"name": "c", "securityContext": own}]}),
    )
    .unwrap();
    container_context(
        &spec,
        &spec.containers[0],
        &user,
        Path::new("/var/lib/kubelet"),
        "pod: \"p\", container: c",
    )
}

fn uid(uid: i64) -> ImageUser {
    ImageUser { uid: Some(uid), username: String::new() }
}

#[test]
fn run_as_non_root_is_judged_by_number() {
    let named = ImageUser { uid: None, username: "www".to_owned() };
    for (pod, own, user, refused) in [
        (json!({}), json!({}), uid(0), None),
        (json!({"runAsNonRoot": true}), json!({}), uid(0), Some("image will run as root")),
        (json!({"runAsNonRoot": true}), json!({"runAsNonRoot": false}), uid(0), None),
        (
            json!({"runAsNonRoot": true}),
            json!({"runAsUser": 0}),
            uid(5),
            Some("runAsUser breaks non-root policy"),
        ),
        (json!({"runAsNonRoot": true, "runAsUser": 0}), json!({"runAsUser": 7}), uid(0), None),
        (json!({}), json!({"runAsNonRoot": true}), named.clone(), Some("non-numeric user (www)")),
        (json!({}), json!({"runAsNonRoot": true}), uid(1 << 32), Some("out of range")),
        (json!({}), json!({"runAsNonRoot": true}), uid(-1), Some("out of range")),
        (json!({}), json!({"runAsNonRoot": true}), uid(1000), None),
    ] {
        let got = context(pod.clone(), own.clone(), user);
        match refused {
            None => assert!(got.is_ok(), "{pod} {own}: {got:?}"),
            Some(text) => {
                let message = got.unwrap_err().to_string();
                assert!(message.contains(text) && message.contains("container: c"), "{message}");
            }
        }
    }
    let runs_named = context(json!({}), json!({}), named).unwrap();
    assert_eq!((runs_named.run_as_user, runs_named.run_as_username.as_str()), (None, "www"));
}

#[test]
fn seccomp_profiles() {
    let kind = |profile: serde_json::Value| {
        context(json!({}), json!({"seccompProfile": profile}), uid(0)).map(|c| c.seccomp.unwrap())
    };
    assert_eq!(kind(json!({"type": "RuntimeDefault"})).unwrap().profile_type(), ProfileType::RuntimeDefault);
    assert_eq!(kind(json!(null)).unwrap().profile_type(), ProfileType::Unconfined);
    let local = kind(json!({"type": "Localhost", "localhostProfile": "a/b.json"})).unwrap();
    assert_eq!(local.localhost_ref, "/var/lib/kubelet/seccomp/a/b.json");
    for bad in [
        json!({"type": "Localhost"}),
        json!({"type": "Localhost", "localhostProfile": ""}),
        json!({"type": "Localhost", "localhostProfile": "../x"}),
        json!({"type": "Localhost", "localhostProfile": "/x"}),
        json!({"type": ""}),
    ] {
        assert!(kind(bad.clone()).is_err(), "{bad}");
    }
    let from_pod = context(json!({"seccompProfile": {"type": "RuntimeDefault"}}), json!({}), uid(0)).unwrap();
    assert_eq!(from_pod.seccomp.unwrap().profile_type(), ProfileType::RuntimeDefault);
}

#[test]
fn fields_reach_the_runtime() {
    let got = context(
        json!({"fsGroup": 10, "supplementalGroups": [11], "runAsUser": 1, "runAsGroup": 2}),
        json!({"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "procMount": "Unmasked",
               "capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]}}),
        uid(0),
    )
    .unwrap();
    assert_eq!(got.supplemental_groups, [10, 11]);
    assert_eq!(got.run_as_user.unwrap().value, 1);
    assert_eq!(got.run_as_group.unwrap().value, 2);
    assert!(got.no_new_privs && got.readonly_rootfs && got.masked_paths.is_empty());
    assert_eq!(got.capabilities.unwrap().drop_capabilities, ["ALL"]);
    let plain = context(json!({}), json!({}), uid(0)).unwrap();
    assert!(!plain.no_new_privs && plain.masked_paths.contains(&"/proc/kcore".to_owned()));
}

#[test]
fn namespaces() {
    let modes = |spec: serde_json::Value| {
        let options = namespace_options(&serde_json::from_value(spec).unwrap());
        (options.network(), options.pid(), options.ipc())
    };
    use v1::NamespaceMode::{Container, Node, Pod};
    assert_eq!(modes(json!({"containers": []})), (Pod, Container, Pod));
    assert_eq!(modes(json!({"containers": [], "shareProcessNamespace": true})), (Pod, Pod, Pod));
    assert_eq!(
        modes(json!({"containers": [], "hostNetwork": true, "hostPID": true, "hostIPC": true})),
        (Node, Node, Node)
    );
}
