//! Tests of pod validation.

use serde_json::{Value, json};

use super::update::{validate_pod_status_update, validate_pod_update};
use super::*;
use crate::registry::core::pod::defaults::set_pod_defaults;

fn pod(spec: Value) -> Pod {
    let mut obj: Pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap();
    set_pod_defaults(&mut obj);
    obj
}

fn texts(errors: &ErrorList) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

/// A pod with one good container, over which `extra` goes.
fn with_container(extra: Value) -> Value {
    let mut container = json!({"name": "c", "image": "i:1"});
    for (key, value) in extra.as_object().unwrap() {
        container[key] = value.clone();
    }
    json!({"containers": [container], "volumes": [{"name": "v"}]})
}

fn check(spec: Value, want: &[&str]) {
    let errors = validate_pod(&pod(spec.clone()));
    assert_eq!(texts(&errors), want, "{spec}");
}

#[test]
fn containers() {
    check(with_container(json!({})), &[]);
    check(json!({"containers": []}), &["spec.containers: Required value"]);
    check(
        json!({"containers": [{"name": "a", "image": "i"}, {"name": "a", "image": "i"}]}),
        &["spec.containers[1].name: Duplicate value: \"a\""],
    );
    check(
        with_container(json!({"name": "", "image": ""})),
        &["spec.containers[0].name: Required value", "spec.containers[0].image: Required value"],
    );
    check(
        with_container(json!({"imagePullPolicy": "X"})),
        &[
            "spec.containers[0].imagePullPolicy: Unsupported value: \"X\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
        ],
    );
    check(
        with_container(json!({"ports": [{"containerPort": 0}, {"containerPort": 70000, "protocol": "X"}]})),
        &[
            "spec.containers[0].ports[0].containerPort: Required value",
            "spec.containers[0].ports[1].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
            "spec.containers[0].ports[1].protocol: Unsupported value: \"X\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
        ],
    );
    check(
        with_container(json!({"volumeMounts": [
            {"name": "w", "mountPath": "/a"}, {"name": "v", "mountPath": "/a"}, {"name": "v", "mountPath": "/b", "subPath": "../x"}]})),
        &[
            "spec.containers[0].volumeMounts[0].name: Not found: \"w\"",
            "spec.containers[0].volumeMounts[1].mountPath: Invalid value: \"/a\": must be unique",
            "spec.containers[0].volumeMounts[2].subPath: Invalid value: \"../x\": must not contain '..'",
        ],
    );
    check(
        json!({"hostNetwork": true, "containers": [{"name": "c", "image": "i:1", "ports": [{"containerPort": 80, "hostPort": 81}]}]}),
        &[
            "spec.containers[0].ports[0].containerPort: Invalid value: 80: must match `hostPort` when `hostNetwork` is true",
        ],
    );
    check(
        json!({"containers": [{"name": "c", "image": "i"}], "initContainers": [
            {"name": "i", "image": "i", "readinessProbe": {"exec": {"command": ["x"]}}}]}),
        &[
            "spec.initContainers[0].readinessProbe: Forbidden: may not be set for init containers without restartPolicy=Always",
        ],
    );
}

#[test]
fn environment_and_probes() {
    check(
        with_container(json!({"env": [
            {"name": ""}, {"name": "A", "valueFrom": {}},
            {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.x"}}},
            {"name": "C", "value": "v", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]})),
        &[
            "spec.containers[0].env[0].name: Required value",
            "spec.containers[0].env[1].valueFrom: Invalid value: \"\": must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
            "spec.containers[0].env[2].valueFrom.fieldRef.fieldPath: Unsupported value: \"metadata.x\": supported values: \"metadata.name\", \"metadata.namespace\", \"metadata.uid\", \"spec.nodeName\", \"spec.serviceAccountName\", \"status.hostIP\", \"status.hostIPs\", \"status.podIP\", \"status.podIPs\"",
            "spec.containers[0].env[3].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty",
        ],
    );
    check(
        with_container(json!({"livenessProbe": {"successThreshold": 2}, "readinessProbe": {
            "exec": {"command": ["x"]}, "tcpSocket": {"port": 80}, "timeoutSeconds": -1}})),
        &[
            "spec.containers[0].livenessProbe: Required value: must specify a handler type",
            "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
            "spec.containers[0].readinessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type",
            "spec.containers[0].readinessProbe.timeoutSeconds: Invalid value: -1: must be greater than or equal to 0",
        ],
    );
}

#[test]
fn compute_resources() {
    let requests = |value: Value| with_container(json!({"resources": value}));
    check(
        requests(json!({"limits": {"cpu": "1"}, "requests": {"cpu": "2"}})),
        &[
            "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
        ],
    );
    check(
        requests(json!({"limits": {"memory": "-1"}})),
        &[
            "spec.containers[0].resources.limits[memory]: Invalid value: \"-1\": must be greater than or equal to 0",
            "spec.containers[0].resources.requests[memory]: Invalid value: \"-1\": must be greater than or equal to 0",
        ],
    );
    check(
        requests(json!({"requests": {"x.io/gpu": "1"}})),
        &[
            "spec.containers[0].resources.requests: Required value: Limit must be set for non overcommitable resources",
        ],
    );
    check(
        requests(json!({"limits": {"disks": "1"}, "requests": {}})).clone(),
        &[
            "spec.containers[0].resources.limits[disks]: Invalid value: \"disks\": must be a standard resource type or fully qualified",
            "spec.containers[0].resources.limits[disks]: Invalid value: \"disks\": must be a standard resource for containers",
            "spec.containers[0].resources.requests[disks]: Invalid value: \"disks\": must be a standard resource type or fully qualified",
            "spec.containers[0].resources.requests[disks]: Invalid value: \"disks\": must be a standard resource for containers",
        ],
    );
}

#[test]
fn pod_level_fields() {
    let with = |key: &str, value: Value| {
        let mut spec = with_container(json!({}));
        spec[key] = value;
        spec
    };
    check(
        with("restartPolicy", json!("X")),
        &[
            "spec.restartPolicy: Unsupported value: \"X\": supported values: \"Always\", \"OnFailure\", \"Never\"",
        ],
    );
    check(
        with("activeDeadlineSeconds", json!(0)),
        &["spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive"],
    );
    check(
        with("tolerations", json!([{"value": "x"}])),
        &[
            "spec.tolerations[0].operator: Invalid value: \"\": operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
        ],
    );
    check(
        with(
            "volumes",
            json!([{"name": "v"}, {"name": "v"}, {"name": "h", "hostPath": {"path": ""}},
            {"name": "two", "emptyDir": {}, "secret": {"secretName": "s"}}]),
        ),
        &[
            "spec.volumes[1].name: Duplicate value: \"v\"",
            "spec.volumes[2].hostPath.path: Required value",
            "spec.volumes[3].secret: Forbidden: may not specify more than 1 volume type",
        ],
    );
    check(
        with(
            "affinity",
            json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}}),
        ),
        &[
            "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Required value: must have at least one node selector term",
        ],
    );
    check(
        with(
            "topologySpreadConstraints",
            json!([{"maxSkew": 0, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}]),
        ),
        &["spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero"],
    );
    check(
        with("ephemeralContainers", json!([{"name": "e", "image": "i"}])),
        &["spec.ephemeralContainers: Forbidden: cannot be set on create"],
    );
}

#[test]
fn updates() {
    let old = pod(with_container(json!({})));
    let change = |f: &dyn Fn(&mut PodSpec)| {
        let mut new = old.clone();
        f(new.spec.as_mut().unwrap());
        texts(&validate_pod_update(&new, &old))
    };
    assert_eq!(change(&|s| s.containers[0].image = Some("i:2".to_owned())), Vec::<String>::new());
    assert_eq!(change(&|s| s.active_deadline_seconds = Some(5)), Vec::<String>::new());
    assert_eq!(
        change(&|s| s.tolerations = Some(serde_json::from_value(json!([{"operator": "Exists"}])).unwrap())),
        Vec::<String>::new()
    );
    let refused = change(&|s| s.termination_grace_period_seconds = Some(5));
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert!(
        refused[0].starts_with(
            "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,"
        ) && refused[0]
            .ends_with("\n- terminationGracePeriodSeconds: 30\n+ terminationGracePeriodSeconds: 5\n"),
        "{refused:?}"
    );
    assert_eq!(
        change(&|s| s.containers.push(s.containers[0].clone())).last().unwrap(),
        "spec.containers: Forbidden: pod updates may not add or remove containers"
    );
}

#[test]
fn an_ended_container_stays_ended() {
    let status = |policy: &str, state: Value| {
        let mut spec = with_container(json!({}));
        spec["restartPolicy"] = json!(policy);
        let mut obj = pod(spec);
        obj.status = Some(
            serde_json::from_value(json!({"containerStatuses": [{"name": "c", "state": state}]})).unwrap(),
        );
        obj
    };
    for (policy, code, refused) in [
        ("Never", 0, true),
        ("Never", 1, true),
        ("OnFailure", 0, true),
        ("OnFailure", 1, false),
        ("Always", 0, false),
    ] {
        let old = status(policy, json!({"terminated": {"exitCode": code}}));
        let new = status(policy, json!({"running": {}}));
        let got = texts(&validate_pod_status_update(&new, &old));
        let want: &[&str] = if refused {
            &["status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state"]
        } else {
            &[]
        };
        assert_eq!(got, want, "{policy} {code}");
    }
}
