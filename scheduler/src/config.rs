//! Flags and `KubeSchedulerConfiguration` (kubescheduler.config.k8s.io/v1) as one validated [`Config`].

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use component_base::cli::flag;
use component_base::leader_election::{LeaderElectionArgs, LeaderElectionConfig};
use component_base::serving::{SecureServingArgs, ServingConfig};
use serde::Deserialize;
use serde_json::Value;

use crate::plugins;

const API_VERSION: &str = "kubescheduler.config.k8s.io/v1";
const KIND: &str = "KubeSchedulerConfiguration";
const DEFAULT_PORT: u16 = 10259;

/// The command line.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The path to the configuration file.
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// Path to kubeconfig file with authorization and master location information.
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
    /// kubeconfig file for delegated authentication. Callers authenticate by client certificate alone here; the
    /// file must exist.
    #[arg(long)]
    pub authentication_kubeconfig: Option<PathBuf>,
    /// kubeconfig file for delegated authorization. Any verified certificate may read here; the file must exist.
    #[arg(long)]
    pub authorization_kubeconfig: Option<PathBuf>,
    /// Leader election.
    #[command(flatten)]
    pub leader_election: LeaderElectionArgs,
    /// The secure port.
    #[command(flatten)]
    pub serving: SecureServingArgs,
}

/// What the scheduler runs with.
#[derive(Debug)]
pub struct Config {
    /// How to reach the API server.
    pub kubeconfig: Option<PathBuf>,
    /// The election, if there is one.
    pub leader_election: Option<LeaderElectionConfig>,
    /// The secure port, if there is one.
    pub serving: Option<ServingConfig>,
    /// Profiles, at least one.
    pub profiles: Vec<Profile>,
    /// Delay of a pod's second try.
    pub pod_initial_backoff: Duration,
    /// Longest delay.
    pub pod_max_backoff: Duration,
}

/// One scheduler name with its plugins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// The `spec.schedulerName` that it serves.
    pub scheduler_name: String,
    /// Plugins of the default profile left out.
    pub disabled: BTreeSet<String>,
    /// How many percent of feasible nodes are enough; 0 adapts to the cluster.
    pub percentage_of_nodes_to_score: u32,
}

/// Why the configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file can't be read.
    #[error("read {path:?}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The file is no configuration of ours.
    #[error("parse configuration file {path:?}: {message}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A field has a value that is not allowed or not supported.
    #[error("{field}: Invalid value: {value}: {problem}")]
    Invalid {
        /// Field.
        field: String,
        /// Its value.
        value: String,
        /// Why not.
        problem: &'static str,
    },
    /// Leader election flags that do not fit together.
    #[error("leader election")]
    LeaderElection(#[from] component_base::leader_election::LeaderElectionArgsError),
    /// Serving flags that do not fit together.
    #[error("secure serving")]
    Serving(#[from] component_base::serving::SecureServingArgsError),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    #[serde(default)]
    parallelism: Option<u32>,
    #[serde(default)]
    leader_election: Option<FileLeaderElection>,
    #[serde(default)]
    client_connection: Option<ClientConnection>,
    #[serde(default)]
    percentage_of_nodes_to_score: Option<u32>,
    #[serde(default)]
    pod_initial_backoff_seconds: Option<u64>,
    #[serde(default)]
    pod_max_backoff_seconds: Option<u64>,
    #[serde(default)]
    profiles: Vec<FileProfile>,
    #[serde(default)]
    extenders: Vec<Value>,
    #[serde(default)]
    enable_profiling: Option<bool>,
    #[serde(default)]
    enable_contention_profiling: Option<bool>,
    #[serde(default)]
    delay_cache_until_active: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FileLeaderElection {
    leader_elect: Option<bool>,
    lease_duration: Option<String>,
    renew_deadline: Option<String>,
    retry_period: Option<String>,
    resource_lock: Option<String>,
    resource_name: Option<String>,
    resource_namespace: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ClientConnection {
    #[serde(default)]
    kubeconfig: String,
    #[serde(default)]
    accept_content_types: String,
    #[serde(default)]
    content_type: String,
    // The client is not limited by itself, so these two have nothing to set.
    #[serde(default)]
    #[expect(dead_code, reason = "accepted as upstream writes it; the client does not limit itself")]
    qps: Value,
    #[serde(default)]
    #[expect(dead_code, reason = "accepted as upstream writes it; the client does not limit itself")]
    burst: Value,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FileProfile {
    scheduler_name: Option<String>,
    percentage_of_nodes_to_score: Option<u32>,
    #[serde(default)]
    plugins: std::collections::BTreeMap<String, PluginSet>,
    #[serde(default)]
    plugin_config: Vec<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PluginSet {
    #[serde(default)]
    enabled: Vec<NamedPlugin>,
    #[serde(default)]
    disabled: Vec<NamedPlugin>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NamedPlugin {
    name: String,
    weight: Option<i64>,
}

fn invalid(field: impl Into<String>, value: impl Into<String>, problem: &'static str) -> Error {
    Error::Invalid { field: field.into(), value: value.into(), problem }
}

impl Config {
    /// The configuration that the command line and its `--config` file ask for.
    ///
    /// # Errors
    /// A file that can't be read or parsed, a bad value, or a feature that is not supported.
    pub fn from_args(mut args: Args) -> Result<Self, Error> {
        for path in [&args.authentication_kubeconfig, &args.authorization_kubeconfig].into_iter().flatten() {
            std::fs::metadata(path).map_err(|source| Error::Read { path: path.clone(), source })?;
        }
        let file = match args.config.take() {
            None => None,
            Some(path) => {
                let text = std::fs::read_to_string(&path)
                    .map_err(|source| Error::Read { path: path.clone(), source })?;
                let file: File = serde_saphyr::from_str(&text)
                    .map_err(|e| Error::Parse { path: path.clone(), message: e.to_string() })?;
                if file.api_version != API_VERSION || file.kind != KIND {
                    let message =
                        format!("no kind {:?} is registered for version {:?}", file.kind, file.api_version);
                    return Err(Error::Parse { path, message });
                }
                Some(file)
            }
        };
        match file {
            Some(file) => file.into_config(args),
            None => Ok(Self {
                kubeconfig: args.kubeconfig,
                leader_election: args.leader_election.config("kube-scheduler")?,
                serving: args.serving.config(DEFAULT_PORT)?,
                profiles: vec![default_profile(0)],
                pod_initial_backoff: Duration::from_secs(1),
                pod_max_backoff: Duration::from_secs(10),
            }),
        }
    }
}

fn default_profile(percentage: u32) -> Profile {
    Profile {
        scheduler_name: "default-scheduler".to_owned(),
        disabled: BTreeSet::new(),
        percentage_of_nodes_to_score: percentage,
    }
}

impl File {
    fn into_config(self, mut args: Args) -> Result<Config, Error> {
        if !self.extenders.is_empty() {
            return Err(invalid(
                "extenders",
                format!("{} given", self.extenders.len()),
                "not supported by this scheduler",
            ));
        }
        if self.enable_contention_profiling == Some(true) && self.enable_profiling == Some(true) {
            return Err(invalid("enableContentionProfiling", "true", "not supported by this scheduler"));
        }
        if self.delay_cache_until_active {
            return Err(invalid("delayCacheUntilActive", "true", "not supported by this scheduler"));
        }
        if self.parallelism == Some(0) {
            return Err(invalid("parallelism", "0", "should be an integer value greater than zero"));
        }
        let percentage = self.percentage_of_nodes_to_score.unwrap_or(0);
        if percentage > 100 {
            return Err(invalid(
                "percentageOfNodesToScore",
                percentage.to_string(),
                "not in valid range [0-100]",
            ));
        }
        let initial = self.pod_initial_backoff_seconds.unwrap_or(1);
        let max = self.pod_max_backoff_seconds.unwrap_or(10);
        if initial == 0 {
            return Err(invalid("podInitialBackoffSeconds", "0", "must be greater than 0"));
        }
        if max < initial {
            return Err(invalid(
                "podMaxBackoffSeconds",
                max.to_string(),
                "must be greater than or equal to PodInitialBackoffSeconds",
            ));
        }
        if let Some(connection) = self.client_connection {
            for (field, value) in [
                ("clientConnection.acceptContentTypes", &connection.accept_content_types),
                ("clientConnection.contentType", &connection.content_type),
            ] {
                if !matches!(value.as_str(), "" | "application/json") {
                    return Err(invalid(field, value.clone(), "only application/json is supported"));
                }
            }
            if !connection.kubeconfig.is_empty() {
                args.kubeconfig = Some(PathBuf::from(connection.kubeconfig));
            }
        }
        if let Some(election) = self.leader_election {
            election.into_args(&mut args.leader_election)?;
        }
        let mut profiles = Vec::new();
        for (index, profile) in self.profiles.into_iter().enumerate() {
            profiles.push(profile.into_profile(index, percentage)?);
        }
        let names: BTreeSet<&String> = profiles.iter().map(|p| &p.scheduler_name).collect();
        if names.len() != profiles.len() {
            return Err(invalid("profiles", "schedulerName", "must be unique"));
        }
        if profiles.is_empty() {
            profiles.push(default_profile(percentage));
        }
        Ok(Config {
            kubeconfig: args.kubeconfig,
            leader_election: args.leader_election.config("kube-scheduler")?,
            serving: args.serving.config(DEFAULT_PORT)?,
            profiles,
            pod_initial_backoff: Duration::from_secs(initial),
            pod_max_backoff: Duration::from_secs(max),
        })
    }
}

impl FileLeaderElection {
    fn into_args(self, args: &mut LeaderElectionArgs) -> Result<(), Error> {
        let duration = |field: &str, text: String| {
            flag::duration(&text).map_err(|_| invalid(field, text, "must be a duration"))
        };
        if let Some(text) = self.lease_duration {
            args.leader_elect_lease_duration = duration("leaderElection.leaseDuration", text)?;
        }
        if let Some(text) = self.renew_deadline {
            args.leader_elect_renew_deadline = duration("leaderElection.renewDeadline", text)?;
        }
        if let Some(text) = self.retry_period {
            args.leader_elect_retry_period = duration("leaderElection.retryPeriod", text)?;
        }
        if let Some(lock) = self.resource_lock.filter(|l| l != "leases") {
            return Err(invalid("leaderElection.resourceLock", lock, "only leases is supported"));
        }
        args.leader_elect = self.leader_elect.unwrap_or(args.leader_elect);
        args.leader_elect_resource_name = self.resource_name.or(args.leader_elect_resource_name.take());
        if let Some(namespace) = self.resource_namespace {
            args.leader_elect_resource_namespace = namespace;
        }
        Ok(())
    }
}

impl FileProfile {
    fn into_profile(self, index: usize, percentage: u32) -> Result<Profile, Error> {
        let at = format!("profiles[{index}]");
        if !self.plugin_config.is_empty() {
            return Err(invalid(
                format!("{at}.pluginConfig"),
                "set",
                "arguments of plugins are not supported yet",
            ));
        }
        let mut disabled = BTreeSet::new();
        for (point, set) in self.plugins {
            let field = format!("{at}.plugins.{point}");
            if point != "multiPoint" {
                return Err(invalid(field, "set", "only multiPoint is supported yet"));
            }
            for plugin in set.disabled {
                if plugin.name == "*" || plugins::REQUIRED.contains(&plugin.name.as_str()) {
                    return Err(invalid(format!("{field}.disabled"), plugin.name, "can't be disabled"));
                }
                disabled.insert(plugin.name);
            }
            for plugin in set.enabled {
                if !plugins::NAMES.contains(&plugin.name.as_str()) {
                    return Err(invalid(
                        format!("{field}.enabled"),
                        plugin.name,
                        "no such plugin in this scheduler",
                    ));
                }
                if plugin.weight.is_some_and(|w| w != 0) {
                    return Err(invalid(
                        format!("{field}.enabled"),
                        plugin.name,
                        "weights are not supported yet",
                    ));
                }
                disabled.remove(&plugin.name);
            }
        }
        Ok(Profile {
            scheduler_name: self.scheduler_name.unwrap_or_else(|| "default-scheduler".to_owned()),
            disabled,
            percentage_of_nodes_to_score: self.percentage_of_nodes_to_score.unwrap_or(percentage),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Vec<Profile>, String> {
        let text = format!("apiVersion: {API_VERSION}\nkind: {KIND}\n{text}");
        let file: File = serde_saphyr::from_str(&text).map_err(|e| e.to_string())?;
        #[derive(clap::Parser)]
        struct Command {
            #[command(flatten)]
            args: Args,
        }
        let command = <Command as clap::Parser>::parse_from(["kube-scheduler"]);
        file.into_config(command.args).map(|c| c.profiles).map_err(|e| e.to_string())
    }

    #[test]
    fn profiles_are_read() {
        let profiles = parse("profiles:\n- schedulerName: mine\n  plugins:\n    multiPoint:\n      disabled:\n      - name: ImageLocality\n")
            .expect("valid");
        assert_eq!(profiles[0].scheduler_name, "mine");
        assert!(profiles[0].disabled.contains("ImageLocality"));
        assert_eq!(parse("").expect("valid"), [default_profile(0)]);
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        for (text, names) in [
            ("extenders:\n- urlPrefix: x", "extenders"),
            ("nosuch: 1", "nosuch"),
            ("percentageOfNodesToScore: 101", "percentageOfNodesToScore"),
            ("profiles:\n- pluginConfig:\n  - name: NodeResourcesFit", "pluginConfig"),
            ("profiles:\n- plugins:\n    multiPoint:\n      enabled:\n      - name: Nope", "Nope"),
            ("profiles:\n- {}\n- {}", "unique"),
            ("podMaxBackoffSeconds: 1\npodInitialBackoffSeconds: 2", "podMaxBackoffSeconds"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(names), "{text}: {error}");
        }
    }
}
