//! Objects for unit tests.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentSpec, DeploymentStrategy, ReplicaSet, ReplicaSetSpec, RollingUpdateDeployment,
};
use k8s_openapi::api::core::v1::{
    Container, ContainerStatus, Node, NodeCondition, Pod, PodCondition, PodSpec, PodStatus, PodTemplateSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// So many seconds after the epoch.
pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

/// The same as an API time.
pub(crate) fn time(seconds: i64) -> Time {
    Time(at(seconds))
}

fn labels(name: &str) -> BTreeMap<String, String> {
    [("app".to_owned(), name.to_owned())].into()
}

/// A pod under construction.
pub(crate) struct PodBuilder(Pod);

/// A pending pod in `default`, its uid equal to its name.
pub(crate) fn pod(name: &str) -> PodBuilder {
    PodBuilder(Pod {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some("default".to_owned()),
            uid: Some(name.to_owned()),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec::default()),
        status: Some(PodStatus { phase: Some("Pending".to_owned()), ..PodStatus::default() }),
    })
}

impl PodBuilder {
    pub(crate) fn build(self) -> Pod {
        self.0
    }

    fn status(&mut self) -> &mut PodStatus {
        self.0.status.get_or_insert_default()
    }

    pub(crate) fn spec(mut self, change: impl FnOnce(&mut PodSpec)) -> Self {
        change(self.0.spec.get_or_insert_default());
        self
    }

    pub(crate) fn on(self, node: &str) -> Self {
        self.spec(|spec| spec.node_name = Some(node.to_owned()))
    }

    pub(crate) fn uid(mut self, uid: &str) -> Self {
        self.0.metadata.uid = Some(uid.to_owned());
        self
    }

    pub(crate) fn phase(mut self, phase: &str) -> Self {
        self.status().phase = Some(phase.to_owned());
        self
    }

    pub(crate) fn ready(self, since: Timestamp) -> Self {
        let mut this = self.phase("Running");
        this.status().conditions.get_or_insert_default().push(PodCondition {
            type_: "Ready".to_owned(),
            status: "True".to_owned(),
            last_transition_time: Some(Time(since)),
            ..PodCondition::default()
        });
        this
    }

    pub(crate) fn ip(mut self, ip: &str) -> Self {
        self.status().pod_ip = Some(ip.to_owned());
        self.status().pod_ips = Some(vec![k8s_openapi::api::core::v1::PodIP { ip: ip.to_owned() }]);
        self
    }

    pub(crate) fn restarts(mut self, count: i32) -> Self {
        let status = ContainerStatus { restart_count: count, ..ContainerStatus::default() };
        self.status().container_statuses = Some(vec![status]);
        self
    }

    pub(crate) fn created(mut self, at: Timestamp) -> Self {
        self.0.metadata.creation_timestamp = Some(Time(at));
        self
    }

    pub(crate) fn deleting(mut self, at: Timestamp) -> Self {
        self.0.metadata.deletion_timestamp = Some(Time(at));
        self
    }

    pub(crate) fn label(mut self, key: &str, value: &str) -> Self {
        self.0.metadata.labels.get_or_insert_default().insert(key.to_owned(), value.to_owned());
        self
    }

    pub(crate) fn annotation(mut self, key: &str, value: &str) -> Self {
        self.0.metadata.annotations.get_or_insert_default().insert(key.to_owned(), value.to_owned());
        self
    }

    pub(crate) fn owner(mut self, kind: &str, uid: &str) -> Self {
        self.0.metadata.owner_references = Some(vec![OwnerReference {
            api_version: "apps/v1".to_owned(),
            kind: kind.to_owned(),
            name: uid.to_owned(),
            uid: uid.to_owned(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        }]);
        self
    }
}

fn template(name: &str) -> PodTemplateSpec {
    PodTemplateSpec {
        metadata: Some(ObjectMeta { labels: Some(labels(name)), ..ObjectMeta::default() }),
        spec: Some(PodSpec {
            containers: vec![Container {
                name: "main".to_owned(),
                image: Some("v1".to_owned()),
                ..Container::default()
            }],
            ..PodSpec::default()
        }),
    }
}

fn selector(name: &str) -> LabelSelector {
    LabelSelector { match_labels: Some(labels(name)), ..LabelSelector::default() }
}

/// A ReplicaSet in `default` selecting `app=NAME`.
pub(crate) fn replica_set(name: &str, replicas: i32) -> ReplicaSet {
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some("default".to_owned()),
            uid: Some(format!("{name}-uid")),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(replicas),
            min_ready_seconds: None,
            selector: selector(name),
            template: Some(template(name)),
        }),
        status: None,
    }
}

/// A deployment in `default` selecting `app=NAME`, with upstream's default strategy.
pub(crate) fn deployment(name: &str, replicas: i32) -> Deployment {
    Deployment {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some("default".to_owned()),
            uid: Some(format!("{name}-uid")),
            generation: Some(1),
            ..ObjectMeta::default()
        },
        spec: Some(DeploymentSpec {
            replicas: Some(replicas),
            selector: selector(name),
            template: template(name),
            ..DeploymentSpec::default()
        }),
        status: None,
    }
}

/// The deployment with these bounds of a rolling update (`3` or `25%`).
pub(crate) fn rolling(mut deployment: Deployment, max_surge: &str, max_unavailable: &str) -> Deployment {
    let parse = |text: &str| match text.parse() {
        Ok(number) => IntOrString::Int(number),
        Err(_) => IntOrString::String(text.to_owned()),
    };
    deployment.spec.get_or_insert_default().strategy = Some(DeploymentStrategy {
        type_: Some("RollingUpdate".to_owned()),
        rolling_update: Some(RollingUpdateDeployment {
            max_surge: Some(parse(max_surge)),
            max_unavailable: Some(parse(max_unavailable)),
        }),
    });
    deployment
}

/// A ReplicaSet that the deployment controls, of the same template.
pub(crate) fn owned_replica_set(deployment: &Deployment, name: &str, replicas: i32) -> ReplicaSet {
    let mut set = replica_set(name, replicas);
    set.metadata.owner_references = Some(vec![apimachinery::owner::new_controller_ref(deployment)]);
    if let (Some(set), Some(spec)) = (set.spec.as_mut(), deployment.spec.as_ref()) {
        set.selector = spec.selector.clone();
        set.template = Some(spec.template.clone());
    }
    set
}

/// A node with a Ready condition of that status.
pub(crate) fn node(name: &str, ready: &str) -> Node {
    let mut node = Node::default();
    node.metadata.name = Some(name.to_owned());
    node.metadata.uid = Some(format!("{name}-uid"));
    node.status.get_or_insert_default().conditions = Some(vec![NodeCondition {
        type_: "Ready".to_owned(),
        status: ready.to_owned(),
        ..NodeCondition::default()
    }]);
    node
}

/// A namespace in that phase.
pub(crate) fn namespace(name: &str, phase: &str) -> k8s_openapi::api::core::v1::Namespace {
    let mut namespace = k8s_openapi::api::core::v1::Namespace::default();
    namespace.metadata.name = Some(name.to_owned());
    namespace.status.get_or_insert_default().phase = Some(phase.to_owned());
    namespace
}

/// A Service in `default` selecting `app=NAME`, with these (name, port, target port).
pub(crate) fn service(name: &str, ports: &[(&str, i32, IntOrString)]) -> k8s_openapi::api::core::v1::Service {
    use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
    let ports = ports.iter().map(|(name, port, target)| ServicePort {
        name: Some((*name).to_owned()),
        port: *port,
        target_port: Some(target.clone()),
        protocol: Some("TCP".to_owned()),
        ..ServicePort::default()
    });
    Service {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some("default".to_owned()),
            uid: Some(format!("{name}-uid")),
            ..ObjectMeta::default()
        },
        spec: Some(ServiceSpec {
            selector: Some(labels(name)),
            ports: Some(ports.collect()),
            cluster_ip: Some("10.96.0.10".to_owned()),
            ip_families: Some(vec!["IPv4".to_owned()]),
            type_: Some("ClusterIP".to_owned()),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

/// A DaemonSet in `default` selecting `app=NAME`.
pub(crate) fn daemon_set(name: &str) -> k8s_openapi::api::apps::v1::DaemonSet {
    k8s_openapi::api::apps::v1::DaemonSet {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some("default".to_owned()),
            uid: Some(format!("{name}-uid")),
            generation: Some(1),
            ..ObjectMeta::default()
        },
        spec: Some(k8s_openapi::api::apps::v1::DaemonSetSpec {
            selector: selector(name),
            template: template(name),
            ..Default::default()
        }),
        status: None,
    }
}
