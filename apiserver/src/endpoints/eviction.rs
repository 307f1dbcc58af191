//! POST `pods/NAME/eviction`: a delete that respects disruption budgets.
//!
//! Upstream: `registry/core/pod/storage/eviction.go`.

use apimachinery::labels::Selector;
use apimachinery::status::ApiError;
use http::{Response, StatusCode};
use hyper::body::Incoming;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{Eviction, PodDisruptionBudget};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, Preconditions, Status, Time};

use super::options::WriteOptions;
use super::{Call, negotiation, read_body, respond};
use crate::admission::{Attributes, Operation};
use crate::body::Body;
use crate::codec;
use crate::registry::{Object, UpdateKind};
use crate::store::{Target, UpdateRequest};

/// Evictions in flight that one budget keeps track of.
const MAX_DISRUPTED_PODS: usize = 2000;

pub async fn create(call: Call<'_>, body: Incoming) -> Result<Response<Body>, ApiError> {
    if call.ctx.info.verb != "create" {
        return Err(ApiError::method_not_allowed());
    }
    let accepted = negotiation::accept(call.headers)?;
    let query_options = WriteOptions::parse(call.query, "CreateOptions")?;
    let json = read_body::to_json(call.headers, read_body::read(body).await?)?;
    let mut eviction: Eviction = codec::decode_json(&json, None)?;
    if eviction.metadata.name.as_deref().unwrap_or_default() != call.target.name {
        return Err(ApiError::bad_request("name in URL does not match name in Eviction object"));
    }
    let mut options = eviction.delete_options.clone().unwrap_or_default();
    let dry_run = query_options.dry_run || options.dry_run.as_ref().is_some_and(|stages| !stages.is_empty());
    if dry_run {
        options.dry_run = Some(vec!["All".to_owned()]);
    }
    let store = &call.api.store;
    {
        let mut attributes = Attributes {
            operation: Operation::Create,
            resource: call.target.info(),
            subresource: "eviction",
            name: call.target.name,
            namespace: call.target.namespace,
            ctx: call.ctx,
            object: Some(&mut eviction),
            old_object: None,
            dry_run,
        };
        store.admission().admit(&mut attributes).await?;
        store.admission().validate(&attributes).await?;
    }
    evict(call, options, dry_run).await?;
    let success = Status { status: Some("Success".to_owned()), code: Some(201), ..Status::default() };
    respond::value(StatusCode::CREATED, accepted.format, &success)
}

async fn evict(call: Call<'_>, mut options: DeleteOptions, dry_run: bool) -> Result<(), ApiError> {
    let store = &call.api.store;
    let pod: Pod = store.get_as(call.target.namespace, call.target.name).await?;
    // Only the pod that was judged may go.
    let preconditions = options.preconditions.get_or_insert_with(Preconditions::default);
    if preconditions.uid.is_none() {
        preconditions.uid.clone_from(&pod.metadata.uid);
    }
    if needs_budget(&pod) {
        let (budgets, _) = store.list_as::<PodDisruptionBudget>(call.target.namespace).await?;
        let mut matching = budgets.into_iter().filter(|budget| selects(budget, &pod));
        match (matching.next(), matching.next()) {
            (Some(_), Some(_)) => {
                return Err(ApiError::internal(
                    "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
                ));
            }
            (Some(budget), None) => take_from_budget(call, &pod, &budget, dry_run).await?,
            (None, _) => {}
        }
    }
    store.delete(call.ctx, call.target, &options).await?;
    Ok(())
}

/// Pods that are over, not yet running, or already going disrupt nothing.
fn needs_budget(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
    !matches!(phase, "Succeeded" | "Failed" | "Pending") && pod.metadata.deletion_timestamp.is_none()
}

fn selects(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    // An unparsable selector selects nothing, as upstream.
    selector
        .and_then(|selector| Selector::from_label_selector(selector).ok())
        .is_some_and(|selector| selector.matches_opt(pod.metadata.labels.as_ref()))
}

async fn take_from_budget(
    call: Call<'_>,
    pod: &Pod,
    budget: &PodDisruptionBudget,
    dry_run: bool,
) -> Result<(), ApiError> {
    let ready = apimachinery::pod::is_ready(pod);
    let store = &call.api.store;
    let resource = store.resources().of::<PodDisruptionBudget>()?;
    let name = budget.metadata.name.as_deref().unwrap_or_default();
    let target = Target { resource, namespace: call.target.namespace, name };
    let now = call.ctx.now;
    let pod_name = call.target.name.to_owned();
    let mut change = |current: &dyn Object| -> Result<Box<dyn Object>, ApiError> {
        let budget = current
            .downcast_ref::<PodDisruptionBudget>()
            .ok_or_else(|| ApiError::internal("poddisruptionbudgets hold budgets"))?;
        Ok(match check(budget, ready)? {
            Verdict::NotCounted => current.clone_box(),
            Verdict::Counted => Box::new(charged(budget, &pod_name, now)),
        })
    };
    let request = UpdateRequest { kind: UpdateKind::Status, dry_run, admission: false };
    store.update(call.ctx, target, request, &mut change).await?;
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// The pod may go and does not count against the budget.
    NotCounted,
    /// The pod may go and uses one disruption.
    Counted,
}

/// Whether the budget lets a pod go.
fn check(budget: &PodDisruptionBudget, ready: bool) -> Result<Verdict, ApiError> {
    let name = budget.metadata.name.as_deref().unwrap_or_default();
    let status = budget.status.clone().unwrap_or_default();
    let (current, desired) = (status.current_healthy.unwrap_or(0), status.desired_healthy.unwrap_or(0));
    let allowed = status.disruptions_allowed.unwrap_or(0);
    let spec = budget.spec.as_ref();
    if !ready {
        let always =
            spec.and_then(|spec| spec.unhealthy_pod_eviction_policy.as_deref()) == Some("AlwaysAllow");
        let healthy_budget = current >= desired && desired > 0;
        if always || healthy_budget {
            return Ok(Verdict::NotCounted);
        }
    }
    if status.observed_generation.unwrap_or(0) < budget.metadata.generation.unwrap_or(0) {
        let message = "Cannot evict pod as it would violate the pod's disruption budget.";
        let cause = format!("The disruption budget {name} is still being processed by the server.");
        return Err(ApiError::too_many_requests(message, 10).with_cause("DisruptionBudget", &cause, ""));
    }
    if allowed < 0 {
        return Err(ApiError::forbidden(
            "policy",
            "poddisruptionbudgets",
            name,
            "pdb disruptions allowed is negative",
        ));
    }
    if status.disrupted_pods.as_ref().map_or(0, std::collections::BTreeMap::len) > MAX_DISRUPTED_PODS {
        let problem = "DisruptedPods map too big - too many evictions not confirmed by PDB controller";
        return Err(ApiError::forbidden("policy", "poddisruptionbudgets", name, problem));
    }
    if allowed == 0 {
        let cause =
            format!("The disruption budget {name} needs {desired} healthy pods and has {current} currently");
        let message = "Cannot evict pod as it would violate the pod's disruption budget.";
        return Err(ApiError::too_many_requests(message, 0).with_cause("DisruptionBudget", &cause, ""));
    }
    Ok(Verdict::Counted)
}

/// The budget with one disruption used by the pod.
fn charged(budget: &PodDisruptionBudget, pod: &str, now: Timestamp) -> PodDisruptionBudget {
    let mut budget = budget.clone();
    let status = budget.status.get_or_insert_default();
    status.disruptions_allowed = Some(status.disruptions_allowed.unwrap_or(0) - 1);
    status.disrupted_pods.get_or_insert_default().insert(pod.to_owned(), Time(now));
    budget
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn budget(status: serde_json::Value) -> PodDisruptionBudget {
        serde_json::from_value(json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
            "metadata": {"name": "b", "generation": 1}, "spec": {}, "status": status}))
        .unwrap()
    }

    fn status(allowed: i32, current: i32, desired: i32, observed: i64) -> serde_json::Value {
        json!({"disruptionsAllowed": allowed, "currentHealthy": current, "desiredHealthy": desired, "expectedPods": 3,
            "observedGeneration": observed})
    }

    #[test]
    fn budgets_decide() {
        for (status, ready, want) in [
            (status(1, 3, 2, 1), true, Ok(Verdict::Counted)),
            (status(0, 2, 2, 1), true, Err(429)),
            (status(0, 2, 2, 1), false, Ok(Verdict::NotCounted)),
            (status(0, 1, 2, 1), false, Err(429)),
            (status(1, 3, 2, 0), true, Err(429)),
            (status(-1, 3, 2, 1), true, Err(403)),
        ] {
            assert_eq!(
                check(&budget(status.clone()), ready).map_err(|error| error.code()),
                want,
                "{status} {ready}"
            );
        }
    }

    #[test]
    fn a_disruption_is_recorded() {
        let after = charged(&budget(status(1, 3, 2, 1)), "p", Timestamp::UNIX_EPOCH).status.unwrap();
        assert_eq!(after.disruptions_allowed, Some(0));
        assert!(after.disrupted_pods.unwrap().contains_key("p"));
    }
}
