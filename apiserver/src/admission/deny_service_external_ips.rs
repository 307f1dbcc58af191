//! DenyServiceExternalIPs: no Service may get external IPs that it does not have already (CVE-2020-8554).
//!
//! Off by default. Upstream: `plugin/pkg/admission/network/denyserviceexternalips`.

use apimachinery::status::ApiError;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Service;

use super::{Attributes, Operation, Plugin};
use crate::registry::ResourceInfo;

/// The plugin.
#[derive(Debug, Clone, Copy)]
pub struct DenyServiceExternalIps;

fn external_ips(service: Option<&Service>) -> &[String] {
    service.and_then(|s| s.spec.as_ref()).and_then(|spec| spec.external_ips.as_deref()).unwrap_or_default()
}

impl Plugin for DenyServiceExternalIps {
    fn name(&self) -> &'static str {
        "DenyServiceExternalIPs"
    }

    fn handles(&self, operation: Operation, resource: &ResourceInfo, _: &str) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
            && resource.group.is_empty()
            && resource.plural == "services"
    }

    fn validate<'a>(&'a self, attributes: &'a Attributes<'_>) -> BoxFuture<'a, Result<(), ApiError>> {
        let old = external_ips(attributes.old::<Service>());
        let new = external_ips(attributes.new_ref::<Service>());
        let result = if new.iter().all(|ip| old.contains(ip)) {
            Ok(())
        } else {
            Err(attributes.forbidden("Use of external IPs is denied by admission control."))
        };
        Box::pin(std::future::ready(result))
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ServiceSpec;

    use super::super::tests::Request;
    use super::*;

    fn service(ips: &[&str]) -> Service {
        let external_ips = Some(ips.iter().map(|&ip| ip.to_owned()).collect());
        Service { spec: Some(ServiceSpec { external_ips, ..ServiceSpec::default() }), ..Service::default() }
    }

    #[tokio::test]
    async fn ips_may_go_but_not_come() {
        for (old, new, good) in [
            (&[][..], &[][..], true),
            (&[], &["1.2.3.4"], false),
            (&["1.2.3.4"], &["1.2.3.4"], true),
            (&["1.2.3.4", "5.6.7.8"], &["5.6.7.8"], true),
            (&["1.2.3.4"], &["5.6.7.8"], false),
        ] {
            let (old, mut new) = (service(old), service(new));
            let request = Request::new(Operation::Update, &mut new).old(&old);
            assert_eq!(request.validate(&DenyServiceExternalIps).await.is_ok(), good);
        }
    }
}
