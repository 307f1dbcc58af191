//! ServiceCIDRs (upstream `registry/networking/servicecidr`).

use apimachinery::validation::{Error, ErrorList, Path};
use ipnet::IpNet;
use jiff::Timestamp;
use k8s_openapi::api::networking::v1::ServiceCIDR;

use super::GROUP;
use crate::registry::object_meta::immutable;
use crate::registry::{ResourceInfo, Strategy, cells};
use crate::request::RequestContext;
use crate::table::{self, AGE, Cell, Column, NAME};

/// The strategy of servicecidrs.
#[derive(Debug)]
pub struct ServiceCidrStrategy;

impl Strategy for ServiceCidrStrategy {
    type Object = ServiceCIDR;

    fn info(&self) -> ResourceInfo {
        ResourceInfo {
            status: true,
            ..ResourceInfo::new(GROUP, "v1", "ServiceCIDR", "servicecidrs", "servicecidr", false)
        }
    }

    fn prepare_for_create(&self, _ctx: &RequestContext, obj: &mut ServiceCIDR) {
        obj.status = Some(Default::default());
    }

    fn validate(&self, obj: &ServiceCIDR) -> ErrorList {
        let mut errors = ErrorList::new();
        let cidrs = obj.spec.as_ref().and_then(|s| s.cidrs.as_deref()).unwrap_or_default();
        let path = Path::new("spec").child("cidrs");
        if cidrs.is_empty() {
            errors.push(Error::required(&path, "at least one CIDR required"));
        }
        let parsed: Vec<Option<IpNet>> = cidrs.iter().map(|c| c.parse().ok()).collect();
        for (i, (cidr, net)) in cidrs.iter().zip(&parsed).enumerate() {
            match net {
                None => {
                    let detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
                    errors.push(Error::invalid(&path.index(i), cidr, detail));
                }
                Some(net) if net.trunc().to_string() != *cidr => {
                    let detail = format!("must be in canonical form ({:?})", net.trunc().to_string());
                    errors.push(Error::invalid(&path.index(i), cidr, detail));
                }
                Some(_) => {}
            }
        }
        if let [Some(first), Some(second)] = parsed.as_slice()
            && matches!((first, second), (IpNet::V4(_), IpNet::V4(_)) | (IpNet::V6(_), IpNet::V6(_)))
        {
            let detail =
                "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
            errors.push(Error::invalid(&path, serde_json::json!(cidrs), detail));
        }
        if cidrs.len() > 2 {
            let detail = "may only hold up to 2 values";
            errors.push(Error::invalid(&path, serde_json::json!(cidrs), detail));
        }
        errors
    }

    fn prepare_for_update(&self, _ctx: &RequestContext, new: &mut ServiceCIDR, old: &ServiceCIDR) {
        new.status.clone_from(&old.status);
    }

    fn validate_update(&self, new: &ServiceCIDR, old: &ServiceCIDR) -> ErrorList {
        let mut errors = self.validate(new);
        let cidrs = |obj: &ServiceCIDR| obj.spec.as_ref().and_then(|s| s.cidrs.clone()).unwrap_or_default();
        let (now, before) = (cidrs(new), cidrs(old));
        // A single stack may become a dual one; else a range is what it is.
        let kept = now.len() >= before.len() && now.iter().zip(&before).all(|(a, b)| a == b);
        if !kept || (now != before && before.len() != 1) {
            errors.push(immutable(&now, &Path::new("spec").child("cidrs")));
        }
        errors
    }

    fn prepare_for_status_update(&self, _ctx: &RequestContext, new: &mut ServiceCIDR, old: &ServiceCIDR) {
        new.spec.clone_from(&old.spec);
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] =
            &[NAME, Column::string("CIDRs", "Ranges that service IPs are taken from."), AGE];
        COLUMNS
    }

    fn row(&self, obj: &ServiceCIDR, now: Timestamp) -> Vec<Cell> {
        let cidrs = obj.spec.as_ref().and_then(|s| s.cidrs.clone()).unwrap_or_default();
        vec![
            cells::name(&obj.metadata),
            Cell::from(cidrs.join(",")),
            table::age(obj.metadata.creation_timestamp.as_ref(), now),
        ]
    }
}
