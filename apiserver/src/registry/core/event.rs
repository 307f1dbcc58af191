//! Events of the core group (upstream `registry/core/event`). The same objects are served by `events.k8s.io`
//! in another shape, see `registry/events/event.rs`; what both share is here.

use std::borrow::Cow;

use apimachinery::validation::names::is_qualified_name;
use apimachinery::validation::{Error, ErrorList, Path};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;

use crate::registry::{ResourceInfo, Strategy};
use crate::table::{self, Cell, Column};

const REPORTING_INSTANCE_LIMIT: usize = 128;
const ACTION_LIMIT: usize = 128;
const REASON_LIMIT: usize = 128;
const NOTE_LIMIT: usize = 1024;

/// The columns of both kinds of events.
pub(crate) const COLUMNS: &[Column] = &[
    Column::string("Last Seen", "When the event was last seen."),
    Column::string("Type", "Normal or Warning; more may come."),
    Column::string("Reason", "Why the action was taken, as one word."),
    Column::string("Object", "What the event is about."),
    Column::string("Subobject", "The part of the object that the event is about.").wide(),
    Column::string("Source", "The component that reports the event.").wide(),
    Column::string("Message", "What happened, for people."),
    Column::string("First Seen", "When the event was first seen.").wide(),
    Column::string("Count", "How often the event was seen.").wide(),
    Column::string("Name", "Name of the event object.").wide(),
];

/// The strategy of core events.
#[derive(Debug)]
pub struct EventStrategy;

impl Strategy for EventStrategy {
    type Object = Event;

    fn info(&self) -> ResourceInfo {
        ResourceInfo {
            short_names: &["ev"],
            expires: true,
            ..ResourceInfo::new("", "v1", "Event", "events", "event", true)
        }
    }

    fn validate(&self, obj: &Event) -> ErrorList {
        validate(obj, "reportingComponent")
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "type",
            // Last: events.k8s.io, which shares what is stored, has all but this one, in the same order.
            "source",
        ]
    }

    fn field<'a>(&self, obj: &'a Event, field: &str) -> Cow<'a, str> {
        Cow::Borrowed(selectable(obj, field))
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, obj: &Event, now: Timestamp) -> Vec<Cell> {
        row(obj, now)
    }
}

/// The value of a selectable field, by its name in the core group.
pub(crate) fn selectable<'a>(obj: &'a Event, field: &str) -> &'a str {
    let object = &obj.involved_object;
    let value = match field {
        "involvedObject.kind" => object.kind.as_deref(),
        "involvedObject.namespace" => object.namespace.as_deref(),
        "involvedObject.name" => object.name.as_deref(),
        "involvedObject.uid" => object.uid.as_deref(),
        "involvedObject.apiVersion" => object.api_version.as_deref(),
        "involvedObject.resourceVersion" => object.resource_version.as_deref(),
        "involvedObject.fieldPath" => object.field_path.as_deref(),
        "reason" => obj.reason.as_deref(),
        "reportingComponent" => obj.reporting_component.as_deref(),
        "source" => obj
            .source
            .as_ref()
            .and_then(|s| s.component.as_deref())
            .filter(|c| !c.is_empty())
            .or(obj.reporting_component.as_deref()),
        "type" => obj.type_.as_deref(),
        _ => None,
    };
    value.unwrap_or_default()
}

/// The cells of [`COLUMNS`].
pub(crate) fn row(obj: &Event, now: Timestamp) -> Vec<Cell> {
    let age = |at: Option<Timestamp>| {
        let text = at.map(|at| table::human_duration(now.as_second() - at.as_second()));
        text.unwrap_or_else(|| "<unknown>".to_owned())
    };
    let first = obj.first_timestamp.as_ref().map(|t| t.0).or(obj.event_time.as_ref().map(|t| t.0));
    let mut last = obj.last_timestamp.as_ref().map(|t| t.0).or(first);
    let mut count = obj.count.filter(|c| *c != 0).unwrap_or(1);
    if let Some(series) = &obj.series {
        last = series.last_observed_time.as_ref().map(|t| t.0);
        count = series.count.unwrap_or(0);
    }
    let kind = obj.involved_object.kind.as_deref().unwrap_or_default().to_lowercase();
    let object = match obj.involved_object.name.as_deref() {
        Some(name) if !name.is_empty() => format!("{kind}/{name}"),
        _ => kind,
    };
    let text = |value: Option<&str>| Cell::from(value.unwrap_or_default());
    vec![
        Cell::from(age(last)),
        text(obj.type_.as_deref()),
        text(obj.reason.as_deref()),
        Cell::from(object),
        text(obj.involved_object.field_path.as_deref()),
        Cell::from(source(obj)),
        Cell::from(obj.message.as_deref().unwrap_or_default().trim()),
        Cell::from(age(first)),
        Cell::from(count),
        text(obj.metadata.name.as_deref()),
    ]
}

fn source(obj: &Event) -> String {
    let given = |value: Option<&String>| value.filter(|v| !v.is_empty()).cloned();
    let source = obj.source.as_ref();
    let component =
        given(source.and_then(|s| s.component.as_ref())).or(given(obj.reporting_component.as_ref()));
    let host = given(source.and_then(|s| s.host.as_ref())).or(given(obj.reporting_instance.as_ref()));
    let component = component.unwrap_or_default();
    match host {
        Some(host) => format!("{component}, {host}"),
        None => component,
    }
}

/// Validates an event; `controller` is what the version calls the reporting controller.
/// Events without eventTime come from older clients, of which less is asked.
pub(crate) fn validate(obj: &Event, controller: &str) -> ErrorList {
    let mut errors = ErrorList::new();
    let namespace = obj.metadata.namespace.as_deref().unwrap_or_default();
    let involved = obj.involved_object.namespace.as_deref().unwrap_or_default();
    let fits = if involved.is_empty() {
        // Events about cluster-scoped objects live in `default`.
        matches!(namespace, "" | "default" | "kube-system")
    } else {
        namespace == involved
    };
    if !fits {
        let path = Path::new("involvedObject").child("namespace");
        errors.push(Error::invalid(&path, involved, "does not match event.namespace"));
    }
    if obj.event_time.is_none() {
        return errors;
    }
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let reporting = text(&obj.reporting_component);
    if reporting.is_empty() {
        errors.push(Error::required(&Path::new(controller), ""));
    } else {
        for problem in is_qualified_name(&reporting) {
            errors.push(Error::invalid(&Path::new(controller), &reporting, problem));
        }
    }
    for (field, value, limit) in [
        ("reportingInstance", text(&obj.reporting_instance), REPORTING_INSTANCE_LIMIT),
        ("action", text(&obj.action), ACTION_LIMIT),
        ("reason", text(&obj.reason), REASON_LIMIT),
    ] {
        if value.is_empty() {
            errors.push(Error::required(&Path::new(field), ""));
        }
        if value.len() > limit {
            errors.push(Error::invalid(
                &Path::new(field),
                "",
                format!("can have at most {limit} characters"),
            ));
        }
    }
    if text(&obj.message).len() > NOTE_LIMIT {
        let detail = format!("can have at most {NOTE_LIMIT} characters");
        errors.push(Error::invalid(&Path::new("message"), "", detail));
    }
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rows_of_old_and_new_events() {
        let now: Timestamp = "2026-01-01T00:10:00Z".parse().unwrap();
        let old: Event = serde_json::from_value(json!({
            "metadata": {"name": "e"}, "type": "Normal", "reason": "Pulled", "message": " done ",
            "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "spec.containers{c}"},
            "source": {"component": "kubelet", "host": "n1"}, "count": 4,
            "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:09:30Z"}))
        .unwrap();
        let want = json!([
            "30s",
            "Normal",
            "Pulled",
            "pod/p",
            "spec.containers{c}",
            "kubelet, n1",
            "done",
            "10m",
            4,
            "e"
        ]);
        assert_eq!(json!(row(&old, now)), want);
        let new: Event = serde_json::from_value(json!({
            "metadata": {"name": "e"}, "involvedObject": {"kind": "Node"}, "reportingComponent": "s",
            "eventTime": "2026-01-01T00:00:00.000000Z",
            "series": {"count": 2, "lastObservedTime": "2026-01-01T00:08:00.000000Z"}}))
        .unwrap();
        assert_eq!(json!(row(&new, now)), json!(["2m", "", "", "node", "", "s", "", "10m", 2, "e"]));
    }

    #[test]
    fn namespaces_must_agree() {
        for (namespace, involved, good) in
            [("a", "a", true), ("default", "", true), ("a", "", false), ("a", "b", false)]
        {
            let event: Event = serde_json::from_value(json!({
                "metadata": {"namespace": namespace}, "involvedObject": {"namespace": involved}}))
            .unwrap();
            assert_eq!(validate(&event, "reportingComponent").is_empty(), good, "{namespace} {involved}");
        }
    }
}
