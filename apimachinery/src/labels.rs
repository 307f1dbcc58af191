//! Label selectors: the text form of `labelSelector=` and the object form `LabelSelector`.
//!
//! Upstream: `k8s.io/apimachinery/pkg/labels`. Requirements are kept sorted by key, so two selectors that
//! mean the same print the same.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::validation::names;

/// The labels of an object.
pub type Set = BTreeMap<String, String>;

/// How one requirement compares a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operator {
    /// The label has one of the values.
    In,
    /// The label is absent or has none of the values.
    NotIn,
    /// The label is there.
    Exists,
    /// The label is not there.
    DoesNotExist,
    /// The label is an integer greater than the one value (node selectors, `key>1`).
    GreaterThan,
    /// The label is an integer less than the one value.
    LessThan,
}

/// One condition on one label.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Requirement {
    /// Label key.
    pub key: String,
    /// Comparison.
    pub operator: Operator,
    /// Values, sorted and without repeats.
    pub values: Vec<String>,
    /// Printed with `=`/`!=` rather than `in (…)`.
    single: bool,
}

impl Requirement {
    /// A checked requirement.
    ///
    /// # Errors
    /// A bad key, a bad value, or a number of values that the operator does not take.
    pub fn new(key: &str, operator: Operator, mut values: Vec<String>) -> Result<Self, Error> {
        let problems = names::is_qualified_name(key);
        if !problems.is_empty() {
            return Err(Error::Key { key: key.to_owned(), problem: problems.join("; ") });
        }
        let count_is_right = match operator {
            Operator::In | Operator::NotIn => !values.is_empty(),
            Operator::Exists | Operator::DoesNotExist => values.is_empty(),
            Operator::GreaterThan | Operator::LessThan => {
                values.len() == 1 && values[0].parse::<i64>().is_ok()
            }
        };
        if !count_is_right {
            return Err(Error::Values { key: key.to_owned(), operator });
        }
        for value in &values {
            let problems = names::is_valid_label_value(value);
            if !problems.is_empty() {
                return Err(Error::Value { value: value.clone(), problem: problems.join("; ") });
            }
        }
        values.sort();
        values.dedup();
        Ok(Self { key: key.to_owned(), operator, values, single: false })
    }

    fn equals(key: &str, operator: Operator, value: &str) -> Result<Self, Error> {
        let mut requirement = Self::new(key, operator, vec![value.to_owned()])?;
        requirement.single = true;
        Ok(requirement)
    }

    /// Whether labels, looked up by `get`, meet the requirement.
    fn matches(&self, value: Option<&str>) -> bool {
        let has = |value: &str| self.values.iter().any(|v| v == value);
        match self.operator {
            Operator::In => value.is_some_and(has),
            Operator::NotIn => !value.is_some_and(has),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan | Operator::LessThan => {
                let (Some(have), Some(want)) = (
                    value.and_then(|v| v.parse::<i64>().ok()),
                    self.values.first().and_then(|v| v.parse::<i64>().ok()),
                ) else {
                    return false;
                };
                if self.operator == Operator::GreaterThan { have > want } else { have < want }
            }
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.operator {
            Operator::Exists => f.write_str(&self.key),
            Operator::DoesNotExist => write!(f, "!{}", self.key),
            Operator::In if self.single => write!(f, "{}={}", self.key, self.values[0]),
            Operator::NotIn if self.single => write!(f, "{}!={}", self.key, self.values[0]),
            Operator::In => write!(f, "{} in ({})", self.key, self.values.join(",")),
            Operator::NotIn => write!(f, "{} notin ({})", self.key, self.values.join(",")),
            Operator::GreaterThan => write!(f, "{}>{}", self.key, self.values[0]),
            Operator::LessThan => write!(f, "{}<{}", self.key, self.values[0]),
        }
    }
}

/// Why a label selector is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The key is no qualified name.
    #[error("key: Invalid value: \"{key}\": {problem}")]
    Key {
        /// The offending key.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A value is no label value.
    #[error("values[0][key]: Invalid value: \"{value}\": {problem}")]
    Value {
        /// The offending value.
        value: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The operator takes another number of values.
    #[error(
        "values: Invalid value: wrong number or kind of values for key \"{key}\" with operator {operator:?}"
    )]
    Values {
        /// Label key.
        key: String,
        /// Operator.
        operator: Operator,
    },
    /// The text is no selector.
    #[error("unable to parse requirement: {0}")]
    Syntax(String),
    /// A `LabelSelector` names an operator that does not exist.
    #[error("\"{0}\" is not a valid label selector operator")]
    Operator(String),
}

/// A conjunction of requirements; without any it matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Selector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

impl Selector {
    /// Matches every object.
    pub fn everything() -> Self {
        Self::default()
    }

    /// Matches no object: what a missing `LabelSelector` means.
    pub fn nothing() -> Self {
        Self { requirements: Vec::new(), nothing: true }
    }

    /// All of `requirements`.
    pub fn from_requirements(mut requirements: Vec<Requirement>) -> Self {
        requirements.sort();
        Self { requirements, nothing: false }
    }

    /// Matches objects that carry every label of `set`, which is taken as it is.
    pub fn from_set(set: &Set) -> Self {
        let requirements = set
            .iter()
            .map(|(key, value)| Requirement {
                key: key.clone(),
                operator: Operator::In,
                values: vec![value.clone()],
                single: true,
            })
            .collect();
        Self { requirements, nothing: false }
    }

    /// The object form: all of `matchLabels` and `matchExpressions`; empty matches everything.
    ///
    /// # Errors
    /// A bad key, value or operator.
    pub fn from_label_selector(selector: &LabelSelector) -> Result<Self, Error> {
        let mut requirements = Vec::new();
        for (key, value) in selector.match_labels.iter().flatten() {
            requirements.push(Requirement::equals(key, Operator::In, value)?);
        }
        for expression in selector.match_expressions.iter().flatten() {
            let operator = match expression.operator.as_str() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => return Err(Error::Operator(other.to_owned())),
            };
            let values = expression.values.clone().unwrap_or_default();
            requirements.push(Requirement::new(&expression.key, operator, values)?);
        }
        Ok(Self::from_requirements(requirements))
    }

    /// As [`Self::from_label_selector`], where `None` matches nothing.
    ///
    /// # Errors
    /// A bad key, value or operator.
    pub fn from_optional(selector: Option<&LabelSelector>) -> Result<Self, Error> {
        selector.map_or_else(|| Ok(Self::nothing()), Self::from_label_selector)
    }

    /// The text form: `a=b,c!=d,e in (f,g),h notin (i),j,!k,l>1,m<2`.
    ///
    /// # Errors
    /// Text that is no selector, or a bad key or value.
    pub fn parse(text: &str) -> Result<Self, Error> {
        Parser { tokens: tokenize(text)?, at: 0 }.selector()
    }

    /// Whether an object with these labels is selected.
    pub fn matches(&self, labels: &Set) -> bool {
        self.matches_by(|key| labels.get(key).map(String::as_str))
    }

    /// As [`Self::matches`], for labels that `get` looks up.
    pub fn matches_by<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches(get(&r.key)))
    }

    /// As [`Self::matches`], for labels that may be missing altogether.
    pub fn matches_opt(&self, labels: Option<&Set>) -> bool {
        self.matches_by(|key| labels?.get(key).map(String::as_str))
    }

    /// True when every object is selected.
    pub fn is_empty(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    /// The requirements, sorted by key.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// True for [`Selector::nothing`].
    pub fn is_nothing(&self) -> bool {
        self.nothing
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.requirements.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            requirement.fmt(f)?;
        }
        Ok(())
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Comma,
    Open,
    Close,
    Not,
    Equals,
    NotEquals,
    Greater,
    Less,
}

fn tokenize(text: &str) -> Result<Vec<Token>, Error> {
    let mut tokens = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(&c) = chars.peek() {
        match c {
            ' ' | '\t' | '\n' | '\r' => {
                chars.next();
            }
            ',' | '(' | ')' | '>' | '<' => {
                chars.next();
                tokens.push(match c {
                    ',' => Token::Comma,
                    '(' => Token::Open,
                    ')' => Token::Close,
                    '>' => Token::Greater,
                    _ => Token::Less,
                });
            }
            '=' => {
                chars.next();
                chars.next_if_eq(&'=');
                tokens.push(Token::Equals);
            }
            '!' => {
                chars.next();
                tokens.push(if chars.next_if_eq(&'=').is_some() { Token::NotEquals } else { Token::Not });
            }
            _ => {
                let mut word = String::new();
                while let Some(c) = chars.next_if(|c| !" \t\n\r,()=!<>".contains(*c)) {
                    word.push(c);
                }
                tokens.push(Token::Word(word));
            }
        }
    }
    if text.len() > MAX_SELECTOR_LENGTH {
        return Err(Error::Syntax(format!("selector is longer than {MAX_SELECTOR_LENGTH} bytes")));
    }
    Ok(tokens)
}

/// A request line can't be longer than this on any server we know, so neither can an honest selector.
const MAX_SELECTOR_LENGTH: usize = 64 * 1024;

struct Parser {
    tokens: Vec<Token>,
    at: usize,
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn next(&mut self) -> Option<Token> {
        let token = self.tokens.get(self.at).cloned();
        self.at += 1;
        token
    }

    fn found(token: Option<&Token>) -> String {
        match token {
            None => String::new(),
            Some(Token::Word(word)) => word.clone(),
            Some(Token::Comma) => ",".into(),
            Some(Token::Open) => "(".into(),
            Some(Token::Close) => ")".into(),
            Some(Token::Not) => "!".into(),
            Some(Token::Equals) => "=".into(),
            Some(Token::NotEquals) => "!=".into(),
            Some(Token::Greater) => ">".into(),
            Some(Token::Less) => "<".into(),
        }
    }

    fn selector(mut self) -> Result<Selector, Error> {
        let mut requirements = Vec::new();
        while self.peek().is_some() {
            requirements.push(self.requirement()?);
            match self.next() {
                None => break,
                Some(Token::Comma) if self.peek().is_some() => {}
                Some(Token::Comma) => {
                    return Err(Error::Syntax("found '', expected: identifier after ','".into()));
                }
                other => {
                    let found = Self::found(other.as_ref());
                    return Err(Error::Syntax(format!("found '{found}', expected: ',' or 'end of string'")));
                }
            }
        }
        Ok(Selector::from_requirements(requirements))
    }

    fn word(&mut self) -> Result<String, Error> {
        match self.next() {
            Some(Token::Word(word)) => Ok(word),
            other => {
                let found = Self::found(other.as_ref());
                Err(Error::Syntax(format!("found '{found}', expected: identifier")))
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, Error> {
        if self.peek() == Some(&Token::Not) {
            self.next();
            let key = self.word()?;
            return Requirement::new(&key, Operator::DoesNotExist, Vec::new());
        }
        let key = self.word()?;
        let operator = match self.peek() {
            None | Some(Token::Comma) => return Requirement::new(&key, Operator::Exists, Vec::new()),
            Some(Token::Equals) => Operator::In,
            Some(Token::NotEquals) => Operator::NotIn,
            Some(Token::Greater) => Operator::GreaterThan,
            Some(Token::Less) => Operator::LessThan,
            Some(Token::Word(word)) if word == "in" || word == "notin" => {
                let operator = if word == "in" { Operator::In } else { Operator::NotIn };
                self.next();
                let values = self.values()?;
                return Requirement::new(&key, operator, values);
            }
            other => {
                let found = Self::found(other);
                return Err(Error::Syntax(format!(
                    "found '{found}', expected: in, notin, =, ==, !=, gt, lt"
                )));
            }
        };
        self.next();
        // `a=` selects the empty value.
        let value = match self.peek() {
            None | Some(Token::Comma) => String::new(),
            _ => self.word()?,
        };
        match operator {
            Operator::In | Operator::NotIn => Requirement::equals(&key, operator, &value),
            _ => Requirement::new(&key, operator, vec![value]),
        }
    }

    fn values(&mut self) -> Result<Vec<String>, Error> {
        if self.next() != Some(Token::Open) {
            return Err(Error::Syntax("expected: '('".into()));
        }
        let mut values = Vec::new();
        loop {
            match self.next() {
                Some(Token::Word(word)) => {
                    values.push(word);
                    match self.next() {
                        Some(Token::Comma) => {}
                        Some(Token::Close) => return Ok(values),
                        other => {
                            let found = Self::found(other.as_ref());
                            return Err(Error::Syntax(format!("found '{found}', expected: ',', ')'")));
                        }
                    }
                }
                // `(a,)` and `()` hold an empty value.
                Some(Token::Comma) => values.push(String::new()),
                Some(Token::Close) => {
                    values.push(String::new());
                    return Ok(values);
                }
                other => {
                    let found = Self::found(other.as_ref());
                    return Err(Error::Syntax(format!("found '{found}', expected: ',', ')' or identifier")));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(pairs: &[(&str, &str)]) -> Set {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn text_selectors_match_as_upstream() {
        let web = set(&[("app", "web"), ("tier", "front"), ("weight", "10"), ("empty", "")]);
        for (text, want) in [
            ("", true),
            ("app=web", true),
            ("app==web,tier=front", true),
            ("app!=web", false),
            ("app in (api, web)", true),
            ("app notin (api,web)", false),
            ("missing notin (a)", true),
            ("app", true),
            ("!app", false),
            ("!missing", true),
            ("weight>9", true),
            ("weight<10", false),
            ("empty=", true),
            ("app=", false),
            ("missing!=x", true),
        ] {
            assert_eq!(Selector::parse(text).expect(text).matches(&web), want, "{text}");
        }
    }

    #[test]
    fn bad_text_is_refused() {
        for text in
            ["a=b,", "a b", "a in b", "a in (b", "=b", "a=b=c", "a/b/c=d", "-a=b", "a=-b", "a>b", ",,"]
        {
            assert!(Selector::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn printing_is_canonical() {
        let selector = Selector::parse("z, b in (y,x,y) ,a!=1,!c").expect("valid");
        assert_eq!(selector.to_string(), "a!=1,b in (x,y),!c,z");
    }

    #[test]
    fn missing_selector_matches_nothing_and_empty_everything() {
        assert!(!Selector::from_optional(None).expect("valid").matches(&set(&[])));
        assert!(Selector::from_optional(Some(&LabelSelector::default())).expect("valid").matches(&set(&[])));
        assert!(!Selector::nothing().matches_opt(None));
        assert!(Selector::parse("!a").expect("valid").matches_opt(None));
    }
}
