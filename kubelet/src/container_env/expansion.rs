//! `$(VAR)` in env values, commands and arguments: known variables are replaced, unknown ones stay, `$$` is a `$` that
//! starts nothing. Upstream's concept: `third_party/forked/golang/expansion`.

/// Expands the references in `text`. The result is not expanded again.
pub fn expand(text: &str, mut look_up: impl FnMut(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = after.strip_prefix('(').and_then(|r| r.split_once(')')) {
            match look_up(name) {
                Some(value) => out.push_str(&value),
                None => {
                    out.push_str("$(");
                    out.push_str(name);
                    out.push(')');
                }
            }
            rest = after;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::expand;

    #[test]
    fn table() {
        let vars = |name: &str| match name {
            "A" => Some("a".to_owned()),
            "B" => Some("$(A)".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        for (text, expected) in [
            ("$(A)", "a"),
            ("$(A)-$(A)", "a-a"),
            ("$(B)", "$(A)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$a"),
            ("$$$$(A)", "$$(A)"),
            ("$(NONE)", "$(NONE)"),
            ("x$(EMPTY)y", "xy"),
            ("$(A", "$(A"),
            ("$A $", "$A $"),
            ("$()", "$()"),
            ("é$(A)é", "éaé"),
            ("$é", "$é"),
        ] {
            assert_eq!(expand(text, vars), expected, "{text}");
        }
    }
}
