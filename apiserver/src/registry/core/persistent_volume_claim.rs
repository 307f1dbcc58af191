//! PersistentVolumeClaims (upstream `registry/core/persistentvolumeclaim`).

use std::borrow::Cow;

use apimachinery::quantity::parse_k8s;
use apimachinery::validation::names::is_dns1123_subdomain;
use apimachinery::validation::{Error, ErrorList, Path};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeClaimStatus,
};

use super::pod::defaults::{canonicalise, set_if_empty};
use crate::registry::pod_template::validate_label_selector;
use crate::registry::{ResourceInfo, Strategy, cells};
use crate::request::RequestContext;
use crate::table::{self, AGE, Cell, Column, NAME};

/// Access modes and how columns abbreviate them, in the columns' order.
const ACCESS_MODES: &[(&str, &str)] = &[
    ("ReadWriteOnce", "RWO"),
    ("ReadOnlyMany", "ROX"),
    ("ReadWriteMany", "RWX"),
    ("ReadWriteOncePod", "RWOP"),
];
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
const IMMUTABLE: &str = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";

/// The strategy of persistentvolumeclaims.
#[derive(Debug)]
pub struct PersistentVolumeClaimStrategy;

impl Strategy for PersistentVolumeClaimStrategy {
    type Object = PersistentVolumeClaim;

    fn info(&self) -> ResourceInfo {
        ResourceInfo {
            short_names: &["pvc"],
            status: true,
            ..ResourceInfo::new(
                "",
                "v1",
                "PersistentVolumeClaim",
                "persistentvolumeclaims",
                "persistentvolumeclaim",
                true,
            )
        }
    }

    fn default(&self, obj: &mut PersistentVolumeClaim) {
        set_claim_defaults(obj);
    }

    fn prepare_for_create(&self, _ctx: &RequestContext, obj: &mut PersistentVolumeClaim) {
        obj.status = Some(PersistentVolumeClaimStatus {
            phase: Some("Pending".to_owned()),
            ..PersistentVolumeClaimStatus::default()
        });
    }

    fn validate(&self, obj: &PersistentVolumeClaim) -> ErrorList {
        let mut errors = ErrorList::new();
        let none = PersistentVolumeClaimSpec::default();
        validate_spec(obj.spec.as_ref().unwrap_or(&none), &Path::new("spec"), &mut errors);
        errors
    }

    fn prepare_for_update(
        &self,
        _ctx: &RequestContext,
        new: &mut PersistentVolumeClaim,
        old: &PersistentVolumeClaim,
    ) {
        new.status.clone_from(&old.status);
    }

    fn validate_update(&self, new: &PersistentVolumeClaim, old: &PersistentVolumeClaim) -> ErrorList {
        let mut errors = self.validate(new);
        let (Some(spec), Some(was)) = (&new.spec, &old.spec) else { return errors };
        let mut allowed = was.clone();
        if was.volume_name.as_deref().unwrap_or_default().is_empty() {
            // A claim is bound once.
            allowed.volume_name.clone_from(&spec.volume_name);
        }
        if was.storage_class_name.is_none() {
            allowed.storage_class_name.clone_from(&spec.storage_class_name);
        }
        let bound = old.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound");
        if bound {
            let requests = spec.resources.as_ref().and_then(|r| r.requests.clone());
            allowed.resources.get_or_insert_default().requests = requests;
        }
        allowed.volume_attributes_class_name.clone_from(&spec.volume_attributes_class_name);
        let path = Path::new("spec");
        if allowed != *spec {
            errors.push(Error::forbidden(&path, IMMUTABLE));
        }
        let asked = storage(spec).and_then(|q| parse_k8s(q).ok());
        let before = storage(was).and_then(|q| parse_k8s(q).ok());
        if bound && asked < before {
            let capacity = old.status.as_ref().and_then(|s| s.capacity.as_ref()?.get("storage"));
            if asked <= capacity.and_then(|q| parse_k8s(q).ok()) {
                let path = path.child("resources").child("requests").child("storage");
                errors.push(Error::forbidden(&path, "field can not be less than status.capacity"));
            }
        }
        errors
    }

    fn prepare_for_status_update(
        &self,
        _ctx: &RequestContext,
        new: &mut PersistentVolumeClaim,
        old: &PersistentVolumeClaim,
    ) {
        new.spec.clone_from(&old.spec);
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["name"]
    }

    fn field<'a>(&self, obj: &'a PersistentVolumeClaim, field: &str) -> Cow<'a, str> {
        match field {
            "name" => Cow::Borrowed(obj.metadata.name.as_deref().unwrap_or_default()),
            _ => Cow::Borrowed(""),
        }
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            Column::string("Status", "Whether the claim has a volume."),
            Column::string("Volume", "Volume that the claim is bound to."),
            Column::string("Capacity", "Size of the volume."),
            Column::string("Access Modes", "How the volume can be mounted."),
            Column::string("StorageClass", "Class of storage that the claim asks for."),
            Column::string("VolumeAttributesClass", "Class of volume attributes that the claim asks for."),
            AGE,
            Column::string("VolumeMode", "File system or block device.").wide(),
        ];
        COLUMNS
    }

    fn row(&self, obj: &PersistentVolumeClaim, now: Timestamp) -> Vec<Cell> {
        let none = PersistentVolumeClaimSpec::default();
        let spec = obj.spec.as_ref().unwrap_or(&none);
        let status = obj.status.clone().unwrap_or_default();
        let volume = spec.volume_name.as_deref().unwrap_or_default();
        let bound = !volume.is_empty();
        let phase = match obj.metadata.deletion_timestamp {
            Some(_) => "Terminating",
            None => status.phase.as_deref().unwrap_or_default(),
        };
        let capacity = status.capacity.as_ref().and_then(|c| c.get("storage")).filter(|_| bound);
        let modes = if bound { access_modes(status.access_modes.as_deref()) } else { String::new() };
        let unset = |value: Option<&String>| Cell::from(value.map_or(cells::UNSET, String::as_str));
        vec![
            cells::name(&obj.metadata),
            Cell::from(phase),
            Cell::from(volume),
            Cell::from(capacity.map(|q| q.0.as_str()).unwrap_or_default()),
            Cell::from(modes),
            Cell::from(class(obj)),
            unset(spec.volume_attributes_class_name.as_ref()),
            table::age(obj.metadata.creation_timestamp.as_ref(), now),
            unset(spec.volume_mode.as_ref()),
        ]
    }
}

/// Defaults of a claim, also as a template of a stateful set.
pub(crate) fn set_claim_defaults(claim: &mut PersistentVolumeClaim) {
    let spec = claim.spec.get_or_insert_default();
    set_if_empty(&mut spec.volume_mode, "Filesystem");
    if let Some(resources) = &mut spec.resources {
        canonicalise(resources.requests.as_mut());
        canonicalise(resources.limits.as_mut());
    }
    set_if_empty(&mut claim.status.get_or_insert_default().phase, "Pending");
}

/// "RWO,ROX", in a fixed order and each once.
pub(crate) fn access_modes(modes: Option<&[String]>) -> String {
    let modes = modes.unwrap_or_default();
    let known = ACCESS_MODES.iter().filter(|(name, _)| modes.iter().any(|m| m == name));
    known.map(|(_, short)| *short).collect::<Vec<_>>().join(",")
}

/// Access modes: some, and known ones.
pub(crate) fn validate_access_modes(modes: &[String], path: &Path, errors: &mut ErrorList) {
    let names: Vec<&str> = {
        let mut names: Vec<&str> = ACCESS_MODES.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        names
    };
    for mode in modes.iter().filter(|m| !names.contains(&m.as_str())) {
        errors.push(Error::not_supported(path, mode, &names));
    }
    if modes.len() > 1 && modes.iter().any(|m| m == "ReadWriteOncePod") {
        let detail = "may not use ReadWriteOncePod with other access modes";
        errors.push(Error::forbidden(path, detail));
    }
}

fn class(obj: &PersistentVolumeClaim) -> &str {
    let annotation = obj.metadata.annotations.as_ref().and_then(|a| a.get(CLASS_ANNOTATION));
    let class = annotation.or(obj.spec.as_ref().and_then(|s| s.storage_class_name.as_ref()));
    class.map(String::as_str).unwrap_or_default()
}

fn storage(
    spec: &PersistentVolumeClaimSpec,
) -> Option<&k8s_openapi::apimachinery::pkg::api::resource::Quantity> {
    spec.resources.as_ref()?.requests.as_ref()?.get("storage")
}

fn validate_spec(spec: &PersistentVolumeClaimSpec, path: &Path, errors: &mut ErrorList) {
    let modes = spec.access_modes.as_deref().unwrap_or_default();
    let modes_path = path.child("accessModes");
    if modes.is_empty() {
        errors.push(Error::required(&modes_path, "at least 1 access mode is required"));
    }
    if let Some(selector) = &spec.selector {
        validate_label_selector(selector, &path.child("selector"), errors);
    }
    validate_access_modes(modes, &modes_path, errors);
    let size_path = path.child("resources").key("storage");
    match storage(spec) {
        None => errors.push(Error::required(&size_path, "")),
        Some(size) => match parse_k8s(size) {
            Ok(parsed) if !parsed.is_zero() && !parsed.is_negative() => {}
            Ok(_) => errors.push(Error::invalid(&size_path, &size.0, "must be greater than zero")),
            Err(error) => errors.push(Error::invalid(&size_path, &size.0, error.to_string())),
        },
    }
    if let Some(class) = spec.storage_class_name.as_deref().filter(|c| !c.is_empty()) {
        for problem in is_dns1123_subdomain(class) {
            errors.push(Error::invalid(&path.child("storageClassName"), class, problem));
        }
    }
    let modes = ["Block", "Filesystem"];
    if let Some(mode) = spec.volume_mode.as_deref()
        && !modes.contains(&mode)
    {
        errors.push(Error::not_supported(&path.child("volumeMode"), mode, &modes));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn claim(spec: Value) -> PersistentVolumeClaim {
        let mut obj: PersistentVolumeClaim =
            serde_json::from_value(json!({"metadata": {"name": "c"}, "spec": spec})).unwrap();
        PersistentVolumeClaimStrategy.default(&mut obj);
        obj
    }

    #[test]
    fn validation() {
        let check = |spec: Value, want: &[&str]| {
            let errors = PersistentVolumeClaimStrategy.validate(&claim(spec));
            assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), want);
        };
        let requests = json!({"requests": {"storage": "1Gi"}});
        check(json!({"accessModes": ["ReadWriteOnce"], "resources": requests}), &[]);
        check(
            json!({}),
            &[
                "spec.accessModes: Required value: at least 1 access mode is required",
                "spec.resources[storage]: Required value",
            ],
        );
        check(
            json!({"accessModes": ["X"], "resources": {"requests": {"storage": "0"}}}),
            &[
                "spec.accessModes: Unsupported value: \"X\": supported values: \"ReadOnlyMany\", \"ReadWriteMany\", \"ReadWriteOnce\", \"ReadWriteOncePod\"",
                "spec.resources[storage]: Invalid value: \"0\": must be greater than zero",
            ],
        );
    }

    #[test]
    fn only_what_may_change_changes() {
        let requests = json!({"requests": {"storage": "1Gi"}});
        let old = claim(json!({"accessModes": ["ReadWriteOnce"], "resources": requests}));
        let mut bound = old.clone();
        bound.spec.as_mut().unwrap().volume_name = Some("v".to_owned());
        assert_eq!(PersistentVolumeClaimStrategy.validate_update(&bound, &old), vec![]);
        let mut moved = bound.clone();
        moved.spec.as_mut().unwrap().volume_name = Some("w".to_owned());
        let errors = PersistentVolumeClaimStrategy.validate_update(&moved, &bound);
        assert_eq!(errors[0].to_string(), format!("spec: Forbidden: {IMMUTABLE}"));
    }

    #[test]
    fn row() {
        let mut obj =
            claim(json!({"accessModes": ["ReadWriteOnce"], "volumeName": "v", "storageClassName": "fast"}));
        obj.status = Some(serde_json::from_value(json!({
            "phase": "Bound", "accessModes": ["ReadOnlyMany", "ReadWriteOnce"], "capacity": {"storage": "2Gi"}}))
        .unwrap());
        let row = PersistentVolumeClaimStrategy.row(&obj, Timestamp::UNIX_EPOCH);
        assert_eq!(
            json!(row),
            json!(["c", "Bound", "v", "2Gi", "RWO,ROX", "fast", "<unset>", "<unknown>", "Filesystem"])
        );
    }
}
