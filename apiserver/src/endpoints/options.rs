//! Query parameters of requests, validated: list, watch, write and delete options.
//!
//! Upstream: `meta/v1 {List,Create,Update,Patch,Delete}Options` and `meta/internalversion/validation`.

use apimachinery::status::ApiError;
use apimachinery::validation::{Error, ErrorList, Path};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, Preconditions};
use serde::{Deserialize, Serialize};

use crate::request::Query;
use crate::storage::Freshness;

/// What to do with unknown and duplicate fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

/// Options of create, update and patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteOptions {
    pub dry_run: bool,
    pub field_validation: FieldValidation,
}

impl WriteOptions {
    /// `kind`: `CreateOptions`, `UpdateOptions` or `PatchOptions`, for error messages.
    pub fn parse(query: &Query, kind: &str) -> Result<Self, ApiError> {
        let mut errors = ErrorList::new();
        let dry_run = dry_run(query.all("dryRun"), &mut errors);
        let field_validation = match query.get("fieldValidation").unwrap_or_default() {
            // Upstream's default for a request that does not say.
            "" | "Warn" => FieldValidation::Warn,
            "Ignore" => FieldValidation::Ignore,
            "Strict" => FieldValidation::Strict,
            other => {
                errors.push(Error::invalid(
                    &Path::new("fieldValidation"),
                    other,
                    "must be one of [Ignore, Warn, Strict]",
                ));
                FieldValidation::Strict
            }
        };
        refuse(kind, &errors)?;
        Ok(Self { dry_run, field_validation })
    }
}

fn dry_run<'a>(stages: impl Iterator<Item = &'a str>, errors: &mut ErrorList) -> bool {
    let mut dry_run = false;
    for stage in stages {
        match stage {
            "All" => dry_run = true,
            // An empty value is upstream's "not set".
            "" => {}
            other => errors.push(Error::not_supported(&Path::new("dryRun"), other, &["All"])),
        }
    }
    dry_run
}

fn refuse(kind: &str, errors: &ErrorList) -> Result<(), ApiError> {
    if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid("meta.k8s.io", kind, "", errors)) }
}

/// Delete options from the body (JSON, may be empty) or else from the query.
pub fn delete_options(query: &Query, body: &[u8]) -> Result<DeleteOptions, ApiError> {
    let mut options = if body.iter().all(u8::is_ascii_whitespace) {
        DeleteOptions {
            dry_run: Some(query.all("dryRun").filter(|stage| !stage.is_empty()).map(str::to_owned).collect()),
            grace_period_seconds: query.text("gracePeriodSeconds").map(number).transpose()?,
            orphan_dependents: query.get("orphanDependents").map(|_| query.flag("orphanDependents")),
            propagation_policy: query.text("propagationPolicy").map(str::to_owned),
            preconditions: query
                .text("uid")
                .map(|uid| Preconditions { uid: Some(uid.to_owned()), resource_version: None }),
            ..DeleteOptions::default()
        }
    } else {
        serde_json::from_slice::<DeleteOptions>(body).map_err(|error| {
            ApiError::bad_request(format!("couldn't get version/kind; json parse error: {error}"))
        })?
    };
    let mut errors = ErrorList::new();
    dry_run(options.dry_run.iter().flatten().map(String::as_str), &mut errors);
    if options.propagation_policy.is_some() && options.orphan_dependents.is_some() {
        errors.push(Error::invalid(
            &Path::new("propagationPolicy"),
            options.propagation_policy.as_deref().unwrap_or_default(),
            "orphanDependents and deletionPropagation cannot be both set",
        ));
    }
    if let Some(policy) = options.propagation_policy.as_deref()
        && !matches!(policy, "Foreground" | "Background" | "Orphan")
    {
        errors.push(Error::not_supported(
            &Path::new("propagationPolicy"),
            policy,
            &["Foreground", "Background", "Orphan", "nil"],
        ));
    }
    refuse("DeleteOptions", &errors)?;
    // A negative period means "at once, but let it end by itself": upstream makes it one second.
    if let Some(seconds) = options.grace_period_seconds.as_mut()
        && *seconds < 0
    {
        *seconds = 1;
    }
    Ok(options)
}

fn number(text: &str) -> Result<i64, ApiError> {
    text.parse()
        .map_err(|_| ApiError::bad_request(format!("strconv.ParseInt: parsing \"{text}\": invalid syntax")))
}

/// Where to continue a list: upstream's token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContinueToken {
    #[serde(rename = "v")]
    version: String,
    /// -1: whatever is current.
    rv: i64,
    /// The first key to show, below the list's prefix.
    start: String,
}

impl ContinueToken {
    /// Continues after the key `last` (below the list's prefix).
    pub fn after(last: &str, revision: i64) -> Self {
        Self { version: "meta.k8s.io/v1".to_owned(), rv: revision, start: format!("{last}\0") }
    }

    pub fn encode(&self) -> Result<String, ApiError> {
        Ok(URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).map_err(ApiError::internal)?))
    }

    fn decode(text: &str) -> Result<Self, ApiError> {
        let bad = |problem: &str| ApiError::bad_request(format!("continue key is not valid: {problem}"));
        let json = URL_SAFE_NO_PAD
            .decode(text)
            .or_else(|_| URL_SAFE.decode(text))
            .or_else(|_| STANDARD.decode(text))
            .map_err(|error| bad(&error.to_string()))?;
        let token: Self = serde_json::from_slice(&json).map_err(|error| bad(&error.to_string()))?;
        if token.version != "meta.k8s.io/v1" {
            return Err(bad(&format!(
                "server does not recognize this encoded version \"{}\"",
                token.version
            )));
        }
        if token.rv == 0 {
            return Err(bad("incorrect encoded start resourceVersion (version meta.k8s.io/v1)"));
        }
        if token.start.is_empty() || token.start.split('/').any(|segment| segment == "..") {
            return Err(bad("encoded start key is invalid"));
        }
        Ok(token)
    }

    /// The key to start after, below the list's prefix.
    pub fn last(&self) -> &str {
        self.start.strip_suffix('\0').unwrap_or(&self.start)
    }

    pub fn revision(&self) -> Option<i64> {
        (self.rv > 0).then_some(self.rv)
    }
}

/// Options of list and watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListOptions {
    pub limit: usize,
    pub continue_token: Option<ContinueToken>,
    pub resource_version: ResourceVersion,
    /// `resourceVersionMatch=Exact`.
    pub exact: bool,
    /// Whether there was a resourceVersionMatch.
    pub matching: bool,
    pub timeout_seconds: Option<u64>,
    pub allow_watch_bookmarks: bool,
    pub send_initial_events: Option<bool>,
}

/// The `resourceVersion` parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResourceVersion {
    Unset,
    /// `0`: anything will do.
    Any,
    At(i64),
}

impl ResourceVersion {
    fn parse(text: Option<&str>) -> Result<Self, ApiError> {
        match text {
            None => Ok(Self::Unset),
            Some("0") => Ok(Self::Any),
            Some(text) => {
                text.parse::<u64>().ok().and_then(|n| i64::try_from(n).ok()).map(Self::At).ok_or_else(|| {
                    let problem = format!("strconv.ParseUint: parsing \"{text}\": invalid syntax");
                    let errors = vec![Error::invalid(&Path::new("resourceVersion"), text, problem)];
                    ApiError::invalid("", "", "", &errors)
                })
            }
        }
    }

    /// What a get of this version demands.
    pub fn of_get(query: &Query) -> Result<Self, ApiError> {
        Self::parse(query.text("resourceVersion"))
    }
}

impl ListOptions {
    pub fn parse(query: &Query, watch: bool) -> Result<Self, ApiError> {
        let resource_version = ResourceVersion::parse(query.text("resourceVersion"))?;
        let matching = query.text("resourceVersionMatch");
        let send_initial_events = query.get("sendInitialEvents").map(|_| query.flag("sendInitialEvents"));
        let continue_token = query.text("continue").map(ContinueToken::decode).transpose()?;
        let mut errors = ErrorList::new();
        let path = Path::new("resourceVersionMatch");
        let forbidden = |detail: &str| Error::forbidden(&path, detail);
        match matching {
            Some(_) if watch && send_initial_events.is_none() => {
                errors.push(forbidden(
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                ));
            }
            Some("Exact") if watch => {
                errors.push(Error::not_supported(&path, "Exact", &["NotOlderThan"]));
            }
            Some("NotOlderThan") if watch => {}
            Some(matching @ ("Exact" | "NotOlderThan")) => {
                if resource_version == ResourceVersion::Unset {
                    errors.push(forbidden(
                        "resourceVersionMatch is forbidden unless resourceVersion is provided",
                    ));
                }
                if continue_token.is_some() {
                    errors.push(forbidden("resourceVersionMatch is forbidden when continue is provided"));
                }
                if matching == "Exact" && resource_version == ResourceVersion::Any {
                    errors.push(forbidden(
                        "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
                    ));
                }
            }
            Some(other) => errors.push(Error::not_supported(&path, other, &["Exact", "NotOlderThan"])),
            None if watch && send_initial_events.is_some() => {
                errors.push(forbidden(
                    "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
                ));
            }
            None => {}
        }
        if send_initial_events.is_some() && !watch {
            errors.push(Error::forbidden(
                &Path::new("sendInitialEvents"),
                "sendInitialEvents is forbidden for list",
            ));
        }
        refuse("ListOptions", &errors)?;
        if let (Some(token), ResourceVersion::At(_)) = (&continue_token, resource_version)
            && token.revision().is_some()
        {
            return Err(ApiError::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        let limit = query.text("limit").map(number).transpose()?.unwrap_or(0);
        Ok(Self {
            limit: usize::try_from(limit).unwrap_or(0),
            continue_token,
            resource_version,
            exact: matching == Some("Exact"),
            matching: matching.is_some(),
            timeout_seconds: query
                .text("timeoutSeconds")
                .map(number)
                .transpose()?
                .and_then(|n| u64::try_from(n).ok()),
            allow_watch_bookmarks: query.flag("allowWatchBookmarks"),
            send_initial_events,
        })
    }

    /// How fresh a list with these options must be.
    pub fn freshness(&self) -> Freshness {
        if let Some(token) = &self.continue_token {
            return token.revision().map_or(Freshness::Consistent, Freshness::Exact);
        }
        match self.resource_version {
            ResourceVersion::Unset => Freshness::Consistent,
            ResourceVersion::Any => Freshness::Any,
            ResourceVersion::At(revision) if self.exact => Freshness::Exact(revision),
            // What a version with a limit meant before resourceVersionMatch was there.
            ResourceVersion::At(revision) if self.limit > 0 && !self.matching => Freshness::Exact(revision),
            ResourceVersion::At(revision) => Freshness::NotOlderThan(revision),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(query: &str) -> Result<ListOptions, ApiError> {
        ListOptions::parse(&Query::parse(Some(query)), query.contains("watch"))
    }

    #[test]
    fn freshness_follows_version_and_match() {
        for (query, want) in [
            ("", Freshness::Consistent),
            ("resourceVersion=0", Freshness::Any),
            ("resourceVersion=7", Freshness::NotOlderThan(7)),
            ("resourceVersion=7&resourceVersionMatch=Exact", Freshness::Exact(7)),
            ("resourceVersion=7&limit=2", Freshness::Exact(7)),
            ("resourceVersion=7&limit=2&resourceVersionMatch=NotOlderThan", Freshness::NotOlderThan(7)),
        ] {
            assert_eq!(list(query).unwrap().freshness(), want, "{query}");
        }
    }

    #[test]
    fn bad_combinations_are_refused() {
        for query in [
            "resourceVersionMatch=Exact",
            "resourceVersion=0&resourceVersionMatch=Exact",
            "resourceVersion=1&resourceVersionMatch=Other",
            "resourceVersion=x",
            "sendInitialEvents=true",
            "watch=1&sendInitialEvents=true",
            "watch=1&resourceVersionMatch=NotOlderThan",
            "continue=%%%",
            "limit=x",
        ] {
            assert!(list(query).is_err(), "{query}");
        }
    }

    #[test]
    fn continue_tokens_survive_the_round_trip() {
        let token = ContinueToken::after("default/a", 42);
        let decoded = ContinueToken::decode(&token.encode().unwrap()).unwrap();
        assert_eq!(decoded, token);
        assert_eq!(decoded.last(), "default/a");
        assert_eq!(decoded.revision(), Some(42));
    }

    #[test]
    fn delete_options_come_from_body_or_query() {
        let query = Query::parse(Some("gracePeriodSeconds=0&propagationPolicy=Orphan&dryRun=All"));
        let options = delete_options(&query, b"").unwrap();
        assert_eq!(options.grace_period_seconds, Some(0));
        assert_eq!(options.propagation_policy.as_deref(), Some("Orphan"));
        let body = br#"{"kind":"DeleteOptions","apiVersion":"v1","gracePeriodSeconds":-3}"#;
        assert_eq!(delete_options(&Query::default(), body).unwrap().grace_period_seconds, Some(1));
        for bad in ["propagationPolicy=X", "propagationPolicy=Orphan&orphanDependents=true", "dryRun=Some"] {
            assert!(delete_options(&Query::parse(Some(bad)), b"").is_err(), "{bad}");
        }
    }
}
