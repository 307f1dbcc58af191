//! What every controller is given: configuration, clients, shared informers, shutdown.

use std::sync::Arc;

use component_base::Shutdown;
use component_base::events::EventRecorder;
use component_base::informer::{Change, Informer, Object};
use component_base::workqueue::{Item, WorkQueue, WorkqueueMetrics};
use kube::Client;

use crate::client_builder::ClientBuilder;
use crate::config::Config;
use crate::informers::Informers;

/// Why a controller could not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("no certificate authority to publish: neither --root-ca-file nor the kubeconfig has one")]
    NoRootCa,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Context {
    /// Checked flags.
    pub config: Arc<Config>,
    /// Shared informers.
    pub informers: Arc<Informers>,
    /// Cancelled when leadership is lost or the process ends.
    pub shutdown: Shutdown,
    /// Clients by ServiceAccount.
    pub clients: ClientBuilder,
    /// Host name, the source of events.
    pub host: Arc<str>,
    /// Metrics of work queues.
    pub queue_metrics: Arc<WorkqueueMetrics>,
    /// Certificate authority of the kubeconfig, published when `--root-ca-file` is not given.
    pub kubeconfig_ca: Option<Arc<str>>,
}

impl Context {
    /// The client of a controller, by the name of its ServiceAccount.
    pub fn client(&self, service_account: &str) -> Client {
        self.clients.client(service_account)
    }

    /// Records events as `component`.
    pub fn recorder(&self, client: &Client, component: &str) -> EventRecorder {
        EventRecorder::new(client.clone(), component, &self.host)
    }

    /// A work queue whose metrics go by `name`.
    pub fn queue<T: Item>(&self, name: &str) -> WorkQueue<T> {
        WorkQueue::named(name, &self.queue_metrics)
    }

    /// The certificate authority that pods shall trust.
    pub fn root_ca(&self) -> Result<Arc<str>, RunError> {
        let configured = self.config.root_ca.as_deref().map(Arc::from);
        configured.or_else(|| self.kubeconfig_ca.clone()).ok_or(RunError::NoRootCa)
    }

    /// Hands every change to `handle`, in order, until shutdown.
    pub fn on_change<K: Object>(
        &self,
        informer: &Informer<K>,
        mut handle: impl FnMut(Change<K>) + Send + 'static,
    ) {
        let mut changes = informer.subscribe();
        let shutdown = self.shutdown.clone();
        tokio::spawn(async move {
            while let Some(Some(change)) = shutdown.run_until_cancelled(changes.recv()).await {
                handle(change);
            }
        });
    }

    /// Waits until the informer holds the whole state; false when shutdown came first.
    pub async fn wait_synced<K: Object>(&self, informer: &Informer<K>) -> bool {
        self.shutdown.run_until_cancelled(informer.wait_synced()).await.unwrap_or(false)
    }
}
