//! The table of controllers: upstream's names, aliases, and the function that runs each.

use std::pin::Pin;

use crate::config::Args;
use crate::context::{Context, RunError};
use crate::controllers::{
    daemonset, deployment, endpoints, endpointslice, garbage_collector, namespace, node_ipam, node_lifecycle,
    pod_gc, replicaset, root_ca_publisher, serviceaccount, taint_eviction,
};

/// A controller running until shutdown.
pub type Run = Pin<Box<dyn Future<Output = Result<(), RunError>> + Send>>;

/// One controller.
pub struct Descriptor {
    /// Upstream's name, as in `--controllers`.
    pub name: &'static str,
    /// Names it also goes by.
    pub aliases: &'static [&'static str],
    /// Whether `*` includes it.
    pub on_by_default: bool,
    /// Whether `*` includes it with these flags.
    needs: fn(&Args) -> bool,
    /// Runs it.
    pub run: fn(Context) -> Run,
}

impl std::fmt::Debug for Descriptor {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Descriptor").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Descriptor {
    /// Whether the flags it cannot do without are given.
    pub fn has_its_flags(&self, args: &Args) -> bool {
        (self.needs)(args)
    }
}

/// The controller of that name or alias.
pub fn find(name: &str) -> Option<&'static Descriptor> {
    CONTROLLERS.iter().find(|controller| controller.name == name || controller.aliases.contains(&name))
}

const fn on(name: &'static str, aliases: &'static [&'static str], run: fn(Context) -> Run) -> Descriptor {
    Descriptor { name, aliases, on_by_default: true, needs: |_| true, run }
}

/// Every controller there is, in the order in which they start.
pub static CONTROLLERS: &[Descriptor] = &[
    on("serviceaccount-controller", &["serviceaccount"], |context| Box::pin(serviceaccount::run(context))),
    on("root-ca-certificate-publisher-controller", &["root-ca-cert-publisher"], |context| {
        Box::pin(root_ca_publisher::run(context))
    }),
    on("namespace-controller", &["namespace"], |context| Box::pin(namespace::run(context))),
    on("endpoints-controller", &["endpoint"], |context| Box::pin(endpoints::run(context))),
    on("endpointslice-controller", &["endpointslice"], |context| Box::pin(endpointslice::run(context))),
    on("replicaset-controller", &["replicaset"], |context| Box::pin(replicaset::run(context))),
    on("deployment-controller", &["deployment"], |context| Box::pin(deployment::run(context))),
    on("daemonset-controller", &["daemonset"], |context| Box::pin(daemonset::run(context))),
    Descriptor {
        name: "node-ipam-controller",
        aliases: &["nodeipam"],
        on_by_default: true,
        needs: |args| args.allocate_node_cidrs,
        run: |context| Box::pin(node_ipam::run(context)),
    },
    on("node-lifecycle-controller", &["nodelifecycle"], |context| Box::pin(node_lifecycle::run(context))),
    on("taint-eviction-controller", &[], |context| Box::pin(taint_eviction::run(context))),
    Descriptor {
        name: "garbage-collector-controller",
        aliases: &["garbagecollector"],
        on_by_default: true,
        needs: |args| args.enable_garbage_collector,
        run: |context| Box::pin(garbage_collector::run(context)),
    },
    on("pod-garbage-collector-controller", &["podgc"], |context| Box::pin(pod_gc::run(context))),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_and_aliases_are_unique() {
        let names: Vec<&str> = CONTROLLERS
            .iter()
            .flat_map(|c| std::iter::once(c.name).chain(c.aliases.iter().copied()))
            .collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
    }
}
