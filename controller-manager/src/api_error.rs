//! What an answer of the API server means to a controller.

use std::time::Duration;

use component_base::workqueue::{Item, WorkQueue};
use kube::Error;

/// How soon to try again on a newer version of an object.
const CONFLICT_RETRY: Duration = Duration::from_millis(50);

/// Somebody else changed the object first: that is how optimistic writes work, so the item is looked at again and nobody
/// need hear of it. Any other failure is passed on.
pub fn retry_conflict<T: Item, E: std::error::Error + 'static>(
    outcome: Result<(), E>,
    queue: &WorkQueue<T>,
    item: T,
) -> Result<(), E> {
    match outcome {
        Err(error) if is_caused_by_conflict(&error) => {
            queue.add_after(item, CONFLICT_RETRY);
            Ok(())
        }
        outcome => outcome,
    }
}

/// Whether a conflict is the reason for the error.
pub fn is_caused_by_conflict(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source()).any(|error| {
        let boxed = || error.downcast_ref::<Box<Error>>().map(AsRef::as_ref);
        error.downcast_ref::<Error>().or_else(boxed).is_some_and(is_conflict)
    })
}

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

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("update the status")]
    struct Failed(#[source] Box<Error>);

    fn failed(reason: &str, code: u16) -> Failed {
        Failed(Box::new(Error::Api(Status::failure("no", reason).with_code(code).boxed())))
    }

    #[tokio::test]
    async fn conflicts_are_retried_quietly() {
        let queue = WorkQueue::new();
        assert!(retry_conflict(Err(failed("Conflict", 409)), &queue, 1).is_ok());
        assert!(retry_conflict(Err(failed("Forbidden", 403)), &queue, 2).is_err());
        assert_eq!(queue.get().await, Some(1));
    }
}
