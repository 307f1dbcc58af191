//! Deletes what a namespace holds, resource by resource: pods first and alone, so that nothing that guards them
//! (NetworkPolicies, for one) goes while they still run (CVE-2024-7598). Upstream: `deleteAllContent`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, DynamicObject, ListParams};
use kube::{Api, Client};

use super::conditions::Findings;
use crate::api_error;
use crate::discovery::{self, Resource};

/// What is asked about again when only finalizers keep it.
const FINALIZER_ESTIMATE_SECONDS: i64 = 15;

/// Deletes everything deletable in the namespace once and says what is left.
pub async fn delete_all(client: &Client, namespace: &str) -> Findings {
    let mut findings = Findings::default();
    let mut resources = match discovery::discover(client).await {
        Ok(discovered) => {
            findings.discovery_errors = discovered.stale;
            discovered.resources
        }
        Err(error) => {
            findings.discovery_errors.push(component_base::error_chain::Chain(&error).to_string());
            Vec::new()
        }
    };
    resources.retain(|resource| resource.namespaced && resource.supports("delete"));
    let is_pods = |resource: &Resource| resource.api.group.is_empty() && resource.api.plural == "pods";
    let (pods, others): (Vec<_>, Vec<_>) = resources.into_iter().partition(is_pods);
    for resource in &pods {
        delete_resource(client, namespace, resource, &mut findings).await;
    }
    if !findings.remaining.is_empty() || !findings.deletion_errors.is_empty() {
        return findings;
    }
    for resource in &others {
        delete_resource(client, namespace, resource, &mut findings).await;
    }
    findings
}

async fn delete_resource(client: &Client, namespace: &str, resource: &Resource, findings: &mut Findings) {
    let name = format!("{}.{}", resource.api.plural, resource.api.group);
    if let Err(error) = try_delete_resource(client, namespace, resource, &name, findings).await {
        findings.deletion_errors.push(format!("{name}: {}", api_error::message(&error)));
    }
}

async fn try_delete_resource(
    client: &Client,
    namespace: &str,
    resource: &Resource,
    name: &str,
    findings: &mut Findings,
) -> Result<(), kube::Error> {
    let api = Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &resource.api);
    let is_pods = name == "pods.";
    let before = if is_pods { graceful_estimate(client, namespace).await? } else { 0 };
    if resource.supports("deletecollection") {
        match api.delete_collection(&DeleteParams::background(), &ListParams::default()).await {
            Ok(_) => {}
            Err(error) if api_error::is_method_not_supported(&error) || api_error::is_not_found(&error) => {
                delete_each(&api).await?;
            }
            Err(error) => return Err(error),
        }
    } else {
        delete_each(&api).await?;
    }
    if !resource.supports("list") {
        return Ok(());
    }
    let left = match api.list_metadata(&ListParams::default()).await {
        Ok(left) => left.items,
        Err(error) if api_error::is_method_not_supported(&error) || api_error::is_not_found(&error) => {
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    record(name, left.iter().map(|object| &object.metadata), before, findings);
    Ok(())
}

/// Counts what is left. Objects that go by themselves are waited for; for finalizers somebody else must act.
fn record<'a>(
    name: &str,
    left: impl Iterator<Item = &'a ObjectMeta>,
    estimate: i64,
    findings: &mut Findings,
) {
    let mut count = 0;
    let mut finalizers: BTreeMap<String, usize> = BTreeMap::new();
    for metadata in left {
        count += 1;
        for finalizer in metadata.finalizers.iter().flatten() {
            *finalizers.entry(finalizer.clone()).or_default() += 1;
        }
    }
    if count == 0 {
        return;
    }
    findings.remaining.insert(name.to_owned(), count);
    if finalizers.is_empty() && estimate == 0 {
        findings.deletion_errors.push(format!("unexpected items still remain in namespace for {name}"));
    }
    let finalizer_estimate = if finalizers.is_empty() { 0 } else { FINALIZER_ESTIMATE_SECONDS };
    findings.estimate_seconds = findings.estimate_seconds.max(estimate).max(finalizer_estimate);
    for (finalizer, count) in finalizers {
        *findings.finalizers.entry(finalizer).or_default() += count;
    }
}

async fn delete_each(api: &Api<DynamicObject>) -> Result<(), kube::Error> {
    let objects = match api.list_metadata(&ListParams::default()).await {
        Ok(objects) => objects.items,
        Err(error) if api_error::is_method_not_supported(&error) || api_error::is_not_found(&error) => {
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    for object in objects {
        let name = object.metadata.name.unwrap_or_default();
        match api.delete(&name, &DeleteParams::background()).await {
            Ok(_) => {}
            Err(error) if api_error::is_method_not_supported(&error) || api_error::is_not_found(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The longest time that running pods may take to end.
async fn graceful_estimate(client: &Client, namespace: &str) -> Result<i64, kube::Error> {
    let pods = Api::<Pod>::namespaced(client.clone(), namespace).list(&ListParams::default()).await?;
    let running = pods.items.iter().filter(|pod| !apimachinery::pod::is_terminal(pod));
    let grace =
        running.filter_map(|pod| pod.spec.as_ref()).filter_map(|spec| spec.termination_grace_period_seconds);
    Ok(grace.max().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(finalizers: &[&str]) -> ObjectMeta {
        ObjectMeta {
            finalizers: Some(finalizers.iter().map(|f| (*f).to_owned()).collect()),
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn what_is_left_is_counted_and_waited_for() {
        let mut findings = Findings::default();
        record("pods.", [metadata(&[])].iter(), 30, &mut findings);
        assert_eq!((findings.remaining["pods."], findings.estimate_seconds), (1, 30));
        assert!(findings.deletion_errors.is_empty());

        record("widgets.example.com", [metadata(&["a"]), metadata(&["a", "b"])].iter(), 0, &mut findings);
        assert_eq!(findings.finalizers, [("a".to_owned(), 2), ("b".to_owned(), 1)].into());
        assert_eq!(findings.estimate_seconds, 30);
        assert!(findings.deletion_errors.is_empty());

        record("secrets.", [metadata(&[])].iter(), 0, &mut findings);
        assert_eq!(findings.deletion_errors, ["unexpected items still remain in namespace for secrets."]);
        record("none.", [].iter(), 9, &mut findings);
        assert!(!findings.remaining.contains_key("none."));
    }
}
