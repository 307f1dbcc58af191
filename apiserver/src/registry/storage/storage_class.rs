//! StorageClasses (upstream `registry/storage/storageclass`).

use apimachinery::validation::names::is_qualified_name;
use apimachinery::validation::{Error, ErrorList, Path};
use jiff::Timestamp;
use k8s_openapi::api::storage::v1::StorageClass;

use super::GROUP;
use crate::registry::core::pod::defaults::set_if_empty;
use crate::registry::object_meta::validate_immutable;
use crate::registry::{ResourceInfo, Strategy};
use crate::table::{self, AGE, Cell, Column, NAME};

const DEFAULT_ANNOTATIONS: &[&str] =
    &["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
const MAX_PARAMETERS: usize = 512;
const MAX_PARAMETERS_SIZE: usize = 256 * 1024;

/// The strategy of storageclasses.
#[derive(Debug)]
pub struct StorageClassStrategy;

impl Strategy for StorageClassStrategy {
    type Object = StorageClass;

    fn info(&self) -> ResourceInfo {
        ResourceInfo {
            short_names: &["sc"],
            ..ResourceInfo::new(GROUP, "v1", "StorageClass", "storageclasses", "storageclass", false)
        }
    }

    fn default(&self, obj: &mut StorageClass) {
        set_if_empty(&mut obj.reclaim_policy, "Delete");
        set_if_empty(&mut obj.volume_binding_mode, "Immediate");
    }

    fn validate(&self, obj: &StorageClass) -> ErrorList {
        let mut errors = ErrorList::new();
        let provisioner = Path::new("provisioner");
        if obj.provisioner.is_empty() {
            errors.push(Error::required(&provisioner, ""));
        } else {
            for problem in is_qualified_name(&obj.provisioner.to_lowercase()) {
                errors.push(Error::invalid(&provisioner, &obj.provisioner, problem));
            }
        }
        let parameters = obj.parameters.iter().flatten();
        let size: usize = parameters.clone().map(|(k, v)| k.len() + v.len()).sum();
        let path = Path::new("parameters");
        if parameters.count() > MAX_PARAMETERS {
            errors.push(Error::too_long(&path, MAX_PARAMETERS));
        }
        if size > MAX_PARAMETERS_SIZE {
            errors.push(Error::too_long(&path, MAX_PARAMETERS_SIZE));
        }
        for (field, value, all) in [
            ("reclaimPolicy", &obj.reclaim_policy, ["Delete", "Retain"]),
            ("volumeBindingMode", &obj.volume_binding_mode, ["Immediate", "WaitForFirstConsumer"]),
        ] {
            match value.as_deref().unwrap_or_default() {
                "" => errors.push(Error::required(&Path::new(field), "")),
                value if !all.contains(&value) => {
                    errors.push(Error::not_supported(&Path::new(field), value, &all));
                }
                _ => {}
            }
        }
        errors
    }

    fn validate_update(&self, new: &StorageClass, old: &StorageClass) -> ErrorList {
        let mut errors = self.validate(new);
        for (field, changed) in [
            ("parameters", new.parameters != old.parameters),
            ("provisioner", new.provisioner != old.provisioner),
            ("reclaimPolicy", new.reclaim_policy != old.reclaim_policy),
        ] {
            if changed {
                errors
                    .push(Error::forbidden(&Path::new(field), format!("updates to {field} are forbidden.")));
            }
        }
        let path = Path::new("volumeBindingMode");
        validate_immutable(&new.volume_binding_mode, &old.volume_binding_mode, &path, &mut errors);
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            Column::string("Provisioner", "What makes the volumes."),
            Column::string("ReclaimPolicy", "What happens to a volume when its claim is gone."),
            Column::string("VolumeBindingMode", "When a volume is made for a claim."),
            super::boolean("AllowVolumeExpansion", "Whether volumes can grow."),
            AGE,
        ];
        COLUMNS
    }

    fn row(&self, obj: &StorageClass, now: Timestamp) -> Vec<Cell> {
        let annotations = obj.metadata.annotations.as_ref();
        let is_default = DEFAULT_ANNOTATIONS
            .iter()
            .any(|key| annotations.and_then(|a| a.get(*key)).is_some_and(|value| value == "true"));
        let name = obj.metadata.name.as_deref().unwrap_or_default();
        vec![
            Cell::from(if is_default { format!("{name} (default)") } else { name.to_owned() }),
            Cell::from(obj.provisioner.as_str()),
            Cell::from(obj.reclaim_policy.as_deref().unwrap_or_default()),
            Cell::from(obj.volume_binding_mode.as_deref().unwrap_or_default()),
            Cell::from(obj.allow_volume_expansion == Some(true)),
            table::age(obj.metadata.creation_timestamp.as_ref(), now),
        ]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_volumes_are_made_of_stays() {
        let mut old: StorageClass = serde_json::from_value(json!({
            "metadata": {"name": "s", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
            "provisioner": "x.io/y"}))
        .unwrap();
        StorageClassStrategy.default(&mut old);
        assert_eq!(StorageClassStrategy.validate(&old), vec![]);
        let row = StorageClassStrategy.row(&old, Timestamp::UNIX_EPOCH);
        assert_eq!(json!(row), json!(["s (default)", "x.io/y", "Delete", "Immediate", false, "<unknown>"]));
        let mut new = old.clone();
        new.provisioner = "z".to_owned();
        new.volume_binding_mode = Some("WaitForFirstConsumer".to_owned());
        let texts: Vec<String> =
            StorageClassStrategy.validate_update(&new, &old).iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "provisioner: Forbidden: updates to provisioner are forbidden.",
                "volumeBindingMode: Invalid value: \"WaitForFirstConsumer\": field is immutable",
            ]
        );
    }
}
