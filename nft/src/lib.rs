//! Gives nftables scripts to the kernel through the `nft` program: the only place that changes packet rules.
//!
//! What a script says is its author's matter; each daemon keeps to a table of its own.

use std::process::Stdio;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// Why the kernel did not take a script.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `nft` can't be run at all.
    #[error("run nft (is the package nftables installed?)")]
    Run(#[source] std::io::Error),
    /// `nft` refused.
    #[error("nft refused the transaction: {0}")]
    Refused(String),
}

/// Runs one script as one transaction: all of it or nothing.
///
/// # Errors
/// `nft` is missing or refuses; then nothing has changed.
pub async fn run(script: &str) -> Result<(), Error> {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(Error::Run)?;
    let written = match child.stdin.take() {
        Some(mut stdin) => stdin.write_all(script.as_bytes()).await,
        None => Ok(()),
    };
    let output = child.wait_with_output().await.map_err(Error::Run)?;
    if output.status.success() {
        return written.map_err(Error::Run);
    }
    // When nft gave up early its own words say more than the broken pipe.
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(Error::Refused(stderr.lines().take(3).collect::<Vec<_>>().join("; ")))
}

/// The text of one chain, or `None` when the chain or its table is not there.
///
/// # Errors
/// `nft` can't be run.
pub async fn chain(family: &str, table: &str, chain: &str) -> Result<Option<String>, Error> {
    let output = Command::new("nft")
        .args(["list", "chain", family, table, chain])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(Error::Run)?;
    Ok(output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned()))
}
