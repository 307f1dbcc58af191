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
        let mut text = self.0.to_string();
        let mut source = self.0.source();
        while let Some(cause) = source {
            let message = cause.to_string();
            if !text.ends_with(&message) {
                text.push_str(": ");
                text.push_str(&message);
            }
            source = cause.source();
        }
        f.write_str(&text)
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

    #[test]
    fn causes_are_written_once() {
        for error in
            [Outer::Plain(std::io::Error::other("disk")), Outer::Repeating(std::io::Error::other("disk"))]
        {
            assert_eq!(Chain(&error).to_string(), "load certificate: disk");
        }
    }
}
