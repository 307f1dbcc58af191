//! Leases (upstream `registry/coordination/lease`).

use apimachinery::validation::{Error, ErrorList, Path};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;

use crate::registry::object_meta::validate_nonnegative;
use crate::registry::{ResourceInfo, Strategy, cells};
use crate::table::{self, AGE, Cell, Column, NAME};

/// The strategy of leases.
#[derive(Debug)]
pub struct LeaseStrategy;

impl Strategy for LeaseStrategy {
    type Object = Lease;

    fn info(&self) -> ResourceInfo {
        ResourceInfo::new("coordination.k8s.io", "v1", "Lease", "leases", "lease", true)
    }

    fn validate(&self, obj: &Lease) -> ErrorList {
        let mut errors = ErrorList::new();
        let Some(spec) = &obj.spec else { return errors };
        let path = Path::new("spec");
        if let Some(seconds) = spec.lease_duration_seconds
            && seconds <= 0
        {
            let path = path.child("leaseDurationSeconds");
            errors.push(Error::invalid(&path, seconds, "must be greater than 0"));
        }
        let transitions = spec.lease_transitions.map(i64::from);
        validate_nonnegative(transitions, &path.child("leaseTransitions"), &mut errors);
        if let Some(strategy) = spec.strategy.as_deref()
            && strategy != "OldestEmulationVersion"
        {
            let path = path.child("strategy");
            errors.push(Error::not_supported(&path, strategy, &["OldestEmulationVersion"]));
        }
        errors
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[NAME, Column::string("Holder", "Identity that holds the lease."), AGE];
        COLUMNS
    }

    fn row(&self, obj: &Lease, now: Timestamp) -> Vec<Cell> {
        let holder = obj.spec.as_ref().and_then(|s| s.holder_identity.as_deref());
        vec![
            cells::name(&obj.metadata),
            Cell::from(holder.unwrap_or_default()),
            table::age(obj.metadata.creation_timestamp.as_ref(), now),
        ]
    }
}
