//! The list of all built-in resources.

use super::apps::controller_revision::ControllerRevisionStrategy;
use super::apps::daemon_set::DaemonSetStrategy;
use super::apps::deployment::DeploymentStrategy;
use super::apps::replica_set::ReplicaSetStrategy;
use super::coordination::lease::LeaseStrategy;
use super::core::config_map::ConfigMapStrategy;
use super::core::endpoints::EndpointsStrategy;
use super::core::event::EventStrategy;
use super::core::namespace::NamespaceStrategy;
use super::core::node::NodeStrategy;
use super::core::pod::PodStrategy;
use super::core::secret::SecretStrategy;
use super::core::service::ServiceStrategy;
use super::core::service_account::ServiceAccountStrategy;
use super::discovery::endpoint_slice::EndpointSliceStrategy;
use super::events::event::EventStrategy as EventsEventStrategy;
use super::rbac::cluster_role::ClusterRoleStrategy;
use super::rbac::cluster_role_binding::ClusterRoleBindingStrategy;
use super::rbac::role::RoleStrategy;
use super::rbac::role_binding::RoleBindingStrategy;
use super::scheduling::priority_class::PriorityClassStrategy;
use super::{Resource, Typed};

/// Every built-in resource, in discovery's order.
pub fn all() -> Vec<Box<dyn Resource>> {
    vec![
        Typed::boxed(ConfigMapStrategy),
        Typed::boxed(EndpointsStrategy),
        Typed::boxed(EventStrategy),
        Typed::boxed(NamespaceStrategy),
        Typed::boxed(NodeStrategy),
        Typed::boxed(PodStrategy),
        Typed::boxed(SecretStrategy),
        Typed::boxed(ServiceAccountStrategy),
        Typed::boxed(ServiceStrategy),
        Typed::boxed(ControllerRevisionStrategy),
        Typed::boxed(DaemonSetStrategy),
        Typed::boxed(DeploymentStrategy),
        Typed::boxed(ReplicaSetStrategy),
        Typed::boxed(EventsEventStrategy),
        Typed::boxed(RoleStrategy),
        Typed::boxed(RoleBindingStrategy),
        Typed::boxed(ClusterRoleStrategy),
        Typed::boxed(ClusterRoleBindingStrategy),
        Typed::boxed(PriorityClassStrategy),
        Typed::boxed(LeaseStrategy),
        Typed::boxed(EndpointSliceStrategy),
    ]
}
