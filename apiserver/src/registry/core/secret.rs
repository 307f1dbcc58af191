//! Secrets (upstream `registry/core/secret`).

use std::borrow::Cow;

use apimachinery::validation::names::is_config_map_key;
use apimachinery::validation::{Error, ErrorList, Path};
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;

use super::config_map::{IMMUTABLE, MAX_SIZE};
use super::pod::defaults::set_if_empty;
use crate::registry::object_meta::immutable;
use crate::registry::{ResourceInfo, Strategy, cells};
use crate::request::RequestContext;
use crate::table::{self, AGE, Cell, Column, NAME};

const SERVICE_ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";

/// The strategy of secrets.
#[derive(Debug)]
pub struct SecretStrategy;

impl Strategy for SecretStrategy {
    type Object = Secret;

    fn info(&self) -> ResourceInfo {
        ResourceInfo::new("", "v1", "Secret", "secrets", "secret", true)
    }

    fn default(&self, obj: &mut Secret) {
        set_if_empty(&mut obj.type_, "Opaque");
        // Write-only: what it holds goes over what `data` holds.
        for (key, value) in obj.string_data.take().into_iter().flatten() {
            obj.data.get_or_insert_default().insert(key, ByteString(value.into_bytes()));
        }
    }

    fn validate(&self, obj: &Secret) -> ErrorList {
        let mut errors = ErrorList::new();
        let path = Path::new("data");
        let mut size = 0;
        for (key, value) in obj.data.iter().flatten() {
            for problem in is_config_map_key(key) {
                errors.push(Error::invalid(&path.key(key), key, problem));
            }
            size += value.0.len();
        }
        if size > MAX_SIZE {
            errors.push(Error::too_long(&path, MAX_SIZE));
        }
        validate_type(obj, &path, &mut errors);
        errors
    }

    fn prepare_for_update(&self, _ctx: &RequestContext, new: &mut Secret, old: &Secret) {
        // An update that names no type keeps the one it has.
        if new.type_.as_deref().unwrap_or_default().is_empty() {
            new.type_.clone_from(&old.type_);
        }
    }

    fn validate_update(&self, new: &Secret, old: &Secret) -> ErrorList {
        let mut errors = ErrorList::new();
        if new.type_ != old.type_ {
            errors.push(immutable(&new.type_, &Path::new("type")));
        }
        if old.immutable == Some(true) {
            if new.immutable != Some(true) {
                errors.push(Error::forbidden(&Path::new("immutable"), IMMUTABLE));
            }
            if new.data != old.data {
                errors.push(Error::forbidden(&Path::new("data"), IMMUTABLE));
            }
        }
        errors.extend(self.validate(new));
        errors
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["type"]
    }

    fn field<'a>(&self, obj: &'a Secret, field: &str) -> Cow<'a, str> {
        match field {
            "type" => Cow::Borrowed(obj.type_.as_deref().unwrap_or_default()),
            _ => Cow::Borrowed(""),
        }
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            Column::string("Type", "What the secret is used for, and so which keys it must have."),
            Column::string("Data", "Number of keys."),
            AGE,
        ];
        COLUMNS
    }

    fn row(&self, obj: &Secret, now: Timestamp) -> Vec<Cell> {
        vec![
            cells::name(&obj.metadata),
            Cell::from(obj.type_.as_deref().unwrap_or_default()),
            Cell::from(obj.data.as_ref().map_or(0, |d| d.len())),
            table::age(obj.metadata.creation_timestamp.as_ref(), now),
        ]
    }
}

/// The keys and annotations that well-known types demand.
fn validate_type(obj: &Secret, data: &Path, errors: &mut ErrorList) {
    let value = |key: &str| obj.data.as_ref().and_then(|d| d.get(key));
    let mut need = |keys: &[&str]| {
        for key in keys {
            if value(key).is_none() {
                errors.push(Error::required(&data.key(key), ""));
            }
        }
    };
    match obj.type_.as_deref().unwrap_or_default() {
        "kubernetes.io/service-account-token" => {
            let annotation = obj.metadata.annotations.as_ref().and_then(|a| a.get(SERVICE_ACCOUNT_NAME));
            if annotation.is_none_or(String::is_empty) {
                let path = Path::new("metadata").child("annotations").key(SERVICE_ACCOUNT_NAME);
                errors.push(Error::required(&path, ""));
            }
        }
        "kubernetes.io/dockercfg" => validate_json_key(value(".dockercfg"), &data.key(".dockercfg"), errors),
        "kubernetes.io/dockerconfigjson" => {
            validate_json_key(value(".dockerconfigjson"), &data.key(".dockerconfigjson"), errors);
        }
        "kubernetes.io/basic-auth" if value("username").is_none() && value("password").is_none() => {
            need(&["username", "password"]);
        }
        "kubernetes.io/ssh-auth" if value("ssh-privatekey").is_none_or(|v| v.0.is_empty()) => {
            errors.push(Error::required(&data.key("ssh-privatekey"), ""));
        }
        "kubernetes.io/tls" => need(&["tls.crt", "tls.key"]),
        _ => {}
    }
}

fn validate_json_key(value: Option<&ByteString>, path: &Path, errors: &mut ErrorList) {
    match value {
        None => errors.push(Error::required(path, "")),
        Some(bytes) => {
            if let Err(error) = serde_json::from_slice::<serde::de::IgnoredAny>(&bytes.0) {
                errors.push(Error::invalid(path, "<secret contents redacted>", error.to_string()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(secret: Value, want: &[&str]) {
        let mut secret: Secret = serde_json::from_value(secret).unwrap();
        SecretStrategy.default(&mut secret);
        let texts: Vec<String> = SecretStrategy.validate(&secret).iter().map(ToString::to_string).collect();
        assert_eq!(texts, want);
    }

    #[test]
    fn types_demand_their_keys() {
        check(json!({"data": {"a": ""}}), &[]);
        check(
            json!({"type": "kubernetes.io/tls", "stringData": {"tls.crt": "x"}}),
            &["data[tls.key]: Required value"],
        );
        check(
            json!({"type": "kubernetes.io/service-account-token"}),
            &["metadata.annotations[kubernetes.io/service-account.name]: Required value"],
        );
        check(
            json!({"type": "kubernetes.io/basic-auth"}),
            &["data[username]: Required value", "data[password]: Required value"],
        );
        check(
            json!({"type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": "{}"}}),
            &[],
        );
    }

    #[test]
    fn string_data_goes_into_data() {
        let mut secret: Secret = serde_json::from_value(json!({"stringData": {"a": "b"}})).unwrap();
        SecretStrategy.default(&mut secret);
        assert_eq!(secret.string_data, None);
        assert_eq!(secret.data.unwrap()["a"].0, b"b");
        assert_eq!(secret.type_.as_deref(), Some("Opaque"));
    }
}
