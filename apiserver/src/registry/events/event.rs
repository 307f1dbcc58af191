//! Events of events.k8s.io/v1: another view of the core group's events, which is the form they are stored in
//! (upstream `registry/core/event` under the `events.k8s.io` group).

use std::borrow::Cow;

use apimachinery::validation::ErrorList;
use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::events::v1::{Event, EventSeries};

use crate::registry::core::event::{COLUMNS, row, selectable, validate};
use crate::registry::{ResourceInfo, Strategy};
use crate::table::{Cell, Column};

/// The strategy of events in the events.k8s.io group.
#[derive(Debug)]
pub struct EventStrategy;

impl Strategy for EventStrategy {
    type Object = Event;

    fn info(&self) -> ResourceInfo {
        ResourceInfo {
            short_names: &["ev"],
            expires: true,
            converted: true,
            ..ResourceInfo::new("events.k8s.io", "v1", "Event", "events", "event", true)
        }
    }

    fn validate(&self, obj: &Event) -> ErrorList {
        let mut errors = validate(&to_core(obj.clone()), "reportingController");
        for error in &mut errors {
            // The core group's field names, in this group's words.
            error.field = match error.field.as_str() {
                "involvedObject.namespace" => "regarding.namespace".to_owned(),
                "message" => "note".to_owned(),
                _ => continue,
            };
        }
        errors
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &[
            "regarding.kind",
            "regarding.namespace",
            "regarding.name",
            "regarding.uid",
            "regarding.apiVersion",
            "regarding.resourceVersion",
            "regarding.fieldPath",
            "reason",
            "reportingController",
            "type",
        ]
    }

    fn field<'a>(&self, obj: &'a Event, field: &str) -> Cow<'a, str> {
        let name = match field.strip_prefix("regarding.") {
            Some(rest) => format!("involvedObject.{rest}"),
            None if field == "reportingController" => "reportingComponent".to_owned(),
            None => field.to_owned(),
        };
        Cow::Owned(selectable(&to_core(obj.clone()), &name).to_owned())
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, obj: &Event, now: Timestamp) -> Vec<Cell> {
        row(&to_core(obj.clone()), now)
    }

    fn decode_stored(&self, bytes: &[u8]) -> Result<Event, serde_json::Error> {
        serde_json::from_slice(bytes).map(from_core)
    }

    fn encode_stored(&self, obj: &Event, out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
        serde_json::to_writer(out, &to_core(obj.clone()))
    }
}

/// The stored form of an event.
fn to_core(event: Event) -> core::Event {
    core::Event {
        metadata: event.metadata,
        involved_object: event.regarding.unwrap_or_default(),
        reason: event.reason,
        message: event.note,
        source: event.deprecated_source,
        first_timestamp: event.deprecated_first_timestamp,
        last_timestamp: event.deprecated_last_timestamp,
        count: event.deprecated_count,
        type_: event.type_,
        event_time: event.event_time,
        series: event.series.map(|series| core::EventSeries {
            count: Some(series.count),
            last_observed_time: Some(series.last_observed_time),
        }),
        action: event.action,
        related: event.related,
        reporting_component: event.reporting_controller,
        reporting_instance: event.reporting_instance,
    }
}

/// The view of a stored event.
fn from_core(event: core::Event) -> Event {
    Event {
        metadata: event.metadata,
        regarding: Some(event.involved_object).filter(|object| *object != core::ObjectReference::default()),
        reason: event.reason,
        note: event.message,
        deprecated_source: event.source,
        deprecated_first_timestamp: event.first_timestamp,
        deprecated_last_timestamp: event.last_timestamp,
        deprecated_count: event.count,
        type_: event.type_,
        event_time: event.event_time,
        series: event.series.map(|series| EventSeries {
            count: series.count.unwrap_or(0),
            last_observed_time: series
                .last_observed_time
                .unwrap_or(k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime(Timestamp::UNIX_EPOCH)),
        }),
        action: event.action,
        related: event.related,
        reporting_controller: event.reporting_component,
        reporting_instance: event.reporting_instance,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn stored_as_the_core_group_has_it() {
        let event: Event = serde_json::from_value(json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e", "namespace": "n"},
            "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "c", "reportingInstance": "i",
            "action": "a", "reason": "r", "note": "text", "type": "Normal",
            "regarding": {"kind": "Pod", "name": "p", "namespace": "n"}}))
        .unwrap();
        let mut stored = Vec::new();
        EventStrategy.encode_stored(&event, &mut stored).unwrap();
        let value: Value = serde_json::from_slice(&stored).unwrap();
        assert_eq!(value["apiVersion"], "v1");
        assert_eq!(value["involvedObject"]["name"], "p");
        assert_eq!(value["message"], "text");
        assert_eq!(value["reportingComponent"], "c");
        assert_eq!(EventStrategy.decode_stored(&stored).unwrap(), event);
        assert_eq!(EventStrategy.field(&event, "regarding.name"), "p");
        assert_eq!(EventStrategy.validate(&event), vec![]);
    }
}
