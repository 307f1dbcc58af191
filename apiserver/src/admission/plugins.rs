//! The table of admission plugins, in the order they run, and the choice that `--enable-admission-plugins` and
//! `--disable-admission-plugins` make among them.
//!
//! A plugin that exists upstream and not here is refused when it is asked for by name; those of them that upstream enables by
//! default are absent without a word. Upstream: `pkg/kubeapiserver/options/plugins.go`.

use std::sync::Arc;

use super::Plugin;
use super::{
    default_ingress_class::DefaultIngressClass, default_storage_class::DefaultStorageClass,
    default_toleration_seconds::DefaultTolerationSeconds, deny_service_external_ips::DenyServiceExternalIps,
    namespace_lifecycle::NamespaceLifecycle, node_restriction::NodeRestriction, priority::Priority,
    service_account::ServiceAccount, taint_nodes_by_condition::TaintNodesByCondition,
};
use crate::lookup::Lookup;

type Constructor = fn(&Arc<dyn Lookup>) -> Box<dyn Plugin>;

/// How a known plugin is treated.
enum Status {
    OnByDefault(Constructor),
    OffByDefault(Constructor),
    NotImplemented,
}

use Status::{NotImplemented, OffByDefault, OnByDefault};

/// Every plugin that upstream knows, in upstream's order.
const PLUGINS: &[(&str, Status)] = &[
    ("AlwaysAdmit", NotImplemented),
    ("NamespaceAutoProvision", NotImplemented),
    ("NamespaceLifecycle", OnByDefault(|lookup| Box::new(NamespaceLifecycle::new(lookup.clone())))),
    ("NamespaceExists", NotImplemented),
    ("LimitPodHardAntiAffinityTopology", NotImplemented),
    ("LimitRanger", NotImplemented),
    ("ServiceAccount", OnByDefault(|lookup| Box::new(ServiceAccount::new(lookup.clone())))),
    ("NodeRestriction", OffByDefault(|lookup| Box::new(NodeRestriction::new(lookup.clone())))),
    ("TaintNodesByCondition", OnByDefault(|_| Box::new(TaintNodesByCondition))),
    ("AlwaysPullImages", NotImplemented),
    ("ImagePolicyWebhook", NotImplemented),
    ("PodSecurity", NotImplemented),
    ("PodNodeSelector", NotImplemented),
    ("Priority", OnByDefault(|lookup| Box::new(Priority::new(lookup.clone())))),
    ("DefaultTolerationSeconds", OnByDefault(|_| Box::new(DefaultTolerationSeconds))),
    ("PodTolerationRestriction", NotImplemented),
    ("EventRateLimit", NotImplemented),
    ("ExtendedResourceToleration", NotImplemented),
    ("DefaultStorageClass", OnByDefault(|lookup| Box::new(DefaultStorageClass::new(lookup.clone())))),
    ("StorageObjectInUseProtection", NotImplemented),
    ("OwnerReferencesPermissionEnforcement", NotImplemented),
    ("PersistentVolumeClaimResize", NotImplemented),
    ("RuntimeClass", NotImplemented),
    ("CertificateApproval", NotImplemented),
    ("CertificateSigning", NotImplemented),
    ("ClusterTrustBundleAttest", NotImplemented),
    ("CertificateSubjectRestriction", NotImplemented),
    ("DefaultIngressClass", OnByDefault(|lookup| Box::new(DefaultIngressClass::new(lookup.clone())))),
    ("DenyServiceExternalIPs", OffByDefault(|_| Box::new(DenyServiceExternalIps))),
    ("PodTopologyLabels", NotImplemented),
    ("NodeDeclaredFeatureValidator", NotImplemented),
    ("PodResizeValidator", NotImplemented),
    ("MutatingAdmissionPolicy", NotImplemented),
    ("MutatingAdmissionWebhook", NotImplemented),
    ("ValidatingAdmissionPolicy", NotImplemented),
    ("ValidatingAdmissionWebhook", NotImplemented),
    ("ResourceQuota", NotImplemented),
    ("AlwaysDeny", NotImplemented),
];

/// The flags' values are not usable.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PluginError {
    /// The plugin exists upstream, not here.
    #[error("enable-admission-plugins plugin {0:?} is not supported by this server")]
    Unsupported(String),
    /// There is no such plugin.
    #[error("{flag} plugin {name:?} is unknown")]
    Unknown {
        /// The flag.
        flag: &'static str,
        /// The name given.
        name: String,
    },
    /// A plugin is enabled and disabled.
    #[error("{0:?} in enable-admission-plugins and disable-admission-plugins overlapped")]
    Both(String),
}

/// Checks the flags' values, without making any plugin.
pub fn check<S: AsRef<str>>(enable: &[S], disable: &[S]) -> Result<(), PluginError> {
    let status = |name: &str| PLUGINS.iter().find(|(known, _)| *known == name).map(|(_, status)| status);
    for name in enable.iter().map(AsRef::as_ref) {
        match status(name) {
            None => {
                return Err(PluginError::Unknown { flag: "enable-admission-plugins", name: name.to_owned() });
            }
            Some(NotImplemented) => return Err(PluginError::Unsupported(name.to_owned())),
            Some(_) if disable.iter().any(|d| d.as_ref() == name) => {
                return Err(PluginError::Both(name.to_owned()));
            }
            Some(_) => {}
        }
    }
    for name in disable.iter().map(AsRef::as_ref) {
        if status(name).is_none() {
            return Err(PluginError::Unknown { flag: "disable-admission-plugins", name: name.to_owned() });
        }
    }
    Ok(())
}

/// The enabled plugins, in order.
pub fn enabled<S: AsRef<str>>(
    enable: &[S],
    disable: &[S],
    lookup: &Arc<dyn Lookup>,
) -> Result<Vec<Box<dyn Plugin>>, PluginError> {
    check(enable, disable)?;
    let named = |names: &[S], name: &str| names.iter().any(|n| n.as_ref() == name);
    let chosen = PLUGINS.iter().filter_map(|(name, status)| match status {
        OnByDefault(constructor) if !named(disable, name) => Some(constructor(lookup)),
        OffByDefault(constructor) if named(enable, name) => Some(constructor(lookup)),
        _ => None,
    });
    Ok(chosen.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lookup::fake::Objects;

    fn names(enable: &[&str], disable: &[&str]) -> Result<Vec<&'static str>, PluginError> {
        let lookup: Arc<dyn Lookup> = Arc::new(Objects::default());
        Ok(enabled(enable, disable, &lookup)?.iter().map(|plugin| plugin.name()).collect())
    }

    #[test]
    fn plugins_carry_the_names_of_the_table() {
        let lookup: Arc<dyn Lookup> = Arc::new(Objects::default());
        for (name, status) in PLUGINS {
            if let OnByDefault(constructor) | OffByDefault(constructor) = status {
                assert_eq!(constructor(&lookup).name(), *name);
            }
        }
    }

    #[test]
    fn the_flags_choose() {
        let default = names(&[], &[]).unwrap();
        assert_eq!(default.first(), Some(&"NamespaceLifecycle"));
        assert!(!default.contains(&"NodeRestriction"));
        assert!(names(&["NodeRestriction"], &[]).unwrap().contains(&"NodeRestriction"));
        assert!(!names(&[], &["Priority"]).unwrap().contains(&"Priority"));
        assert_eq!(names(&[], &["PodSecurity"]).unwrap(), default, "disabling what is not there is fine");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        assert_eq!(names(&["PodSecurity"], &[]), Err(PluginError::Unsupported("PodSecurity".into())));
        let unknown = |flag| PluginError::Unknown { flag, name: "Nonsense".into() };
        assert_eq!(names(&["Nonsense"], &[]), Err(unknown("enable-admission-plugins")));
        assert_eq!(names(&[], &["Nonsense"]), Err(unknown("disable-admission-plugins")));
        assert_eq!(names(&["Priority"], &["Priority"]), Err(PluginError::Both("Priority".into())));
    }
}
