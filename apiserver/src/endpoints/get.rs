//! GET of one object.

use apimachinery::status::ApiError;
use http::Response;

use super::options::ResourceVersion;
use super::{Call, negotiation, respond};
use crate::body::Body;
use crate::storage::Freshness;
use crate::store::api_error;

pub async fn get(call: Call<'_>) -> Result<Response<Body>, ApiError> {
    let accepted = negotiation::accept(call.headers)?;
    let wanted = ResourceVersion::of_get(call.query)?;
    let store = &call.api.store;
    let key = store.key(call.target.info(), call.target.namespace, call.target.name);
    let freshness = match wanted {
        ResourceVersion::Unset => Freshness::Consistent,
        ResourceVersion::Any => Freshness::Any,
        ResourceVersion::At(revision) => Freshness::NotOlderThan(revision),
    };
    let (stored, _) = store.storage().get(&key, freshness).await.map_err(api_error)?;
    let stored = stored.ok_or_else(|| call.target.not_found())?;
    respond::stored(call.target.resource, accepted, &stored)
}
