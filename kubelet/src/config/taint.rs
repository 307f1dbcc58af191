//! `key=value:effect` as `--register-with-taints` takes it. Upstream's concept: `pkg/util/taints`.

use k8s_openapi::api::core::v1::Taint;

/// One taint.
pub(super) fn parse(text: &str) -> Result<Taint, String> {
    let (left, effect) = text.split_once(':').ok_or_else(|| format!("invalid taint spec: {text}"))?;
    let (key, value) = left.split_once('=').unwrap_or((left, ""));
    let names = apimachinery::validation::names::is_qualified_name(key);
    if let Some(problem) = names.first() {
        return Err(format!("invalid taint spec: {text}, {problem}"));
    }
    if let Some(problem) = apimachinery::validation::names::is_valid_label_value(value).first() {
        return Err(format!("invalid taint spec: {text}, {problem}"));
    }
    if !matches!(effect, "NoSchedule" | "PreferNoSchedule" | "NoExecute") {
        return Err(format!("invalid taint effect: {effect}, unsupported taint effect"));
    }
    let value = (!value.is_empty()).then(|| value.to_owned());
    Ok(Taint { key: key.to_owned(), value, effect: effect.to_owned(), time_added: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taints_are_parsed() {
        let taint = parse("node-role.kubernetes.io/control-plane:NoSchedule").unwrap();
        assert_eq!(
            (taint.key.as_str(), taint.value, taint.effect.as_str()),
            ("node-role.kubernetes.io/control-plane", None, "NoSchedule")
        );
        assert_eq!(parse("a=b:NoExecute").unwrap().value.as_deref(), Some("b"));
        for bad in ["a", "a:b", "=b:NoSchedule", "a=b=c:NoSchedule"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
