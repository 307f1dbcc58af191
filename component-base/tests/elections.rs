//! Of several replicas one leads, and none acts after its time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use apimachinery::meta::ObjectKey;
use component_base::{
    Shutdown,
    cli::BoxError,
    leader_election::{self, Fence, LeaderElectionConfig, LeaderElectionError},
};
use harness::proxy::Proxy;
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Namespace};
use kube::{Api, Client};
use tokio::task::JoinHandle;

use crate::server::{Server, eventually};

/// A replica with a leadership that can be looked at.
struct Replica {
    leads: Arc<AtomicBool>,
    fence: Fence,
    shutdown: Shutdown,
    task: JoinHandle<Result<(), LeaderElectionError>>,
}

fn replica(name: &str, client: Client) -> Replica {
    let leads = Arc::new(AtomicBool::new(false));
    let shutdown = Shutdown::new();
    let config = LeaderElectionConfig {
        lease: ObjectKey::new("kube-system", "test"),
        identity: name.to_owned(),
        lease_duration: Duration::from_secs(3),
        renew_deadline: Duration::from_secs(2),
        retry_period: Duration::from_millis(200),
        ..LeaderElectionConfig::new("test")
    };
    let fence = config.fence.clone();
    let lead = {
        let (leads, shutdown) = (Arc::clone(&leads), shutdown.clone());
        move |lost: Shutdown| async move {
            leads.store(true, Ordering::SeqCst);
            // A task of its own, as controllers have: it hears of the loss by the token.
            let flag = Arc::clone(&leads);
            tokio::spawn(async move {
                lost.cancelled().await;
                flag.store(false, Ordering::SeqCst);
            });
            shutdown.cancelled().await;
            Ok::<_, BoxError>(())
        }
    };
    let task = tokio::spawn(leader_election::run(config, client, shutdown.clone(), lead));
    Replica { leads, fence, shutdown, task }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_moves_when_the_leader_is_cut_off_and_when_it_leaves() -> Result<()> {
    let server = Server::start().await?;
    let leases = Api::<Lease>::namespaced(server.client().await?, "kube-system");
    let holder = async || {
        let lease = leases.get_opt("test").await.ok().flatten();
        lease.and_then(|lease| lease.spec?.holder_identity).unwrap_or_default()
    };

    // The first replica has a network of its own, which will fail.
    let first_network = Proxy::start(server.proxy.port()).await?;
    let first_client = server.client_through(&first_network).await?;
    let first = replica("first", first_client.clone());
    eventually("the holder", "first".to_owned(), async || holder().await).await;
    eventually("leadership of the first", true, async || first.leads.load(Ordering::SeqCst)).await;
    let second = replica("second", server.client().await?);
    let guarded = first.fence.guard(first_client);
    assert!(Api::<Namespace>::all(guarded.clone()).get("default").await.is_ok(), "the leader may act");

    first_network.freeze();
    let outcome = first.task.await?;
    assert!(matches!(outcome, Err(LeaderElectionError::Lost)), "{outcome:?}");
    assert!(!second.leads.load(Ordering::SeqCst), "the first knows before the second takes over");
    eventually("the first's task", false, async || first.leads.load(Ordering::SeqCst)).await;
    first_network.thaw();
    let refused = Api::<Namespace>::all(guarded).get("default").await;
    assert!(refused.is_err_and(|error| format!("{error:?}").contains("NotLeading")), "acts no more");
    eventually("the holder", "second".to_owned(), async || holder().await).await;

    let third = replica("third", server.client().await?);
    second.shutdown.cancel();
    second.task.await??;
    eventually("the holder", "third".to_owned(), async || holder().await).await;
    let spec = leases.get("test").await?.spec.unwrap_or_default();
    assert_eq!(spec.lease_transitions, Some(2));
    third.shutdown.cancel();
    third.task.await??;
    assert_eq!(holder().await, "", "released");
    Ok(())
}
