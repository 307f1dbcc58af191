//! Taints and tolerations.
//!
//! Upstream: `k8s.io/component-helpers/scheduling/corev1`.

use k8s_openapi::api::core::v1::{Taint, Toleration};

/// `NoSchedule`.
pub const NO_SCHEDULE: &str = "NoSchedule";
/// `PreferNoSchedule`.
pub const PREFER_NO_SCHEDULE: &str = "PreferNoSchedule";
/// `NoExecute`.
pub const NO_EXECUTE: &str = "NoExecute";

/// Whether one toleration tolerates one taint.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |v: &Option<String>| v.clone().unwrap_or_default();
    let effect = text(&toleration.effect);
    if !effect.is_empty() && effect != taint.effect {
        return false;
    }
    let key = text(&toleration.key);
    if !key.is_empty() && key != taint.key {
        return false;
    }
    let (have, want) = (text(&toleration.value), text(&taint.value));
    match toleration.operator.as_deref().unwrap_or_default() {
        // An empty key with the operator Exists tolerates everything.
        "" | "Equal" => !key.is_empty() && have == want,
        "Exists" => true,
        // KEP-5471: numeric comparison.
        "Gt" => compare(&want, &have).is_some_and(|(taint, tolerated)| taint > tolerated),
        "Lt" => compare(&want, &have).is_some_and(|(taint, tolerated)| taint < tolerated),
        _ => false,
    }
}

fn compare(taint: &str, toleration: &str) -> Option<(i64, i64)> {
    Some((taint.parse().ok()?, toleration.parse().ok()?))
}

/// The first taint of those `wanted` that no toleration tolerates.
pub fn find_untolerated<'a>(
    taints: &'a [Taint],
    tolerations: &[Toleration],
    wanted: impl Fn(&Taint) -> bool,
) -> Option<&'a Taint> {
    taints.iter().filter(|t| wanted(t)).find(|taint| !tolerations.iter().any(|t| tolerates(t, taint)))
}

/// The first taint that keeps a pod off a node: `NoSchedule` or `NoExecute`, not tolerated.
pub fn find_unschedulable<'a>(taints: &'a [Taint], tolerations: &[Toleration]) -> Option<&'a Taint> {
    find_untolerated(taints, tolerations, |t| t.effect == NO_SCHEDULE || t.effect == NO_EXECUTE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toleration(key: &str, operator: &str, value: &str, effect: &str) -> Toleration {
        let some = |s: &str| (!s.is_empty()).then(|| s.to_owned());
        Toleration {
            key: some(key),
            operator: some(operator),
            value: some(value),
            effect: some(effect),
            toleration_seconds: None,
        }
    }

    #[test]
    fn tolerations_match_as_upstream() {
        let taint =
            Taint { key: "k".into(), value: Some("v".into()), effect: NO_SCHEDULE.into(), time_added: None };
        for (t, want) in [
            (toleration("k", "Equal", "v", ""), true),
            (toleration("k", "", "v", NO_SCHEDULE), true),
            (toleration("k", "Equal", "w", ""), false),
            (toleration("k", "Exists", "", ""), true),
            (toleration("k", "Exists", "", NO_EXECUTE), false),
            (toleration("", "Exists", "", ""), true),
            (toleration("j", "Exists", "", ""), false),
            (toleration("k", "Bogus", "v", ""), false),
        ] {
            assert_eq!(tolerates(&t, &taint), want, "{t:?}");
        }
        let taints = [taint];
        assert!(find_unschedulable(&taints, &[]).is_some());
        assert!(find_unschedulable(&taints, &[toleration("", "Exists", "", "")]).is_none());
    }
}
