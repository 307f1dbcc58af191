//! CertificateSigningRequests (upstream `registry/certificates/certificates`).

use std::borrow::Cow;

use apimachinery::validation::{Error, ErrorList, Path};
use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition, CertificateSigningRequestStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer;

use crate::registry::{ResourceInfo, Strategy, SubresourceInfo, cells};
use crate::request::RequestContext;
use crate::table::{self, AGE, Cell, Column, NAME};

const MIN_EXPIRATION: i32 = 600;
const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

/// The strategy of certificatesigningrequests.
#[derive(Debug)]
pub struct CertificateSigningRequestStrategy;

impl Strategy for CertificateSigningRequestStrategy {
    type Object = CertificateSigningRequest;

    fn info(&self) -> ResourceInfo {
        ResourceInfo {
            short_names: &["csr"],
            status: true,
            subresources: &[SubresourceInfo {
                name: "approval",
                kind: "CertificateSigningRequest",
                group: "",
                version: "",
                verbs: &["get", "patch", "update"],
                updates_parent: true,
            }],
            ..ResourceInfo::new(
                "certificates.k8s.io",
                "v1",
                "CertificateSigningRequest",
                "certificatesigningrequests",
                "certificatesigningrequest",
                false,
            )
        }
    }

    fn default(&self, obj: &mut CertificateSigningRequest) {
        obj.spec.usages.get_or_insert_with(Vec::new);
    }

    fn prepare_for_create(&self, ctx: &RequestContext, obj: &mut CertificateSigningRequest) {
        // Who asks is what the server knows, not what the request says.
        let user = &ctx.user;
        let given = |text: &String| Some(text.clone()).filter(|t| !t.is_empty());
        obj.spec.username = given(&user.name);
        obj.spec.uid = given(&user.uid);
        obj.spec.groups = Some(user.groups.clone()).filter(|g| !g.is_empty());
        obj.spec.extra = Some(user.extra.clone()).filter(|e| !e.is_empty());
        obj.status = Some(Default::default());
    }

    fn validate_name(&self, _name: &str, _prefix: bool) -> Vec<String> {
        Vec::new()
    }

    fn validate(&self, obj: &CertificateSigningRequest) -> ErrorList {
        let mut errors = ErrorList::new();
        let path = Path::new("spec");
        if let Err(problem) = check_request(&obj.spec.request.0) {
            let shown = serde_json::to_value(&obj.spec.request).unwrap_or_default();
            errors.push(Error::invalid(&path.child("request"), shown, problem));
        }
        let usages = obj.spec.usages.as_deref().unwrap_or_default();
        let usages_path = path.child("usages");
        if usages.is_empty() {
            errors.push(Error::required(&usages_path, "usages must be provided"));
        }
        for (i, usage) in usages.iter().enumerate() {
            if !USAGES.contains(&usage.as_str()) {
                errors.push(Error::not_supported(&usages_path.index(i), usage, USAGES));
            }
            if usages[..i].contains(usage) {
                errors.push(Error::duplicate(&usages_path.index(i), usage));
            }
        }
        validate_signer(&obj.spec.signer_name, &path.child("signerName"), &mut errors);
        if let Some(seconds) = obj.spec.expiration_seconds
            && seconds < MIN_EXPIRATION
        {
            let detail =
                format!("may not specify a duration less than {MIN_EXPIRATION} seconds (10 minutes)");
            errors.push(Error::invalid(&path.child("expirationSeconds"), seconds, detail));
        }
        validate_conditions(obj, &mut errors);
        errors
    }

    fn prepare_for_update(
        &self,
        _ctx: &RequestContext,
        new: &mut CertificateSigningRequest,
        old: &CertificateSigningRequest,
    ) {
        new.spec.clone_from(&old.spec);
        new.status.clone_from(&old.status);
    }

    fn prepare_for_status_update(
        &self,
        ctx: &RequestContext,
        new: &mut CertificateSigningRequest,
        old: &CertificateSigningRequest,
    ) {
        new.spec.clone_from(&old.spec);
        // Approval is its own subresource.
        let status = new.status.get_or_insert_default();
        let kept = conditions(old).iter().filter(|c| is_decision(c)).cloned();
        let own = status.conditions.take().unwrap_or_default().into_iter().filter(|c| !is_decision(c));
        set_conditions(status, kept.chain(own).collect(), old, ctx.now);
    }

    fn validate_status_update(
        &self,
        new: &CertificateSigningRequest,
        _old: &CertificateSigningRequest,
    ) -> ErrorList {
        let mut errors = ErrorList::new();
        validate_conditions(new, &mut errors);
        errors
    }

    fn prepare_for_subresource_update(
        &self,
        _subresource: &str,
        ctx: &RequestContext,
        new: &mut CertificateSigningRequest,
        old: &CertificateSigningRequest,
    ) {
        new.spec.clone_from(&old.spec);
        let proposed = new.status.take().and_then(|s| s.conditions).unwrap_or_default();
        let status = new.status.insert(old.status.clone().unwrap_or_default());
        set_conditions(status, proposed, old, ctx.now);
    }

    fn validate_subresource_update(
        &self,
        _subresource: &str,
        new: &CertificateSigningRequest,
        old: &CertificateSigningRequest,
    ) -> ErrorList {
        let mut errors = ErrorList::new();
        validate_conditions(new, &mut errors);
        // A decision can be neither taken back nor reversed.
        let path = Path::new("status").child("conditions");
        for decision in conditions(old).iter().filter(|c| is_decision(c)) {
            if !conditions(new).iter().any(|c| c.type_ == decision.type_) {
                let detail = format!("updates may not remove a condition of type {:?}", decision.type_);
                errors.push(Error::forbidden(&path, detail));
            }
        }
        errors
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["spec.signerName"]
    }

    fn field<'a>(&self, obj: &'a CertificateSigningRequest, field: &str) -> Cow<'a, str> {
        match field {
            "spec.signerName" => Cow::Borrowed(obj.spec.signer_name.as_str()),
            _ => Cow::Borrowed(""),
        }
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            AGE,
            Column::string("SignerName", "Signer that the request is for."),
            Column::string("Requestor", "Who asks."),
            Column::string("RequestedDuration", "How long the certificate should be valid."),
            Column::string("Condition", "Where the request stands."),
        ];
        COLUMNS
    }

    fn row(&self, obj: &CertificateSigningRequest, now: Timestamp) -> Vec<Cell> {
        let duration = obj.spec.expiration_seconds.map(|s| table::human_duration(i64::from(s)));
        vec![
            cells::name(&obj.metadata),
            table::age(obj.metadata.creation_timestamp.as_ref(), now),
            cells::text(Some(&obj.spec.signer_name)),
            Cell::from(obj.spec.username.as_deref().unwrap_or_default()),
            cells::text(duration.as_deref()),
            Cell::from(condition_text(obj)),
        ]
    }
}

fn conditions(obj: &CertificateSigningRequest) -> &[CertificateSigningRequestCondition] {
    obj.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default()
}

fn is_decision(condition: &CertificateSigningRequestCondition) -> bool {
    matches!(condition.type_.as_str(), "Approved" | "Denied")
}

/// Sets conditions with the times that the client left out: now, or those of the same condition before.
fn set_conditions(
    status: &mut CertificateSigningRequestStatus,
    proposed: Vec<CertificateSigningRequestCondition>,
    old: &CertificateSigningRequest,
    now: Timestamp,
) {
    let mut all = proposed;
    for condition in &mut all {
        condition.last_update_time.get_or_insert(Time(now));
        let same =
            conditions(old).iter().find(|c| c.type_ == condition.type_ && c.status == condition.status);
        let before = same.and_then(|c| c.last_transition_time.clone());
        condition.last_transition_time.get_or_insert(before.unwrap_or(Time(now)));
    }
    status.conditions = Some(all).filter(|c| !c.is_empty());
}

fn condition_text(obj: &CertificateSigningRequest) -> String {
    let has = |type_: &str| conditions(obj).iter().any(|c| c.type_ == type_);
    let mut text = match () {
        () if has("Denied") => "Denied",
        () if has("Approved") => "Approved",
        () => "Pending",
    }
    .to_owned();
    if has("Failed") {
        text.push_str(",Failed");
    }
    if obj.status.as_ref().and_then(|s| s.certificate.as_ref()).is_some_and(|c| !c.0.is_empty()) {
        text.push_str(",Issued");
    }
    text
}

/// A request is one PEM block with a PKCS#10 request whose signature fits.
fn check_request(bytes: &[u8]) -> Result<(), String> {
    const NOT_PEM: &str = "PEM block type must be CERTIFICATE REQUEST";
    let pem = Pem::iter_from_buffer(bytes).next().and_then(Result::ok).ok_or(NOT_PEM)?;
    if pem.label != "CERTIFICATE REQUEST" {
        return Err(NOT_PEM.to_owned());
    }
    x509_parser::certification_request::X509CertificationRequest::from_der(&pem.contents)
        .map(|_| ())
        .map_err(|error| error.to_string())
}

fn validate_signer(signer: &str, path: &Path, errors: &mut ErrorList) {
    if signer.is_empty() {
        errors.push(Error::required(path, ""));
        return;
    }
    let Some((domain, name)) = signer.split_once('/').filter(|(_, name)| !name.contains('/')) else {
        let detail = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        errors.push(Error::invalid(path, signer, detail));
        return;
    };
    let mut problems = apimachinery::validation::names::is_dns1123_subdomain(domain);
    if !domain.contains('.') {
        problems.push("should be a domain with at least two segments separated by dots".to_owned());
    }
    problems.extend(apimachinery::validation::names::is_dns1123_subdomain(name));
    for problem in problems {
        errors.push(Error::invalid(path, signer, problem));
    }
}

fn validate_conditions(obj: &CertificateSigningRequest, errors: &mut ErrorList) {
    let path = Path::new("status").child("conditions");
    let mut decided: Option<&str> = None;
    for (i, condition) in conditions(obj).iter().enumerate() {
        let path = path.index(i);
        if condition.type_.is_empty() {
            errors.push(Error::required(&path.child("type"), ""));
        }
        let known = matches!(condition.type_.as_str(), "Approved" | "Denied" | "Failed");
        match condition.status.as_str() {
            "" => errors.push(Error::required(&path.child("status"), "")),
            "True" => {}
            other if known => {
                errors.push(Error::not_supported(&path.child("status"), other, &["True"]));
            }
            _ => {}
        }
        if is_decision(condition) {
            if let Some(first) = decided.filter(|first| *first != condition.type_) {
                let detail = format!("{first} and {} conditions are mutually exclusive", condition.type_);
                errors.push(Error::invalid(&path.child("type"), &condition.type_, detail));
            }
            decided = Some(&condition.type_);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn request(conditions: serde_json::Value) -> CertificateSigningRequest {
        serde_json::from_value(json!({
            "metadata": {"name": "c"},
            "spec": {"request": "eA==", "signerName": "x.io/y", "usages": ["client auth"]},
            "status": {"conditions": conditions}}))
        .unwrap()
    }

    #[test]
    fn validation() {
        let mut obj = request(json!([]));
        obj.spec.usages = Some(vec!["x".to_owned()]);
        obj.spec.signer_name = "y".to_owned();
        obj.spec.expiration_seconds = Some(5);
        let texts: Vec<String> =
            CertificateSigningRequestStrategy.validate(&obj).iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), 4, "{texts:?}");
        assert_eq!(
            texts[0],
            "spec.request: Invalid value: \"eA==\": PEM block type must be CERTIFICATE REQUEST"
        );
        assert!(texts[1].starts_with("spec.usages[0]: Unsupported value: \"x\""), "{texts:?}");
        assert!(
            texts[2].starts_with("spec.signerName: Invalid value: \"y\": must be a fully qualified"),
            "{texts:?}"
        );
        assert!(texts[3].starts_with("spec.expirationSeconds: Invalid value: 5: may not"), "{texts:?}");
    }

    #[test]
    fn only_approval_decides() {
        let ctx = RequestContext::loopback();
        let strategy = CertificateSigningRequestStrategy;
        let old = request(json!([]));
        let approved = request(json!([{"type": "Approved", "status": "True"}]));
        let mut by_status = approved.clone();
        strategy.prepare_for_status_update(&ctx, &mut by_status, &old);
        assert_eq!(condition_text(&by_status), "Pending");
        let mut by_approval = approved.clone();
        strategy.prepare_for_subresource_update("approval", &ctx, &mut by_approval, &old);
        assert_eq!(condition_text(&by_approval), "Approved");
        assert!(conditions(&by_approval)[0].last_transition_time.is_some());
        assert_eq!(strategy.validate_subresource_update("approval", &by_approval, &old), vec![]);
        let taken_back = strategy.validate_subresource_update("approval", &old, &by_approval);
        assert_eq!(
            taken_back[0].to_string(),
            "status.conditions: Forbidden: updates may not remove a condition of type \"Approved\""
        );
        let both =
            request(json!([{"type": "Approved", "status": "True"}, {"type": "Denied", "status": "True"}]));
        assert_eq!(
            strategy.validate_subresource_update("approval", &both, &old)[0].to_string(),
            "status.conditions[1].type: Invalid value: \"Denied\": Approved and Denied conditions are mutually exclusive"
        );
    }
}
