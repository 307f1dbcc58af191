//! What an apiserver's refusal looks like in a log line: its message, without the whole Status around it.

use std::fmt;

/// Displays a client error.
#[derive(Debug)]
pub struct ApiError<'a>(pub &'a kube::Error);

impl fmt::Display for ApiError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            kube::Error::Api(status) => f.write_str(&status.message),
            other => component_base::error_chain::Chain(other).fmt(f),
        }
    }
}
