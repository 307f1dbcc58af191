//! VolumeAttributesClasses (upstream `registry/storage/volumeattributesclass`).

use apimachinery::validation::{Error, ErrorList, Path};
use jiff::Timestamp;
use k8s_openapi::api::storage::v1::VolumeAttributesClass;

use super::GROUP;
use crate::registry::{ResourceInfo, Strategy};
use crate::table::{self, AGE, Cell, Column, NAME};

const DEFAULT_ANNOTATION: &str = "volumeattributesclass.alpha.kubernetes.io/is-default-class";

/// The strategy of volumeattributesclasses.
#[derive(Debug)]
pub struct VolumeAttributesClassStrategy;

impl Strategy for VolumeAttributesClassStrategy {
    type Object = VolumeAttributesClass;

    fn info(&self) -> ResourceInfo {
        ResourceInfo {
            short_names: &["vac"],
            ..ResourceInfo::new(
                GROUP,
                "v1",
                "VolumeAttributesClass",
                "volumeattributesclasses",
                "volumeattributesclass",
                false,
            )
        }
    }

    fn validate(&self, obj: &VolumeAttributesClass) -> ErrorList {
        let mut errors = ErrorList::new();
        if obj.driver_name.is_empty() {
            errors.push(Error::required(&Path::new("driverName"), ""));
        }
        if obj.parameters.as_ref().is_none_or(|p| p.is_empty()) {
            let detail = "must contain at least one key/value pair";
            errors.push(Error::required(&Path::new("parameters"), detail));
        }
        errors
    }

    fn validate_update(&self, new: &VolumeAttributesClass, old: &VolumeAttributesClass) -> ErrorList {
        let mut errors = ErrorList::new();
        for (field, changed) in [
            ("driverName", new.driver_name != old.driver_name),
            ("parameters", new.parameters != old.parameters),
        ] {
            if changed {
                errors
                    .push(Error::forbidden(&Path::new(field), format!("updates to {field} are forbidden.")));
            }
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[NAME, Column::string("DriverName", "Driver of the volumes."), AGE];
        COLUMNS
    }

    fn row(&self, obj: &VolumeAttributesClass, now: Timestamp) -> Vec<Cell> {
        let annotations = obj.metadata.annotations.as_ref();
        let is_default = annotations.and_then(|a| a.get(DEFAULT_ANNOTATION)).is_some_and(|v| v == "true");
        let name = obj.metadata.name.as_deref().unwrap_or_default();
        vec![
            Cell::from(if is_default { format!("{name} (default)") } else { name.to_owned() }),
            Cell::from(obj.driver_name.as_str()),
            table::age(obj.metadata.creation_timestamp.as_ref(), now),
        ]
    }
}
