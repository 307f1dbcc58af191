//! Field selectors: `fieldSelector=spec.nodeName=a,status.phase!=Failed`.
//!
//! Upstream: `k8s.io/apimachinery/pkg/fields`. Which fields a resource offers is the resource's own matter.

use std::fmt;

/// One term of a field selector.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Requirement {
    /// Path of the field, such as `metadata.name`.
    pub field: String,
    /// True for `=` and `==`, false for `!=`.
    pub equals: bool,
    /// The value compared with, unescaped.
    pub value: String,
}

/// Why a field selector is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid selector: '{selector}'; can't understand '{term}'")]
pub struct Error {
    selector: String,
    term: String,
}

/// A conjunction of terms; without any it matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Selector {
    requirements: Vec<Requirement>,
}

impl Selector {
    /// Matches every object.
    pub fn everything() -> Self {
        Self::default()
    }

    /// A selector of one equality.
    pub fn one_term_equal(field: &str, value: &str) -> Self {
        Self {
            requirements: vec![Requirement {
                field: field.to_owned(),
                equals: true,
                value: value.to_owned(),
            }],
        }
    }

    /// Parses `a=b,c==d,e!=f`; `\,`, `\=` and `\\` stand for the characters themselves.
    ///
    /// # Errors
    /// A term without an operator, or an escape that means nothing.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut requirements = Vec::new();
        for term in split_terms(text) {
            if term.is_empty() {
                continue;
            }
            let requirement =
                parse_term(&term).ok_or_else(|| Error { selector: text.to_owned(), term: term.clone() })?;
            requirements.push(requirement);
        }
        Ok(Self { requirements })
    }

    /// Whether an object is selected; `get` gives a field's value, `None` counting as empty.
    pub fn matches<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements.iter().all(|r| (get(&r.field).unwrap_or_default() == r.value) == r.equals)
    }

    /// The terms, in the order given.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// True when every object is selected.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// The value that `field` must equal, if the selector says so.
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.requirements.iter().find(|r| r.equals && r.field == field).map(|r| r.value.as_str())
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, r) in self.requirements.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            let value = r.value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
            write!(f, "{}{}{}", r.field, if r.equals { "=" } else { "!=" }, value)?;
        }
        Ok(())
    }
}

fn split_terms(text: &str) -> Vec<String> {
    let mut terms = vec![String::new()];
    let mut escaped = false;
    for c in text.chars() {
        if c == ',' && !escaped {
            terms.push(String::new());
        } else if let Some(term) = terms.last_mut() {
            term.push(c);
        }
        escaped = c == '\\' && !escaped;
    }
    terms
}

fn parse_term(term: &str) -> Option<Requirement> {
    let mut escaped = false;
    for (at, c) in term.char_indices() {
        let rest = &term[at..];
        if !escaped {
            for (operator, equals) in [("!=", false), ("==", true), ("=", true)] {
                if let Some(value) = rest.strip_prefix(operator) {
                    return Some(Requirement {
                        field: term[..at].to_owned(),
                        equals,
                        value: unescape(value)?,
                    });
                }
            }
        }
        escaped = c == '\\' && !escaped;
    }
    None
}

fn unescape(value: &str) -> Option<String> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => out.push(c),
                _ => return None,
            },
            '=' => return None,
            c => out.push(c),
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_are_parsed_and_matched() {
        let get = |field: &str| match field {
            "metadata.name" => Some("a,b=c\\"),
            "status.phase" => Some("Running"),
            _ => None,
        };
        for (text, want) in [
            ("", true),
            ("status.phase=Running", true),
            ("status.phase==Running,metadata.name!=x", true),
            ("status.phase!=Running", false),
            ("metadata.name=a\\,b\\=c\\\\", true),
            ("spec.nodeName=", true),
            ("spec.nodeName!=", false),
        ] {
            let selector = Selector::parse(text).expect(text);
            assert_eq!(selector.matches(get), want, "{text}");
            assert_eq!(Selector::parse(&selector.to_string()), Ok(selector), "{text}");
        }
    }

    #[test]
    fn bad_terms_are_refused() {
        for text in ["status.phase", "a=b=c", "a=\\x", "a,b=c"] {
            assert!(Selector::parse(text).is_err(), "{text}");
        }
        assert_eq!(
            Selector::parse("foo").map_err(|e| e.to_string()),
            Err("invalid selector: 'foo'; can't understand 'foo'".to_owned())
        );
    }
}
