//! DELETE of one object or of a collection.
//!
//! Upstream: `endpoints/handlers/delete.go`.

use apimachinery::status::ApiError;
use futures::{StreamExt, TryStreamExt, stream};
use http::{Response, StatusCode};
use hyper::body::Incoming;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, Preconditions, Status, StatusDetails};

use super::options::{self, ListOptions};
use super::{Call, list, negotiation, read_body, respond};
use crate::body::Body;
use crate::selection::Selection;
use crate::storage::Stored;
use crate::store::{Deleted, Target};

/// Deletes in flight for one collection.
const CONCURRENCY: usize = 8;

/// Resources whose delete answers with the object even when it is gone at once; others answer with a Status.
const RETURNS_OBJECT: &[&str] = &[
    "pods",
    "services",
    "serviceaccounts",
    "persistentvolumeclaims",
    "persistentvolumes",
    "podtemplates",
    "resourcequotas",
];

async fn delete_options(call: Call<'_>, body: Incoming) -> Result<DeleteOptions, ApiError> {
    let body = read_body::read(body).await?;
    let body = if body.is_empty() { body } else { read_body::to_json(call.headers, body)? };
    options::delete_options(call.query, &body)
}

pub async fn delete(call: Call<'_>, body: Incoming) -> Result<Response<Body>, ApiError> {
    let accepted = negotiation::accept(call.headers)?;
    let options = delete_options(call, body).await?;
    let deleted = call.api.store.delete(call.ctx, call.target, &options).await?;
    let info = call.target.info();
    match deleted {
        Deleted::Gone(saved) if info.group.is_empty() && RETURNS_OBJECT.contains(&info.plural) => {
            respond::saved(call.target.resource, accepted, StatusCode::OK, saved)
        }
        Deleted::Gone(saved) => {
            let status = Status {
                status: Some("Success".to_owned()),
                details: Some(StatusDetails {
                    name: Some(call.target.name.to_owned()),
                    group: (!info.group.is_empty()).then(|| info.group.to_owned()),
                    kind: Some(info.plural.to_owned()),
                    uid: saved.object.meta().uid.clone(),
                    ..StatusDetails::default()
                }),
                ..Status::default()
            };
            respond::value(StatusCode::OK, accepted.format, &status)
        }
        Deleted::Pending(saved) => {
            let foreground = options.propagation_policy.as_deref() == Some("Foreground");
            let accepted_only = foreground || options.orphan_dependents == Some(false);
            let status = if accepted_only { StatusCode::ACCEPTED } else { StatusCode::OK };
            respond::saved(call.target.resource, accepted, status, saved)
        }
    }
}

/// Deletes what the selectors show, a few at a time; answers with the list as it was.
pub async fn delete_collection(call: Call<'_>, body: Incoming) -> Result<Response<Body>, ApiError> {
    let accepted = negotiation::accept(call.headers)?;
    let options = delete_options(call, body).await?;
    let list_options = ListOptions::parse(call.query, false)?;
    let selection = Selection::parse(call.target.resource, call.query)?;
    let (metadata, items) = list::collect(call, &list_options, &selection).await?;
    let deletes = items.iter().map(|stored| delete_one(call, stored, &options));
    stream::iter(deletes.collect::<Vec<_>>()).buffer_unordered(CONCURRENCY).try_collect::<Vec<()>>().await?;
    if accepted.shape == negotiation::Shape::Table {
        let body = super::table::of_list(
            call.target.resource,
            &metadata,
            &items,
            super::table::IncludeObject::Metadata,
        )?;
        return respond::json(StatusCode::OK, accepted.format, body);
    }
    respond::list(call.target.resource, accepted, &metadata, items)
}

async fn delete_one(call: Call<'_>, stored: &Stored, options: &DeleteOptions) -> Result<(), ApiError> {
    let object = crate::store::decode(call.target.resource, &stored.value, stored.revision)?;
    let namespace = if call.target.info().namespaced { stored.namespace() } else { "" };
    let target = Target { namespace, name: stored.name(), ..call.target };
    // The object that was listed, not a namesake made since.
    let preconditions = Preconditions { uid: object.meta().uid.clone(), resource_version: None };
    let options = DeleteOptions {
        preconditions: Some(options.preconditions.clone().unwrap_or(preconditions)),
        ..options.clone()
    };
    match call.api.store.delete(call.ctx, target, &options).await {
        Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Ok(()),
    }
}
