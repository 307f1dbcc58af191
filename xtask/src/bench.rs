//! `bench`.
use crate::cli::BenchArgs;
pub(crate) fn run(_args: &BenchArgs) -> anyhow::Result<()> {
    anyhow::bail!("not yet")
}
