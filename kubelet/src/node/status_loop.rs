//! Keeps the node's object and status: looks every few seconds and at once when the runtime changes, writes when something
//! changed or the report is due. Upstream's concept: `syncNodeStatus` and `tryUpdateNodeStatus`.

use std::time::{Duration, Instant};

use component_base::Shutdown;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeStatus};
use kube::api::{Api, Patch, PatchParams};

use super::capacity::Capacity;
use super::pressure::Pressure;
use super::status::{Facts, generate, patch, same};
use super::{NodeOwner, machine, registration};
use crate::api_error::ApiError;
use crate::events::EventType;

/// While the node is not ready its recovery is looked for this often.
const NOT_READY_PERIOD: Duration = Duration::from_secs(1);
/// How long the first report waits for the runtime's first word.
const FIRST_RUNTIME_STATUS: Duration = Duration::from_secs(5);
const RETRY_PERIOD: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
struct Written {
    status: Option<NodeStatus>,
    at: Option<Instant>,
}

/// Runs until shutdown.
pub(super) async fn run(owner: NodeOwner, client: kube::Client, shutdown: Shutdown) {
    owner.event(EventType::Normal, "Starting", "Starting kubelet.");
    let api: Api<Node> = Api::all(client);
    // A restart must not call a ready node not ready only because the runtime has not been asked yet.
    if !owner.runtime_state.is_known() {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = owner.runtime_state.changed() => {}
            () = tokio::time::sleep(FIRST_RUNTIME_STATUS) => {}
        }
    }
    let mut written = Written::default();
    let mut registered = !owner.config.register;
    loop {
        let mut wait = owner.config.status_update_frequency;
        let result = tokio::select! {
            () = shutdown.cancelled() => return,
            result = one_round(&owner, &api, &mut registered, &mut written) => result,
        };
        match result {
            Ok(true) => {}
            Ok(false) => wait = wait.min(NOT_READY_PERIOD),
            Err(error) => {
                tracing::warn!(node = %owner.config.name, %error, "unable to update node status");
                wait = wait.min(RETRY_PERIOD);
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = owner.runtime_state.changed() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

async fn facts(owner: &NodeOwner) -> Result<Facts, String> {
    let config = &owner.config;
    let capacity = Capacity::measure(config)?;
    owner.view.set_allocatable(capacity.allocatable.clone());
    // Without images the scheduler only loses a preference; the runtime's own trouble shows in Ready.
    let images = owner.runtime.list_images().await.unwrap_or_default();
    Ok(Facts {
        ips: config.ips.clone(),
        hostname: config.hostname.clone(),
        capacity,
        info: machine::system_info(owner.runtime_state.runtime_version().unwrap_or_default()),
        port: config.port,
        images,
        max_images: config.max_images,
        pressure: Pressure::measure(&config.root_dir),
        errors: owner.runtime_state.errors(),
    })
}

/// `Ok(true)` when the node is ready and all is written.
async fn one_round(
    owner: &NodeOwner,
    api: &Api<Node>,
    registered: &mut bool,
    written: &mut Written,
) -> Result<bool, String> {
    let facts = facts(owner).await?;
    let now = Timestamp::now();
    if !*registered {
        let node = registration::register(owner, api, &facts, now)
            .await
            .map_err(|error| ApiError(&error).to_string())?;
        written.status = node.status;
        written.at = None;
        *registered = true;
    }
    let old = match written.status.clone() {
        Some(status) => status,
        None => fetch(owner, api).await?,
    };
    let new = generate(&facts, &old, now);
    let due = written.at.is_none_or(|at| at.elapsed() >= owner.config.status_report_frequency);
    if due || !same(&old, &new) {
        announce(owner, written.at.is_some().then_some(&old), &new);
        if let Some(patch) = patch(&old, &new) {
            let body = serde_json::json!({ "status": patch });
            let result =
                api.patch_status(&owner.config.name, &PatchParams::default(), &Patch::Strategic(body)).await;
            match result {
                // Others write conditions too: their last word is the base of the next patch.
                Ok(node) => written.status = node.status,
                Err(error) => {
                    written.status = None;
                    return Err(ApiError(&error).to_string());
                }
            }
        } else {
            written.status = Some(new);
        }
        written.at = Some(Instant::now());
    }
    Ok(facts.errors.is_empty())
}

async fn fetch(owner: &NodeOwner, api: &Api<Node>) -> Result<NodeStatus, String> {
    let node = api.get(&owner.config.name).await.map_err(|error| ApiError(&error).to_string())?;
    Ok(node.status.unwrap_or_default())
}

/// Events for conditions that are new or changed: `Node x status is now: NodeReady`.
fn announce(owner: &NodeOwner, old: Option<&NodeStatus>, new: &NodeStatus) {
    for condition in new.conditions.iter().flatten() {
        let before =
            old.into_iter().flat_map(|s| s.conditions.iter().flatten()).find(|c| c.type_ == condition.type_);
        if before.is_some_and(|before| before.status == condition.status) {
            continue;
        }
        let is_true = condition.status == "True";
        let word = match (condition.type_.as_str(), is_true) {
            ("Ready", true) => "NodeReady",
            ("Ready", false) => "NodeNotReady",
            ("MemoryPressure", false) => "NodeHasSufficientMemory",
            ("MemoryPressure", true) => "NodeHasInsufficientMemory",
            ("DiskPressure", false) => "NodeHasNoDiskPressure",
            ("DiskPressure", true) => "NodeHasDiskPressure",
            ("PIDPressure", false) => "NodeHasSufficientPID",
            ("PIDPressure", true) => "NodeHasInsufficientPID",
            _ => continue,
        };
        // A first "not ready" is how every node begins; it is no news.
        if word == "NodeNotReady" && before.is_none() {
            continue;
        }
        let message = format!("Node {} status is now: {word}", owner.config.name);
        owner.event(EventType::Normal, word, &message);
    }
}
