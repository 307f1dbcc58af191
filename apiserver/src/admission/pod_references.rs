//! Every Secret, ConfigMap and claim that a pod refers to, wherever it does.
//!
//! Policies that forget one position are a class of their own among CVEs (2023-2728, 2024-3177), so all of them use this file.
//! Upstream: `pkg/api/pod/util.go` (`VisitPodSecretNames`, `VisitPodConfigmapNames`).

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{EnvFromSource, EnvVar, LocalObjectReference, Pod, PodSpec, Volume};

/// Environments of all containers: init, ordinary and ephemeral ones.
fn environments(spec: &PodSpec) -> impl Iterator<Item = (&[EnvVar], &[EnvFromSource])> {
    let containers =
        spec.init_containers.iter().flatten().chain(&spec.containers).map(|c| (&c.env, &c.env_from));
    let ephemeral = spec.ephemeral_containers.iter().flatten().map(|c| (&c.env, &c.env_from));
    containers
        .chain(ephemeral)
        .map(|(env, env_from)| (env.as_deref().unwrap_or_default(), env_from.as_deref().unwrap_or_default()))
}

/// Names of Secrets.
pub fn secrets(spec: &PodSpec) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    names.extend(spec.image_pull_secrets.iter().flatten().map(|secret| secret.name.as_str()));
    for (env, env_from) in environments(spec) {
        names.extend(
            env_from
                .iter()
                .filter_map(|source| source.secret_ref.as_ref())
                .map(|secret| secret.name.as_str()),
        );
        let values = env.iter().filter_map(|var| var.value_from.as_ref());
        names.extend(values.filter_map(|value| value.secret_key_ref.as_ref()).map(|key| key.name.as_str()));
    }
    for volume in spec.volumes.iter().flatten() {
        volume_secrets(volume, &mut names);
    }
    names.retain(|name| !name.is_empty());
    names
}

fn volume_secrets<'a>(volume: &'a Volume, names: &mut BTreeSet<&'a str>) {
    let mut local =
        |reference: Option<&'a LocalObjectReference>| names.extend(reference.map(|r| r.name.as_str()));
    local(volume.cephfs.as_ref().and_then(|v| v.secret_ref.as_ref()));
    local(volume.cinder.as_ref().and_then(|v| v.secret_ref.as_ref()));
    local(volume.csi.as_ref().and_then(|v| v.node_publish_secret_ref.as_ref()));
    local(volume.flex_volume.as_ref().and_then(|v| v.secret_ref.as_ref()));
    local(volume.iscsi.as_ref().and_then(|v| v.secret_ref.as_ref()));
    local(volume.rbd.as_ref().and_then(|v| v.secret_ref.as_ref()));
    local(volume.scale_io.as_ref().map(|v| &v.secret_ref));
    local(volume.storageos.as_ref().and_then(|v| v.secret_ref.as_ref()));
    names.extend(volume.azure_file.as_ref().map(|v| v.secret_name.as_str()));
    names.extend(volume.secret.as_ref().and_then(|v| v.secret_name.as_deref()));
    let sources = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
    names.extend(sources.filter_map(|source| source.secret.as_ref()).map(|secret| secret.name.as_str()));
}

/// Names of ConfigMaps.
pub fn config_maps(spec: &PodSpec) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    for (env, env_from) in environments(spec) {
        names.extend(
            env_from.iter().filter_map(|source| source.config_map_ref.as_ref()).map(|map| map.name.as_str()),
        );
        let values = env.iter().filter_map(|var| var.value_from.as_ref());
        names.extend(
            values.filter_map(|value| value.config_map_key_ref.as_ref()).map(|key| key.name.as_str()),
        );
    }
    for volume in spec.volumes.iter().flatten() {
        names.extend(volume.config_map.as_ref().map(|map| map.name.as_str()));
        let sources = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
        names.extend(sources.filter_map(|source| source.config_map.as_ref()).map(|map| map.name.as_str()));
    }
    names.retain(|name| !name.is_empty());
    names
}

/// Names of PersistentVolumeClaims, those of ephemeral volumes among them.
pub fn claims(pod: &Pod) -> BTreeSet<String> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let claim = |volume: &Volume| match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(claim), _) => Some(claim.claim_name.clone()),
        (None, Some(_)) => Some(format!("{name}-{}", volume.name)),
        (None, None) => None,
    };
    volumes.filter_map(claim).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn spec(value: Value) -> PodSpec {
        let mut base = json!({"containers": []});
        base.as_object_mut().unwrap().extend(value.as_object().unwrap().clone());
        serde_json::from_value(base).unwrap()
    }

    #[test]
    fn every_position_of_a_secret_is_seen() {
        let reference = json!({"name": "s"});
        let volume = |source: Value| {
            let mut volume = json!({"name": "v"});
            volume.as_object_mut().unwrap().extend(source.as_object().unwrap().clone());
            json!({ "volumes": [volume] })
        };
        let container = |list: &str, part: Value| {
            let mut container = json!({"name": "c"});
            container.as_object_mut().unwrap().extend(part.as_object().unwrap().clone());
            json!({ list: [container] })
        };
        let mut cases = vec![
            json!({"imagePullSecrets": [reference]}),
            volume(json!({"azureFile": {"secretName": "s", "shareName": "x"}})),
            volume(json!({"cephfs": {"monitors": [], "secretRef": reference}})),
            volume(json!({"cinder": {"volumeID": "x", "secretRef": reference}})),
            volume(json!({"csi": {"driver": "x", "nodePublishSecretRef": reference}})),
            volume(json!({"flexVolume": {"driver": "x", "secretRef": reference}})),
            volume(json!({"iscsi": {"iqn": "x", "lun": 0, "targetPortal": "x", "secretRef": reference}})),
            volume(json!({"rbd": {"image": "x", "monitors": [], "secretRef": reference}})),
            volume(json!({"scaleIO": {"gateway": "x", "system": "x", "secretRef": reference}})),
            volume(json!({"storageos": {"secretRef": reference}})),
            volume(json!({"secret": {"secretName": "s"}})),
            volume(json!({"projected": {"sources": [{"secret": {"name": "s"}}]}})),
        ];
        for list in ["containers", "initContainers", "ephemeralContainers"] {
            cases.push(container(list, json!({"envFrom": [{"secretRef": reference}]})));
            let value = json!({"secretKeyRef": {"name": "s", "key": "k"}});
            cases.push(container(list, json!({"env": [{"name": "E", "valueFrom": value}]})));
        }
        for case in cases {
            assert_eq!(secrets(&spec(case.clone())), BTreeSet::from(["s"]), "{case}");
            assert!(config_maps(&spec(case)).is_empty());
        }
    }

    #[test]
    fn every_position_of_a_config_map_is_seen() {
        let mut cases = vec![
            json!({"volumes": [{"name": "v", "configMap": {"name": "m"}}]}),
            json!({"volumes": [{"name": "v", "projected": {"sources": [{"configMap": {"name": "m"}}]}}]}),
        ];
        for list in ["containers", "initContainers", "ephemeralContainers"] {
            cases.push(json!({list: [{"name": "c", "envFrom": [{"configMapRef": {"name": "m"}}]}]}));
            let value = json!({"configMapKeyRef": {"name": "m", "key": "k"}});
            cases.push(json!({list: [{"name": "c", "env": [{"name": "E", "valueFrom": value}]}]}));
        }
        for case in cases {
            assert_eq!(config_maps(&spec(case.clone())), BTreeSet::from(["m"]), "{case}");
            assert!(secrets(&spec(case)).is_empty());
        }
    }

    #[test]
    fn claims_of_both_kinds() {
        let mut pod: Pod = Pod::default();
        pod.metadata.name = Some("p".into());
        pod.spec = Some(spec(json!({"volumes": [
            {"name": "a", "persistentVolumeClaim": {"claimName": "c"}},
            {"name": "b", "ephemeral": {}},
            {"name": "d", "emptyDir": {}},
        ]})));
        assert_eq!(claims(&pod), BTreeSet::from(["c".to_owned(), "p-b".to_owned()]));
    }
}
