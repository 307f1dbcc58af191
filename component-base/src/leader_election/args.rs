//! The flags of leader election, for components that have replicas.

use std::time::Duration;

use apimachinery::meta::ObjectKey;

use super::LeaderElectionConfig;
use crate::cli::flag;

/// Upstream's LeaderElectionConfiguration flags; flatten it into a daemon's `Args`.
#[derive(Debug, Clone, clap::Args)]
pub struct LeaderElectionArgs {
    /// Start a leader election client and gain leadership before executing the main loop
    #[arg(long, default_value_t = true)]
    pub leader_elect: bool,
    /// The duration that non-leader candidates will wait before forcing acquisition of leadership
    #[arg(long, default_value = "15s", value_parser = flag::duration)]
    pub leader_elect_lease_duration: Duration,
    /// The duration that the acting leader will retry refreshing leadership before giving up
    #[arg(long, default_value = "10s", value_parser = flag::duration)]
    pub leader_elect_renew_deadline: Duration,
    /// The duration the clients should wait between tries of actions
    #[arg(long, default_value = "2s", value_parser = flag::duration)]
    pub leader_elect_retry_period: Duration,
    /// The type of resource object that is used for locking; only 'leases' is supported
    #[arg(long, default_value = "leases", value_parser = ["leases"])]
    pub leader_elect_resource_lock: String,
    /// The name of resource object that is used for locking
    #[arg(long)]
    pub leader_elect_resource_name: Option<String>,
    /// The namespace of resource object that is used for locking
    #[arg(long, default_value = "kube-system")]
    pub leader_elect_resource_namespace: String,
}

/// Durations that cannot work together.
#[derive(Debug, thiserror::Error)]
pub enum LeaderElectionArgsError {
    /// Others would take over from a leader that still believes it leads.
    #[error("leaseDuration must be greater than renewDeadline")]
    LeaseTooShort,
    /// There would be no second try to renew.
    #[error("renewDeadline must be greater than retryPeriod*JitterFactor")]
    DeadlineTooShort,
    /// Zero makes no sense for any of them.
    #[error("leader election durations must be greater than zero")]
    Zero,
}

impl LeaderElectionArgs {
    /// The election's configuration; `None` when it is switched off.
    ///
    /// # Errors
    /// When the durations do not fit together.
    pub fn config(self, default_name: &str) -> Result<Option<LeaderElectionConfig>, LeaderElectionArgsError> {
        if !self.leader_elect {
            return Ok(None);
        }
        let (lease, deadline, retry) = (
            self.leader_elect_lease_duration,
            self.leader_elect_renew_deadline,
            self.leader_elect_retry_period,
        );
        if retry.is_zero() || lease.as_secs() == 0 || deadline.is_zero() {
            return Err(LeaderElectionArgsError::Zero);
        }
        if lease <= deadline {
            return Err(LeaderElectionArgsError::LeaseTooShort);
        }
        if deadline <= retry.mul_f64(1.2) {
            return Err(LeaderElectionArgsError::DeadlineTooShort);
        }
        let name = self.leader_elect_resource_name.unwrap_or_else(|| default_name.to_owned());
        Ok(Some(LeaderElectionConfig {
            lease: ObjectKey::new(self.leader_elect_resource_namespace, &*name),
            lease_duration: lease,
            renew_deadline: deadline,
            retry_period: retry,
            ..LeaderElectionConfig::new(&name)
        }))
    }
}
