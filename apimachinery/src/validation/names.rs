//! The name formats of Kubernetes and the messages that refuse what does not fit.
//!
//! Upstream: `k8s.io/apimachinery/pkg/util/validation`. Every check answers a list of problems, empty when
//! the value is good, since a message often joins several.

use std::net::IpAddr;

/// Longest DNS label.
pub const DNS1123_LABEL_MAX_LENGTH: usize = 63;
/// Longest DNS subdomain.
pub const DNS1123_SUBDOMAIN_MAX_LENGTH: usize = 253;
const QUALIFIED_NAME_MAX_LENGTH: usize = 63;
const LABEL_VALUE_MAX_LENGTH: usize = 63;

const LABEL_FORMAT: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const SUBDOMAIN_FORMAT: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const QUALIFIED_FORMAT: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";

fn is_lower(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

fn too_long(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

/// The two spaces before "or" are upstream's, and scripts compare the text.
fn regex_error(message: &str, format: &str, examples: &[&str]) -> String {
    let examples: Vec<String> = examples.iter().map(|e| format!("'{e}'")).collect();
    format!("{message} (e.g. {}, regex used for validation is '{format}')", examples.join(",  or "))
}

/// `[a-z0-9]([-a-z0-9]*[a-z0-9])?`, of any length.
fn fits_label(value: &str) -> bool {
    let bytes = value.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(&first), Some(&last)) => {
            is_lower(first) && is_lower(last) && bytes.iter().all(|&b| is_lower(b) || b == b'-')
        }
        _ => false,
    }
}

/// A DNS label: at most 63 bytes, lower case.
pub fn is_dns1123_label(value: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if value.len() > DNS1123_LABEL_MAX_LENGTH {
        problems.push(too_long(DNS1123_LABEL_MAX_LENGTH));
    }
    if !fits_label(value) {
        problems.push(regex_error(
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character",
            LABEL_FORMAT,
            &["my-name", "123-abc"],
        ));
    }
    problems
}

/// A DNS subdomain: labels joined by dots, at most 253 bytes.
pub fn is_dns1123_subdomain(value: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if value.len() > DNS1123_SUBDOMAIN_MAX_LENGTH {
        problems.push(too_long(DNS1123_SUBDOMAIN_MAX_LENGTH));
    }
    if !value.split('.').all(fits_label) {
        problems.push(regex_error(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character",
            SUBDOMAIN_FORMAT,
            &["example.com"],
        ));
    }
    problems
}

/// As [`is_dns1123_subdomain`], where the first label may be `*`.
pub fn is_wildcard_dns1123_subdomain(value: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if value.len() > DNS1123_SUBDOMAIN_MAX_LENGTH {
        problems.push(too_long(DNS1123_SUBDOMAIN_MAX_LENGTH));
    }
    if !value.strip_prefix("*.").is_some_and(|rest| rest.split('.').all(fits_label)) {
        problems.push(regex_error(
            "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character",
            "\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*",
            &["*.example.com"],
        ));
    }
    problems
}

/// A DNS label that starts with a letter: the names of Services.
pub fn is_dns1035_label(value: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if value.len() > DNS1123_LABEL_MAX_LENGTH {
        problems.push(too_long(DNS1123_LABEL_MAX_LENGTH));
    }
    if !(fits_label(value) && value.as_bytes().first().is_some_and(u8::is_ascii_lowercase)) {
        problems.push(regex_error(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character",
            "[a-z]([-a-z0-9]*[a-z0-9])?",
            &["my-name", "abc-123"],
        ));
    }
    problems
}

fn fits_qualified(value: &str) -> bool {
    let bytes = value.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(first), Some(last)) => {
            first.is_ascii_alphanumeric()
                && last.is_ascii_alphanumeric()
                && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
        }
        _ => false,
    }
}

/// A label or annotation key: `[prefix/]name`.
pub fn is_qualified_name(value: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let parts: Vec<&str> = value.split('/').collect();
    let name = match parts.as_slice() {
        [name] => *name,
        [prefix, name] => {
            if prefix.is_empty() {
                problems.push("prefix part must be non-empty".to_owned());
            } else {
                problems.extend(is_dns1123_subdomain(prefix).iter().map(|p| format!("prefix part {p}")));
            }
            *name
        }
        _ => {
            return vec![format!(
                "a qualified name {} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
                regex_error(
                    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
                    QUALIFIED_FORMAT,
                    &["MyName", "my.name", "123-abc"],
                )
            )];
        }
    };
    if name.is_empty() {
        problems.push("name part must be non-empty".to_owned());
    } else if name.len() > QUALIFIED_NAME_MAX_LENGTH {
        problems.push(format!("name part {}", too_long(QUALIFIED_NAME_MAX_LENGTH)));
    }
    if !fits_qualified(name) {
        problems.push(format!(
            "name part {}",
            regex_error(
                "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
                QUALIFIED_FORMAT,
                &["MyName", "my.name", "123-abc"],
            )
        ));
    }
    problems
}

/// A label value: empty, or at most 63 bytes of letters, digits, `-`, `_` and `.`.
pub fn is_valid_label_value(value: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if value.len() > LABEL_VALUE_MAX_LENGTH {
        problems.push(too_long(LABEL_VALUE_MAX_LENGTH));
    }
    if !value.is_empty() && !fits_qualified(value) {
        problems.push(regex_error(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
            "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?",
            &["MyValue", "my_value", "12345"],
        ));
    }
    problems
}

/// A port number, 1 to 65535.
pub fn is_valid_port_num(port: i32) -> Vec<String> {
    if (1..=65535).contains(&port) {
        Vec::new()
    } else {
        vec!["must be between 1 and 65535, inclusive".to_owned()]
    }
}

/// A port name: an IANA service name.
pub fn is_valid_port_name(name: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if name.len() > 15 {
        problems.push(too_long(15));
    }
    if !name.bytes().all(|b| is_lower(b) || b == b'-') || name.is_empty() {
        problems.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !name.bytes().any(|b| b.is_ascii_lowercase()) {
        problems.push("must contain at least one letter (a-z)".to_owned());
    }
    if name.contains("--") {
        problems.push("must not contain consecutive hyphens".to_owned());
    }
    if name.starts_with('-') || name.ends_with('-') {
        problems.push("must not begin or end with a hyphen".to_owned());
    }
    problems
}

/// The key of a ConfigMap or Secret.
pub fn is_config_map_key(value: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if value.len() > DNS1123_SUBDOMAIN_MAX_LENGTH {
        problems.push(too_long(DNS1123_SUBDOMAIN_MAX_LENGTH));
    }
    if value.is_empty() || !value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
        problems.push(regex_error(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    match value {
        "." => problems.push("must not be '.'".to_owned()),
        ".." => problems.push("must not be '..'".to_owned()),
        v if v.starts_with("..") => problems.push("must not start with '..'".to_owned()),
        _ => {}
    }
    problems
}

/// The name of an environment variable (1.30 on: any printable ASCII but `=`).
pub fn is_relaxed_env_var_name(value: &str) -> Vec<String> {
    if value.is_empty() {
        return vec!["environment variable name must be non-empty".to_owned()];
    }
    if value.bytes().any(|b| !(0x20..=0x7e).contains(&b) || b == b'=') {
        return vec![regex_error(
            "a valid environment variable name must consist only of printable ASCII characters other than '='",
            "^[ -<>-~]+$",
            &["my.name", "MY_NAME", "MyName1"],
        )];
    }
    Vec::new()
}

/// A path segment: what any object name must at least be.
pub fn is_path_segment(value: &str) -> Vec<String> {
    match value {
        "." => return vec!["may not be '.'".to_owned()],
        ".." => return vec!["may not be '..'".to_owned()],
        _ => {}
    }
    ['/', '%'].iter().filter(|c| value.contains(**c)).map(|c| format!("may not contain '{c}'")).collect()
}

/// An IP address in its one strict form: no leading zeros (CVE-2021-29923), no IPv4-mapped IPv6.
pub fn is_valid_ip(value: &str) -> Vec<String> {
    if parse_ip(value).is_some() {
        Vec::new()
    } else {
        vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()]
    }
}

/// The one parser of IP addresses: strict, so that two components never read one text differently.
pub fn parse_ip(value: &str) -> Option<IpAddr> {
    match value.parse::<IpAddr>().ok()? {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => None,
        ip => Some(ip),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(f: fn(&str) -> Vec<String>, good: &[&str], bad: &[&str]) {
        for value in good {
            assert!(f(value).is_empty(), "{value}: {:?}", f(value));
        }
        for value in bad {
            assert!(!f(value).is_empty(), "{value} was accepted");
        }
    }

    #[test]
    fn formats() {
        let long = "a".repeat(64);
        check(is_dns1123_label, &["a", "a-b", "0a"], &["", "A", "-a", "a-", "a.b", "a_b", &long]);
        check(is_dns1123_subdomain, &["a", "a.b-c.0"], &["", "a..b", ".a", "a.", "a/b", &"a".repeat(254)]);
        check(is_dns1035_label, &["a", "a0"], &["0a", "", "a."]);
        check(
            is_qualified_name,
            &["a", "A_b.c", "x.io/Name"],
            &["", "/a", "a/", "X.io/a", "a/b/c", "_a", &long],
        );
        check(is_valid_label_value, &["", "a", "A_b.c-1"], &["-a", "a b", "a/", &long]);
        check(is_valid_port_name, &["http", "a1"], &["", "1", "HTTP", "a--b", "-a", "abcdefghijklmnop"]);
        check(is_config_map_key, &["a", "A_b.c", ".x"], &["", ".", "..", "..a", "a/b"]);
        check(is_valid_ip, &["10.0.0.1", "::1"], &["010.0.0.1", "10.0.0", "::ffff:1.2.3.4", "a"]);
        check(is_path_segment, &["a", "A:b"], &[".", "..", "a/b", "a%2f"]);
    }

    #[test]
    fn message_text_is_upstreams() {
        assert_eq!(
            is_dns1123_label("A"),
            vec![
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
            ]
        );
        assert_eq!(is_valid_port_num(0), vec!["must be between 1 and 65535, inclusive"]);
    }
}
