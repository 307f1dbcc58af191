//! Objects as `meta.k8s.io/v1` Table.
//!
//! Upstream: `registry/rest/table.go` and `endpoints/handlers/response.go`.

use std::sync::Arc;

use apimachinery::status::ApiError;
use bytes::Bytes;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;

use super::respond::{ListMetadata, partial_metadata_of};
use crate::registry::{Object, Resource};
use crate::storage::Stored;
use crate::table::{Cell, Column};

/// What of each object goes with its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IncludeObject {
    None,
    #[default]
    Metadata,
    Object,
}

impl IncludeObject {
    pub fn parse(text: Option<&str>) -> Result<Self, ApiError> {
        match text {
            None | Some("" | "Metadata") => Ok(Self::Metadata),
            Some("None") => Ok(Self::None),
            Some("Object") => Ok(Self::Object),
            Some(other) => {
                Err(ApiError::bad_request(format!("unrecognized includeObject value: \"{other}\"")))
            }
        }
    }
}

#[derive(Serialize)]
struct ColumnDefinition<'a> {
    name: &'a str,
    r#type: &'a str,
    format: &'a str,
    description: &'a str,
    priority: i32,
}

#[derive(Serialize)]
struct Row {
    cells: Vec<Cell>,
    #[serde(skip_serializing_if = "Option::is_none")]
    object: Option<Box<RawValue>>,
}

fn definitions(columns: &'static [Column]) -> Vec<ColumnDefinition<'static>> {
    columns
        .iter()
        .map(|column| ColumnDefinition {
            name: column.name,
            r#type: column.r#type,
            format: column.format,
            description: column.description,
            priority: column.priority,
        })
        .collect()
}

fn row(
    resource: &dyn Resource,
    object: &dyn Object,
    include: IncludeObject,
    now: Timestamp,
) -> Result<Row, ApiError> {
    let raw = |json: Vec<u8>| -> Result<Box<RawValue>, ApiError> {
        let json = String::from_utf8(json).map_err(ApiError::internal)?;
        RawValue::from_string(json).map_err(ApiError::internal)
    };
    let shown = match include {
        IncludeObject::None => None,
        IncludeObject::Metadata => Some(raw(partial_metadata_of(object)?.to_vec())?),
        IncludeObject::Object => Some(raw(object.to_json().map_err(ApiError::internal)?)?),
    };
    Ok(Row { cells: resource.row(object, now), object: shown })
}

fn render(
    metadata: &ListMetadata,
    definitions: Option<Vec<ColumnDefinition<'static>>>,
    rows: &[Row],
) -> Result<Bytes, ApiError> {
    let definitions = serde_json::to_string(&definitions.unwrap_or_default()).map_err(ApiError::internal)?;
    let rows = serde_json::to_string(rows).map_err(ApiError::internal)?;
    Ok(Bytes::from(format!(
        "{{\"kind\":\"Table\",\"apiVersion\":\"meta.k8s.io/v1\",\"metadata\":{},\"columnDefinitions\":{definitions},\"rows\":{rows}}}\n",
        metadata.to_json()
    )))
}

fn revision(object: &dyn Object) -> i64 {
    object.meta().resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}

/// A table of one object.
pub fn of_one(resource: &dyn Resource, object: &dyn Object) -> Result<Bytes, ApiError> {
    of_event(resource, object, IncludeObject::Metadata, true)
}

/// A table of the object of a watch event; the first of a stream defines the columns.
pub fn of_event(
    resource: &dyn Resource,
    object: &dyn Object,
    include: IncludeObject,
    with_columns: bool,
) -> Result<Bytes, ApiError> {
    let rows = [row(resource, object, include, Timestamp::now())?];
    let metadata = ListMetadata { revision: revision(object), ..ListMetadata::default() };
    render(&metadata, with_columns.then(|| definitions(resource.columns())), &rows)
}

/// A table of a list.
pub fn of_list(
    resource: &dyn Resource,
    metadata: &ListMetadata,
    items: &[Arc<Stored>],
    include: IncludeObject,
) -> Result<Bytes, ApiError> {
    let now = Timestamp::now();
    let rows = items
        .iter()
        .map(|stored| {
            row(resource, &*crate::store::decode(resource, &stored.value, stored.revision)?, include, now)
        })
        .collect::<Result<Vec<_>, _>>()?;
    render(metadata, Some(definitions(resource.columns())), &rows)
}
