//! serviceaccount-controller: every active namespace has a ServiceAccount called `default`. It makes no tokens.
//! Upstream: pkg/controller/serviceaccount/serviceaccounts_controller.go.

use std::sync::Arc;

use apimachinery::meta::ObjectKey;
use component_base::informer::{Change, Store};
use component_base::workqueue::{self, WorkQueue};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client};

use crate::api_error;
use crate::context::{Context, RunError};

const NAME: &str = "default";

/// Why the account could not be made; it is tried again.
#[derive(Debug, thiserror::Error)]
#[error("create service account default")]
pub struct SyncError(#[source] Box<kube::Error>);

/// Whether the namespace lacks its account.
pub fn is_missing(namespace: &Namespace, account: Option<&ServiceAccount>) -> bool {
    is_active(namespace) && account.is_none()
}

/// Whether things may be created in the namespace.
pub fn is_active(namespace: &Namespace) -> bool {
    namespace.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Active")
}

/// Runs until shutdown.
pub async fn run(context: Context) -> Result<(), RunError> {
    let client = context.client("service-account-controller");
    let namespaces = context.informers.namespaces();
    let accounts = context.informers.service_accounts();
    let queue: WorkQueue<String> = context.queue("serviceaccount");
    context.on_change(&namespaces, {
        let queue = queue.clone();
        move |change| {
            if let Some(namespace) = change.new().and_then(|namespace| namespace.metadata.name.clone()) {
                queue.add(namespace);
            }
        }
    });
    context.on_change(&accounts, {
        let queue = queue.clone();
        move |change| {
            if let Change::Deleted(account) = change
                && account.metadata.name.as_deref() == Some(NAME)
                && let Some(namespace) = account.metadata.namespace.clone()
            {
                queue.add(namespace);
            }
        }
    });
    if !(context.wait_synced(&namespaces).await && context.wait_synced(&accounts).await) {
        return Ok(());
    }
    let (namespaces, accounts) = (namespaces.store(), accounts.store());
    let stores = Arc::new((namespaces, accounts));
    workqueue::run_workers(queue, 1, context.shutdown.clone(), move |namespace| {
        let (client, stores) = (client.clone(), Arc::clone(&stores));
        async move { sync(client, &stores.0, &stores.1, &namespace).await }
    })
    .await;
    Ok(())
}

async fn sync(
    client: Client,
    namespaces: &Store<Namespace>,
    accounts: &Store<ServiceAccount>,
    name: &str,
) -> Result<(), SyncError> {
    let Some(namespace) = namespaces.get(&ObjectKey::cluster(name)) else { return Ok(()) };
    if !is_missing(&namespace, accounts.get(&ObjectKey::new(name, NAME)).as_deref()) {
        return Ok(());
    }
    let account = ServiceAccount {
        metadata: ObjectMeta {
            name: Some(NAME.to_owned()),
            namespace: Some(name.to_owned()),
            ..ObjectMeta::default()
        },
        ..ServiceAccount::default()
    };
    match Api::namespaced(client, name).create(&PostParams::default(), &account).await {
        Ok(_) => Ok(()),
        Err(error) if api_error::is_already_exists(&error) || api_error::is_namespace_terminating(&error) => {
            Ok(())
        }
        Err(error) => Err(SyncError(Box::new(error))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::namespace;

    #[test]
    fn only_active_namespaces_without_the_account_lack_it() {
        let account = ServiceAccount::default();
        assert!(is_missing(&namespace("a", "Active"), None));
        assert!(!is_missing(&namespace("a", "Active"), Some(&account)));
        assert!(!is_missing(&namespace("a", "Terminating"), None));
    }
}
