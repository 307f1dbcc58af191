//! PriorityClasses (upstream `registry/scheduling/priorityclass`).

use apimachinery::validation::{Error, ErrorList, Path};
use jiff::Timestamp;
use k8s_openapi::api::scheduling::v1::PriorityClass;

use crate::registry::core::pod::defaults::set_if_empty;
use crate::registry::object_meta::{immutable, set_generation};
use crate::registry::{ResourceInfo, Strategy, cells};
use crate::request::RequestContext;
use crate::table::{self, AGE, Cell, Column, NAME};

const HIGHEST_USER_PRIORITY: i32 = 1_000_000_000;
/// The two classes that only the system may define, and their values.
pub(crate) const SYSTEM_CLASSES: &[(&str, i32)] =
    &[("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];

/// The strategy of priorityclasses.
#[derive(Debug)]
pub struct PriorityClassStrategy;

impl Strategy for PriorityClassStrategy {
    type Object = PriorityClass;

    fn info(&self) -> ResourceInfo {
        ResourceInfo {
            short_names: &["pc"],
            ..ResourceInfo::new(
                "scheduling.k8s.io",
                "v1",
                "PriorityClass",
                "priorityclasses",
                "priorityclass",
                false,
            )
        }
    }

    fn default(&self, obj: &mut PriorityClass) {
        set_if_empty(&mut obj.preemption_policy, "PreemptLowerPriority");
        obj.value.get_or_insert(0);
    }

    fn prepare_for_create(&self, _ctx: &RequestContext, obj: &mut PriorityClass) {
        obj.metadata.generation = Some(1);
    }

    fn validate(&self, obj: &PriorityClass) -> ErrorList {
        let mut errors = ErrorList::new();
        let name = obj.metadata.name.as_deref().unwrap_or_default();
        if name.starts_with("system-") {
            if let Err(problem) = known_system_class(obj, name) {
                let detail = format!(
                    "priority class names with 'system-' prefix are reserved for system use only. error: {problem}"
                );
                errors.push(Error::forbidden(&Path::new("metadata").child("name"), detail));
            }
        } else if obj.value.unwrap_or(0) > HIGHEST_USER_PRIORITY {
            let detail =
                format!("maximum allowed value of a user defined priority is {HIGHEST_USER_PRIORITY}");
            errors.push(Error::forbidden(&Path::new("value"), detail));
        }
        let policy = obj.preemption_policy.as_deref().unwrap_or_default();
        let all = ["Never", "PreemptLowerPriority"];
        if policy.is_empty() {
            errors.push(Error::required(&Path::new("preemptionPolicy"), ""));
        } else if !all.contains(&policy) {
            errors.push(Error::not_supported(&Path::new("preemptionPolicy"), policy, &all));
        }
        errors
    }

    fn prepare_for_update(&self, _ctx: &RequestContext, new: &mut PriorityClass, old: &PriorityClass) {
        set_generation(&mut new.metadata, &old.metadata, false);
    }

    fn validate_update(&self, new: &PriorityClass, old: &PriorityClass) -> ErrorList {
        let mut errors = ErrorList::new();
        if new.value != old.value {
            errors.push(Error::forbidden(&Path::new("value"), "may not be changed in an update."));
        }
        if new.preemption_policy != old.preemption_policy {
            errors.push(immutable(&new.preemption_policy, &Path::new("preemptionPolicy")));
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            Column::integer("Value", "Priority that pods of the class get."),
            Column {
                name: "Global-Default",
                r#type: "boolean",
                format: "",
                description: "Whether pods that name no class get this one.",
                priority: 0,
            },
            AGE,
            Column::string("PreemptionPolicy", "Whether pods of the class may push others out."),
        ];
        COLUMNS
    }

    fn row(&self, obj: &PriorityClass, now: Timestamp) -> Vec<Cell> {
        vec![
            cells::name(&obj.metadata),
            Cell::from(obj.value.unwrap_or(0)),
            Cell::from(obj.global_default == Some(true)),
            table::age(obj.metadata.creation_timestamp.as_ref(), now),
            Cell::from(obj.preemption_policy.as_deref().unwrap_or_default()),
        ]
    }
}

fn known_system_class(obj: &PriorityClass, name: &str) -> Result<(), String> {
    let Some((_, value)) = SYSTEM_CLASSES.iter().find(|(known, _)| *known == name) else {
        return Err(format!("{name} is not a known system priority class"));
    };
    if obj.value != Some(*value) {
        return Err(format!("value of {name} PriorityClass must be {value}"));
    }
    if obj.global_default == Some(true) {
        return Err(format!("globalDefault of {name} PriorityClass must be false"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn system_names_are_reserved() {
        for (name, value, want) in [
            ("mine", 1_000_000_000, vec![]),
            (
                "mine",
                1_000_000_001,
                vec!["value: Forbidden: maximum allowed value of a user defined priority is 1000000000"],
            ),
            ("system-node-critical", 2_000_001_000, vec![]),
            (
                "system-x",
                5,
                vec![
                    "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: system-x is not a known system priority class",
                ],
            ),
        ] {
            let mut obj: PriorityClass =
                serde_json::from_value(json!({"metadata": {"name": name}, "value": value})).unwrap();
            PriorityClassStrategy.default(&mut obj);
            let texts: Vec<String> =
                PriorityClassStrategy.validate(&obj).iter().map(ToString::to_string).collect();
            assert_eq!(texts, want);
        }
    }
}
