//! NetworkPolicies (upstream `registry/networking/networkpolicy`).

use apimachinery::validation::{Error, ErrorList, Path};
use ipnet::IpNet;
use jiff::Timestamp;
use k8s_openapi::api::networking::v1::{IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::GROUP;
use crate::registry::core::pod::defaults::set_if_empty;
use crate::registry::core::service::validation::{validate_port_num_or_name, validate_protocol};
use crate::registry::object_meta::set_generation;
use crate::registry::pod_template::validate_label_selector;
use crate::registry::{ResourceInfo, Strategy, cells};
use crate::request::RequestContext;
use crate::table::{self, AGE, Cell, Column, NAME};

/// The strategy of networkpolicies.
#[derive(Debug)]
pub struct NetworkPolicyStrategy;

impl Strategy for NetworkPolicyStrategy {
    type Object = NetworkPolicy;

    fn info(&self) -> ResourceInfo {
        ResourceInfo {
            short_names: &["netpol"],
            ..ResourceInfo::new(GROUP, "v1", "NetworkPolicy", "networkpolicies", "networkpolicy", true)
        }
    }

    fn default(&self, obj: &mut NetworkPolicy) {
        let spec = obj.spec.get_or_insert_default();
        if spec.policy_types.as_ref().is_none_or(Vec::is_empty) {
            let mut types = vec!["Ingress".to_owned()];
            if spec.egress.as_ref().is_some_and(|e| !e.is_empty()) {
                types.push("Egress".to_owned());
            }
            spec.policy_types = Some(types);
        }
        let ingress = spec.ingress.iter_mut().flatten().flat_map(|r| r.ports.iter_mut().flatten());
        let egress = spec.egress.iter_mut().flatten().flat_map(|r| r.ports.iter_mut().flatten());
        for port in ingress.chain(egress) {
            set_if_empty(&mut port.protocol, "TCP");
        }
    }

    fn prepare_for_create(&self, _ctx: &RequestContext, obj: &mut NetworkPolicy) {
        obj.metadata.generation = Some(1);
    }

    fn validate(&self, obj: &NetworkPolicy) -> ErrorList {
        let mut errors = ErrorList::new();
        let Some(spec) = &obj.spec else { return errors };
        let path = Path::new("spec");
        if let Some(selector) = &spec.pod_selector {
            validate_label_selector(selector, &path.child("podSelector"), &mut errors);
        }
        for (i, rule) in spec.ingress.iter().flatten().enumerate() {
            let path = path.child("ingress").index(i);
            validate_ports(rule.ports.as_deref(), &path.child("ports"), &mut errors);
            validate_peers(rule.from.as_deref(), &path.child("from"), &mut errors);
        }
        for (i, rule) in spec.egress.iter().flatten().enumerate() {
            let path = path.child("egress").index(i);
            validate_ports(rule.ports.as_deref(), &path.child("ports"), &mut errors);
            validate_peers(rule.to.as_deref(), &path.child("to"), &mut errors);
        }
        let types = spec.policy_types.as_deref().unwrap_or_default();
        let types_path = path.child("policyTypes");
        if types.len() > 2 {
            let shown = serde_json::json!(types);
            errors.push(Error::invalid(&types_path, shown, "may not specify more than two policyTypes"));
            return errors;
        }
        for (i, type_) in types.iter().enumerate() {
            let all = ["Egress", "Ingress"];
            if !all.contains(&type_.as_str()) {
                errors.push(Error::not_supported(&types_path.index(i), type_, &all));
            }
        }
        errors
    }

    fn prepare_for_update(&self, _ctx: &RequestContext, new: &mut NetworkPolicy, old: &NetworkPolicy) {
        set_generation(&mut new.metadata, &old.metadata, new.spec != old.spec);
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] =
            &[NAME, Column::string("Pod-Selector", "Pods that the policy applies to."), AGE];
        COLUMNS
    }

    fn row(&self, obj: &NetworkPolicy, now: Timestamp) -> Vec<Cell> {
        vec![
            cells::name(&obj.metadata),
            cells::label_selector(obj.spec.as_ref().and_then(|s| s.pod_selector.as_ref())),
            table::age(obj.metadata.creation_timestamp.as_ref(), now),
        ]
    }
}

fn validate_ports(ports: Option<&[NetworkPolicyPort]>, path: &Path, errors: &mut ErrorList) {
    for (i, port) in ports.unwrap_or_default().iter().enumerate() {
        let path = path.index(i);
        validate_protocol(port.protocol.as_deref(), &path.child("protocol"), errors);
        if let Some(number) = &port.port {
            validate_port_num_or_name(number, &path.child("port"), errors);
        }
        let Some(end) = port.end_port else { continue };
        let end_path = path.child("endPort");
        match &port.port {
            None => {
                let detail = "may not be specified when `port` is not specified";
                errors.push(Error::invalid(&end_path, end, detail));
            }
            Some(IntOrString::String(_)) => {
                let detail = "may not be specified when `port` is non-numeric";
                errors.push(Error::invalid(&end_path, end, detail));
            }
            Some(IntOrString::Int(start)) => {
                if end < *start {
                    let detail = "must be greater than or equal to `port`";
                    errors.push(Error::invalid(&end_path, end, detail));
                }
                for problem in apimachinery::validation::names::is_valid_port_num(end) {
                    errors.push(Error::invalid(&end_path, end, problem));
                }
            }
        }
    }
}

fn validate_peers(peers: Option<&[NetworkPolicyPeer]>, path: &Path, errors: &mut ErrorList) {
    for (i, peer) in peers.unwrap_or_default().iter().enumerate() {
        let path = path.index(i);
        let mut given = 0;
        if let Some(selector) = &peer.pod_selector {
            given += 1;
            validate_label_selector(selector, &path.child("podSelector"), errors);
        }
        if let Some(selector) = &peer.namespace_selector {
            given += 1;
            validate_label_selector(selector, &path.child("namespaceSelector"), errors);
        }
        if let Some(block) = &peer.ip_block {
            if given > 0 {
                errors.push(Error::forbidden(&path, "may not specify both ipBlock and another peer"));
            }
            given += 1;
            validate_block(block, &path.child("ipBlock"), errors);
        }
        if given == 0 {
            errors.push(Error::required(&path, "must specify a peer"));
        }
    }
}

fn validate_block(block: &IPBlock, path: &Path, errors: &mut ErrorList) {
    const CIDR: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
    let cidr: Option<IpNet> = block.cidr.parse().ok();
    if block.cidr.is_empty() {
        errors.push(Error::required(&path.child("cidr"), ""));
    } else if cidr.is_none() {
        errors.push(Error::invalid(&path.child("cidr"), &block.cidr, CIDR));
    }
    for (i, except) in block.except.iter().flatten().enumerate() {
        let path = path.child("except").index(i);
        match (except.parse::<IpNet>(), cidr) {
            (Err(_), _) => errors.push(Error::invalid(&path, except, CIDR)),
            (Ok(except_net), Some(cidr)) => {
                if !cidr.contains(&except_net) || cidr == except_net {
                    let detail = "must be a strict subset of `cidr`";
                    errors.push(Error::invalid(&path, except, detail));
                }
            }
            (Ok(_), None) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn defaults_and_validation() {
        let mut obj: NetworkPolicy = serde_json::from_value(json!({"spec": {"podSelector": {}, "egress": [
            {"ports": [{"port": 53}], "to": [{}, {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/8"]}}]}]}}))
        .unwrap();
        NetworkPolicyStrategy.default(&mut obj);
        let spec = json!(obj.spec);
        assert_eq!(spec["policyTypes"], json!(["Ingress", "Egress"]));
        assert_eq!(spec["egress"][0]["ports"][0]["protocol"], "TCP");
        let texts: Vec<String> =
            NetworkPolicyStrategy.validate(&obj).iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "spec.egress[0].to[0]: Required value: must specify a peer",
                "spec.egress[0].to[1].ipBlock.except[0]: Invalid value: \"11.0.0.0/8\": must be a strict subset of `cidr`",
            ]
        );
    }
}
