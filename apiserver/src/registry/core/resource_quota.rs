//! ResourceQuotas (upstream `registry/core/resourcequota`). Counting against them is admission's.

use apimachinery::validation::names::is_qualified_name;
use apimachinery::validation::{Error, ErrorList, Path};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ResourceQuota;

use super::pod::defaults::canonicalise;
use super::pod::validation::resources::validate_quantity;
use crate::registry::object_meta::immutable;
use crate::registry::{ResourceInfo, Strategy, cells};
use crate::request::RequestContext;
use crate::table::{self, AGE, Cell, Column, NAME};

const SCOPES: &[&str] = &[
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];

/// The strategy of resourcequotas.
#[derive(Debug)]
pub struct ResourceQuotaStrategy;

impl Strategy for ResourceQuotaStrategy {
    type Object = ResourceQuota;

    fn info(&self) -> ResourceInfo {
        ResourceInfo {
            short_names: &["quota"],
            status: true,
            ..ResourceInfo::new("", "v1", "ResourceQuota", "resourcequotas", "resourcequota", true)
        }
    }

    fn default(&self, obj: &mut ResourceQuota) {
        canonicalise(obj.spec.get_or_insert_default().hard.as_mut());
        if let Some(status) = &mut obj.status {
            canonicalise(status.hard.as_mut());
            canonicalise(status.used.as_mut());
        }
    }

    fn prepare_for_create(&self, _ctx: &RequestContext, obj: &mut ResourceQuota) {
        obj.status = Some(Default::default());
    }

    fn validate(&self, obj: &ResourceQuota) -> ErrorList {
        let mut errors = ErrorList::new();
        let Some(spec) = &obj.spec else { return errors };
        let path = Path::new("spec");
        for (name, quantity) in spec.hard.iter().flatten() {
            let path = path.child("hard").key(name);
            for problem in is_qualified_name(name) {
                errors.push(Error::invalid(&path, name, problem));
            }
            validate_quantity(name, quantity, &path, &mut errors);
        }
        for scope in spec.scopes.iter().flatten() {
            if !SCOPES.contains(&scope.as_str()) {
                let detail = "unsupported scope";
                errors.push(Error::invalid(&path.child("scopes"), serde_json::json!(spec.scopes), detail));
            }
        }
        errors
    }

    fn prepare_for_update(&self, _ctx: &RequestContext, new: &mut ResourceQuota, old: &ResourceQuota) {
        new.status.clone_from(&old.status);
    }

    fn validate_update(&self, new: &ResourceQuota, old: &ResourceQuota) -> ErrorList {
        let mut errors = self.validate(new);
        let scopes = |q: &ResourceQuota| {
            let mut scopes = q.spec.as_ref().and_then(|s| s.scopes.clone()).unwrap_or_default();
            scopes.sort();
            scopes
        };
        if scopes(new) != scopes(old) {
            let path = Path::new("spec").child("scopes");
            errors.push(immutable(&scopes(new), &path));
        }
        errors
    }

    fn prepare_for_status_update(&self, _ctx: &RequestContext, new: &mut ResourceQuota, old: &ResourceQuota) {
        new.spec.clone_from(&old.spec);
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            Column::string("Request", "Used and allowed of each resource, but for limits."),
            Column::string("Limit", "Used and allowed sums of limits."),
            AGE,
        ];
        COLUMNS
    }

    fn row(&self, obj: &ResourceQuota, now: Timestamp) -> Vec<Cell> {
        let status = obj.status.clone().unwrap_or_default();
        let used = status.used.unwrap_or_default();
        let (mut requests, mut limits) = (Vec::new(), Vec::new());
        for (name, hard) in status.hard.iter().flatten() {
            let used = used.get(name).map_or("0", |q| q.0.as_str());
            let list = if name.starts_with("limits") { &mut limits } else { &mut requests };
            list.push(format!("{name}: {used}/{}", hard.0));
        }
        vec![
            cells::name(&obj.metadata),
            Cell::from(requests.join(", ")),
            Cell::from(limits.join(", ")),
            table::age(obj.metadata.creation_timestamp.as_ref(), now),
        ]
    }
}
