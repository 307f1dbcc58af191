//! POST to a collection.

use apimachinery::status::ApiError;
use http::{Response, StatusCode};
use hyper::body::Incoming;

use super::options::WriteOptions;
use super::{Call, negotiation, read_body, respond};
use crate::body::Body;

pub async fn create(call: Call<'_>, body: Incoming) -> Result<Response<Body>, ApiError> {
    let accepted = negotiation::accept(call.headers)?;
    let options = WriteOptions::parse(call.query, "CreateOptions")?;
    let json = read_body::to_json(call.headers, read_body::read(body).await?)?;
    let object = read_body::decode(call.ctx, call.target.resource, &json, options.field_validation)?;
    let name = object.meta().name.clone().unwrap_or_default();
    let target = crate::store::Target { name: &name, ..call.target };
    let saved = call.api.store.create(call.ctx, target, object, options.dry_run).await?;
    respond::saved(call.target.resource, accepted, StatusCode::CREATED, saved)
}
