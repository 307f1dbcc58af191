//! `test`.
use crate::cli::TestArgs;
pub(crate) fn run(_args: &TestArgs) -> anyhow::Result<()> { anyhow::bail!("not yet") }
