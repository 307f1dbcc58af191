//! PersistentVolumes (upstream `registry/core/persistentvolume`).

use std::borrow::Cow;

use apimachinery::quantity::parse_k8s;
use apimachinery::validation::{Error, ErrorList, Path};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeSpec, PersistentVolumeStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;

use super::persistent_volume_claim::{access_modes, validate_access_modes};
use super::pod::defaults::{canonicalise, set_if_empty};
use super::pod::validation::scheduling::validate_node_selector;
use crate::registry::object_meta::immutable;
use crate::registry::{ResourceInfo, Strategy, cells};
use crate::request::RequestContext;
use crate::table::{self, AGE, Cell, Column, NAME};

const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
/// The fields of the spec that are no volume source.
const NOT_SOURCES: &[&str] = &[
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
];

/// The strategy of persistentvolumes.
#[derive(Debug)]
pub struct PersistentVolumeStrategy;

impl Strategy for PersistentVolumeStrategy {
    type Object = PersistentVolume;

    fn info(&self) -> ResourceInfo {
        ResourceInfo {
            short_names: &["pv"],
            status: true,
            ..ResourceInfo::new("", "v1", "PersistentVolume", "persistentvolumes", "persistentvolume", false)
        }
    }

    fn default(&self, obj: &mut PersistentVolume) {
        let spec = obj.spec.get_or_insert_default();
        set_if_empty(&mut spec.persistent_volume_reclaim_policy, "Retain");
        set_if_empty(&mut spec.volume_mode, "Filesystem");
        canonicalise(spec.capacity.as_mut());
        if let Some(source) = &mut spec.host_path {
            source.type_.get_or_insert_default();
        }
        set_if_empty(&mut obj.status.get_or_insert_default().phase, "Pending");
    }

    fn prepare_for_create(&self, ctx: &RequestContext, obj: &mut PersistentVolume) {
        obj.status = Some(PersistentVolumeStatus {
            phase: Some("Pending".to_owned()),
            last_phase_transition_time: Some(Time(ctx.now)),
            ..PersistentVolumeStatus::default()
        });
    }

    fn validate(&self, obj: &PersistentVolume) -> ErrorList {
        let mut errors = ErrorList::new();
        let none = PersistentVolumeSpec::default();
        validate_spec(obj.spec.as_ref().unwrap_or(&none), &Path::new("spec"), &mut errors);
        errors
    }

    fn prepare_for_update(&self, _ctx: &RequestContext, new: &mut PersistentVolume, old: &PersistentVolume) {
        new.status.clone_from(&old.status);
    }

    fn validate_update(&self, new: &PersistentVolume, old: &PersistentVolume) -> ErrorList {
        let mut errors = self.validate(new);
        let (Some(spec), Some(was)) = (&new.spec, &old.spec) else { return errors };
        let path = Path::new("spec");
        if sources(spec) != sources(was) {
            let detail = "spec.persistentvolumesource is immutable after creation";
            errors.push(Error::forbidden(&path.child("persistentvolumesource"), detail));
        }
        if spec.volume_mode != was.volume_mode {
            errors.push(immutable(&spec.volume_mode, &path.child("volumeMode")));
        }
        if was.node_affinity.is_some() && spec.node_affinity != was.node_affinity {
            errors.push(immutable(&spec.node_affinity, &path.child("nodeAffinity")));
        }
        errors
    }

    fn prepare_for_status_update(
        &self,
        ctx: &RequestContext,
        new: &mut PersistentVolume,
        old: &PersistentVolume,
    ) {
        new.spec.clone_from(&old.spec);
        let was = old.status.clone().unwrap_or_default();
        let status = new.status.get_or_insert_default();
        if status.phase != was.phase && status.last_phase_transition_time == was.last_phase_transition_time {
            status.last_phase_transition_time = Some(Time(ctx.now));
        }
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["name"]
    }

    fn field<'a>(&self, obj: &'a PersistentVolume, field: &str) -> Cow<'a, str> {
        match field {
            "name" => Cow::Borrowed(obj.metadata.name.as_deref().unwrap_or_default()),
            _ => Cow::Borrowed(""),
        }
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            Column::string("Capacity", "Size of the volume."),
            Column::string("Access Modes", "How the volume can be mounted."),
            Column::string("Reclaim Policy", "What happens to the volume when its claim is gone."),
            Column::string("Status", "Whether the volume is free, bound or released."),
            Column::string("Claim", "Claim that the volume is bound to."),
            Column::string("StorageClass", "Class that the volume belongs to."),
            Column::string("VolumeAttributesClass", "Class of the volume's attributes."),
            Column::string("Reason", "Why the volume is in its state."),
            AGE,
            Column::string("VolumeMode", "File system or block device.").wide(),
        ];
        COLUMNS
    }

    fn row(&self, obj: &PersistentVolume, now: Timestamp) -> Vec<Cell> {
        let none = PersistentVolumeSpec::default();
        let spec = obj.spec.as_ref().unwrap_or(&none);
        let status = obj.status.as_ref();
        let claim = spec.claim_ref.as_ref().map(|claim| {
            let part = |value: &Option<String>| value.clone().unwrap_or_default();
            format!("{}/{}", part(&claim.namespace), part(&claim.name))
        });
        let phase = match obj.metadata.deletion_timestamp {
            Some(_) => "Terminating",
            None => status.and_then(|s| s.phase.as_deref()).unwrap_or_default(),
        };
        let annotation = obj.metadata.annotations.as_ref().and_then(|a| a.get(CLASS_ANNOTATION));
        let class = annotation.or(spec.storage_class_name.as_ref());
        let size = spec.capacity.as_ref().and_then(|c| c.get("storage")).map(|q| q.0.as_str());
        let unset = |value: Option<&String>| Cell::from(value.map_or(cells::UNSET, String::as_str));
        vec![
            cells::name(&obj.metadata),
            Cell::from(size.unwrap_or("0")),
            Cell::from(access_modes(spec.access_modes.as_deref())),
            Cell::from(spec.persistent_volume_reclaim_policy.as_deref().unwrap_or_default()),
            Cell::from(phase),
            Cell::from(claim.unwrap_or_default()),
            Cell::from(class.map(String::as_str).unwrap_or_default()),
            unset(spec.volume_attributes_class_name.as_ref()),
            Cell::from(status.and_then(|s| s.reason.as_deref()).unwrap_or_default()),
            table::age(obj.metadata.creation_timestamp.as_ref(), now),
            unset(spec.volume_mode.as_ref()),
        ]
    }
}

/// The volume sources of a spec, by field name.
fn sources(spec: &PersistentVolumeSpec) -> serde_json::Map<String, Value> {
    let mut map = match serde_json::to_value(spec) {
        Ok(Value::Object(map)) => map,
        _ => serde_json::Map::new(),
    };
    map.retain(|field, _| !NOT_SOURCES.contains(&field.as_str()));
    map
}

fn validate_spec(spec: &PersistentVolumeSpec, path: &Path, errors: &mut ErrorList) {
    let modes = spec.access_modes.as_deref().unwrap_or_default();
    if modes.is_empty() {
        errors.push(Error::required(&path.child("accessModes"), ""));
    }
    validate_access_modes(modes, &path.child("accessModes"), errors);
    let capacity_path = path.child("capacity");
    let capacity = spec.capacity.clone().unwrap_or_default();
    if capacity.is_empty() {
        errors.push(Error::required(&capacity_path, ""));
    } else if !capacity.contains_key("storage") || capacity.len() > 1 {
        let shown = serde_json::to_value(&capacity).unwrap_or_default();
        errors.push(Error::not_supported(&capacity_path, shown, &["storage"]));
    }
    for (name, quantity) in &capacity {
        let path = capacity_path.key(name);
        match parse_k8s(quantity) {
            Ok(parsed) if !parsed.is_zero() && !parsed.is_negative() => {}
            Ok(_) => errors.push(Error::invalid(&path, &quantity.0, "must be greater than zero")),
            Err(error) => errors.push(Error::invalid(&path, &quantity.0, error.to_string())),
        }
    }
    let policies = ["Delete", "Recycle", "Retain"];
    let policy = spec.persistent_volume_reclaim_policy.as_deref().unwrap_or_default();
    if !policy.is_empty() && !policies.contains(&policy) {
        errors.push(Error::not_supported(&path.child("persistentVolumeReclaimPolicy"), policy, &policies));
    }
    let sources = sources(spec);
    if sources.is_empty() {
        errors.push(Error::required(path, "must specify a volume type"));
    }
    for extra in sources.keys().skip(1) {
        errors.push(Error::forbidden(&path.child(extra), "may not specify more than 1 volume type"));
    }
    let required = spec.node_affinity.as_ref().and_then(|a| a.required.as_ref());
    if let Some(selector) = required {
        validate_node_selector(selector, &path.child("nodeAffinity").child("required"), errors);
    } else if spec.local.is_some() {
        let detail = "Local volume requires node affinity";
        errors.push(Error::required(&path.child("nodeAffinity"), detail));
    }
}
