//! The chain of authorizers that `--authorization-mode` names, behind the one group that may do everything.
//!
//! Upstream: `pkg/kubeapiserver/authorizer` and `apiserver/pkg/authorization/union`.

use std::sync::Arc;

use futures::future::BoxFuture;

use super::node::NodeAuthorizer;
use super::rbac::Rbac;
use super::{AlwaysAllow, AlwaysDeny, Attributes, Authorizer, Decision};
use crate::authn::SYSTEM_MASTERS;

/// A mode of `--authorization-mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Every request is allowed.
    AlwaysAllow,
    /// No request is allowed.
    AlwaysDeny,
    /// What kubelets need.
    Node,
    /// Roles and bindings.
    Rbac,
}

/// The flag's value is not usable.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ModeError {
    /// The mode exists upstream, not here.
    #[error("authorization-mode {0:?} is not supported by this server")]
    Unsupported(String),
    /// There is no such mode.
    #[error("authorization-mode {0:?} is not a valid mode")]
    Unknown(String),
    /// A mode is given twice.
    #[error("authorization-mode {0:?} has mode specified more than once")]
    Repeated(String),
    /// No mode is given.
    #[error("at least one authorization-mode must be passed")]
    Empty,
}

/// Parses the modes of the flag, in order.
pub fn parse<S: AsRef<str>>(names: &[S]) -> Result<Vec<Mode>, ModeError> {
    let mut modes = Vec::new();
    for name in names.iter().map(AsRef::as_ref) {
        let mode = match name {
            "AlwaysAllow" => Mode::AlwaysAllow,
            "AlwaysDeny" => Mode::AlwaysDeny,
            "Node" => Mode::Node,
            "RBAC" => Mode::Rbac,
            "ABAC" | "Webhook" => return Err(ModeError::Unsupported(name.to_owned())),
            _ => return Err(ModeError::Unknown(name.to_owned())),
        };
        if modes.contains(&mode) {
            return Err(ModeError::Repeated(name.to_owned()));
        }
        modes.push(mode);
    }
    if modes.is_empty() { Err(ModeError::Empty) } else { Ok(modes) }
}

/// Group `system:masters` may do everything, before any mode is asked, so that an administrator can't lock himself out.
#[derive(Debug, Clone, Copy, Default)]
struct PrivilegedGroup;

impl Authorizer for PrivilegedGroup {
    fn authorize<'a>(&'a self, attributes: Attributes<'a>) -> BoxFuture<'a, Decision> {
        let privileged = attributes.user.groups.iter().any(|group| group == SYSTEM_MASTERS);
        let decision =
            if privileged { Decision::Allow(String::new()) } else { Decision::NoOpinion(String::new()) };
        Box::pin(std::future::ready(decision))
    }
}

/// Asks each authorizer in turn until one has an opinion.
pub struct Chain {
    authorizers: Vec<Arc<dyn Authorizer>>,
}

impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chain").field("authorizers", &self.authorizers.len()).finish()
    }
}

impl Chain {
    /// The chain for `modes`.
    pub fn new(modes: &[Mode], rbac: &Arc<Rbac>, node: &Arc<NodeAuthorizer>) -> Self {
        let mut authorizers: Vec<Arc<dyn Authorizer>> = vec![Arc::new(PrivilegedGroup)];
        authorizers.extend(modes.iter().map(|mode| -> Arc<dyn Authorizer> {
            match mode {
                Mode::AlwaysAllow => Arc::new(AlwaysAllow),
                Mode::AlwaysDeny => Arc::new(AlwaysDeny),
                Mode::Node => node.clone(),
                Mode::Rbac => rbac.clone(),
            }
        }));
        Self { authorizers }
    }
}

impl Authorizer for Chain {
    fn authorize<'a>(&'a self, attributes: Attributes<'a>) -> BoxFuture<'a, Decision> {
        Box::pin(async move {
            let mut reasons = Vec::new();
            for authorizer in &self.authorizers {
                match authorizer.authorize(attributes).await {
                    Decision::NoOpinion(reason) => reasons.extend((!reason.is_empty()).then_some(reason)),
                    decision => return decision,
                }
            }
            Decision::NoOpinion(reasons.join("\n"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::attributes;
    use super::*;
    use crate::authn::UserInfo;

    #[test]
    fn modes_parse_in_order_or_are_refused() {
        assert_eq!(parse(&["Node", "RBAC"]), Ok(vec![Mode::Node, Mode::Rbac]));
        assert_eq!(parse(&["Webhook"]), Err(ModeError::Unsupported("Webhook".into())));
        assert_eq!(parse(&["rbac"]), Err(ModeError::Unknown("rbac".into())));
        assert_eq!(parse(&["RBAC", "RBAC"]), Err(ModeError::Repeated("RBAC".into())));
        assert_eq!(parse::<&str>(&[]), Err(ModeError::Empty));
    }

    #[tokio::test]
    async fn masters_may_do_everything_and_others_what_a_mode_allows() {
        let master = UserInfo { groups: vec![SYSTEM_MASTERS.into()], ..UserInfo::default() };
        let other = UserInfo::default();
        let (rbac, node) = (Arc::new(Rbac::default()), Arc::new(NodeAuthorizer::default()));
        let chain = |modes: &[Mode]| Chain::new(modes, &rbac, &node);
        let ask = |user| attributes(user, "delete", "", "nodes", "", "one");
        assert!(matches!(chain(&[Mode::AlwaysDeny]).authorize(ask(&master)).await, Decision::Allow(_)));
        assert!(matches!(chain(&[Mode::AlwaysDeny]).authorize(ask(&other)).await, Decision::NoOpinion(_)));
        assert!(matches!(
            chain(&[Mode::Node, Mode::Rbac]).authorize(ask(&other)).await,
            Decision::NoOpinion(_)
        ));
        assert!(matches!(
            chain(&[Mode::Rbac, Mode::AlwaysAllow]).authorize(ask(&other)).await,
            Decision::Allow(_)
        ));
    }
}
