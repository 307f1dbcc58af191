//! GET of one object.

use apimachinery::status::ApiError;
use http::Response;

use super::options::ResourceVersion;
use super::{Call, negotiation, respond};
use crate::body::Body;
use crate::store::api_error;

pub async fn get(call: Call<'_>) -> Result<Response<Body>, ApiError> {
    let accepted = negotiation::accept(call.headers)?;
    let wanted = ResourceVersion::of_get(call.query)?;
    let store = &call.api.store;
    let key = store.key(call.target.info(), call.target.namespace, call.target.name);
    let (stored, revision) = store.storage().get(&key).await.map_err(api_error)?;
    if let ResourceVersion::At(wanted) = wanted
        && revision < wanted
    {
        return Err(ApiError::too_large_resource_version(wanted.unsigned_abs(), revision.unsigned_abs(), 1));
    }
    let stored = stored.ok_or_else(|| call.target.not_found())?;
    respond::stored(call.target.resource, accepted, &stored)
}
