//! IPAddresses (upstream `registry/networking/ipaddress`): one per allocated service IP, named by it.

use std::borrow::Cow;

use apimachinery::validation::names::parse_ip;
use apimachinery::validation::{Error, ErrorList, Path};
use jiff::Timestamp;
use k8s_openapi::api::networking::v1::IPAddress;

use super::GROUP;
use crate::registry::object_meta::validate_immutable;
use crate::registry::{ResourceInfo, Strategy, cells};
use crate::table::{Cell, Column, NAME};

/// The strategy of ipaddresses.
#[derive(Debug)]
pub struct IpAddressStrategy;

impl Strategy for IpAddressStrategy {
    type Object = IPAddress;

    fn info(&self) -> ResourceInfo {
        ResourceInfo {
            short_names: &["ip"],
            ..ResourceInfo::new(GROUP, "v1", "IPAddress", "ipaddresses", "ipaddress", false)
        }
    }

    fn validate_name(&self, name: &str, _prefix: bool) -> Vec<String> {
        match parse_ip(name) {
            Some(ip) if ip.to_string() == name => Vec::new(),
            Some(_) => vec!["must be a canonical format IP address".to_owned()],
            None => vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()],
        }
    }

    fn validate(&self, obj: &IPAddress) -> ErrorList {
        let mut errors = ErrorList::new();
        let parent = &obj.spec.parent_ref;
        let path = Path::new("spec").child("parentRef");
        for (field, value) in [("resource", &parent.resource), ("name", &parent.name)] {
            if value.is_empty() {
                errors.push(Error::required(&path.child(field), ""));
            }
        }
        errors
    }

    fn validate_update(&self, new: &IPAddress, old: &IPAddress) -> ErrorList {
        let mut errors = self.validate(new);
        let path = Path::new("spec").child("parentRef");
        validate_immutable(&new.spec.parent_ref, &old.spec.parent_ref, &path, &mut errors);
        errors
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &[
            "spec.parentRef.group",
            "spec.parentRef.resource",
            "spec.parentRef.namespace",
            "spec.parentRef.name",
        ]
    }

    fn field<'a>(&self, obj: &'a IPAddress, field: &str) -> Cow<'a, str> {
        let parent = &obj.spec.parent_ref;
        Cow::Borrowed(match field {
            "spec.parentRef.group" => parent.group.as_deref().unwrap_or_default(),
            "spec.parentRef.resource" => &parent.resource,
            "spec.parentRef.namespace" => parent.namespace.as_deref().unwrap_or_default(),
            "spec.parentRef.name" => &parent.name,
            _ => "",
        })
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] =
            &[NAME, Column::string("ParentRef", "Object that the address belongs to.")];
        COLUMNS
    }

    fn row(&self, obj: &IPAddress, _now: Timestamp) -> Vec<Cell> {
        let parent = obj.spec.parent_ref.clone();
        let group = parent.group.filter(|g| !g.is_empty()).map(|g| format!(".{g}")).unwrap_or_default();
        let namespace =
            parent.namespace.filter(|n| !n.is_empty()).map(|n| format!("{n}/")).unwrap_or_default();
        vec![
            cells::name(&obj.metadata),
            Cell::from(format!("{}{group}/{namespace}{}", parent.resource, parent.name)),
        ]
    }
}
