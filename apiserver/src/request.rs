//! What a request asks for: [`RequestInfo`] from its method and path, and the [`RequestContext`] that the hooks see.
//!
//! Upstream: `endpoints/request/requestinfo.go`.

use std::sync::Arc;

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
    /// Whether a `pretty`-independent list is limited to one object by `fieldSelector=metadata.name=`.
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
