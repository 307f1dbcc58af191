//! API errors: one type that carries the `metav1.Status` a client sees.
//!
//! Upstream: `k8s.io/apimachinery/pkg/api/errors`. Codes, reasons and messages are upstream's, since clients
//! match on them.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ListMeta, Status, StatusCause, StatusDetails};

use crate::validation::ErrorList;

/// An error that the API server answers with.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiError {
    status: Box<Status>,
}

impl ApiError {
    /// An error of the given HTTP code, reason and message.
    pub fn new(code: u16, reason: &str, message: impl Into<String>) -> Self {
        let status = Status {
            code: Some(i32::from(code)),
            details: None,
            message: Some(message.into()),
            metadata: ListMeta::default(),
            reason: (!reason.is_empty()).then(|| reason.to_owned()),
            status: Some("Failure".to_owned()),
        };
        Self { status: Box::new(status) }
    }

    /// The error that a server's answer carried.
    pub fn from_status(status: Status) -> Self {
        Self { status: Box::new(status) }
    }

    fn details(mut self, change: impl FnOnce(&mut StatusDetails)) -> Self {
        change(self.status.details.get_or_insert_default());
        self
    }

    fn of(self, group: &str, kind: &str, name: &str) -> Self {
        self.details(|d| {
            d.group = (!group.is_empty()).then(|| group.to_owned());
            d.kind = (!kind.is_empty()).then(|| kind.to_owned());
            d.name = (!name.is_empty()).then(|| name.to_owned());
        })
    }

    /// Adds one cause to the details.
    #[must_use]
    pub fn with_cause(self, reason: &str, message: &str, field: &str) -> Self {
        self.details(|d| {
            d.causes.get_or_insert_default().push(StatusCause {
                field: (!field.is_empty()).then(|| field.to_owned()),
                message: Some(message.to_owned()),
                reason: (!reason.is_empty()).then(|| reason.to_owned()),
            });
        })
    }

    /// Tells the client to come again after so many seconds.
    #[must_use]
    pub fn with_retry_after(self, seconds: i32) -> Self {
        self.details(|d| d.retry_after_seconds = Some(seconds))
    }

    /// 404 for a named object. `resource` is the plural, `group` is `""` for core.
    pub fn not_found(group: &str, resource: &str, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{} \"{name}\" not found", qualified(resource, group)))
            .of(group, resource, name)
    }

    /// 404 for a path that no resource serves.
    pub fn path_not_found() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource").details(|_| ())
    }

    /// 409: the name is taken.
    pub fn already_exists(group: &str, resource: &str, name: &str) -> Self {
        Self::new(409, "AlreadyExists", format!("{} \"{name}\" already exists", qualified(resource, group)))
            .of(group, resource, name)
    }

    /// 409: the write was based on another version, or a precondition failed.
    pub fn conflict(group: &str, resource: &str, name: &str, problem: &str) -> Self {
        let message =
            format!("Operation cannot be fulfilled on {} \"{name}\": {problem}", qualified(resource, group));
        Self::new(409, "Conflict", message).of(group, resource, name)
    }

    /// 409 in upstream's words for a stale `resourceVersion`.
    pub fn stale(group: &str, resource: &str, name: &str) -> Self {
        Self::conflict(
            group,
            resource,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// 422: validation failed. `kind` is the object's kind, such as `Pod`.
    pub fn invalid(group: &str, kind: &str, name: &str, errors: &ErrorList) -> Self {
        let text = match errors.as_slice() {
            [one] => one.to_string(),
            many => {
                let mut texts: Vec<String> = Vec::new();
                for error in many {
                    let text = error.to_string();
                    if !texts.contains(&text) {
                        texts.push(text);
                    }
                }
                if texts.len() == 1 { texts.remove(0) } else { format!("[{}]", texts.join(", ")) }
            }
        };
        let message = format!("{} \"{name}\" is invalid: {text}", qualified(kind, group));
        Self::new(422, "Invalid", message).of(group, kind, name).details(|d| {
            d.causes = Some(
                errors
                    .iter()
                    .map(|e| StatusCause {
                        field: Some(e.field.clone()),
                        message: Some(e.body()),
                        reason: Some(e.kind.reason().to_owned()),
                    })
                    .collect(),
            );
        })
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 401.
    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// 403 on a resource; `name` may be empty.
    pub fn forbidden(group: &str, resource: &str, name: &str, problem: &str) -> Self {
        let what = qualified(resource, group);
        let message = match (resource.is_empty(), name.is_empty()) {
            (true, _) => format!("forbidden: {problem}"),
            (false, true) => format!("{what} is forbidden: {problem}"),
            (false, false) => format!("{what} \"{name}\" is forbidden: {problem}"),
        };
        Self::new(403, "Forbidden", message).of(group, resource, name)
    }

    /// 405: the resource does not take this verb.
    pub fn method_not_supported(group: &str, resource: &str, action: &str) -> Self {
        let message =
            format!("{action} is not supported on resources of kind \"{}\"", qualified(resource, group));
        Self::new(405, "MethodNotAllowed", message).of(group, resource, "")
    }

    /// 405 for a path that takes other methods.
    pub fn method_not_allowed() -> Self {
        Self::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
            .details(|_| ())
    }

    /// 406: no representation that the client accepts.
    pub fn not_acceptable(accepted: &[&str]) -> Self {
        let message = format!("only the following media types are accepted: {}", accepted.join(", "));
        Self::new(406, "NotAcceptable", message)
    }

    /// 415: the body is of a type that the endpoint does not read.
    pub fn unsupported_media_type(accepted: &[&str]) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            accepted.join(", ")
        );
        Self::new(415, "UnsupportedMediaType", message)
    }

    /// 413.
    pub fn request_entity_too_large(message: impl fmt::Display) -> Self {
        Self::new(413, "RequestEntityTooLarge", format!("Request entity too large: {message}"))
    }

    /// 410: the resource version asked for is compacted.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// 410: the thing existed and is gone for good.
    pub fn gone(message: impl Into<String>) -> Self {
        Self::new(410, "Gone", message)
    }

    /// 504: the version asked for is newer than what is known yet.
    pub fn too_large_resource_version(asked: u64, current: u64, retry_seconds: i32) -> Self {
        Self::timeout(&format!("Too large resource version: {asked}, current: {current}"), retry_seconds)
            .with_cause("ResourceVersionTooLarge", "Too large resource version", "")
    }

    /// 504: the request did not finish in time and may be tried again.
    pub fn timeout(message: &str, retry_seconds: i32) -> Self {
        let error = Self::new(504, "Timeout", format!("Timeout: {message}"));
        if retry_seconds > 0 { error.with_retry_after(retry_seconds) } else { error.details(|_| ()) }
    }

    /// 500 with reason `ServerTimeout`: the server could not carry the operation out now.
    pub fn server_timeout(group: &str, resource: &str, operation: &str, retry_seconds: i32) -> Self {
        let message = format!(
            "The {operation} operation against {} could not be completed at this time, please try again.",
            qualified(resource, group)
        );
        Self::new(500, "ServerTimeout", message).of(group, resource, "").with_retry_after(retry_seconds)
    }

    /// 429.
    pub fn too_many_requests(message: impl Into<String>, retry_seconds: i32) -> Self {
        let error = Self::new(429, "TooManyRequests", message);
        if retry_seconds > 0 { error.with_retry_after(retry_seconds) } else { error }
    }

    /// 503.
    pub fn service_unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "ServiceUnavailable", message)
    }

    /// 500.
    pub fn internal(message: impl fmt::Display) -> Self {
        let text = message.to_string();
        let error = Self::new(500, "InternalError", format!("Internal error occurred: {text}"));
        error.with_cause("", &text, "")
    }

    /// The HTTP status code.
    pub fn code(&self) -> u16 {
        self.status.code.and_then(|c| u16::try_from(c).ok()).unwrap_or(500)
    }

    /// The machine-readable reason, or `""`.
    pub fn reason(&self) -> &str {
        self.status.reason.as_deref().unwrap_or_default()
    }

    /// The message for people.
    pub fn message(&self) -> &str {
        self.status.message.as_deref().unwrap_or_default()
    }

    /// The whole status, as it goes to the client.
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// Whether a named object was missing.
    pub fn is_not_found(&self) -> bool {
        self.reason() == "NotFound"
    }

    /// Whether a write lost against another.
    pub fn is_conflict(&self) -> bool {
        self.reason() == "Conflict"
    }

    /// Whether a create found the name taken.
    pub fn is_already_exists(&self) -> bool {
        self.reason() == "AlreadyExists"
    }

    /// Whether history that was asked for is compacted.
    pub fn is_expired(&self) -> bool {
        matches!(self.reason(), "Expired" | "Gone")
    }
}

fn qualified(resource: &str, group: &str) -> String {
    if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl std::error::Error for ApiError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validation::{Error, Path};

    #[test]
    fn texts_are_upstreams() {
        for (error, code, message) in [
            (ApiError::not_found("", "pods", "a"), 404, "pods \"a\" not found"),
            (ApiError::not_found("apps", "deployments", "a"), 404, "deployments.apps \"a\" not found"),
            (ApiError::already_exists("", "pods", "a"), 409, "pods \"a\" already exists"),
            (
                ApiError::stale("apps", "deployments", "a"),
                409,
                "Operation cannot be fulfilled on deployments.apps \"a\": the object has been modified; please apply your changes to the latest version and try again",
            ),
            (ApiError::forbidden("", "pods", "", "no"), 403, "pods is forbidden: no"),
        ] {
            assert_eq!((error.code(), error.message()), (code, message));
        }
    }

    #[test]
    fn invalid_lists_causes_with_fields() {
        let path = Path::new("spec").child("containers").index(0).child("name");
        let error = ApiError::invalid("", "Pod", "web", &vec![Error::required(&path, "")]);
        assert_eq!(error.message(), "Pod \"web\" is invalid: spec.containers[0].name: Required value");
        let json = serde_json::to_value(error.status()).expect("a status serialises");
        assert_eq!(json["kind"], "Status");
        assert_eq!(json["apiVersion"], "v1");
        assert_eq!(json["details"]["causes"][0]["field"], "spec.containers[0].name");
        assert_eq!(json["details"]["causes"][0]["reason"], "FieldValueRequired");
        assert_eq!(json["details"]["kind"], "Pod");
    }
}
