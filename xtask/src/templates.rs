//! Fills in `${NAME}` in the files of `manifests/`. A placeholder without a value is an error, never an empty string.

use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::path::Path;

/// The values of the placeholders.
pub(crate) type Values = BTreeMap<&'static str, String>;

/// Reads a template and fills it in.
pub(crate) fn render_file(path: &Path, values: &Values) -> Result<String> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    render(&text, values).with_context(|| format!("in {}", path.display()))
}

fn render(text: &str, values: &Values) -> Result<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        out.push_str(&rest[..start]);
        let after = &rest[start + 2..];
        let end = after.find('}').context("a `${` without its `}`")?;
        let name = &after[..end];
        let Some(value) = values.get(name) else { bail!("no value for the placeholder ${{{name}}}") };
        out.push_str(value);
        rest = &after[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_filled_or_refused() {
        let values = Values::from([("NODE_NAME", "n1".to_owned())]);
        assert_eq!(render("a: ${NODE_NAME}-$x", &values).unwrap(), "a: n1-$x");
        assert!(render("${OTHER}", &values).unwrap_err().to_string().contains("${OTHER}"));
        assert!(render("${NODE_NAME", &values).is_err());
    }
}
