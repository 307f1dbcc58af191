//! The loop: changes of Services, EndpointSlices and the own Node in, one nft transaction out.
//!
//! Changes are gathered as the set of Services they touch; a transaction renders those alone. Anything that
//! goes wrong with the kernel, a flush by somebody else, and a change of the node's addresses lead to one
//! same remedy: the whole table is replaced, in one transaction too, so that there is never a gap.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use apimachinery::meta::{self, ObjectKey};
use apimachinery::validation::names::parse_ip;
use component_base::Shutdown;
use component_base::informer::{Change, Connection, Informer, InformerBuilder, Store};
use component_base::metrics::Registry;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use tokio::time::{MissedTickBehavior, interval};

use crate::config::Config;
use crate::conntrack;
use crate::health::{self, Health};
use crate::nftables::ruleset::{Table, Transaction};
use crate::nftables::skeleton::Skeleton;
use crate::nftables::{TABLE, render};
use crate::service_map::{Family, ServicePortInfo, resolve};

const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
const BY_SERVICE: &str = "service";
/// Services that another proxy serves, and slices that no Service address leads to.
const SERVICES: &str = "!service.kubernetes.io/service-proxy-name";
const SLICES: &str = "!service.kubernetes.io/service-proxy-name,!service.kubernetes.io/headless";
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Runs kube-proxy until `shutdown`. The rules stay when it ends: connections go on while it restarts.
///
/// # Errors
/// The API server's address or credentials can't be loaded, or a health or metrics address can't be bound.
pub async fn run(config: Config, shutdown: Shutdown) -> anyhow::Result<()> {
    tracing::info!(node = config.node_name, mode = "nftables", cluster_cidrs = ?config.cluster_cidrs, "configuration");
    let client = component_base::client::load(config.kubeconfig.as_deref(), "kube-proxy").await?;
    let metrics = Registry::new();
    let health = Arc::new(Health::new(&config, &metrics));
    health::serve(&config, &health, &metrics, &shutdown).await?;

    let connection = Connection::new(client);
    let services =
        InformerBuilder::<Service>::new(connection.clone()).label_selector(SERVICES).start(&shutdown);
    let slices = InformerBuilder::<EndpointSlice>::new(connection.clone())
        .label_selector(SLICES)
        .index(BY_SERVICE, |slice| service_of(slice).map(|key| key.to_string()).into_iter().collect())
        .transform(|slice| slice.metadata.annotations = None)
        .start(&shutdown);
    let node = InformerBuilder::<Node>::new(connection)
        .field_selector(format!("metadata.name={}", config.node_name))
        .start(&shutdown);
    tokio::select! {
        () = shutdown.cancelled() => return Ok(()),
        _ = async { tokio::join!(services.wait_synced(), slices.wait_synced(), node.wait_synced()) } => {}
    }
    let proxier = Proxier {
        services: services.store(),
        slices: slices.store(),
        nodes: node.store(),
        health,
        tables: Family::ALL.map(|family| FamilyTable { family, table: Table::default(), enabled: true }),
        ports: std::collections::HashMap::new(),
        dirty: BTreeSet::new(),
        whole: true,
        node_ips: Vec::new(),
        config,
    };
    proxier.run(&services, &slices, &node, &shutdown).await;
    Ok(())
}

fn service_of(slice: &EndpointSlice) -> Option<ObjectKey> {
    let name = meta::label(&slice.metadata, SERVICE_NAME_LABEL)?;
    Some(ObjectKey::new(meta::namespace_of(slice), name))
}

fn node_ips(node: &Node) -> Vec<IpAddr> {
    let addresses = node.status.as_ref().and_then(|s| s.addresses.as_deref()).unwrap_or_default();
    addresses.iter().filter(|a| a.type_ == "InternalIP").filter_map(|a| parse_ip(&a.address)).collect()
}

struct FamilyTable {
    family: Family,
    table: Table,
    /// False once the kernel has refused the family's bare table: a host without IPv6 serves IPv4 alone.
    enabled: bool,
}

struct Proxier {
    config: Config,
    services: Store<Service>,
    slices: Store<EndpointSlice>,
    nodes: Store<Node>,
    health: Arc<Health>,
    tables: [FamilyTable; 2],
    /// The ports that the rules were made from, for the flows that a change makes stale.
    ports: std::collections::HashMap<ObjectKey, Vec<ServicePortInfo>>,
    dirty: BTreeSet<ObjectKey>,
    whole: bool,
    node_ips: Vec<IpAddr>,
}

impl Proxier {
    async fn run(
        mut self,
        services: &Informer<Service>,
        slices: &Informer<EndpointSlice>,
        node: &Informer<Node>,
        shutdown: &Shutdown,
    ) {
        let (mut services, mut slices, mut node) =
            (services.subscribe(), slices.subscribe(), node.subscribe());
        let mut check = interval(self.config.sync_period.max(Duration::from_secs(1)));
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut retry = RETRY_FIRST;
        let mut not_before = Instant::now();
        loop {
            let pending = self.whole || !self.dirty.is_empty();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                Some(change) = services.recv() => self.service_changed(&change),
                Some(change) = slices.recv() => self.slice_changed(&change),
                Some(change) = node.recv() => self.node_changed(&change),
                _ = check.tick() => self.check_tables().await,
                // Last of all: every change that is there already goes into one transaction.
                () = tokio::time::sleep_until(not_before.into()), if pending => {
                    let delay = match self.sync().await {
                        Ok(()) => {
                            retry = RETRY_FIRST;
                            self.config.min_sync_period
                        }
                        Err(error) => {
                            tracing::error!(error = %component_base::error_chain::Chain(&error), "sync of the rules failed, retrying");
                            self.whole = true;
                            let delay = retry;
                            retry = (retry * 2).min(RETRY_MAX);
                            delay
                        }
                    };
                    not_before = Instant::now() + delay;
                }
            }
        }
    }

    fn touch(&mut self, key: ObjectKey) {
        self.health.queued();
        self.dirty.insert(key);
    }

    fn service_changed(&mut self, change: &Change<Service>) {
        self.touch(change.key());
    }

    fn slice_changed(&mut self, change: &Change<EndpointSlice>) {
        // The label may have moved a slice from one Service to another.
        let keys: Vec<_> =
            [change.old(), change.new()].into_iter().flatten().filter_map(|s| service_of(s)).collect();
        for key in keys {
            self.touch(key);
        }
    }

    fn node_changed(&mut self, change: &Change<Node>) {
        self.health.set_node(change.new().map(|n| &**n));
        let ips = change.new().map(|n| node_ips(n)).unwrap_or_default();
        // A Node that vanishes for a moment takes no address from its ports.
        if !ips.is_empty() && ips != self.node_ips {
            tracing::info!(?ips, "node addresses changed");
            self.whole = true;
        }
    }

    /// Looks whether somebody else flushed our tables.
    async fn check_tables(&mut self) {
        for table in self.tables.iter().filter(|t| t.enabled) {
            match nft::chain(table.family.nft(), TABLE, "nat-prerouting").await {
                Ok(Some(chain)) if chain.contains("jump services") => {}
                Ok(_) if self.whole => {}
                Ok(_) => {
                    tracing::warn!(
                        family = table.family.nft(),
                        "the table was removed by somebody else, restoring it"
                    );
                    self.whole = true;
                }
                Err(error) => {
                    tracing::error!(error = %component_base::error_chain::Chain(&error), "check of the table failed")
                }
            }
        }
    }

    fn resolve(&self, key: &ObjectKey) -> Vec<ServicePortInfo> {
        match self.services.get(key) {
            Some(service) => {
                let slices = self.slices.by_index(BY_SERVICE, &key.to_string());
                resolve(&service, &slices, &self.config.node_name)
            }
            None => Vec::new(),
        }
    }

    async fn sync(&mut self) -> Result<(), nft::Error> {
        let started = Instant::now();
        let whole = std::mem::take(&mut self.whole);
        let mut dirty = std::mem::take(&mut self.dirty);
        if whole {
            dirty.extend(self.services.keys());
            dirty.extend(self.ports.keys().cloned());
            let own = self.nodes.get(&ObjectKey::cluster(self.config.node_name.clone()));
            if let Some(ips) = own.map(|n| node_ips(&n)).filter(|ips| !ips.is_empty()) {
                self.node_ips = ips;
            }
        }
        let resolved: Vec<_> = dirty.into_iter().map(|key| (self.resolve(&key), key)).collect();
        for table in self.tables.iter_mut().filter(|t| t.enabled) {
            let skeleton = whole.then(|| Skeleton::new(&self.config, self.node_ips.clone()));
            sync_family(table, skeleton, &resolved).await?;
        }
        let mut stale = BTreeSet::new();
        let changed = resolved.len();
        for (ports, key) in resolved {
            let old = self.ports.remove(&key).unwrap_or_default();
            stale.append(&mut conntrack::stale_flows(&old, &ports));
            if !ports.is_empty() {
                self.ports.insert(key, ports);
            }
        }
        self.health.synced(started.elapsed());
        tracing::debug!(services = changed, whole, elapsed = ?started.elapsed(), "synced the rules");
        if !stale.is_empty() {
            tokio::spawn(conntrack::forget(stale));
        }
        Ok(())
    }
}

async fn sync_family(
    table: &mut FamilyTable,
    skeleton: Option<Skeleton>,
    resolved: &[(Vec<ServicePortInfo>, ObjectKey)],
) -> Result<(), nft::Error> {
    let family = table.family;
    let mut script = String::new();
    if let Some(skeleton) = skeleton {
        table.table = Table::default();
        script = skeleton.script(family);
    }
    let mut transaction = Transaction::default();
    for (ports, key) in resolved {
        table.table.replace(family, key, render::render(ports, family), &mut transaction);
    }
    let whole = !script.is_empty();
    script.push_str(&transaction.script());
    if script.is_empty() {
        return Ok(());
    }
    match nft::run(&script).await {
        Ok(()) => Ok(()),
        Err(error) if whole && family == Family::V6 && table.table.owners().is_empty() => {
            tracing::warn!(error = %component_base::error_chain::Chain(&error), "no IPv6 rules on this host, serving IPv4 alone");
            table.enabled = false;
            Ok(())
        }
        Err(error) => Err(error),
    }
}
