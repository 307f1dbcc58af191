//! Volumes of a pod. The sources that have moved to CSI drivers are accepted without a look inside.

use std::collections::BTreeSet;

use apimachinery::validation::names::{is_config_map_key, is_dns1123_label, is_dns1123_subdomain};
use apimachinery::validation::{Error, ErrorList, Path};
use k8s_openapi::api::core::v1::{
    DownwardAPIVolumeFile, HostPathVolumeSource, KeyToPath, ProjectedVolumeSource, Volume, VolumeProjection,
};

use super::containers::{Volumes, validate_descending_path};
use super::env::{VOLUME_FIELDS, validate_field_ref, validate_resource_ref};

/// What matters of a volume to the containers that use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum VolumeKind {
    /// A claim, which may be a block device.
    Claim,
    /// Anything else.
    Files,
}

/// Validates the volumes and tells which there are.
pub(super) fn validate_volumes<'a>(
    volumes: &'a [Volume],
    path: &Path,
    errors: &mut ErrorList,
) -> Volumes<'a> {
    let mut known = Volumes::new();
    for (i, volume) in volumes.iter().enumerate() {
        let path = path.index(i);
        validate_source(volume, &path, errors);
        let name = volume.name.as_str();
        if name.is_empty() {
            errors.push(Error::required(&path.child("name"), ""));
            continue;
        }
        for problem in is_dns1123_label(name) {
            errors.push(Error::invalid(&path.child("name"), name, problem));
        }
        let claim = volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some();
        let kind = if claim { VolumeKind::Claim } else { VolumeKind::Files };
        if known.insert(name, kind).is_some() {
            errors.push(Error::duplicate(&path.child("name"), name));
        }
    }
    known
}

/// The sources that are set, by field name in the order in which upstream looks at them.
fn sources(volume: &Volume) -> Vec<&'static str> {
    [
        ("emptyDir", volume.empty_dir.is_some()),
        ("hostPath", volume.host_path.is_some()),
        ("gitRepo", volume.git_repo.is_some()),
        ("gcePersistentDisk", volume.gce_persistent_disk.is_some()),
        ("awsElasticBlockStore", volume.aws_elastic_block_store.is_some()),
        ("secret", volume.secret.is_some()),
        ("nfs", volume.nfs.is_some()),
        ("iscsi", volume.iscsi.is_some()),
        ("glusterfs", volume.glusterfs.is_some()),
        ("flocker", volume.flocker.is_some()),
        ("persistentVolumeClaim", volume.persistent_volume_claim.is_some()),
        ("rbd", volume.rbd.is_some()),
        ("cinder", volume.cinder.is_some()),
        ("cephfs", volume.cephfs.is_some()),
        ("quobyte", volume.quobyte.is_some()),
        ("downwardAPI", volume.downward_api.is_some()),
        ("fc", volume.fc.is_some()),
        ("flexVolume", volume.flex_volume.is_some()),
        ("configMap", volume.config_map.is_some()),
        ("azureFile", volume.azure_file.is_some()),
        ("vsphereVolume", volume.vsphere_volume.is_some()),
        ("photonPersistentDisk", volume.photon_persistent_disk.is_some()),
        ("portworxVolume", volume.portworx_volume.is_some()),
        ("azureDisk", volume.azure_disk.is_some()),
        ("storageos", volume.storageos.is_some()),
        ("projected", volume.projected.is_some()),
        ("scaleIO", volume.scale_io.is_some()),
        ("csi", volume.csi.is_some()),
        ("ephemeral", volume.ephemeral.is_some()),
        ("image", volume.image.is_some()),
    ]
    .into_iter()
    .filter_map(|(name, set)| set.then_some(name))
    .collect()
}

fn validate_source(volume: &Volume, path: &Path, errors: &mut ErrorList) {
    let sources = sources(volume);
    for extra in sources.iter().skip(1) {
        errors.push(Error::forbidden(&path.child(extra), "may not specify more than 1 volume type"));
    }
    let Some(first) = sources.first() else {
        errors.push(Error::required(path, "must specify a volume type"));
        return;
    };
    let path = path.child(first);
    if let Some(source) = &volume.host_path {
        validate_host_path(source, &path, errors);
    }
    if let Some(source) = &volume.secret {
        if source.secret_name.as_deref().unwrap_or_default().is_empty() {
            errors.push(Error::required(&path.child("secretName"), ""));
        }
        validate_mode(source.default_mode, &path.child("defaultMode"), errors);
        validate_items(source.items.as_deref().unwrap_or_default(), &path.child("items"), errors);
    }
    if let Some(source) = &volume.config_map {
        if source.name.is_empty() {
            errors.push(Error::required(&path.child("name"), ""));
        }
        validate_mode(source.default_mode, &path.child("defaultMode"), errors);
        validate_items(source.items.as_deref().unwrap_or_default(), &path.child("items"), errors);
    }
    if let Some(source) = &volume.downward_api {
        validate_mode(source.default_mode, &path.child("defaultMode"), errors);
        for (i, item) in source.items.iter().flatten().enumerate() {
            validate_downward_file(item, &path.child("items").index(i), errors);
        }
    }
    if let Some(source) = &volume.projected {
        validate_projected(source, &path, errors);
    }
    if let Some(source) = &volume.persistent_volume_claim
        && source.claim_name.is_empty()
    {
        errors.push(Error::required(&path.child("claimName"), ""));
    }
    if let Some(source) = &volume.empty_dir
        && let Some(limit) = &source.size_limit
        && apimachinery::quantity::parse_k8s(limit).is_ok_and(|q| q.is_negative())
    {
        let detail = "SizeLimit field must be a valid resource quantity";
        errors.push(Error::forbidden(&path.child("sizeLimit"), detail));
    }
    if let Some(source) = &volume.nfs {
        if source.server.is_empty() {
            errors.push(Error::required(&path.child("server"), ""));
        }
        if source.path.is_empty() {
            errors.push(Error::required(&path.child("path"), ""));
        } else if !source.path.starts_with('/') {
            errors.push(Error::invalid(&path.child("path"), &source.path, "must be an absolute path"));
        }
    }
    if let Some(source) = &volume.csi {
        if source.driver.is_empty() {
            errors.push(Error::required(&path.child("driver"), ""));
        }
        for problem in is_dns1123_subdomain(&source.driver.to_lowercase()) {
            errors.push(Error::invalid(&path.child("driver"), &source.driver, problem));
        }
    }
    if let Some(source) = &volume.ephemeral
        && source.volume_claim_template.is_none()
    {
        errors.push(Error::required(&path.child("volumeClaimTemplate"), ""));
    }
    if let Some(source) = &volume.image
        && let Some(policy) = source.pull_policy.as_deref()
    {
        let all = ["Always", "IfNotPresent", "Never"];
        if !all.contains(&policy) {
            errors.push(Error::not_supported(&path.child("pullPolicy"), policy, &all));
        }
    }
}

fn validate_host_path(source: &HostPathVolumeSource, path: &Path, errors: &mut ErrorList) {
    if source.path.is_empty() {
        errors.push(Error::required(&path.child("path"), ""));
        return;
    }
    if source.path.split('/').any(|part| part == "..") {
        errors.push(Error::invalid(&path.child("path"), &source.path, "must not contain '..'"));
    }
    let types =
        ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
    if let Some(type_) = source.type_.as_deref()
        && !types.contains(&type_)
    {
        errors.push(Error::not_supported(&path.child("type"), type_, &types));
    }
}

fn validate_mode(mode: Option<i32>, path: &Path, errors: &mut ErrorList) {
    if let Some(mode) = mode
        && !(0..=0o777).contains(&mode)
    {
        let detail = "must be a number between 0 and 0777 (octal), both inclusive";
        errors.push(Error::invalid(path, mode, detail));
    }
}

fn validate_items(items: &[KeyToPath], path: &Path, errors: &mut ErrorList) {
    for (i, item) in items.iter().enumerate() {
        let path = path.index(i);
        if item.key.is_empty() {
            errors.push(Error::required(&path.child("key"), ""));
        } else {
            for problem in is_config_map_key(&item.key) {
                errors.push(Error::invalid(&path.child("key"), &item.key, problem));
            }
        }
        if item.path.is_empty() {
            errors.push(Error::required(&path.child("path"), ""));
        } else {
            validate_local_path(&item.path, &path.child("path"), errors);
        }
        validate_mode(item.mode, &path.child("mode"), errors);
    }
}

/// A relative path below the volume whose first part is not one of those that atomic updates use.
fn validate_local_path(value: &str, path: &Path, errors: &mut ErrorList) {
    validate_descending_path(value, path, errors);
    if value.starts_with("..") && !value.starts_with("../") && value != ".." {
        errors.push(Error::invalid(path, value, "must not start with '..'"));
    }
}

fn validate_downward_file(file: &DownwardAPIVolumeFile, path: &Path, errors: &mut ErrorList) {
    if file.path.is_empty() {
        errors.push(Error::required(&path.child("path"), ""));
    }
    validate_local_path(&file.path, &path.child("path"), errors);
    match (&file.field_ref, &file.resource_field_ref) {
        (Some(field), other) => {
            validate_field_ref(field, VOLUME_FIELDS, &path.child("fieldRef"), errors);
            if other.is_some() {
                let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
                errors.push(Error::invalid(path, "resource", detail));
            }
        }
        (None, Some(resource)) => {
            if resource.container_name.as_deref().unwrap_or_default().is_empty() {
                let path = path.child("resourceFieldRef").child("containerName");
                errors.push(Error::required(&path, ""));
            }
            validate_resource_ref(resource, &path.child("resourceFieldRef"), errors);
        }
        (None, None) => {
            let detail = "one of fieldRef and resourceFieldRef is required";
            errors.push(Error::required(&path.child("fieldRef"), detail));
        }
    }
    validate_mode(file.mode, &path.child("mode"), errors);
}

fn validate_projected(source: &ProjectedVolumeSource, path: &Path, errors: &mut ErrorList) {
    validate_mode(source.default_mode, &path.child("defaultMode"), errors);
    let mut paths = BTreeSet::new();
    for (i, projection) in source.sources.iter().flatten().enumerate() {
        let path = path.child("sources").index(i);
        validate_projection(projection, &mut paths, &path, errors);
    }
}

fn validate_projection<'a>(
    projection: &'a VolumeProjection,
    paths: &mut BTreeSet<&'a str>,
    path: &Path,
    errors: &mut ErrorList,
) {
    let mut once = |value: &'a str, path: &Path, errors: &mut ErrorList| {
        if !value.is_empty() && !paths.insert(value) {
            errors.push(Error::invalid(path, value, "conflicting duplicate paths"));
        }
    };
    let mut count = 0;
    let mut keyed = |field: &str, name: &str, items: &'a Option<Vec<KeyToPath>>, errors: &mut ErrorList| {
        let path = path.child(field);
        if name.is_empty() {
            errors.push(Error::required(&path.child("name"), ""));
        }
        let items = items.as_deref().unwrap_or_default();
        validate_items(items, &path.child("items"), errors);
        for item in items {
            once(&item.path, &path, errors);
        }
    };
    if let Some(source) = &projection.secret {
        count += 1;
        keyed("secret", &source.name, &source.items, errors);
    }
    if let Some(source) = &projection.config_map {
        count += 1;
        keyed("configMap", &source.name, &source.items, errors);
    }
    if let Some(source) = &projection.downward_api {
        count += 1;
        for (i, item) in source.items.iter().flatten().enumerate() {
            let path = path.child("downwardAPI").child("items").index(i);
            validate_downward_file(item, &path, errors);
            once(&item.path, &path, errors);
        }
    }
    if let Some(source) = &projection.service_account_token {
        count += 1;
        let path = path.child("serviceAccountToken");
        let seconds = source.expiration_seconds.unwrap_or(3600);
        let seconds_path = path.child("expirationSeconds");
        if seconds < 600 {
            let detail = "may not specify a duration less than 10 minutes";
            errors.push(Error::invalid(&seconds_path, seconds, detail));
        }
        if seconds > 1 << 32 {
            let detail = "may not specify a duration larger than 2^32 seconds";
            errors.push(Error::invalid(&seconds_path, seconds, detail));
        }
        if source.path.is_empty() {
            errors.push(Error::required(&path.child("path"), ""));
        } else {
            validate_local_path(&source.path, &path.child("path"), errors);
        }
        once(&source.path, &path, errors);
    }
    if projection.cluster_trust_bundle.is_some() {
        count += 1;
    }
    if projection.pod_certificate.is_some() {
        count += 1;
    }
    if count > 1 {
        errors.push(Error::forbidden(path, "may not specify more than 1 volume type per source"));
    }
}
