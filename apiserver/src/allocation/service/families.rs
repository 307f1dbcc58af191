//! `spec.ipFamilies` and `spec.ipFamilyPolicy` in a cluster of one IP family.
//!
//! Pure. Upstream: `initIPFamilyFields` in `registry/core/service/storage/alloc.go`.

use apimachinery::validation::{Error, ErrorList, Path};
use k8s_openapi::api::core::v1::Service;

/// Fills both fields, or says why the Service can't be had here.
pub(super) fn set(service: &mut Service, ipv6: bool) -> Result<(), ErrorList> {
    let (ours, other) = if ipv6 { ("IPv6", "IPv4") } else { ("IPv4", "IPv6") };
    let spec = service.spec.get_or_insert_default();
    if spec.type_.as_deref() == Some("ExternalName") {
        return Ok(());
    }
    let headless = spec.cluster_ip.as_deref() == Some("None");
    let selects = spec.selector.as_ref().is_some_and(|selector| !selector.is_empty());
    if headless && !selects {
        // Its endpoints are made by somebody else, and may be of either family.
        spec.ip_family_policy.get_or_insert_with(|| "RequireDualStack".to_owned());
        let families = spec.ip_families.get_or_insert_default();
        if families.is_empty() {
            families.push(ours.to_owned());
        }
        if families.len() == 1 && spec.ip_family_policy.as_deref() != Some("SingleStack") {
            let second = if families.first().is_some_and(|first| first == ours) { other } else { ours };
            families.push(second.to_owned());
        }
        return Ok(());
    }
    let path = Path::new("spec");
    let mut errors = ErrorList::new();
    if spec.ip_family_policy.as_deref() == Some("RequireDualStack") {
        let detail = "this cluster is not configured for dual-stack services";
        errors.push(Error::invalid(&path.child("ipFamilyPolicy"), "RequireDualStack", detail));
    }
    let wrong = spec.ip_families.iter().flatten().enumerate().filter(|(_, family)| *family != ours);
    for (index, family) in wrong {
        let detail = "not configured on this cluster";
        errors.push(Error::invalid(&path.child("ipFamilies").index(index), family.as_str(), detail));
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    spec.ip_family_policy.get_or_insert_with(|| "SingleStack".to_owned());
    if spec.ip_families.as_ref().is_none_or(Vec::is_empty) {
        spec.ip_families = Some(vec![ours.to_owned()]);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn policies_and_families() {
        let cases = [
            (json!({}), Some(("SingleStack", json!(["IPv4"])))),
            (json!({"ipFamilyPolicy": "PreferDualStack"}), Some(("PreferDualStack", json!(["IPv4"])))),
            (json!({"ipFamilies": ["IPv4"]}), Some(("SingleStack", json!(["IPv4"])))),
            (json!({"ipFamilyPolicy": "RequireDualStack"}), None),
            (json!({"ipFamilies": ["IPv6"]}), None),
            (json!({"clusterIP": "None", "selector": {"a": "b"}}), Some(("SingleStack", json!(["IPv4"])))),
            (json!({"clusterIP": "None"}), Some(("RequireDualStack", json!(["IPv4", "IPv6"])))),
            (
                json!({"clusterIP": "None", "ipFamilyPolicy": "SingleStack"}),
                Some(("SingleStack", json!(["IPv4"]))),
            ),
        ];
        for (spec, expected) in cases {
            let value: Value = json!({"apiVersion": "v1", "kind": "Service", "metadata": {}, "spec": spec});
            let mut service: Service = serde_json::from_value(value).unwrap();
            let result = set(&mut service, false);
            match expected {
                None => assert!(result.is_err(), "{spec}"),
                Some((policy, families)) => {
                    let set = service.spec.unwrap();
                    assert_eq!(set.ip_family_policy.as_deref(), Some(policy), "{spec}");
                    assert_eq!(json!(set.ip_families), families, "{spec}");
                }
            }
        }
    }
}
