//! PUT of one object or of a subresource that is written like it.

use apimachinery::status::ApiError;
use http::{Response, StatusCode};
use hyper::body::Incoming;

use super::options::WriteOptions;
use super::{Call, negotiation, read_body, respond};
use crate::body::Body;
use crate::registry::{Object, UpdateKind};
use crate::store::{NewObject, UpdateRequest};

pub async fn update(
    call: Call<'_>,
    kind: UpdateKind<'_>,
    body: Incoming,
) -> Result<Response<Body>, ApiError> {
    let accepted = negotiation::accept(call.headers)?;
    let options = WriteOptions::parse(call.query, "UpdateOptions")?;
    let json = read_body::to_json(call.headers, read_body::read(body).await?)?;
    let object = read_body::decode(call.ctx, call.target.resource, &json, options.field_validation)?;
    read_body::check_name(&*object, call.target.name, call.target.namespace)?;
    let mut change = Replace { object };
    let request = UpdateRequest::new(kind, options.dry_run);
    let saved = call.api.store.update(call.ctx, call.target, request, &mut change).await?;
    let status = if saved.created { StatusCode::CREATED } else { StatusCode::OK };
    respond::saved(call.target.resource, accepted, status, saved)
}

/// The body takes the stored object's place.
struct Replace {
    object: Box<dyn Object>,
}

impl NewObject for Replace {
    fn new_object(&mut self, _current: &dyn Object) -> Result<Box<dyn Object>, ApiError> {
        // Kept for another try after a conflict.
        Ok(self.object.clone_box())
    }

    fn to_create(&mut self) -> Option<Box<dyn Object>> {
        Some(self.object.clone_box())
    }
}
