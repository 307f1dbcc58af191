//! What an answer of the API server means to a controller.

use kube::Error;

/// The object does not exist.
pub fn is_not_found(error: &Error) -> bool {
    matches!(error, Error::Api(status) if status.code == 404)
}

/// An object of that name exists already.
pub fn is_already_exists(error: &Error) -> bool {
    matches!(error, Error::Api(status) if status.reason == "AlreadyExists")
}

/// The object changed since it was read, or a precondition (uid, resourceVersion) does not hold.
pub fn is_conflict(error: &Error) -> bool {
    matches!(error, Error::Api(status) if status.reason == "Conflict")
}

/// Validation refused the object.
pub fn is_invalid(error: &Error) -> bool {
    matches!(error, Error::Api(status) if status.code == 422)
}

/// The verb is not served for the resource.
pub fn is_method_not_supported(error: &Error) -> bool {
    matches!(error, Error::Api(status) if status.code == 405)
}

/// Refused because the namespace is being deleted: not a failure, nothing can be created there any more.
pub fn is_namespace_terminating(error: &Error) -> bool {
    let Error::Api(status) = error else { return false };
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
}

/// The text a user sees in an event: the server's message, or what went wrong on the way to it.
pub fn message(error: &Error) -> String {
    match error {
        Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}
