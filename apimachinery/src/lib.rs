//! The API machinery that every daemon shares: objects, quantities, selectors, patches. No IO.
