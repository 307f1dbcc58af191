//! Writes an error with its causes on one line, for logs, events and the last line of a failing command.
//!
//! Our own errors do not repeat their source in `Display`; some libraries' do, so a cause whose text is already
//! the end of what was written is left out.

use std::{error::Error, fmt};

/// Displays an error followed by its sources, `: ` between them.
#[derive(Debug, Clone, Copy)]
pub struct Chain<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        let mut next = Some(self.0);
        while let Some(cause) = next {
            let refusal = refusal(cause);
            let message = refusal.map_or_else(|| cause.to_string(), str::to_owned);
            if text.is_empty() {
                text = message;
            } else if !text.ends_with(&message) {
                text.push_str(": ");
                text.push_str(&message);
            }
            next = if refusal.is_some() { None } else { cause.source() };
        }
        f.write_str(&text)
    }
}

/// What the API server said, when that is what the error is; kube's own text holds the whole Status, twice.
fn refusal<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a str> {
    let error = error
        .downcast_ref::<kube::Error>()
        .or_else(|| error.downcast_ref::<Box<kube::Error>>().map(AsRef::as_ref))?;
    match error {
        kube::Error::Api(status) => Some(&status.message),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Outer {
        #[error("load certificate")]
        Plain(#[source] std::io::Error),
        #[error("load certificate: {0}")]
        Repeating(#[source] std::io::Error),
    }

    #[derive(Debug, thiserror::Error)]
    #[error("create pod")]
    struct Refused(#[source] Box<kube::Error>);

    #[test]
    fn refusals_are_told_in_the_servers_words() {
        let status = kube::core::Status::failure("pods is forbidden", "Forbidden").with_code(403);
        let error = Refused(Box::new(kube::Error::Api(status.boxed())));
        assert_eq!(Chain(&error).to_string(), "create pod: pods is forbidden");
    }

    #[test]
    fn causes_are_written_once() {
        for error in
            [Outer::Plain(std::io::Error::other("disk")), Outer::Repeating(std::io::Error::other("disk"))]
        {
            assert_eq!(Chain(&error).to_string(), "load certificate: disk");
        }
    }
}
