//! The list of all built-in resources.

use super::apps::controller_revision::ControllerRevisionStrategy;
use super::apps::daemon_set::DaemonSetStrategy;
use super::apps::deployment::DeploymentStrategy;
use super::apps::replica_set::ReplicaSetStrategy;
use super::apps::stateful_set::StatefulSetStrategy;
use super::autoscaling::horizontal_pod_autoscaler::HorizontalPodAutoscalerStrategy;
use super::batch::cron_job::CronJobStrategy;
use super::batch::job::JobStrategy;
use super::certificates::certificate_signing_request::CertificateSigningRequestStrategy;
use super::coordination::lease::LeaseStrategy;
use super::core::config_map::ConfigMapStrategy;
use super::core::endpoints::EndpointsStrategy;
use super::core::event::EventStrategy;
use super::core::limit_range::LimitRangeStrategy;
use super::core::namespace::NamespaceStrategy;
use super::core::node::NodeStrategy;
use super::core::persistent_volume::PersistentVolumeStrategy;
use super::core::persistent_volume_claim::PersistentVolumeClaimStrategy;
use super::core::pod::PodStrategy;
use super::core::pod_template::PodTemplateStrategy;
use super::core::replication_controller::ReplicationControllerStrategy;
use super::core::resource_quota::ResourceQuotaStrategy;
use super::core::secret::SecretStrategy;
use super::core::service::ServiceStrategy;
use super::core::service_account::ServiceAccountStrategy;
use super::discovery::endpoint_slice::EndpointSliceStrategy;
use super::events::event::EventStrategy as EventsEventStrategy;
use super::networking::ingress::IngressStrategy;
use super::networking::ingress_class::IngressClassStrategy;
use super::networking::ip_address::IpAddressStrategy;
use super::networking::network_policy::NetworkPolicyStrategy;
use super::networking::service_cidr::ServiceCidrStrategy;
use super::node::runtime_class::RuntimeClassStrategy;
use super::policy::pod_disruption_budget::PodDisruptionBudgetStrategy;
use super::rbac::cluster_role::ClusterRoleStrategy;
use super::rbac::cluster_role_binding::ClusterRoleBindingStrategy;
use super::rbac::role::RoleStrategy;
use super::rbac::role_binding::RoleBindingStrategy;
use super::scheduling::priority_class::PriorityClassStrategy;
use super::storage::csi_driver::CsiDriverStrategy;
use super::storage::csi_node::CsiNodeStrategy;
use super::storage::csi_storage_capacity::CsiStorageCapacityStrategy;
use super::storage::storage_class::StorageClassStrategy;
use super::storage::volume_attachment::VolumeAttachmentStrategy;
use super::storage::volume_attributes_class::VolumeAttributesClassStrategy;
use super::{Resource, Typed};

/// Every built-in resource, by group in discovery's order.
pub fn all() -> Vec<Box<dyn Resource>> {
    let mut all = core();
    all.extend(workloads());
    all.extend(access());
    all.extend(network_and_storage());
    all
}

fn core() -> Vec<Box<dyn Resource>> {
    vec![
        Typed::boxed(ConfigMapStrategy),
        Typed::boxed(EndpointsStrategy),
        Typed::boxed(EventStrategy),
        Typed::boxed(LimitRangeStrategy),
        Typed::boxed(NamespaceStrategy),
        Typed::boxed(NodeStrategy),
        Typed::boxed(PersistentVolumeClaimStrategy),
        Typed::boxed(PersistentVolumeStrategy),
        Typed::boxed(PodStrategy),
        Typed::boxed(PodTemplateStrategy),
        Typed::boxed(ReplicationControllerStrategy),
        Typed::boxed(ResourceQuotaStrategy),
        Typed::boxed(SecretStrategy),
        Typed::boxed(ServiceAccountStrategy),
        Typed::boxed(ServiceStrategy),
    ]
}

fn workloads() -> Vec<Box<dyn Resource>> {
    vec![
        Typed::boxed(ControllerRevisionStrategy),
        Typed::boxed(DaemonSetStrategy),
        Typed::boxed(DeploymentStrategy),
        Typed::boxed(ReplicaSetStrategy),
        Typed::boxed(StatefulSetStrategy),
        Typed::boxed(EventsEventStrategy),
        Typed::boxed(HorizontalPodAutoscalerStrategy),
        Typed::boxed(CronJobStrategy),
        Typed::boxed(JobStrategy),
        Typed::boxed(PodDisruptionBudgetStrategy),
        Typed::boxed(PriorityClassStrategy),
        Typed::boxed(RuntimeClassStrategy),
        Typed::boxed(LeaseStrategy),
    ]
}

fn access() -> Vec<Box<dyn Resource>> {
    vec![
        Typed::boxed(CertificateSigningRequestStrategy),
        Typed::boxed(ClusterRoleBindingStrategy),
        Typed::boxed(ClusterRoleStrategy),
        Typed::boxed(RoleBindingStrategy),
        Typed::boxed(RoleStrategy),
    ]
}

fn network_and_storage() -> Vec<Box<dyn Resource>> {
    vec![
        Typed::boxed(EndpointSliceStrategy),
        Typed::boxed(IngressClassStrategy),
        Typed::boxed(IngressStrategy),
        Typed::boxed(IpAddressStrategy),
        Typed::boxed(NetworkPolicyStrategy),
        Typed::boxed(ServiceCidrStrategy),
        Typed::boxed(CsiDriverStrategy),
        Typed::boxed(CsiNodeStrategy),
        Typed::boxed(CsiStorageCapacityStrategy),
        Typed::boxed(StorageClassStrategy),
        Typed::boxed(VolumeAttachmentStrategy),
        Typed::boxed(VolumeAttributesClassStrategy),
    ]
}

#[cfg(test)]
mod tests;
