//! Pods and their accounts.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{LocalObjectReference, SecretVolumeSource};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::super::tests::Request;
use super::*;
use crate::lookup::fake::Objects;

fn account(name: &str) -> Account {
    let metadata =
        ObjectMeta { name: Some(name.into()), namespace: Some("web".into()), ..ObjectMeta::default() };
    Account { metadata, ..Account::default() }
}

fn pod(account: Option<&str>) -> Pod {
    let containers = vec![Container { name: "c".into(), ..Container::default() }];
    let spec = PodSpec {
        init_containers: Some(containers.clone()),
        containers,
        service_account_name: account.map(str::to_owned),
        ..PodSpec::default()
    };
    Pod { spec: Some(spec), ..Pod::default() }
}

async fn admit(pod: &mut Pod, accounts: &[Account]) -> Result<(), ApiError> {
    let objects = Objects::default();
    accounts.iter().for_each(|account| objects.add(account.clone()));
    let plugin = ServiceAccount { lookup: Arc::new(objects), retry: Duration::from_millis(1) };
    Request::new(Operation::Create, pod).namespace("web").name("p").admit(&plugin).await
}

#[tokio::test]
async fn a_pod_gets_the_default_account_and_its_files() {
    let mut pod = pod(None);
    admit(&mut pod, &[account("default")]).await.unwrap();
    let spec = pod.spec.unwrap();
    assert_eq!(spec.service_account_name.as_deref(), Some("default"));
    assert_eq!(spec.service_account.as_deref(), Some("default"));
    let volume = &spec.volumes.as_ref().unwrap()[0];
    assert!(volume.name.starts_with(VOLUME_PREFIX) && volume.name.len() == VOLUME_PREFIX.len() + 5);
    let projected = volume.projected.as_ref().unwrap();
    let sources = projected.sources.as_ref().unwrap();
    assert_eq!(projected.default_mode, Some(0o644));
    assert_eq!(sources[0].service_account_token.as_ref().unwrap().expiration_seconds, Some(3607));
    assert_eq!(sources[1].config_map.as_ref().unwrap().name, "kube-root-ca.crt");
    assert_eq!(sources[2].downward_api.as_ref().unwrap().items.as_ref().unwrap()[0].path, "namespace");
    for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
        let mount = &container.volume_mounts.as_ref().unwrap()[0];
        assert_eq!(
            (mount.name.as_str(), mount.mount_path.as_str(), mount.read_only),
            (volume.name.as_str(), MOUNT_PATH, Some(true))
        );
    }
}

#[tokio::test]
async fn a_missing_account_refuses_the_pod() {
    for name in [None, Some("gone")] {
        let error = admit(&mut pod(name), &[account("other")]).await.unwrap_err();
        let name = name.unwrap_or("default");
        assert_eq!(
            error.message(),
            format!(
                "pods \"p\" is forbidden: error looking up service account web/{name}: serviceaccount {name:?} not found"
            )
        );
    }
}

#[tokio::test]
async fn mounting_can_be_refused_by_pod_or_account() {
    for (of_pod, of_account, mounted) in [
        (None, None, true),
        (None, Some(false), false),
        (Some(true), Some(false), true),
        (Some(false), None, false),
    ] {
        let mut pod = pod(None);
        pod.spec.as_mut().unwrap().automount_service_account_token = of_pod;
        let account = Account { automount_service_account_token: of_account, ..account("default") };
        admit(&mut pod, &[account]).await.unwrap();
        assert_eq!(pod.spec.unwrap().volumes.is_some(), mounted, "{of_pod:?} {of_account:?}");
    }
}

#[tokio::test]
async fn what_is_mounted_there_already_stays() {
    let mut pod = pod(None);
    let own = VolumeMount { name: "own".into(), mount_path: MOUNT_PATH.into(), ..VolumeMount::default() };
    let spec = pod.spec.as_mut().unwrap();
    spec.init_containers = None;
    spec.containers[0].volume_mounts = Some(vec![own.clone()]);
    admit(&mut pod, &[account("default")]).await.unwrap();
    let spec = pod.spec.unwrap();
    assert_eq!(spec.volumes, None);
    assert_eq!(spec.containers[0].volume_mounts, Some(vec![own]));
}

#[tokio::test]
async fn pull_secrets_come_from_the_account_unless_the_pod_has_its_own() {
    let secret = |name: &str| Some(vec![LocalObjectReference { name: name.into() }]);
    let account = Account { image_pull_secrets: secret("of-account"), ..account("default") };
    for (own, expected) in [(None, secret("of-account")), (secret("own"), secret("own"))] {
        let mut pod = pod(None);
        pod.spec.as_mut().unwrap().image_pull_secrets = own;
        admit(&mut pod, std::slice::from_ref(&account)).await.unwrap();
        assert_eq!(pod.spec.unwrap().image_pull_secrets, expected);
    }
}

#[tokio::test]
async fn mirror_pods_are_left_alone_and_may_not_refer_to_anything() {
    let mirror = |change: fn(&mut PodSpec)| {
        let mut pod = pod(None);
        pod.metadata.annotations = Some(BTreeMap::from([(MIRROR_POD.to_owned(), "hash".to_owned())]));
        change(pod.spec.as_mut().unwrap());
        pod
    };
    let plugin = ServiceAccount::new(Arc::new(Objects::default()));
    let mut plain = mirror(|_| {});
    let before = plain.clone();
    Request::new(Operation::Create, &mut plain).namespace("web").admit(&plugin).await.unwrap();
    Request::new(Operation::Create, &mut plain).namespace("web").validate(&plugin).await.unwrap();
    assert_eq!(plain, before);
    let bad: [fn(&mut PodSpec); 3] = [
        |spec| spec.service_account_name = Some("default".into()),
        |spec| spec.volumes = Some(vec![volume("x".into())]),
        |spec| {
            let secret =
                Some(SecretVolumeSource { secret_name: Some("s".into()), ..SecretVolumeSource::default() });
            spec.volumes = Some(vec![Volume { name: "s".into(), secret, ..Volume::default() }]);
        },
    ];
    for change in bad {
        let mut pod = mirror(change);
        assert!(Request::new(Operation::Create, &mut pod).namespace("web").validate(&plugin).await.is_err());
    }
}
