//! ConfigMaps (upstream `registry/core/configmap`).

use std::collections::BTreeSet;

use apimachinery::validation::names::is_config_map_key;
use apimachinery::validation::{Error, ErrorList, Path};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;

use crate::registry::{ResourceInfo, Strategy, cells};
use crate::table::{self, AGE, Cell, Column, NAME};

/// All keys and values together may be this long (also of Secrets).
pub(crate) const MAX_SIZE: usize = 1024 * 1024;

/// The error text for touching what `immutable` protects.
pub(crate) const IMMUTABLE: &str = "field is immutable when `immutable` is set";

/// The strategy of configmaps.
#[derive(Debug)]
pub struct ConfigMapStrategy;

impl Strategy for ConfigMapStrategy {
    type Object = ConfigMap;

    fn info(&self) -> ResourceInfo {
        ResourceInfo {
            short_names: &["cm"],
            ..ResourceInfo::new("", "v1", "ConfigMap", "configmaps", "configmap", true)
        }
    }

    fn validate(&self, obj: &ConfigMap) -> ErrorList {
        let mut errors = ErrorList::new();
        let mut size = 0;
        let path = Path::new("data");
        let binary_path = Path::new("binaryData");
        let binary_keys: BTreeSet<&String> = obj.binary_data.iter().flat_map(|d| d.keys()).collect();
        for (key, value) in obj.data.iter().flatten() {
            for problem in is_config_map_key(key) {
                errors.push(Error::invalid(&path.key(key), key, problem));
            }
            if binary_keys.contains(key) {
                errors.push(Error::invalid(&path.key(key), key, "duplicate of key present in binaryData"));
            }
            size += value.len();
        }
        for (key, value) in obj.binary_data.iter().flatten() {
            for problem in is_config_map_key(key) {
                errors.push(Error::invalid(&binary_path.key(key), key, problem));
            }
            size += value.0.len();
        }
        if size > MAX_SIZE {
            errors.push(Error::too_long(&Path::root(), MAX_SIZE));
        }
        errors
    }

    fn validate_update(&self, new: &ConfigMap, old: &ConfigMap) -> ErrorList {
        let mut errors = ErrorList::new();
        if old.immutable == Some(true) {
            if new.immutable != Some(true) {
                errors.push(Error::forbidden(&Path::new("immutable"), IMMUTABLE));
            }
            if new.data != old.data {
                errors.push(Error::forbidden(&Path::new("data"), IMMUTABLE));
            }
            if new.binary_data != old.binary_data {
                errors.push(Error::forbidden(&Path::new("binaryData"), IMMUTABLE));
            }
        }
        errors.extend(self.validate(new));
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[NAME, Column::string("Data", "Number of keys."), AGE];
        COLUMNS
    }

    fn row(&self, obj: &ConfigMap, now: Timestamp) -> Vec<Cell> {
        let keys = obj.data.as_ref().map_or(0, |d| d.len()) + obj.binary_data.as_ref().map_or(0, |d| d.len());
        vec![
            cells::name(&obj.metadata),
            Cell::from(keys),
            table::age(obj.metadata.creation_timestamp.as_ref(), now),
        ]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_and_immutability() {
        let bad: ConfigMap =
            serde_json::from_value(json!({"data": {"a/b": "x", "k": ""}, "binaryData": {"k": ""}})).unwrap();
        let texts: Vec<String> = ConfigMapStrategy.validate(&bad).iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), 2, "{texts:?}");
        assert!(
            texts[0].starts_with("data[a/b]: Invalid value: \"a/b\": a valid config key must"),
            "{texts:?}"
        );
        assert_eq!(texts[1], "data[k]: Invalid value: \"k\": duplicate of key present in binaryData");

        let old: ConfigMap = serde_json::from_value(json!({"immutable": true, "data": {"a": "1"}})).unwrap();
        let new: ConfigMap = serde_json::from_value(json!({"immutable": true, "data": {"a": "2"}})).unwrap();
        let texts: Vec<String> =
            ConfigMapStrategy.validate_update(&new, &old).iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["data: Forbidden: field is immutable when `immutable` is set"]);
    }
}
