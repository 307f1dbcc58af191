//! What is asked of etcd's members one by one: who leads, and the chores of a cluster.

use anyhow::{Context as _, Result};
use etcd_client::{Client, ConnectOptions};
use std::time::{Duration, Instant};

/// How long a member may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long etcd may take to be itself again.
const RECOVERY: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(200);

async fn connect(endpoint: &str) -> Result<Client> {
    let options = ConnectOptions::new().with_connect_timeout(Duration::from_secs(1)).with_timeout(PATIENCE);
    Ok(Client::connect([endpoint], Some(options)).await?)
}

/// Tries until it is done: etcd may be about to elect, or another fault under way.
pub(super) async fn patiently<T>(attempt: impl AsyncFn() -> Result<T>) -> Result<T> {
    let until = Instant::now() + RECOVERY;
    loop {
        match attempt().await {
            Err(_) if Instant::now() < until => tokio::time::sleep(PAUSE).await,
            done => return done,
        }
    }
}

/// The leader's place among the members, and the ids of all that answer.
pub(super) async fn leader(endpoints: &[String]) -> Result<(usize, Vec<(usize, u64)>)> {
    let mut members = Vec::new();
    let mut leader = 0;
    for (index, endpoint) in endpoints.iter().enumerate() {
        let asking = async { Ok::<_, anyhow::Error>(connect(endpoint).await?.status().await?) };
        let Ok(Ok(status)) = tokio::time::timeout(PATIENCE, asking).await else { continue };
        if let Some(header) = status.header() {
            members.push((index, header.member_id()));
        }
        leader = status.leader();
    }
    let found = members.iter().find(|(_, id)| *id == leader);
    let index = found.map(|(index, _)| *index).context("etcd has no leader that answers")?;
    Ok((index, members))
}

/// Makes another member the leader.
pub(super) async fn move_leader(endpoints: &[String], choice: usize) -> Result<String> {
    let (leader, members) = leader(endpoints).await?;
    let others: Vec<_> = members.into_iter().filter(|(index, _)| *index != leader).collect();
    let (index, id) = *others.get(choice % others.len().max(1)).context("there is no other member")?;
    connect(&endpoints[leader]).await?.move_leader(id).await?;
    Ok(format!("from member {leader} to member {index}"))
}

/// Compacts everything below `revision`, through any member that answers.
pub(super) async fn compact(endpoints: &[String], revision: i64) -> Result<()> {
    let mut last = anyhow::anyhow!("etcd has no members");
    for endpoint in endpoints {
        let asking =
            async { Ok::<_, anyhow::Error>(connect(endpoint).await?.compact(revision, None).await?) };
        match asking.await {
            Ok(_) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Defragments a member.
pub(super) async fn defragment(endpoint: &str) -> Result<()> {
    connect(endpoint).await?.defragment().await?;
    Ok(())
}
