//! CSIDrivers (upstream `registry/storage/csidriver`).

use apimachinery::validation::{Error, ErrorList, Path};
use jiff::Timestamp;
use k8s_openapi::api::storage::v1::CSIDriver;

use super::{GROUP, boolean};
use crate::registry::object_meta::{set_generation, validate_immutable};
use crate::registry::{ResourceInfo, Strategy, cells};
use crate::request::RequestContext;
use crate::table::{self, AGE, Cell, Column, NAME};

/// The strategy of csidrivers.
#[derive(Debug)]
pub struct CsiDriverStrategy;

impl Strategy for CsiDriverStrategy {
    type Object = CSIDriver;

    fn info(&self) -> ResourceInfo {
        ResourceInfo::new(GROUP, "v1", "CSIDriver", "csidrivers", "csidriver", false)
    }

    fn default(&self, obj: &mut CSIDriver) {
        let spec = &mut obj.spec;
        spec.attach_required.get_or_insert(true);
        spec.pod_info_on_mount.get_or_insert(false);
        spec.storage_capacity.get_or_insert(false);
        spec.fs_group_policy.get_or_insert_with(|| "ReadWriteOnceWithFSType".to_owned());
        spec.requires_republish.get_or_insert(false);
        spec.se_linux_mount.get_or_insert(false);
        if spec.volume_lifecycle_modes.as_ref().is_none_or(Vec::is_empty) {
            spec.volume_lifecycle_modes = Some(vec!["Persistent".to_owned()]);
        }
    }

    fn prepare_for_create(&self, _ctx: &RequestContext, obj: &mut CSIDriver) {
        obj.metadata.generation = Some(1);
    }

    fn validate(&self, obj: &CSIDriver) -> ErrorList {
        let mut errors = ErrorList::new();
        let path = Path::new("spec");
        let policies = ["File", "None", "ReadWriteOnceWithFSType"];
        if let Some(policy) = obj.spec.fs_group_policy.as_deref()
            && !policies.contains(&policy)
        {
            errors.push(Error::not_supported(&path.child("fsGroupPolicy"), policy, &policies));
        }
        let modes = ["Ephemeral", "Persistent"];
        for mode in obj.spec.volume_lifecycle_modes.iter().flatten() {
            if !modes.contains(&mode.as_str()) {
                errors.push(Error::not_supported(&path.child("volumeLifecycleModes"), mode, &modes));
            }
        }
        errors
    }

    fn prepare_for_update(&self, _ctx: &RequestContext, new: &mut CSIDriver, old: &CSIDriver) {
        set_generation(&mut new.metadata, &old.metadata, new.spec != old.spec);
    }

    fn validate_update(&self, new: &CSIDriver, old: &CSIDriver) -> ErrorList {
        let mut errors = self.validate(new);
        let path = Path::new("spec");
        let (spec, was) = (&new.spec, &old.spec);
        let attach = path.child("attachedRequired");
        validate_immutable(&spec.attach_required, &was.attach_required, &attach, &mut errors);
        let modes = path.child("volumeLifecycleModes");
        validate_immutable(&spec.volume_lifecycle_modes, &was.volume_lifecycle_modes, &modes, &mut errors);
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            boolean("AttachRequired", "Whether volumes are attached before they are mounted."),
            boolean("PodInfoOnMount", "Whether the driver is told of the pod."),
            boolean("StorageCapacity", "Whether the driver reports its capacity."),
            Column::string("TokenRequests", "Audiences of the tokens that the driver gets."),
            boolean("RequiresRepublish", "Whether mounts are repeated from time to time."),
            Column::string("Modes", "Kinds of volumes that the driver offers."),
            AGE,
        ];
        COLUMNS
    }

    fn row(&self, obj: &CSIDriver, now: Timestamp) -> Vec<Cell> {
        let spec = &obj.spec;
        let audiences = spec.token_requests.as_ref().map(|requests| {
            let audiences: Vec<&str> = requests.iter().map(|r| r.audience.as_str()).collect();
            audiences.join(",")
        });
        vec![
            cells::name(&obj.metadata),
            Cell::from(spec.attach_required.unwrap_or(true)),
            Cell::from(spec.pod_info_on_mount == Some(true)),
            Cell::from(spec.storage_capacity == Some(true)),
            Cell::from(audiences.unwrap_or_else(|| cells::UNSET.to_owned())),
            Cell::from(spec.requires_republish == Some(true)),
            cells::list(spec.volume_lifecycle_modes.iter().flatten()),
            table::age(obj.metadata.creation_timestamp.as_ref(), now),
        ]
    }
}
