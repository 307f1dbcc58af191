//! The `scale` subresource: an autoscaling/v1 Scale view of workloads.
//!
//! Upstream: `registry/apps/*/storage` (`ScaleREST`).

use apimachinery::patch::PatchKind;
use apimachinery::status::ApiError;
use apimachinery::validation::{Error, Path};
use http::{Response, StatusCode};
use hyper::body::Incoming;
use k8s_openapi::api::autoscaling::v1::Scale;

use super::options::WriteOptions;
use super::patch::Patch;
use super::{Call, negotiation, read_body, respond};
use crate::body::Body;
use crate::codec;
use crate::registry::{Object, UpdateKind};
use crate::store::{NewObject, UpdateRequest};

pub async fn serve(call: Call<'_>, body: Incoming) -> Result<Response<Body>, ApiError> {
    let accepted = negotiation::accept(call.headers)?;
    let scale = match call.ctx.info.verb.as_str() {
        "get" => scale_of(call, &*call.api.store.get(call.target).await?)?,
        "update" => {
            let options = WriteOptions::parse(call.query, "UpdateOptions")?;
            let json = read_body::to_json(call.headers, read_body::read(body).await?)?;
            let scale: Scale = codec::decode_json(&json, None)?;
            read_body::check_name(&scale, call.target.name, call.target.namespace)?;
            write(call, Input::Whole(Box::new(scale)), options.dry_run).await?
        }
        "patch" => {
            let options = WriteOptions::parse(call.query, "PatchOptions")?;
            let kind = PatchKind::for_kind("autoscaling", "v1", "Scale");
            let media_type = negotiation::media_type(call.headers);
            let patch = Patch::parse(media_type, &read_body::read(body).await?, kind)?;
            write(call, Input::Patch(patch), options.dry_run).await?
        }
        _ => return Err(ApiError::method_not_allowed()),
    };
    respond::value(StatusCode::OK, accepted.format, &scale)
}

fn scale_of(call: Call<'_>, object: &dyn Object) -> Result<Scale, ApiError> {
    let mut scale = call
        .target
        .resource
        .scale(object)
        .ok_or_else(|| ApiError::internal(format!("{} has no scale", call.target.info().qualified())))?;
    let (meta, from) = (&mut scale.metadata, object.meta());
    meta.name.clone_from(&from.name);
    meta.namespace.clone_from(&from.namespace);
    meta.uid.clone_from(&from.uid);
    meta.resource_version.clone_from(&from.resource_version);
    meta.creation_timestamp.clone_from(&from.creation_timestamp);
    Ok(scale)
}

enum Input {
    Whole(Box<Scale>),
    Patch(Patch),
}

async fn write(call: Call<'_>, input: Input, dry_run: bool) -> Result<Scale, ApiError> {
    let mut change = Rescale { call, input };
    let request = UpdateRequest::new(UpdateKind::Main, dry_run);
    let saved = call.api.store.update(call.ctx, call.target, request, &mut change).await?;
    scale_of(call, &*saved.object)
}

/// The stored object with another number of replicas.
struct Rescale<'a> {
    call: Call<'a>,
    input: Input,
}

impl NewObject for Rescale<'_> {
    fn new_object(&mut self, current: &dyn Object) -> Result<Box<dyn Object>, ApiError> {
        let scale = match &self.input {
            Input::Whole(scale) => (**scale).clone(),
            Input::Patch(patch) => {
                let value =
                    serde_json::to_value(scale_of(self.call, current)?).map_err(ApiError::internal)?;
                let json = serde_json::to_vec(&patch.apply(value)?).map_err(ApiError::internal)?;
                codec::decode_json::<Scale>(&json, None)?
            }
        };
        let replicas = scale.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0);
        if replicas < 0 {
            let path = Path::new("spec").child("replicas");
            let errors =
                vec![Error::invalid(&path, i64::from(replicas), "must be greater than or equal to 0")];
            return Err(ApiError::invalid("autoscaling", "Scale", self.call.target.name, &errors));
        }
        let mut object = current.clone_box();
        self.call.target.resource.set_replicas(&mut *object, replicas);
        object.meta_mut().resource_version = match scale.metadata.resource_version {
            Some(version) if !version.is_empty() => Some(version),
            _ => current.meta().resource_version.clone(),
        };
        if let Some(uid) = scale.metadata.uid.filter(|uid| !uid.is_empty()) {
            object.meta_mut().uid = Some(uid);
        }
        Ok(object)
    }
}
