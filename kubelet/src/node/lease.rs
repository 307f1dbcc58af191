//! The node's heartbeat: a Lease in kube-node-lease, renewed every quarter of its duration.
//!
//! Upstream's concept: `k8s.io/component-helpers/apimachinery/lease`.

use std::time::Duration;

use component_base::Shutdown;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::api::{Api, PostParams};
use tokio::sync::watch;

use crate::api_error::ApiError;
use crate::config::NodeConfig;

const NAMESPACE: &str = "kube-node-lease";
const RETRY_PERIOD: Duration = Duration::from_secs(1);

/// The lease as it should be now. `held`: the object as the apiserver last answered it.
fn renewed(config: &NodeConfig, held: Option<&Lease>, node_uid: Option<&str>, now: Timestamp) -> Lease {
    let mut lease = held.cloned().unwrap_or_else(|| Lease {
        metadata: ObjectMeta {
            name: Some(config.name.clone()),
            namespace: Some(NAMESPACE.to_owned()),
            ..ObjectMeta::default()
        },
        ..Lease::default()
    });
    if let Some(uid) = node_uid
        && lease.metadata.owner_references.as_ref().is_none_or(|owners| owners.iter().all(|o| o.uid != uid))
    {
        lease.metadata.owner_references = Some(vec![OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Node".to_owned(),
            name: config.name.clone(),
            uid: uid.to_owned(),
            ..OwnerReference::default()
        }]);
    }
    let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
    spec.holder_identity = Some(config.name.clone());
    spec.lease_duration_seconds = i32::try_from(config.lease_duration.as_secs()).ok();
    spec.renew_time = Some(MicroTime(now));
    lease
}

/// Renews until shutdown.
pub(super) async fn run(
    client: kube::Client,
    config: NodeConfig,
    node_uid: watch::Receiver<Option<String>>,
    shutdown: Shutdown,
) {
    let api: Api<Lease> = Api::namespaced(client, NAMESPACE);
    let period = config.lease_duration / 4;
    // After a restart the lease is there already; an apiserver that can't be asked yet is asked again below.
    let mut held: Option<Lease> = api.get_opt(&config.name).await.unwrap_or_default();
    loop {
        let uid = node_uid.borrow().clone();
        let wanted = renewed(&config, held.as_ref(), uid.as_deref(), Timestamp::now());
        let result = tokio::select! {
            () = shutdown.cancelled() => return,
            result = write(&api, &wanted, held.is_some()) => result,
        };
        let wait = match result {
            Ok(lease) => {
                held = Some(lease);
                period
            }
            Err(error) => {
                tracing::warn!(node = %config.name, error = %ApiError(&error), "failed to update lease");
                // Somebody else may have written or deleted it: start from what is there.
                held = api.get_opt(&config.name).await.unwrap_or_default();
                RETRY_PERIOD
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

async fn write(api: &Api<Lease>, wanted: &Lease, exists: bool) -> Result<Lease, kube::Error> {
    let name = wanted.metadata.name.as_deref().unwrap_or_default();
    if exists {
        api.replace(name, &PostParams::default(), wanted).await
    } else {
        api.create(&PostParams::default(), wanted).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> NodeConfig {
        NodeConfig {
            name: "node".to_owned(),
            hostname: "node".to_owned(),
            ips: Vec::new(),
            register: true,
            labels: Default::default(),
            taints: Vec::new(),
            max_pods: 110,
            status_update_frequency: Duration::from_secs(10),
            status_report_frequency: Duration::from_secs(300),
            lease_duration: Duration::from_secs(40),
            max_images: 50,
            provider_id: None,
            port: 10250,
            reserved: Default::default(),
            root_dir: "/".into(),
        }
    }

    #[test]
    fn a_lease_is_made_then_renewed_and_gets_its_owner_when_the_node_is_known() {
        let first = renewed(&config(), None, None, Timestamp::UNIX_EPOCH);
        assert_eq!(first.metadata.owner_references, None);
        assert_eq!(first.spec.as_ref().unwrap().lease_duration_seconds, Some(40));
        let later = Timestamp::from_second(10).unwrap();
        let second = renewed(&config(), Some(&first), Some("uid"), later);
        assert_eq!(second.spec.unwrap().renew_time, Some(MicroTime(later)));
        assert_eq!(second.metadata.owner_references.unwrap()[0].uid, "uid");
    }
}
