//! The reviews by which others ask what somebody may do: SubjectAccessReview, LocalSubjectAccessReview, SelfSubjectAccessReview
//! and SelfSubjectRulesReview.
//!
//! Field and label selectors in a review are passed on only as raw text. Upstream: `pkg/registry/authorization`.

use std::sync::Arc;

use apimachinery::status::ApiError;
use apimachinery::validation::{Error, ErrorList, Path};
use futures::future::BoxFuture;
use http::{Request, Response};
use hyper::body::Incoming;
use k8s_openapi::api::authorization::v1::{
    LocalSubjectAccessReview, NonResourceAttributes, NonResourceRule, ResourceAttributes, ResourceRule,
    SelfSubjectAccessReview, SelfSubjectRulesReview, SubjectAccessReview, SubjectAccessReviewSpec,
    SubjectAccessReviewStatus, SubjectRulesReviewStatus,
};

use super::modes::Mode;
use super::rbac::Rbac;
use super::{Attributes, Authorizer, Decision};
use crate::authn::UserInfo;
use crate::body::Body;
use crate::endpoints::exchange;
use crate::endpoints::special::Handler;
use crate::request::RequestContext;
use crate::server::ApiContext;

const GROUP: &str = "authorization.k8s.io";

async fn decide(
    authorizer: &dyn Authorizer,
    user: &UserInfo,
    resource: Option<&ResourceAttributes>,
    path: Option<&NonResourceAttributes>,
) -> SubjectAccessReviewStatus {
    let text =
        |value: Option<&Option<String>>| value.and_then(|v| v.as_deref()).unwrap_or_default().to_owned();
    let of = |field: fn(&ResourceAttributes) -> &Option<String>| text(resource.map(field));
    let verb = if resource.is_some() { of(|r| &r.verb) } else { text(path.map(|p| &p.verb)) };
    let (group, name, namespace) = (of(|r| &r.group), of(|r| &r.name), of(|r| &r.namespace));
    let (plural, subresource, version) = (of(|r| &r.resource), of(|r| &r.subresource), of(|r| &r.version));
    let path = text(path.map(|p| &p.path));
    let raw = |selector: Option<&String>| selector.cloned().filter(|s| !s.is_empty());
    let fields = raw(resource.and_then(|r| r.field_selector.as_ref()).and_then(|s| s.raw_selector.as_ref()));
    let labels = raw(resource.and_then(|r| r.label_selector.as_ref()).and_then(|s| s.raw_selector.as_ref()));
    let attributes = Attributes {
        user,
        verb: &verb,
        is_resource: resource.is_some(),
        group: &group,
        version: &version,
        resource: &plural,
        subresource: &subresource,
        namespace: &namespace,
        name: &name,
        path: &path,
        label_selector: labels.as_deref(),
        field_selector: fields.as_deref(),
    };
    let (allowed, denied, reason) = match authorizer.authorize(attributes).await {
        Decision::Allow(reason) => (true, None, reason),
        Decision::Deny(reason) => (false, Some(true), reason),
        Decision::NoOpinion(reason) => (false, None, reason),
    };
    SubjectAccessReviewStatus {
        allowed,
        denied,
        reason: Some(reason).filter(|reason| !reason.is_empty()),
        evaluation_error: None,
    }
}

fn validate(
    kind: &str,
    resource: Option<&ResourceAttributes>,
    path: Option<&NonResourceAttributes>,
    subject: Option<&SubjectAccessReviewSpec>,
) -> Result<(), ApiError> {
    let spec = Path::new("spec");
    let mut errors = ErrorList::new();
    match (resource, path) {
        (Some(_), Some(_)) => errors.push(Error::invalid(
            &spec.child("nonResourceAttributes"),
            "",
            "cannot be specified in combination with resourceAttributes",
        )),
        (None, None) => errors.push(Error::invalid(
            &spec.child("resourceAttributes"),
            "",
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        )),
        _ => {}
    }
    if let Some(subject) = subject {
        let nobody = subject.user.as_ref().is_none_or(String::is_empty)
            && subject.groups.as_ref().is_none_or(Vec::is_empty);
        if nobody {
            errors.push(Error::invalid(
                &spec.child("user"),
                "",
                "at least one of user or group must be specified",
            ));
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid(GROUP, kind, "", &errors)) }
}

fn subject(spec: &SubjectAccessReviewSpec) -> UserInfo {
    UserInfo {
        name: spec.user.clone().unwrap_or_default(),
        uid: spec.uid.clone().unwrap_or_default(),
        groups: spec.groups.clone().unwrap_or_default(),
        extra: spec.extra.clone().unwrap_or_default(),
    }
}

async fn review_spec(
    kind: &str,
    authorizer: &dyn Authorizer,
    spec: &SubjectAccessReviewSpec,
) -> Result<SubjectAccessReviewStatus, ApiError> {
    let (resource, path) = (spec.resource_attributes.as_ref(), spec.non_resource_attributes.as_ref());
    validate(kind, resource, path, Some(spec))?;
    Ok(decide(authorizer, &subject(spec), resource, path).await)
}

/// The endpoint of one kind of access review.
#[derive(Debug, Clone, Copy)]
pub enum AccessReviews {
    /// `subjectaccessreviews`.
    Subject,
    /// `localsubjectaccessreviews`.
    LocalSubject,
    /// `selfsubjectaccessreviews`.
    SelfSubject,
}

async fn access_review(
    kind: AccessReviews,
    authorizer: &dyn Authorizer,
    ctx: &RequestContext,
    request: Request<Incoming>,
) -> Result<Response<Body>, ApiError> {
    match kind {
        AccessReviews::Subject => {
            let mut review: SubjectAccessReview = exchange::read(request).await?;
            review.status = Some(review_spec("SubjectAccessReview", authorizer, &review.spec).await?);
            exchange::created(&review)
        }
        AccessReviews::LocalSubject => {
            let mut review: LocalSubjectAccessReview = exchange::read(request).await?;
            check_namespace(&mut review, &ctx.info.namespace)?;
            review.status = Some(review_spec("LocalSubjectAccessReview", authorizer, &review.spec).await?);
            exchange::created(&review)
        }
        AccessReviews::SelfSubject => {
            let mut review: SelfSubjectAccessReview = exchange::read(request).await?;
            let (resource, path) =
                (review.spec.resource_attributes.as_ref(), review.spec.non_resource_attributes.as_ref());
            validate("SelfSubjectAccessReview", resource, path, None)?;
            review.status = Some(decide(authorizer, &ctx.user, resource, path).await);
            exchange::created(&review)
        }
    }
}

/// A local review asks about its own namespace only.
fn check_namespace(review: &mut LocalSubjectAccessReview, namespace: &str) -> Result<(), ApiError> {
    let asked =
        review.spec.resource_attributes.as_ref().and_then(|r| r.namespace.as_deref()).unwrap_or_default();
    if asked != namespace {
        let errors = vec![Error::invalid(
            &Path::new("spec").child("resourceAttributes").child("namespace"),
            asked,
            format!("must match metadata.namespace: {namespace}"),
        )];
        return Err(ApiError::invalid(GROUP, "LocalSubjectAccessReview", "", &errors));
    }
    review.metadata.namespace = Some(namespace.to_owned());
    Ok(())
}

impl Handler for AccessReviews {
    fn serves(&self) -> (&'static str, &'static str, &'static str) {
        let resource = match self {
            Self::Subject => "subjectaccessreviews",
            Self::LocalSubject => "localsubjectaccessreviews",
            Self::SelfSubject => "selfsubjectaccessreviews",
        };
        (GROUP, resource, "")
    }

    fn handle(
        &self,
        api: Arc<ApiContext>,
        ctx: Arc<RequestContext>,
        request: Request<Incoming>,
    ) -> BoxFuture<'static, Result<Response<Body>, ApiError>> {
        let kind = *self;
        Box::pin(async move { access_review(kind, &*api.authorizer, &ctx, request).await })
    }
}

/// `selfsubjectrulesreviews`.
#[derive(Debug)]
pub struct RulesReviews {
    rbac: Arc<Rbac>,
    modes: Vec<Mode>,
}

impl RulesReviews {
    /// Lists the rules of the modes in force.
    pub fn new(rbac: Arc<Rbac>, modes: Vec<Mode>) -> Self {
        Self { rbac, modes }
    }
}

fn rules_of(rbac: &Rbac, modes: &[Mode], user: &UserInfo, namespace: &str) -> SubjectRulesReviewStatus {
    let mut status = SubjectRulesReviewStatus::default();
    for mode in modes {
        match mode {
            Mode::AlwaysAllow => {
                let all = || vec!["*".to_owned()];
                status.resource_rules.push(ResourceRule {
                    verbs: all(),
                    api_groups: Some(all()),
                    resources: Some(all()),
                    resource_names: None,
                });
                status
                    .non_resource_rules
                    .push(NonResourceRule { verbs: all(), non_resource_urls: Some(all()) });
            }
            Mode::AlwaysDeny => {}
            Mode::Node => {
                status.incomplete = true;
                status.evaluation_error =
                    Some("node authorizer does not support user rule resolution".to_owned());
            }
            Mode::Rbac => {
                for rule in rbac.rules_for(user, namespace) {
                    if rule.resources.as_ref().is_some_and(|resources| !resources.is_empty()) {
                        status.resource_rules.push(ResourceRule {
                            verbs: rule.verbs,
                            api_groups: rule.api_groups,
                            resources: rule.resources,
                            resource_names: rule.resource_names,
                        });
                    } else if rule.non_resource_urls.is_some() {
                        status.non_resource_rules.push(NonResourceRule {
                            verbs: rule.verbs,
                            non_resource_urls: rule.non_resource_urls,
                        });
                    }
                }
            }
        }
    }
    status
}

impl Handler for RulesReviews {
    fn serves(&self) -> (&'static str, &'static str, &'static str) {
        (GROUP, "selfsubjectrulesreviews", "")
    }

    fn handle(
        &self,
        _: Arc<ApiContext>,
        ctx: Arc<RequestContext>,
        request: Request<Incoming>,
    ) -> BoxFuture<'static, Result<Response<Body>, ApiError>> {
        let (rbac, modes) = (self.rbac.clone(), self.modes.clone());
        Box::pin(async move {
            let mut review: SelfSubjectRulesReview = exchange::read(request).await?;
            let namespace = review.spec.namespace.clone().unwrap_or_default();
            if namespace.is_empty() {
                return Err(ApiError::bad_request("no namespace on request"));
            }
            review.status = Some(rules_of(&rbac, &modes, &ctx.user, &namespace));
            exchange::created(&review)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::rbac::bootstrap_policy;
    use super::*;

    fn rbac() -> Rbac {
        let rbac = Rbac::default();
        let policy = bootstrap_policy::policy();
        rbac.update(|index| {
            policy.cluster_roles.iter().for_each(|role| index.put_cluster_role(role));
            policy.cluster_role_bindings.iter().for_each(|binding| index.put_cluster_role_binding(binding));
        });
        rbac
    }

    fn ask(verb: &str, resource: &str) -> ResourceAttributes {
        let text = |text: &str| Some(text.to_owned());
        ResourceAttributes { verb: text(verb), resource: text(resource), ..ResourceAttributes::default() }
    }

    #[tokio::test]
    async fn answers_with_the_reason() {
        let spec = |resource| SubjectAccessReviewSpec {
            user: Some("system:kube-scheduler".into()),
            resource_attributes: Some(resource),
            ..SubjectAccessReviewSpec::default()
        };
        let yes = review_spec("SubjectAccessReview", &rbac(), &spec(ask("list", "nodes"))).await.unwrap();
        assert!(yes.allowed && yes.reason.unwrap().starts_with("RBAC: allowed by ClusterRoleBinding"));
        let no = review_spec("SubjectAccessReview", &rbac(), &spec(ask("list", "secrets"))).await.unwrap();
        assert!(!no.allowed && no.denied.is_none());
    }

    #[test]
    fn what_is_asked_must_be_clear() {
        let (resource, path) = (ask("get", "pods"), NonResourceAttributes::default());
        let nobody = SubjectAccessReviewSpec::default();
        assert!(validate("X", Some(&resource), None, None).is_ok());
        assert!(validate("X", None, Some(&path), None).is_ok());
        assert!(validate("X", Some(&resource), Some(&path), None).is_err());
        assert!(validate("X", None, None, None).is_err());
        assert!(validate("X", Some(&resource), None, Some(&nobody)).is_err());
    }

    #[test]
    fn rules_are_listed_by_mode() {
        let user = UserInfo { groups: vec!["system:authenticated".into()], ..UserInfo::default() };
        let status = rules_of(&rbac(), &[Mode::Node, Mode::Rbac], &user, "default");
        assert!(status.incomplete);
        assert_eq!(status.resource_rules.len(), 2);
        assert!(!status.non_resource_rules.is_empty());
        let all = rules_of(&rbac(), &[Mode::AlwaysAllow], &user, "default");
        assert_eq!((all.incomplete, all.resource_rules.len()), (false, 1));
    }
}
