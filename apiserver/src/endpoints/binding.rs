//! POST `pods/NAME/binding`: the scheduler's decision.
//!
//! Upstream: `registry/core/pod/storage` (`BindingREST`).

use apimachinery::status::ApiError;
use apimachinery::validation::{Error, Path};
use http::{Response, StatusCode};
use hyper::body::Incoming;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Binding, Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Status, Time};

use super::options::WriteOptions;
use super::{Call, negotiation, read_body, respond};
use crate::admission::{Attributes, Operation};
use crate::body::Body;
use crate::codec;
use crate::registry::{Object, UpdateKind};
use crate::store::UpdateRequest;

pub async fn create(call: Call<'_>, body: Incoming) -> Result<Response<Body>, ApiError> {
    if call.ctx.info.verb != "create" {
        return Err(ApiError::method_not_allowed());
    }
    let accepted = negotiation::accept(call.headers)?;
    let options = WriteOptions::parse(call.query, "CreateOptions")?;
    let json = read_body::to_json(call.headers, read_body::read(body).await?)?;
    let mut binding: Binding = codec::decode_json(&json, None)?;
    if binding.metadata.name.as_deref().is_some_and(|name| !name.is_empty() && name != call.target.name) {
        return Err(ApiError::bad_request("name in URL does not match name in Binding object"));
    }
    validate(&binding)?;
    let store = &call.api.store;
    {
        let mut attributes = Attributes {
            operation: Operation::Create,
            resource: call.target.info(),
            subresource: "binding",
            name: call.target.name,
            namespace: call.target.namespace,
            ctx: call.ctx,
            object: Some(&mut binding),
            old_object: None,
            dry_run: options.dry_run,
        };
        store.admission().admit(&mut attributes).await?;
        store.admission().validate(&attributes).await?;
    }
    let now = call.ctx.now;
    let mut change = |current: &dyn Object| -> Result<Box<dyn Object>, ApiError> {
        let pod = current.downcast_ref::<Pod>().ok_or_else(|| ApiError::internal("pods hold pods"))?;
        bind(pod, &binding, now)
            .map(|pod| Box::new(pod) as Box<dyn Object>)
            .map_err(|problem| ApiError::conflict("", "pods/binding", call.target.name, &problem))
    };
    let request = UpdateRequest { kind: UpdateKind::Internal, dry_run: options.dry_run, admission: false };
    store.update(call.ctx, call.target, request, &mut change).await?;
    let success = Status { status: Some("Success".to_owned()), code: Some(201), ..Status::default() };
    respond::value(StatusCode::CREATED, accepted.format, &success)
}

fn validate(binding: &Binding) -> Result<(), ApiError> {
    let target = Path::new("target");
    let mut errors = Vec::new();
    let kind = binding.target.kind.as_deref().unwrap_or_default();
    if !kind.is_empty() && kind != "Node" {
        errors.push(Error::not_supported(&target.child("kind"), kind, &["Node", "<empty>"]));
    }
    if binding.target.name.as_deref().unwrap_or_default().is_empty() {
        errors.push(Error::required(&target.child("name"), ""));
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(ApiError::invalid("", "Binding", binding.metadata.name.as_deref().unwrap_or_default(), &errors))
}

/// The pod as bound, or why it can't be.
fn bind(pod: &Pod, binding: &Binding, now: Timestamp) -> Result<Pod, String> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    if pod.metadata.deletion_timestamp.is_some() {
        return Err(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    let spec = pod.spec.as_ref();
    if let Some(node) = spec.and_then(|spec| spec.node_name.as_deref()).filter(|node| !node.is_empty()) {
        return Err(format!("pod {name} is already assigned to node \"{node}\""));
    }
    if spec.and_then(|spec| spec.scheduling_gates.as_ref()).is_some_and(|gates| !gates.is_empty()) {
        return Err(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    let mut pod = pod.clone();
    // What the scheduler saw; an empty field demands nothing.
    for (wanted, held) in [
        (&binding.metadata.uid, &mut pod.metadata.uid),
        (&binding.metadata.resource_version, &mut pod.metadata.resource_version),
    ] {
        if wanted.as_deref().is_some_and(|wanted| !wanted.is_empty()) {
            held.clone_from(wanted);
        }
    }
    pod.spec.get_or_insert_default().node_name.clone_from(&binding.target.name);
    if let Some(annotations) = &binding.metadata.annotations {
        pod.metadata.annotations.get_or_insert_default().extend(annotations.clone());
    }
    let conditions = pod.status.get_or_insert_default().conditions.get_or_insert_default();
    conditions.retain(|condition| condition.type_ != "PodScheduled");
    conditions.push(PodCondition {
        type_: "PodScheduled".to_owned(),
        status: "True".to_owned(),
        last_transition_time: Some(Time(now)),
        ..PodCondition::default()
    });
    Ok(pod)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "uid": "u"}, "spec": spec}),
        )
        .unwrap()
    }

    fn binding() -> Binding {
        serde_json::from_value(json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p", "annotations": {"a": "b"}},
            "target": {"kind": "Node", "name": "n1"}}))
        .unwrap()
    }

    #[test]
    fn a_free_pod_is_bound() {
        let bound = bind(&pod(json!({"containers": []})), &binding(), Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(bound.spec.unwrap().node_name.as_deref(), Some("n1"));
        assert_eq!(bound.metadata.annotations.unwrap()["a"], "b");
        assert_eq!(bound.status.unwrap().conditions.unwrap()[0].type_, "PodScheduled");
    }

    #[test]
    fn a_taken_gated_or_dying_pod_is_not() {
        for (spec, want) in [
            (json!({"containers": [], "nodeName": "n0"}), "pod p is already assigned to node \"n0\""),
            (
                json!({"containers": [], "schedulingGates": [{"name": "g"}]}),
                "pod p has non-empty .spec.schedulingGates",
            ),
        ] {
            assert_eq!(bind(&pod(spec), &binding(), Timestamp::UNIX_EPOCH).unwrap_err(), want);
        }
        let mut dying = pod(json!({"containers": []}));
        dying.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        assert!(bind(&dying, &binding(), Timestamp::UNIX_EPOCH).unwrap_err().contains("is being deleted"));
    }
}
