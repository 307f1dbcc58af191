//! ServiceAccounts (upstream `registry/core/serviceaccount`). Tokens are a subresource served elsewhere.

use apimachinery::validation::ErrorList;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ServiceAccount;

use crate::registry::{ResourceInfo, Strategy, SubresourceInfo, cells};
use crate::table::{self, AGE, Cell, Column, NAME};

/// The strategy of serviceaccounts.
#[derive(Debug)]
pub struct ServiceAccountStrategy;

impl Strategy for ServiceAccountStrategy {
    type Object = ServiceAccount;

    fn info(&self) -> ResourceInfo {
        ResourceInfo {
            short_names: &["sa"],
            subresources: &[SubresourceInfo {
                name: "token",
                kind: "TokenRequest",
                group: "authentication.k8s.io",
                version: "v1",
                verbs: &["create"],
                updates_parent: false,
            }],
            ..ResourceInfo::new("", "v1", "ServiceAccount", "serviceaccounts", "serviceaccount", true)
        }
    }

    fn validate(&self, _obj: &ServiceAccount) -> ErrorList {
        ErrorList::new()
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[NAME, AGE];
        COLUMNS
    }

    fn row(&self, obj: &ServiceAccount, now: Timestamp) -> Vec<Cell> {
        vec![cells::name(&obj.metadata), table::age(obj.metadata.creation_timestamp.as_ref(), now)]
    }
}
