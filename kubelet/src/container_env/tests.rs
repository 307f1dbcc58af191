//! Environments of containers, as tables.

use super::*;
use serde_json::json;

fn env(container: serde_json::Value) -> Result<Environment, EnvError> {
    env_with(container, &BTreeMap::new())
}

fn env_with(
    container: serde_json::Value,
    services: &BTreeMap<String, String>,
) -> Result<Environment, EnvError> {
    let mut container = container;
    container["name"] = json!("c");
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "ns", "uid": "u", "labels": {"app": "web"}},
        "spec": {"nodeName": "node1", "serviceAccountName": "sa", "containers": [container]}
    }))
    .unwrap();
    let config_maps = BTreeMap::from([(
        "cm".to_owned(),
        serde_json::from_value(json!({"data": {"K": "v", "bad=key": "x"}})).unwrap(),
    )]);
    let secrets = BTreeMap::from([(
        "s".to_owned(),
        serde_json::from_value(json!({"data": {"PW": "aHVudGVy"}})).unwrap(),
    )]);
    let (pod_ips, node_ips) = (["10.244.0.5".parse().unwrap()], ["192.0.2.7".parse().unwrap()]);
    let inputs = EnvInputs {
        pod: &pod,
        pod_ips: &pod_ips,
        node_ips: &node_ips,
        node_capacity: field_ref::Capacity { cpus: 2, memory: 1 << 30 },
        config_maps: &config_maps,
        secrets: &secrets,
        services,
    };
    environment(&pod.spec.as_ref().unwrap().containers[0], &inputs)
}

fn value(entry: serde_json::Value) -> Result<Option<String>, String> {
    let mut entry = entry;
    entry["name"] = json!("X");
    env(json!({"env": [entry], "resources": {"limits": {"cpu": "250m"}, "requests": {"memory": "10Mi"}}}))
        .map(|e| e.variables.get("X").cloned())
        .map_err(|e| e.to_string())
}

#[test]
fn values_from_everywhere() {
    let field = |path: &str| value(json!({"valueFrom": {"fieldRef": {"fieldPath": path}}}));
    for (path, expected) in [
        ("metadata.name", "p"),
        ("metadata.uid", "u"),
        ("metadata.labels['app']", "web"),
        ("metadata.annotations['none']", ""),
        ("spec.nodeName", "node1"),
        ("spec.serviceAccountName", "sa"),
        ("status.podIP", "10.244.0.5"),
        ("status.hostIPs", "192.0.2.7"),
    ] {
        assert_eq!(field(path), Ok(Some(expected.to_owned())), "{path}");
    }
    assert!(field("spec.restartPolicy").unwrap_err().contains("unsupported fieldPath"));
    let resource = |name: &str, divisor: &str| {
        value(json!({"valueFrom": {"resourceFieldRef": {"resource": name, "divisor": divisor}}}))
    };
    for (name, divisor, expected) in [
        ("limits.cpu", "0", "1"),
        ("limits.cpu", "1m", "250"),
        ("requests.memory", "1Mi", "10"),
        ("requests.memory", "3Mi", "4"),
        ("limits.memory", "0", "1073741824"),
        ("requests.cpu", "0", "0"),
    ] {
        assert_eq!(resource(name, divisor), Ok(Some(expected.to_owned())), "{name} {divisor}");
    }
    assert!(resource("limits.gpu", "0").is_err());
}

#[test]
fn keys_of_objects() {
    let key = |kind: &str, name: &str, key: &str, optional: bool| {
        value(json!({"valueFrom": {kind: {"name": name, "key": key, "optional": optional}}}))
    };
    assert_eq!(key("configMapKeyRef", "cm", "K", false), Ok(Some("v".to_owned())));
    assert_eq!(key("secretKeyRef", "s", "PW", false), Ok(Some("hunter".to_owned())));
    assert_eq!(key("configMapKeyRef", "none", "K", true), Ok(None));
    assert_eq!(key("configMapKeyRef", "none", "K", false), Err("configmap \"none\" not found".to_owned()));
    assert_eq!(key("secretKeyRef", "s", "K", false), Err("couldn't find key K in Secret ns/s".to_owned()));
    assert_eq!(key("secretKeyRef", "s", "K", true), Ok(None));
}

#[test]
fn sources_override_in_order() {
    let services = BTreeMap::from([("WEB_SERVICE_HOST".to_owned(), "10.96.0.9".to_owned())]);
    let got = env_with(
        json!({
            "envFrom": [{"configMapRef": {"name": "cm"}, "prefix": "P_"}, {"secretRef": {"name": "s"}},
                        {"configMapRef": {"name": "none", "optional": true}}],
            "env": [{"name": "PW", "value": "own"}, {"name": "URL", "value": "http://$(WEB_SERVICE_HOST)/$(P_K)/$(LATER)"},
                    {"name": "LATER", "value": "x"}]
        }),
        &services,
    )
    .unwrap();
    assert_eq!(got.variables["P_K"], "v");
    assert_eq!(got.variables["PW"], "own");
    assert_eq!(got.variables["URL"], "http://10.96.0.9/v/$(LATER)");
    assert_eq!(got.variables["WEB_SERVICE_HOST"], "10.96.0.9");
    assert_eq!(got.warnings[0].0, "InvalidEnvironmentVariableNames");
    assert!(got.warnings[0].1.starts_with("Keys [P_bad=key] from the EnvFrom configMap ns/cm were skipped"));
    assert!(env(json!({"envFrom": [{"secretRef": {"name": "none"}}]})).is_err());
}

#[test]
fn services_become_variables() {
    let service = |namespace: &str, name: &str, ip: &str| {
        serde_json::from_value::<k8s_openapi::api::core::v1::Service>(json!({
            "metadata": {"namespace": namespace, "name": name},
            "spec": {"clusterIP": ip, "ports": [{"port": 443, "name": "https", "protocol": "TCP"}]}
        }))
        .unwrap()
    };
    let all = [
        service("default", "kubernetes", "10.96.0.1"),
        service("ns", "web-app", "10.96.0.2"),
        service("ns", "headless", "None"),
        service("other", "far", "10.96.0.3"),
    ];
    let pod = |links: bool| -> Pod {
        serde_json::from_value(
            json!({"metadata": {"namespace": "ns"}, "spec": {"containers": [], "enableServiceLinks": links}}),
        )
        .unwrap()
    };
    let with = services::variables(&pod(true), all.iter());
    assert_eq!(with["KUBERNETES_SERVICE_HOST"], "10.96.0.1");
    assert_eq!(with["KUBERNETES_SERVICE_PORT_HTTPS"], "443");
    assert_eq!(with["WEB_APP_PORT"], "tcp://10.96.0.2:443");
    assert_eq!(with["WEB_APP_PORT_443_TCP_ADDR"], "10.96.0.2");
    assert!(!with.keys().any(|k| k.starts_with("FAR") || k.starts_with("HEADLESS")));
    let without = services::variables(&pod(false), all.iter());
    assert!(without.contains_key("KUBERNETES_PORT") && !without.contains_key("WEB_APP_PORT"));
}

#[test]
fn references_are_named_once() {
    let container: Container = serde_json::from_value(json!({"name": "c",
        "envFrom": [{"configMapRef": {"name": "b"}}, {"secretRef": {"name": "s"}}],
        "env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "a", "key": "k"}}},
                {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "b", "key": "k"}}}]}))
    .unwrap();
    assert_eq!(
        references(&container),
        References { config_maps: vec!["a".to_owned(), "b".to_owned()], secrets: vec!["s".to_owned()] }
    );
}
