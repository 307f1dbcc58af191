//! Tests that need the whole: they stand in `tests/`, one file per behaviour, and run on the cluster that
//! `cargo xtask test` brings up. This library is empty.
