//! What etcd can do by itself, asked as an API server asks it: no API server over it can be faster.

use crate::crew::{self, Cost};
use crate::pod::{self, Template};
use anyhow::{Context, Result, ensure};
use etcd_client::{Client, Compare, CompareOp, KvClient, Txn, TxnOp};
use harness::etcd::Etcd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::task::JoinSet;

use crate::operations::finish;

#[derive(Debug, Clone, Copy)]
pub(crate) enum Access {
    /// A transaction that puts the object if there is none.
    Create,
    Get,
}

/// So many accesses over so many pods, by `clients` at once.
pub(crate) fn run(etcd: &Etcd, clients: u32, access: Access, pods: u32, count: u32) -> Result<Cost> {
    let next = Arc::new(AtomicU32::new(0));
    crew::run(
        etcd.pid(),
        async |place| {
            // One connection for a thread's clients: the API server has one for all of its own.
            let client = Client::connect([etcd.endpoint()], None).await?;
            Ok((client.kv_client(), place.share(clients)))
        },
        async |(kv, clients)| {
            let mut tasks = JoinSet::new();
            for _ in 0..clients {
                tasks.spawn(client(kv.clone(), access, pods, count, Arc::clone(&next)));
            }
            finish(tasks).await
        },
    )
}

async fn client(mut kv: KvClient, access: Access, pods: u32, count: u32, next: Arc<AtomicU32>) -> Result<()> {
    let object = Template::object();
    loop {
        let index = next.fetch_add(1, Ordering::Relaxed);
        if index >= count {
            return Ok(());
        }
        let key = format!("/registry/pods/{}/{}", pod::NAMESPACE, pod::name(index % pods));
        match access {
            Access::Create => {
                let value = object.of(index).to_vec();
                let txn = Txn::new()
                    .when([Compare::mod_revision(key.as_str(), CompareOp::Equal, 0)])
                    .and_then([TxnOp::put(key.as_str(), value, None)])
                    .or_else([TxnOp::get(key.as_str(), None)]);
                ensure!(kv.txn(txn).await?.succeeded(), "{key} was there already");
            }
            Access::Get => {
                kv.get(key, None).await?.kvs().first().context("a pod is missing in etcd")?;
            }
        }
    }
}
