//! The server: what every request shares ([`ApiContext`]).

use std::sync::Arc;

use crate::admission;
use crate::authz::Authorizer;

/// What every endpoint can reach.
pub struct ApiContext {
    pub admission: admission::Chain,
    pub authorizer: Arc<dyn Authorizer>,
}

impl std::fmt::Debug for ApiContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiContext").field("admission", &self.admission).finish_non_exhaustive()
    }
}
