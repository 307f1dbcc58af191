//! What a request asks for: [`RequestInfo`] from its method and path, and the [`RequestContext`] that the hooks see.
//!
//! Upstream: `endpoints/request/requestinfo.go`.

use std::sync::Arc;

use http::Method;
use jiff::Timestamp;
use parking_lot::Mutex;

use crate::authn::UserInfo;

/// The parsed method, path and query of a request, as authorization and metrics see it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestInfo {
    /// The raw URL path.
    pub path: String,
    /// Whether the path names an API resource (`/api/v1/...`, `/apis/GROUP/VERSION/...`).
    pub is_resource: bool,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`, `proxy`; for a path that
    /// is no resource, the lower-case HTTP method.
    pub verb: String,
    pub group: String,
    pub version: String,
    pub namespace: String,
    pub resource: String,
    pub subresource: String,
    pub name: String,
    /// Path segments after the subresource (`/proxy/...`).
    pub rest: Vec<String>,
    pub label_selector: Option<String>,
    pub field_selector: Option<String>,
}

/// Who asks, for what, since when. One per request; strategies and admission read it.
#[derive(Debug)]
pub struct RequestContext {
    pub info: RequestInfo,
    pub user: Arc<UserInfo>,
    /// When the request arrived; the one clock of its hooks.
    pub now: Timestamp,
    pub audit_id: String,
    pub user_agent: String,
    warnings: Mutex<Vec<String>>,
}

impl RequestContext {
    pub fn new(info: RequestInfo, user: Arc<UserInfo>, audit_id: String, user_agent: String) -> Self {
        Self { info, user, now: Timestamp::now(), audit_id, user_agent, warnings: Mutex::default() }
    }

    /// The context of the server's own writes (bootstrap objects, repair loops), as upstream's loopback client:
    /// user `system:apiserver` in group `system:masters`.
    pub fn loopback() -> Self {
        Self::new(RequestInfo::default(), Arc::new(UserInfo::loopback()), String::new(), String::new())
    }

    /// Adds a message for the response's `Warning` headers.
    pub fn warn(&self, message: impl Into<String>) {
        let message = message.into();
        let mut warnings = self.warnings.lock();
        if !warnings.contains(&message) {
            warnings.push(message);
        }
    }

    pub fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut *self.warnings.lock())
    }
}

/// Subresources of a namespace; any other segment after its name is a resource in it.
const NAMESPACE_SUBRESOURCES: &[&str] = &["status", "finalize"];

impl RequestInfo {
    /// Parses a request line. Upstream's rules, including the legacy `/watch/` prefix.
    pub fn parse(method: &Method, path: &str, query: &Query) -> Self {
        let mut info =
            Self { path: path.to_owned(), verb: method.as_str().to_lowercase(), ..Self::default() };
        let decoded = percent_decode(path);
        let mut parts: Vec<&str> = decoded.trim_matches('/').split('/').collect();
        match parts.first() {
            Some(&"api") if parts.len() >= 3 => parts.drain(..1).for_each(drop),
            Some(&"apis") if parts.len() >= 4 => {
                parts[1].clone_into(&mut info.group);
                parts.drain(..2).for_each(drop);
            }
            _ => return info,
        }
        info.is_resource = true;
        parts.remove(0).clone_into(&mut info.version);
        let mut verb = match *method {
            Method::POST => "create",
            Method::GET | Method::HEAD => "get",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            _ => "",
        };
        if parts.len() > 1 && matches!(parts[0], "watch" | "proxy") {
            verb = if parts.remove(0) == "watch" { "watch" } else { "proxy" };
        }
        if parts[0] == "namespaces" && parts.len() > 1 {
            parts[1].clone_into(&mut info.namespace);
            if parts.len() > 2 && !NAMESPACE_SUBRESOURCES.contains(&parts[2]) {
                parts.drain(..2).for_each(drop);
            }
        }
        let mut parts = parts.into_iter().map(str::to_owned);
        info.resource = parts.next().unwrap_or_default();
        info.name = parts.next().unwrap_or_default();
        info.subresource = parts.next().unwrap_or_default();
        info.rest = parts.collect();
        info.label_selector = query.get("labelSelector").map(str::to_owned);
        info.field_selector = query.get("fieldSelector").map(str::to_owned);
        if info.name.is_empty() && verb == "get" {
            verb = if query.flag("watch") { "watch" } else { "list" };
            info.name = info.field_selector.as_deref().and_then(selected_name).unwrap_or_default().to_owned();
        } else if info.name.is_empty() && verb == "delete" {
            verb = "deletecollection";
        }
        verb.clone_into(&mut info.verb);
        info
    }

    /// Whether the request may take as long as it likes.
    pub fn is_long_running(&self) -> bool {
        matches!(self.verb.as_str(), "watch" | "proxy")
            || matches!(self.subresource.as_str(), "log" | "exec" | "attach" | "portforward" | "proxy")
    }
}

/// The name in a field selector that selects one object.
pub fn selected_name(selector: &str) -> Option<&str> {
    selector.split(',').find_map(|term| {
        let value = term.trim().strip_prefix("metadata.name=")?;
        Some(value.strip_prefix('=').unwrap_or(value))
    })
}

/// The decoded query of a URL.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    pub fn parse(query: Option<&str>) -> Self {
        let pairs = query
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                (percent_decode(&key.replace('+', " ")), percent_decode(&value.replace('+', " ")))
            })
            .collect();
        Self { pairs }
    }

    /// The first value of `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.pairs.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str())
    }

    /// The first value of `key`, unless it is empty.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.get(key).filter(|value| !value.is_empty())
    }

    /// All values of `key`.
    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs.iter().filter(move |(k, _)| k == key).map(|(_, value)| value.as_str())
    }

    /// Sets `key` to one value.
    pub fn set(&mut self, key: &str, value: String) {
        self.pairs.retain(|(k, _)| k != key);
        self.pairs.push((key.to_owned(), value));
    }

    /// A boolean as upstream reads it from a query: present and neither `false` nor `0`.
    pub fn flag(&self, key: &str) -> bool {
        self.get(key).is_some_and(|value| !matches!(value.to_lowercase().as_str(), "false" | "0"))
    }
}

/// Decodes `%XX`; what is no valid escape or no UTF-8 stays as it is.
fn percent_decode(text: &str) -> String {
    if !text.contains('%') {
        return text.to_owned();
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = |i: usize| {
            bytes.get(i).and_then(|b| char::from(*b).to_digit(16)).and_then(|d| u8::try_from(d).ok())
        };
        match (bytes[at], hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push(high * 16 + low);
                at += 3;
            }
            (byte, _, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8(out).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(method: &str, url: &str) -> RequestInfo {
        let (path, query) = url.split_once('?').map_or((url, None), |(path, query)| (path, Some(query)));
        RequestInfo::parse(&method.parse().unwrap(), path, &Query::parse(query))
    }

    #[test]
    fn paths_are_parsed_as_upstream_does() {
        // method, url, verb, group, version, namespace, resource, name, subresource
        for (method, url, want) in [
            ("GET", "/api/v1/namespaces", "list||v1||namespaces||"),
            ("GET", "/api/v1/namespaces/other", "get||v1|other|namespaces|other|"),
            ("PUT", "/api/v1/namespaces/other/finalize", "update||v1|other|namespaces|other|finalize"),
            ("GET", "/api/v1/namespaces/other/status", "get||v1|other|namespaces|other|status"),
            ("GET", "/api/v1/namespaces/other/pods", "list||v1|other|pods||"),
            ("GET", "/api/v1/namespaces/other/pods/foo", "get||v1|other|pods|foo|"),
            ("HEAD", "/api/v1/namespaces/other/pods/foo", "get||v1|other|pods|foo|"),
            ("GET", "/api/v1/pods?watch=true", "watch||v1||pods||"),
            ("GET", "/api/v1/pods?watch=false", "list||v1||pods||"),
            ("GET", "/api/v1/watch/namespaces/other/pods", "watch||v1|other|pods||"),
            ("GET", "/api/v1/pods?fieldSelector=metadata.name%3Dfoo", "list||v1||pods|foo|"),
            ("POST", "/api/v1/namespaces/other/pods/foo/binding", "create||v1|other|pods|foo|binding"),
            ("DELETE", "/api/v1/namespaces/other/pods", "deletecollection||v1|other|pods||"),
            ("DELETE", "/api/v1/namespaces/other/pods/foo", "delete||v1|other|pods|foo|"),
            (
                "PATCH",
                "/apis/apps/v1/namespaces/a/deployments/b/scale",
                "patch|apps|v1|a|deployments|b|scale",
            ),
            ("GET", "/apis/apps/v1/deployments/", "list|apps|v1||deployments||"),
        ] {
            let info = parse(method, url);
            assert!(info.is_resource, "{url}");
            let got = [
                info.verb,
                info.group,
                info.version,
                info.namespace,
                info.resource,
                info.name,
                info.subresource,
            ];
            assert_eq!(got.join("|"), want, "{method} {url}");
        }
        for (url, verb) in
            [("/", "get"), ("/api", "get"), ("/api/v1", "get"), ("/apis/apps/v1", "get"), ("/healthz", "get")]
        {
            let info = parse("GET", url);
            assert!(!info.is_resource, "{url}");
            assert_eq!(info.verb, verb);
        }
    }

    #[test]
    fn queries_are_decoded() {
        let query = Query::parse(Some(
            "labelSelector=a%3Db%2Cc&watch=1&empty=&x=a+b&bad=%zz&dryRun=All&dryRun=Other",
        ));
        assert_eq!(query.get("labelSelector"), Some("a=b,c"));
        assert!(query.flag("watch"));
        assert!(!query.flag("missing"));
        assert_eq!(query.text("empty"), None);
        assert_eq!(query.get("x"), Some("a b"));
        assert_eq!(query.get("bad"), Some("%zz"));
        assert_eq!(query.all("dryRun").collect::<Vec<_>>(), ["All", "Other"]);
    }
}
