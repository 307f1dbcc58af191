//! GET of a collection: whole or in pages, filtered by selectors.
//!
//! Upstream: `endpoints/handlers/get.go` and `etcd3.store.GetList`.

use std::sync::Arc;

use apimachinery::status::ApiError;
use http::{Response, StatusCode};

use super::negotiation::Shape;
use super::options::{ContinueToken, ListOptions};
use super::respond::ListMetadata;
use super::table::{self, IncludeObject};
use super::{Call, negotiation, respond};
use crate::body::Body;
use crate::selection::Selection;
use crate::storage::{Freshness, ListQuery, Selected, StorageError, Stored};
use crate::store::api_error;

pub async fn list(call: Call<'_>) -> Result<Response<Body>, ApiError> {
    let accepted = negotiation::accept(call.headers)?;
    let options = ListOptions::parse(call.query, false)?;
    let selection = Selection::parse(call.target.resource, call.query)?;
    let (metadata, items) = collect(call, &options, &selection).await?;
    if accepted.shape == Shape::Table {
        let include = IncludeObject::parse(call.query.get("includeObject"))?;
        let body = table::of_list(call.target.resource, &metadata, &items, include)?;
        return respond::json(StatusCode::OK, accepted.format, body);
    }
    respond::list(call.target.resource, accepted, &metadata, items)
}

/// The objects that a list shows, and its metadata.
pub async fn collect(
    call: Call<'_>,
    options: &ListOptions,
    selection: &Selection,
) -> Result<(ListMetadata, Vec<Arc<Stored>>), ApiError> {
    let (store, info, resource) = (&call.api.store, call.target.info(), call.target.resource);
    // One object by name needs no range.
    if let Some(name) = selection.single_name()
        && (!info.namespaced || !call.target.namespace.is_empty())
        && options.limit == 0
        && !matches!(options.freshness(), Freshness::Exact(_))
    {
        let key = store.key(info, call.target.namespace, name);
        let (stored, revision) = store.storage().get(&key, options.freshness()).await.map_err(api_error)?;
        let items = stored.into_iter().filter(|stored| selection.matches(resource, stored)).collect();
        return Ok((ListMetadata { revision, ..ListMetadata::default() }, items));
    }

    let prefix = store.prefix(info, call.target.namespace);
    let start_after = options.continue_token.as_ref().map(|token| format!("{prefix}{}", token.last()));
    let query = ListQuery {
        prefix: &prefix,
        start_after: start_after.as_deref(),
        freshness: options.freshness(),
        limit: options.limit,
        selected: (!selection.is_everything()).then_some(Selected { resource, selection }),
    };
    let page = match store.storage().list(&query).await {
        Ok(page) => page,
        Err(StorageError::Compacted) => return Err(expired(options.continue_token.as_ref())?),
        Err(error) => return Err(api_error(error)),
    };
    let mut metadata = ListMetadata { revision: page.revision, ..ListMetadata::default() };
    if page.more
        && let Some(last) = page.items.last()
    {
        let last = last.key.strip_prefix(prefix.as_str()).unwrap_or(&last.key);
        metadata.continue_token = Some(ContinueToken::after(last, page.revision).encode()?);
        metadata.remaining = page.remaining;
    }
    Ok((metadata, page.items))
}

/// 410, with a token that continues from the present state if the client accepts an inconsistent list.
fn expired(token: Option<&ContinueToken>) -> Result<ApiError, ApiError> {
    let Some(token) = token else {
        return Ok(ApiError::expired("The resourceVersion for the provided list is too old."));
    };
    let error = ApiError::expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new list \
         without the continue parameter, or use the continue token in this response to retrieve the remainder of the \
         results. Continuing with the provided token results in an inconsistent list - objects that were created, \
         modified, or deleted between the time the first chunk was returned and now may show up in the list.",
    );
    let mut status = error.status().clone();
    status.metadata.continue_ = Some(ContinueToken::after(token.last(), -1).encode()?);
    Ok(ApiError::from_status(status))
}
