//! The conditions that tell how far the deletion of a namespace has come. Pure. Upstream:
//! pkg/controller/namespace/deletion/status_condition_utils.go.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{NamespaceCondition, NamespaceStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// What one pass over the contents found.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Findings {
    /// Errors of discovery.
    pub discovery_errors: Vec<String>,
    /// Errors of listing and deleting.
    pub deletion_errors: Vec<String>,
    /// Objects left, by `resource.group`.
    pub remaining: BTreeMap<String, usize>,
    /// Finalizers of what is left, and how many objects have each.
    pub finalizers: BTreeMap<String, usize>,
    /// Seconds until it is worth looking again, if something is going away by itself.
    pub estimate_seconds: i64,
}

impl Findings {
    /// Nothing is left and nothing went wrong.
    pub fn is_empty(&self) -> bool {
        self.discovery_errors.is_empty() && self.deletion_errors.is_empty() && self.remaining.is_empty()
    }
}

/// Brings the status's deletion conditions up to date; whether anything changed.
pub fn update(status: &mut NamespaceStatus, findings: &Findings, now: Timestamp) -> bool {
    let mut changed = false;
    for condition in wanted(findings, now) {
        let conditions = status.conditions.get_or_insert_default();
        match conditions.iter_mut().find(|current| current.type_ == condition.type_) {
            Some(current)
                if current.status == condition.status
                    && current.reason == condition.reason
                    && current.message == condition.message => {}
            Some(current) => {
                *current = condition;
                changed = true;
            }
            None => {
                conditions.push(condition);
                changed = true;
            }
        }
    }
    changed
}

fn wanted(findings: &Findings, now: Timestamp) -> Vec<NamespaceCondition> {
    let condition = |type_: &str, bad: bool, reason: (&str, &str), message: String| NamespaceCondition {
        type_: type_.to_owned(),
        status: if bad { "True" } else { "False" }.to_owned(),
        reason: Some(if bad { reason.1 } else { reason.0 }.to_owned()),
        message: Some(message),
        last_transition_time: Some(Time(now)),
    };
    let discovery_failed = !findings.discovery_errors.is_empty();
    let deletion_failed = !findings.deletion_errors.is_empty();
    let remaining = !findings.remaining.is_empty();
    let finalizers = !findings.finalizers.is_empty();
    let describe = |counts: &BTreeMap<String, usize>, verb: &str| {
        counts
            .iter()
            .map(|(name, count)| format!("{name} {verb} {count} resource instances"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    vec![
        condition(
            "NamespaceDeletionDiscoveryFailure",
            discovery_failed,
            ("ResourcesDiscovered", "DiscoveryFailed"),
            if discovery_failed {
                format!(
                    "Discovery failed for some groups, {} failing: {}",
                    findings.discovery_errors.len(),
                    findings.discovery_errors.join(", ")
                )
            } else {
                "All resources successfully discovered".to_owned()
            },
        ),
        condition(
            "NamespaceDeletionGroupVersionParsingFailure",
            false,
            ("ParsedGroupVersions", "GroupVersionParsingFailed"),
            "All legacy kube types successfully parsed".to_owned(),
        ),
        condition(
            "NamespaceDeletionContentFailure",
            deletion_failed,
            ("ContentDeleted", "ContentDeletionFailed"),
            if deletion_failed {
                format!(
                    "Failed to delete all resource types, {} remaining: {}",
                    findings.deletion_errors.len(),
                    findings.deletion_errors.join(", ")
                )
            } else {
                "All content successfully deleted, may be waiting on finalization".to_owned()
            },
        ),
        condition(
            "NamespaceContentRemaining",
            remaining,
            ("ContentRemoved", "SomeResourcesRemain"),
            if remaining {
                format!("Some resources are remaining: {}", describe(&findings.remaining, "has"))
            } else {
                "All content successfully removed".to_owned()
            },
        ),
        condition(
            "NamespaceFinalizersRemaining",
            finalizers,
            ("ContentHasNoFinalizers", "SomeFinalizersRemain"),
            if finalizers {
                format!(
                    "Some content in the namespace has finalizers remaining: {}",
                    describe(&findings.finalizers, "in")
                )
            } else {
                "All content-preserving finalizers finished".to_owned()
            },
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::at;

    fn summary(status: &NamespaceStatus) -> Vec<(String, String, String)> {
        let conditions = status.conditions.iter().flatten();
        conditions
            .map(|c| (c.status.clone(), c.reason.clone().unwrap(), c.message.clone().unwrap()))
            .collect()
    }

    #[test]
    fn all_five_conditions_are_told() {
        let mut status = NamespaceStatus::default();
        let findings = Findings {
            remaining: [("pods.".to_owned(), 2)].into(),
            finalizers: [("example.com/hold".to_owned(), 1)].into(),
            ..Findings::default()
        };
        assert!(update(&mut status, &findings, at(1)));
        let told = summary(&status);
        assert_eq!(told.len(), 5);
        assert!(told.contains(&(
            "True".into(),
            "SomeResourcesRemain".into(),
            "Some resources are remaining: pods. has 2 resource instances".into()
        )));
        assert!(told.contains(&(
            "True".into(),
            "SomeFinalizersRemain".into(),
            "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances".into()
        )));
        assert!(!update(&mut status, &findings, at(2)), "the same findings change nothing");
        assert!(update(&mut status, &Findings::default(), at(3)));
        assert!(summary(&status).iter().all(|(status, ..)| status == "False"));
    }

    #[test]
    fn errors_are_told() {
        let mut status = NamespaceStatus::default();
        let findings = Findings {
            discovery_errors: vec!["metrics.k8s.io/v1".into()],
            deletion_errors: vec!["widgets.example.com: forbidden".into()],
            ..Findings::default()
        };
        assert!(!findings.is_empty());
        update(&mut status, &findings, at(1));
        let reasons: Vec<_> = summary(&status).into_iter().filter(|c| c.0 == "True").map(|c| c.1).collect();
        assert_eq!(reasons, ["DiscoveryFailed", "ContentDeletionFailed"]);
    }
}
