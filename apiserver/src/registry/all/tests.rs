//! Discovery facts of every resource, and rules that all of them keep.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::*;

/// Group/version, resource, kind, scope, short names, categories, subresources, storage prefix where it differs.
const FACTS: &str = "
v1 configmaps ConfigMap N cm - -
v1 endpoints Endpoints N ep - - services/endpoints
v1 events Event N ev - -
v1 limitranges LimitRange N limits - -
v1 namespaces Namespace C ns - finalize,status
v1 nodes Node C no - proxy,status minions
v1 persistentvolumeclaims PersistentVolumeClaim N pvc - status
v1 persistentvolumes PersistentVolume C pv - status
v1 pods Pod N po all attach,binding,ephemeralcontainers,eviction,exec,log,portforward,proxy,resize,status
v1 podtemplates PodTemplate N - - -
v1 replicationcontrollers ReplicationController N rc all scale,status controllers
v1 resourcequotas ResourceQuota N quota - status
v1 secrets Secret N - - -
v1 serviceaccounts ServiceAccount N sa - token
v1 services Service N svc all proxy,status services/specs
apps/v1 controllerrevisions ControllerRevision N - - -
apps/v1 daemonsets DaemonSet N ds all status
apps/v1 deployments Deployment N deploy all scale,status
apps/v1 replicasets ReplicaSet N rs all scale,status
apps/v1 statefulsets StatefulSet N sts all scale,status
autoscaling/v2 horizontalpodautoscalers HorizontalPodAutoscaler N hpa all status
batch/v1 cronjobs CronJob N cj all status
batch/v1 jobs Job N - all status
certificates.k8s.io/v1 certificatesigningrequests CertificateSigningRequest C csr - approval,status
coordination.k8s.io/v1 leases Lease N - - -
discovery.k8s.io/v1 endpointslices EndpointSlice N - - -
events.k8s.io/v1 events Event N ev - -
networking.k8s.io/v1 ingressclasses IngressClass C - - -
networking.k8s.io/v1 ingresses Ingress N ing - status ingress
networking.k8s.io/v1 ipaddresses IPAddress C ip - -
networking.k8s.io/v1 networkpolicies NetworkPolicy N netpol - -
networking.k8s.io/v1 servicecidrs ServiceCIDR C - - status
node.k8s.io/v1 runtimeclasses RuntimeClass C - - -
policy/v1 poddisruptionbudgets PodDisruptionBudget N pdb - status
rbac.authorization.k8s.io/v1 clusterrolebindings ClusterRoleBinding C - - -
rbac.authorization.k8s.io/v1 clusterroles ClusterRole C - - -
rbac.authorization.k8s.io/v1 rolebindings RoleBinding N - - -
rbac.authorization.k8s.io/v1 roles Role N - - -
scheduling.k8s.io/v1 priorityclasses PriorityClass C pc - -
storage.k8s.io/v1 csidrivers CSIDriver C - - -
storage.k8s.io/v1 csinodes CSINode C - - -
storage.k8s.io/v1 csistoragecapacities CSIStorageCapacity N - - -
storage.k8s.io/v1 storageclasses StorageClass C sc - -
storage.k8s.io/v1 volumeattachments VolumeAttachment C - - status
storage.k8s.io/v1 volumeattributesclasses VolumeAttributesClass C vac - -
";

#[test]
fn discovery_facts() {
    let join = |items: &[&str]| if items.is_empty() { "-".to_owned() } else { items.join(",") };
    let mut got: Vec<String> = all()
        .iter()
        .map(|resource| {
            let info = resource.info();
            let mut subresources: Vec<&str> = info.subresources.iter().map(|s| s.name).collect();
            subresources.extend(info.status.then_some("status"));
            subresources.extend(info.scale.then_some("scale"));
            subresources.sort_unstable();
            let scope = if info.namespaced { "N" } else { "C" };
            let prefix = if info.storage_prefix == info.plural { "" } else { info.storage_prefix };
            let line = format!(
                "{} {} {} {scope} {} {} {} {prefix}",
                info.api_version(),
                info.plural,
                info.kind,
                join(info.short_names),
                join(info.categories),
                join(&subresources),
            );
            line.trim_end().to_owned()
        })
        .collect();
    got.sort();
    let mut want: Vec<&str> = FACTS.trim().lines().collect();
    want.sort_unstable();
    assert_eq!(got, want);
}

#[test]
fn singular_names_and_verbs() {
    for resource in all() {
        let info = resource.info();
        assert_eq!(info.singular, info.kind.to_lowercase(), "{}", info.plural);
        let count = if info.plural == "namespaces" { 7 } else { 8 };
        assert_eq!(info.verbs.len(), count, "{}", info.plural);
    }
}

/// An object with nothing in it must pass every hook without a panic, and its row must fill its columns.
#[test]
fn hooks_take_empty_objects() {
    let ctx = crate::request::RequestContext::loopback();
    for resource in all() {
        let info = resource.info();
        let name = info.plural;
        let value = serde_json::json!({"apiVersion": info.api_version(), "kind": info.kind, "metadata": {}});
        let mut obj = resource.decode(value.to_string().as_bytes(), None).unwrap();
        resource.default(&mut *obj);
        resource.prepare_for_create(&ctx, &mut *obj);
        let mut twice = obj.clone_box();
        resource.default(&mut *twice);
        assert_eq!(twice.to_value().unwrap(), obj.to_value().unwrap(), "{name}: defaults are not stable");
        let _problems = resource.validate(&*obj);
        let mut new = obj.clone_box();
        for kind in [super::super::UpdateKind::Main, super::super::UpdateKind::Status] {
            resource.prepare_for_update(kind, &ctx, &mut *new, &*obj);
            let _problems = resource.validate_update(kind, &*new, &*obj);
        }
        for field in resource.selectable_fields() {
            let _value = resource.field(&*obj, field);
        }
        let row = resource.row(&*obj, Timestamp::UNIX_EPOCH);
        assert_eq!(row.len(), resource.columns().len(), "{name}");
        let mut stored = Vec::new();
        resource.encode_stored(&*obj, &mut stored).unwrap();
        let back = resource.decode_stored(&stored).unwrap();
        assert_eq!(back.to_value().unwrap(), obj.to_value().unwrap(), "{name}");
        assert_eq!(
            ObjectMeta { generation: None, labels: None, ..back.meta().clone() },
            ObjectMeta::default()
        );
    }
}
