//! Tests of the service strategy.

use serde_json::{Value, json};

use super::*;

fn service(spec: Value) -> Service {
    let mut obj: Service = serde_json::from_value(json!({"metadata": {"name": "s"}, "spec": spec})).unwrap();
    ServiceStrategy.default(&mut obj);
    ServiceStrategy.prepare_for_create(&RequestContext::loopback(), &mut obj);
    obj
}

#[test]
fn defaults() {
    let obj = service(json!({"ports": [{"port": 80}, {"port": 81, "targetPort": "web", "protocol": "UDP"}]}));
    assert_eq!(
        json!(obj.spec),
        json!({"type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster", "ports": [
            {"port": 80, "targetPort": 80, "protocol": "TCP"},
            {"port": 81, "targetPort": "web", "protocol": "UDP"}]})
    );
    let node_port = service(json!({"type": "NodePort", "ports": [{"port": 80}]}));
    assert_eq!(node_port.spec.unwrap().external_traffic_policy.as_deref(), Some("Cluster"));
}

#[test]
fn validation() {
    for (spec, want) in [
        (json!({"ports": [{"port": 80}]}), vec![]),
        (json!({}), vec!["spec.ports: Required value"]),
        (json!({"clusterIP": "None"}), vec![]),
        (
            json!({"ports": [{"port": 0}]}),
            vec![
                "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
                "spec.ports[0].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive",
            ],
        ),
        (
            json!({"ports": [{"port": 80}, {"port": 81}]}),
            vec!["spec.ports[0].name: Required value", "spec.ports[1].name: Required value"],
        ),
        (
            json!({"ports": [{"port": 80, "protocol": "X"}]}),
            vec![
                "spec.ports[0].protocol: Unsupported value: \"X\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
            ],
        ),
        (
            json!({"ports": [{"port": 80, "nodePort": 30000}]}),
            vec!["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"],
        ),
        (json!({"type": "ExternalName"}), vec!["spec.externalName: Required value"]),
        (
            json!({"type": "X", "ports": [{"port": 1}]}),
            vec![
                "spec.type: Unsupported value: \"X\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
            ],
        ),
    ] {
        let texts: Vec<String> =
            ServiceStrategy.validate(&service(spec.clone())).iter().map(ToString::to_string).collect();
        assert_eq!(texts, want, "{spec}");
    }
}

#[test]
fn an_update_keeps_what_was_allocated() {
    let ctx = RequestContext::loopback();
    let mut old = service(json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]}));
    let spec = old.spec.as_mut().unwrap();
    spec.cluster_ip = Some("10.96.0.5".to_owned());
    spec.cluster_ips = Some(vec!["10.96.0.5".to_owned()]);
    spec.ip_families = Some(vec!["IPv4".to_owned()]);

    let mut same = service(json!({"type": "NodePort", "ports": [{"port": 80}]}));
    ServiceStrategy.prepare_for_update(&ctx, &mut same, &old);
    assert_eq!(same.spec, old.spec);

    let mut internal = old.clone();
    internal.spec.as_mut().unwrap().type_ = Some("ClusterIP".to_owned());
    ServiceStrategy.prepare_for_update(&ctx, &mut internal, &old);
    let spec = internal.spec.as_ref().unwrap();
    assert_eq!(spec.ports.as_ref().unwrap()[0].node_port, None);
    assert_eq!(spec.external_traffic_policy, None);
    assert_eq!(ServiceStrategy.validate_update(&internal, &old), vec![]);

    let mut moved = old.clone();
    moved.spec.as_mut().unwrap().cluster_ip = Some("10.96.0.6".to_owned());
    ServiceStrategy.prepare_for_update(&ctx, &mut moved, &old);
    let texts: Vec<String> =
        ServiceStrategy.validate_update(&moved, &old).iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["spec.clusterIPs[0]: Invalid value: [\"10.96.0.6\"]: may not change once set"]);
}

#[test]
fn cells_of_each_type() {
    let row = |obj: &Service| {
        let row = ServiceStrategy.row(obj, Timestamp::UNIX_EPOCH);
        [1, 2, 3, 4, 6].map(|i| row[i].as_str().unwrap().to_owned())
    };
    let cluster =
        service(json!({"clusterIP": "10.96.0.1", "ports": [{"port": 443}], "selector": {"a": "b"}}));
    assert_eq!(row(&cluster), ["ClusterIP", "10.96.0.1", "<none>", "443/TCP", "a=b"]);
    let node = service(
        json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}, {"port": 53, "protocol": "UDP"}]}),
    );
    assert_eq!(row(&node), ["NodePort", "<none>", "<none>", "80:30080/TCP,53/UDP", "<none>"]);
    let balancer = service(json!({"type": "LoadBalancer", "ports": [{"port": 80}]}));
    assert_eq!(row(&balancer), ["LoadBalancer", "<none>", "<pending>", "80/TCP", "<none>"]);
    let external = service(json!({"type": "ExternalName", "externalName": "x.org"}));
    assert_eq!(row(&external), ["ExternalName", "<none>", "x.org", "<none>", "<none>"]);
}
