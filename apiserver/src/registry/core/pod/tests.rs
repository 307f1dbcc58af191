//! Tests of the pod strategy and of the defaults of pod specs.

use serde_json::{Value, json};

use super::*;

fn pod(spec: Value) -> Pod {
    let value = json!({"metadata": {"name": "p", "namespace": "n"}, "spec": spec});
    let mut obj: Pod = serde_json::from_value(value).unwrap();
    PodStrategy.default(&mut obj);
    obj
}

#[test]
fn defaults() {
    let obj = pod(json!({
        "hostNetwork": true,
        "serviceAccount": "sa",
        "initContainers": [{"name": "i", "image": "x/y:latest"}],
        "containers": [{
            "name": "c", "image": "registry:5000/app",
            "ports": [{"containerPort": 80}],
            "env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
            "readinessProbe": {"httpGet": {"port": 8080}, "initialDelaySeconds": 0},
            "resources": {"limits": {"cpu": "0.5", "memory": "1024Mi"}, "requests": {"cpu": "0.1"}},
        }],
        "volumes": [
            {"name": "none"},
            {"name": "cm", "configMap": {"name": "m"}},
            {"name": "host", "hostPath": {"path": "/x"}},
            {"name": "token", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}},
        ],
    }));
    let want = json!({
        "hostNetwork": true, "serviceAccount": "sa", "serviceAccountName": "sa",
        "dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "schedulerName": "default-scheduler",
        "enableServiceLinks": true, "securityContext": {}, "terminationGracePeriodSeconds": 30,
        "initContainers": [{
            "name": "i", "image": "x/y:latest", "imagePullPolicy": "Always", "resources": {},
            "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"}],
        "containers": [{
            "name": "c", "image": "registry:5000/app", "imagePullPolicy": "Always",
            "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
            "ports": [{"containerPort": 80, "hostPort": 80, "protocol": "TCP"}],
            "env": [{"name": "IP", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.podIP"}}}],
            "readinessProbe": {
                "httpGet": {"port": 8080, "path": "/", "scheme": "HTTP"},
                "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3},
            "resources": {"limits": {"cpu": "500m", "memory": "1Gi"}, "requests": {"cpu": "100m", "memory": "1Gi"}},
        }],
        "volumes": [
            {"name": "none", "emptyDir": {}},
            {"name": "cm", "configMap": {"name": "m", "defaultMode": 420}},
            {"name": "host", "hostPath": {"path": "/x", "type": ""}},
            {"name": "token", "projected": {
                "defaultMode": 420,
                "sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 3600}}]}},
        ],
    });
    assert_eq!(json!(obj.spec), want);
    // Defaulting what is defaulted changes nothing.
    let mut again = obj.clone();
    PodStrategy.default(&mut again);
    assert_eq!(again, obj);
}

#[test]
fn image_tags_decide_the_pull_policy() {
    for (image, policy) in [
        ("a", "Always"),
        ("a:latest", "Always"),
        ("a:1", "IfNotPresent"),
        ("r:5000/a", "Always"),
        ("r:5000/a:1", "IfNotPresent"),
        ("a@sha256:0000", "IfNotPresent"),
        ("a:latest@sha256:0000", "Always"),
    ] {
        let obj = pod(json!({"containers": [{"name": "c", "image": image}]}));
        let got = obj.spec.unwrap().containers.remove(0).image_pull_policy;
        assert_eq!(got.as_deref(), Some(policy), "{image}");
    }
}

#[test]
fn a_new_pod_is_pending() {
    let mut obj = pod(json!({"containers": [{"name": "c", "image": "i:1"}]}));
    obj.status = Some(PodStatus { phase: Some("Running".to_owned()), ..PodStatus::default() });
    PodStrategy.prepare_for_create(&RequestContext::loopback(), &mut obj);
    assert_eq!(json!(obj.status), json!({"phase": "Pending", "qosClass": "BestEffort"}));
    assert_eq!(obj.metadata.generation, Some(1));
}

#[test]
fn grace_periods() {
    let options = |seconds| DeleteOptions { grace_period_seconds: seconds, ..DeleteOptions::default() };
    let bound = pod(json!({"nodeName": "n", "containers": [{"name": "c", "image": "i:1"}]}));
    assert_eq!(PodStrategy.graceful_delete(&bound, &options(None)), Some(30));
    assert_eq!(PodStrategy.graceful_delete(&bound, &options(Some(5))), Some(5));
    assert_eq!(PodStrategy.graceful_delete(&bound, &options(Some(-1))), Some(1));
    let unbound = pod(json!({"containers": [{"name": "c", "image": "i:1"}]}));
    assert_eq!(PodStrategy.graceful_delete(&unbound, &options(None)), Some(0));
    let mut done = bound;
    done.status = Some(PodStatus { phase: Some("Succeeded".to_owned()), ..PodStatus::default() });
    assert_eq!(PodStrategy.graceful_delete(&done, &options(None)), Some(0));
}

#[test]
fn a_status_update_touches_nothing_else() {
    let ctx = RequestContext::loopback();
    let mut old = pod(json!({"containers": [{"name": "c", "image": "i:1"}]}));
    PodStrategy.prepare_for_create(&ctx, &mut old);
    let mut new = old.clone();
    new.spec.as_mut().unwrap().node_name = Some("n".to_owned());
    new.status = Some(PodStatus { pod_ip: Some("10.0.0.1".to_owned()), ..PodStatus::default() });
    PodStrategy.prepare_for_status_update(&ctx, &mut new, &old);
    assert_eq!(new.spec, old.spec);
    assert_eq!(
        json!(new.status),
        json!({"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}], "qosClass": "BestEffort"})
    );
}

#[test]
fn selectable_fields() {
    let obj = pod(json!({"nodeName": "n1", "containers": [{"name": "c", "image": "i:1"}]}));
    let values: Vec<_> =
        PodStrategy.selectable_fields().iter().map(|f| PodStrategy.field(&obj, f).into_owned()).collect();
    assert_eq!(values, ["n1", "Always", "default-scheduler", "", "false", "", "", "", ""]);
}
