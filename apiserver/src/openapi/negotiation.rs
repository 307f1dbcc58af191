//! Which form of a document a client gets: `Accept` and `Accept-Encoding`.
//!
//! Upstream: `munnerz/goautoneg` in `kube-openapi/pkg/handler`, and `NYTimes/gziphandler` around it.

use http::HeaderMap;
use http::header::{ACCEPT, ACCEPT_ENCODING, HeaderName};

/// An element of such a header.
struct Clause<'a> {
    value: &'a str,
    quality: f32,
}

/// The first of these media types that matches what the client likes best; the first of all if it says nothing.
pub(super) fn preferred<'a>(headers: &HeaderMap, offers: &[&'a str]) -> Option<&'a str> {
    let mut clauses = clauses(headers, &ACCEPT);
    if clauses.is_empty() {
        return offers.first().copied();
    }
    let wild = |clause: &Clause<'_>| (clause.value.starts_with('*'), clause.value.ends_with('*'));
    clauses.sort_by(|a, b| b.quality.total_cmp(&a.quality).then_with(|| wild(a).cmp(&wild(b))));
    clauses.iter().find_map(|clause| offers.iter().copied().find(|offer| matches(clause.value, offer)))
}

/// Whether the client unpacks gzip.
pub(super) fn takes_gzip(headers: &HeaderMap) -> bool {
    clauses(headers, &ACCEPT_ENCODING).iter().any(|clause| clause.value == "gzip" && clause.quality > 0.0)
}

fn clauses<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Vec<Clause<'a>> {
    let lines = headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).filter_map(clause).collect()
}

fn clause(text: &str) -> Option<Clause<'_>> {
    let mut parts = text.split(';').map(str::trim);
    let value = parts.next().filter(|value| !value.is_empty())?;
    let weight = parts.find_map(|parameter| parameter.strip_prefix("q=")).map_or("1", str::trim);
    // What is no number is the least, as in Go.
    Some(Clause { value, quality: weight.parse().unwrap_or_default() })
}

fn matches(range: &str, offer: &str) -> bool {
    match range.strip_suffix('*') {
        Some("" | "*/") => true,
        Some(kind) => kind.ends_with('/') && offer.starts_with(kind),
        None => range == offer,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    /// The cases of upstream's `TestRegisterOpenAPIVersionedService` are those of the v2 document in `openapi/tests.rs`.
    #[test]
    fn quality_goes_before_order_and_names_before_wildcards() {
        let offers = ["application/json", "application/x"];
        for (accept, expected) in [
            ("application/x;q=0.25, application/json;q=0.3", Some("application/json")),
            ("*/*, application/x", Some("application/x")),
            ("application/*, application/x", Some("application/x")),
            ("*", Some("application/json")),
            ("application/x; v=1; q=1.0, application/json; q=0.999", Some("application/x")),
            ("text/*, application", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, HeaderValue::from_static(accept));
            assert_eq!(preferred(&headers, &offers), expected, "{accept}");
        }
    }

    #[test]
    fn gzip_may_be_named_and_refused() {
        for (accepted, expected) in [
            ("gzip", true),
            ("deflate, gzip;q=0.5", true),
            ("gzip;q=0", false),
            ("br", false),
            ("gzip;q=none", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(accepted));
            assert_eq!(takes_gzip(&headers), expected, "{accepted}");
        }
        assert!(!takes_gzip(&HeaderMap::new()));
    }
}
