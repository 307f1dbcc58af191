//! Value parsers for flags, in the syntax of upstream's pflag values.
//!
//! Used as `#[arg(long, value_parser = flag::duration)]`. Booleans need no parser on the field: see [`crate::cli`].

use std::{collections::BTreeMap, time::Duration};

/// Go's strconv.ParseBool.
///
/// # Errors
/// When `text` is none of Go's twelve spellings.
pub fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(format!("strconv.ParseBool: parsing {text:?}: invalid syntax")),
    }
}

/// Go's durations: "15s", "1m30s".
///
/// # Errors
/// When `text` is not a duration or is negative.
pub fn duration(text: &str) -> Result<Duration, crate::duration::ParseError> {
    crate::duration::parse(text)
}

/// `a=1,b=2`, as --node-labels and --system-reserved take it; repeated keys: the last wins.
///
/// # Errors
/// When a pair has no `=`.
pub fn key_values(text: &str) -> Result<BTreeMap<String, String>, String> {
    pairs(text).map(|pair| pair.map(|(key, value)| (key.to_owned(), value.to_owned()))).collect()
}

/// `A=true,B=false`, as --feature-gates takes it.
///
/// # Errors
/// When a pair has no `=` or its value is not a boolean.
pub fn key_booleans(text: &str) -> Result<BTreeMap<String, bool>, String> {
    pairs(text)
        .map(|pair| {
            let (key, value) = pair?;
            let value = boolean(value)
                .map_err(|_| format!("invalid value of {key}: {value}, err: {}", parse_error(value)))?;
            Ok((key.to_owned(), value))
        })
        .collect()
}

/// `cpu=100m,memory=1Gi`, as --system-reserved and --kube-reserved take it.
///
/// # Errors
/// When a pair has no `=` or its value is not a quantity.
pub fn resource_list(text: &str) -> Result<BTreeMap<String, apimachinery::quantity::Quantity>, String> {
    pairs(text)
        .map(|pair| {
            let (key, value) = pair?;
            let value = apimachinery::quantity::Quantity::parse(value)
                .map_err(|error| format!("invalid quantity {value:?} for {key:?}: {error}"))?;
            Ok((key.to_owned(), value))
        })
        .collect()
}

fn parse_error(value: &str) -> String {
    format!("strconv.ParseBool: parsing {value:?}: invalid syntax")
}

fn pairs(text: &str) -> impl Iterator<Item = Result<(&str, &str), String>> {
    text.split(',').map(str::trim).filter(|pair| !pair.is_empty()).map(|pair| {
        let (key, value) =
            pair.split_once('=').ok_or_else(|| format!("malformed pair, expect string=string: {pair}"))?;
        Ok((key.trim(), value.trim()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_read_in_any_order() {
        let labels = key_values("a=1, b=2,,a=3").unwrap();
        assert_eq!(
            labels,
            BTreeMap::from([("a".to_owned(), "3".to_owned()), ("b".to_owned(), "2".to_owned())])
        );
        assert!(key_values("a").is_err());
        assert_eq!(key_values("").unwrap(), BTreeMap::new());
        assert_eq!(key_booleans("X=true,Y=false").unwrap().len(), 2);
        assert!(key_booleans("X=perhaps").is_err());
    }
}
