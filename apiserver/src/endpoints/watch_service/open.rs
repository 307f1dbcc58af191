//! From an Open to a place in storage, by the rules of the HTTP watch: who may, what there is, which objects, since when.

use std::collections::VecDeque;
use std::sync::Arc;

use apimachinery::status::ApiError;
use http::HeaderMap;
use proto::watch_v1::{Open, Representation};

use super::Caller;
use crate::authz::Attributes;
use crate::endpoints::options::ListOptions;
use crate::endpoints::watch::{Renderer, watch_error};
use crate::endpoints::{Call, list, negotiation};
use crate::pipeline;
use crate::registry::Resource;
use crate::request::{Query, RequestInfo, selected_name};
use crate::selection::Selection;
use crate::storage::{Stored, Watch};
use crate::store::Target;

/// Where a watch stands in storage, before anything has been told.
pub(super) struct Opened {
    pub(super) watch: Watch,
    pub(super) renderer: Renderer,
    /// The state to begin with, if that was asked for.
    pub(super) initial: Option<VecDeque<Arc<Stored>>>,
    /// The changes after this are told.
    pub(super) after: i64,
}

fn text(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// The HTTP request that an Open stands for.
pub(super) fn request_info(caller: &Caller, open: &Open) -> RequestInfo {
    RequestInfo {
        path: caller.ctx.info.path.clone(),
        is_resource: true,
        verb: "watch".to_owned(),
        group: open.group.clone(),
        version: open.version.clone(),
        namespace: open.namespace.clone(),
        resource: open.resource.clone(),
        name: selected_name(&open.field_selector).unwrap_or_default().to_owned(),
        label_selector: text(&open.label_selector),
        field_selector: text(&open.field_selector),
        ..RequestInfo::default()
    }
}

/// Opens a watch, unless it may not be.
pub(super) async fn open(caller: &Caller, info: &RequestInfo, open: &Open) -> Result<Opened, ApiError> {
    let from_state = open.resource_version == 0;
    authorize(caller, info, from_state).await?;
    let (api, ctx) = (&caller.api, &caller.ctx);
    let resource = resource(caller, info)?;
    if open.representation != i32::from(Representation::Json) {
        return Err(ApiError::not_acceptable(&[negotiation::JSON]));
    }
    if open.resource_version < 0 {
        return Err(ApiError::bad_request(format!("invalid resource version {}", open.resource_version)));
    }
    let selection =
        Selection::of(&*resource, info.label_selector.as_deref(), info.field_selector.as_deref())?;
    let (after, initial) = if from_state {
        let (query, headers) = (Query::default(), HeaderMap::new());
        let target = Target { resource: &*resource, namespace: &info.namespace, name: "" };
        let call = Call { api, ctx, query: &query, headers: &headers, target };
        let (metadata, items) = list::collect(call, &ListOptions::parse(&query, false)?, &selection).await?;
        (metadata.revision, Some(items.into()))
    } else {
        (open.resource_version, None)
    };
    let interest = api.store.interest(resource.info(), &info.namespace, selection)?;
    // Opened now, so that the initial state may be sent at leisure: the watch keeps its place meanwhile.
    let watch = api.store.storage().watch(&interest, after).await.map_err(watch_error)?;
    Ok(Opened { watch, renderer: Renderer::of_objects(resource), initial, after })
}

/// A watch that begins with the state is a list, too.
async fn authorize(caller: &Caller, info: &RequestInfo, from_state: bool) -> Result<(), ApiError> {
    let attributes = Attributes::of(&caller.ctx.user, info);
    pipeline::allowed(&caller.api, attributes).await?;
    if from_state {
        pipeline::allowed(&caller.api, Attributes { verb: "list", ..attributes }).await?;
    }
    Ok(())
}

fn resource(caller: &Caller, info: &RequestInfo) -> Result<Arc<dyn Resource>, ApiError> {
    let all = caller.api.store.resources();
    let found = all.get(&info.group, &info.version, &info.resource).map(Resource::info);
    let known = found.filter(|known| known.namespaced || info.namespace.is_empty());
    let known = known.ok_or_else(ApiError::path_not_found)?;
    if !known.verbs.contains(&"watch") {
        return Err(ApiError::method_not_allowed());
    }
    all.shared_of(known)
}
