//! Which paths there are and what their methods do, from the registry.

use super::definitions::{DELETE_OPTIONS, PATCH, STATUS};
use super::operations::{Kind, Operation, PathItem, RequestBody};
use super::parameters::{self, Parameter};
use crate::registry::resources::Resources;
use crate::registry::{Resource, ResourceInfo, SubresourceInfo};

const ANY: &[&str] = &["*/*"];
const PATCHES: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];
const OBJECTS: &[&str] = &["application/json", "application/yaml"];
const STREAMS: &[&str] = &["application/json", "application/yaml", "application/json;stream=watch"];
const TEXT: &[&str] = &["text/plain"];
const OK: &[(&str, &str)] = &[("200", "OK")];
const CREATED: &[(&str, &str)] = &[("200", "OK"), ("201", "Created"), ("202", "Accepted")];
const WRITTEN: &[(&str, &str)] = &[("200", "OK"), ("201", "Created")];
const DELETED: &[(&str, &str)] = &[("200", "OK"), ("202", "Accepted")];

/// The paths of all resources.
pub(super) fn all(resources: &Resources) -> Vec<PathItem> {
    resources.iter().flat_map(|resource| Builder::new(resource).paths()).collect()
}

/// The definition of a kind outside the registry that a subresource takes.
fn definition_of(kind: &Kind) -> Option<&'static str> {
    match (kind.group.as_str(), kind.kind.as_str()) {
        ("autoscaling", "Scale") => Some("io.k8s.api.autoscaling.v1.Scale"),
        ("", "Binding") => Some("io.k8s.api.core.v1.Binding"),
        ("policy", "Eviction") => Some("io.k8s.api.policy.v1.Eviction"),
        ("authentication.k8s.io", "TokenRequest") => Some("io.k8s.api.authentication.v1.TokenRequest"),
        _ => None,
    }
}

/// `rbac.authorization.k8s.io` → `RbacAuthorization`, the core group → `Core`.
fn group_title(group: &str) -> String {
    if group.is_empty() {
        return "Core".to_owned();
    }
    let short = group.strip_suffix(".k8s.io").unwrap_or(group);
    short.split('.').map(capitalise).collect()
}

fn capitalise(word: &str) -> String {
    let mut chars = word.chars();
    match chars.next() {
        Some(first) => first.to_uppercase().collect::<String>() + chars.as_str(),
        None => String::new(),
    }
}

fn uncapitalise(word: &str) -> String {
    let mut chars = word.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().collect::<String>() + chars.as_str(),
        None => String::new(),
    }
}

struct Builder<'a> {
    info: &'a ResourceInfo,
    definition: String,
    kind: Kind,
    /// `api/v1`.
    document: String,
    tag: String,
    /// What operation ids have between verb and kind: `CoreV1`.
    title: String,
}

impl<'a> Builder<'a> {
    fn new(resource: &'a dyn Resource) -> Self {
        let info = resource.info();
        let title = group_title(info.group);
        let document = match info.group {
            "" => format!("api/{}", info.version),
            group => format!("apis/{group}/{}", info.version),
        };
        Self {
            info,
            definition: resource.schema_name().into_owned(),
            kind: Kind::new(info.group, info.version, info.kind),
            document,
            tag: format!("{}_{}", uncapitalise(&title), info.version),
            title: format!("{title}{}", capitalise(info.version)),
        }
    }

    fn paths(&self) -> Vec<PathItem> {
        let info = self.info;
        let mut paths = vec![self.collection()];
        if info.namespaced {
            paths.extend(self.all_namespaces());
        }
        paths.push(self.item());
        if info.status {
            paths.push(self.updated_subresource("status", &self.kind, &["get", "patch", "update"]));
        }
        if info.scale {
            let kind = Kind::new("autoscaling", "v1", "Scale");
            paths.push(self.updated_subresource("scale", &kind, &["get", "patch", "update"]));
        }
        for subresource in info.subresources {
            paths.extend(self.subresource(subresource));
        }
        paths.sort_by(|a, b| a.path.cmp(&b.path));
        paths
    }

    fn base(&self) -> String {
        let namespace = if self.info.namespaced { "namespaces/{namespace}/" } else { "" };
        format!("/{}/{namespace}{}", self.document, self.info.plural)
    }

    fn item_parameters(&self, kind: &str) -> Vec<Parameter> {
        let mut all = vec![parameters::name(kind)];
        if self.info.namespaced {
            all.push(parameters::namespace());
        }
        all.push(parameters::pretty());
        all
    }

    fn path(&self, path: String, parameters: Vec<Parameter>, operations: Vec<Operation>) -> PathItem {
        PathItem { path, document: self.document.clone(), parameters, operations }
    }

    fn has(&self, verb: &str) -> bool {
        self.info.verbs.contains(&verb)
    }

    /// An operation that reads and answers with the resource's own kind.
    fn operation(
        &self,
        method: &'static str,
        action: &'static str,
        id_verb: &str,
        description: String,
    ) -> Operation {
        let scope = if self.info.namespaced { "Namespaced" } else { "" };
        Operation {
            method,
            id: format!("{id_verb}{}{scope}{}", self.title, self.info.kind),
            tag: self.tag.clone(),
            description,
            action,
            kind: self.kind.clone(),
            consumes: ANY,
            produces: OBJECTS,
            parameters: Vec::new(),
            body: None,
            codes: OK,
            response: Some(self.definition.clone()),
        }
    }

    fn list(&self, id: String) -> Operation {
        let description = format!("list or watch objects of kind {}", self.info.kind);
        Operation {
            id,
            produces: STREAMS,
            parameters: parameters::list(),
            response: Some(format!("{}List", self.definition)),
            ..self.operation("get", "list", "list", description)
        }
    }

    fn collection(&self) -> PathItem {
        let kind = self.info.kind;
        let mut operations = Vec::new();
        if self.has("list") {
            let id = self.operation("get", "list", "list", String::new()).id;
            operations.push(self.list(id));
        }
        if self.has("create") {
            let article = if kind.starts_with(['A', 'E', 'I', 'O', 'U']) { "an" } else { "a" };
            operations.push(Operation {
                parameters: parameters::write(),
                body: Some(RequestBody { definition: self.definition.clone(), required: true }),
                codes: CREATED,
                ..self.operation("post", "post", "create", format!("create {article} {kind}"))
            });
        }
        if self.has("deletecollection") {
            let mut all = parameters::list();
            all.retain(|p| *p != parameters::list()[0]);
            all.pop();
            all.extend(parameters::delete());
            let scope = if self.info.namespaced { "Namespaced" } else { "" };
            operations.push(Operation {
                id: format!("delete{}Collection{scope}{kind}", self.title),
                parameters: all,
                body: Some(RequestBody { definition: DELETE_OPTIONS.to_owned(), required: false }),
                response: Some(STATUS.to_owned()),
                ..self.operation(
                    "delete",
                    "deletecollection",
                    "delete",
                    format!("delete collection of {kind}"),
                )
            });
        }
        let mut shared = Vec::new();
        if self.info.namespaced {
            shared.push(parameters::namespace());
        }
        shared.push(parameters::pretty());
        self.path(self.base(), shared, operations)
    }

    fn all_namespaces(&self) -> Option<PathItem> {
        if !self.has("list") {
            return None;
        }
        let id = format!("list{}{}ForAllNamespaces", self.title, self.info.kind);
        let path = format!("/{}/{}", self.document, self.info.plural);
        Some(self.path(path, vec![parameters::pretty()], vec![self.list(id)]))
    }

    fn item(&self) -> PathItem {
        let kind = self.info.kind;
        let mut operations = Vec::new();
        if self.has("get") {
            operations.push(self.operation("get", "get", "read", format!("read the specified {kind}")));
        }
        if self.has("update") {
            operations.push(Operation {
                parameters: parameters::write(),
                body: Some(RequestBody { definition: self.definition.clone(), required: true }),
                codes: WRITTEN,
                ..self.operation("put", "put", "replace", format!("replace the specified {kind}"))
            });
        }
        if self.has("patch") {
            let description = format!("partially update the specified {kind}");
            operations.push(Operation {
                consumes: PATCHES,
                parameters: parameters::patch(),
                body: Some(RequestBody { definition: PATCH.to_owned(), required: true }),
                codes: WRITTEN,
                ..self.operation("patch", "patch", "patch", description)
            });
        }
        if self.has("delete") {
            operations.push(Operation {
                parameters: parameters::delete(),
                body: Some(RequestBody { definition: DELETE_OPTIONS.to_owned(), required: false }),
                codes: DELETED,
                response: Some(STATUS.to_owned()),
                ..self.operation("delete", "delete", "delete", format!("delete {kind}"))
            });
        }
        self.path(format!("{}/{{name}}", self.base()), self.item_parameters(kind), operations)
    }

    /// A subresource that is read and written as a whole.
    fn updated_subresource(&self, name: &str, kind: &Kind, verbs: &[&str]) -> PathItem {
        let definition = definition_of(kind).unwrap_or(&self.definition).to_owned();
        let suffix: String = name.split('/').map(capitalise).collect();
        let of = format!("{name} of the specified {}", self.info.kind);
        let mut operations = Vec::new();
        for verb in verbs {
            let base = match *verb {
                "get" => self.operation("get", "get", "read", format!("read {of}")),
                "update" => Operation {
                    parameters: parameters::write(),
                    body: Some(RequestBody { definition: definition.clone(), required: true }),
                    codes: WRITTEN,
                    ..self.operation("put", "put", "replace", format!("replace {of}"))
                },
                "patch" => Operation {
                    consumes: PATCHES,
                    parameters: parameters::patch(),
                    body: Some(RequestBody { definition: PATCH.to_owned(), required: true }),
                    codes: WRITTEN,
                    ..self.operation("patch", "patch", "patch", format!("partially update {of}"))
                },
                _ => Operation {
                    parameters: parameters::write(),
                    body: Some(RequestBody { definition: definition.clone(), required: true }),
                    codes: CREATED,
                    ..self.operation(
                        "post",
                        "post",
                        "create",
                        format!("create {name} of a {}", self.info.kind),
                    )
                },
            };
            operations.push(Operation {
                id: format!("{}{suffix}", base.id),
                kind: kind.clone(),
                response: Some(definition.clone()),
                ..base
            });
        }
        let path = format!("{}/{{name}}/{name}", self.base());
        self.path(path, self.item_parameters(&kind.kind), operations)
    }

    fn subresource(&self, subresource: &SubresourceInfo) -> Vec<PathItem> {
        let (group, version) = match (subresource.group, subresource.version) {
            ("", "" | "v1") if subresource.kind == self.info.kind => (self.info.group, self.info.version),
            (group, "") => (group, self.info.version),
            given => given,
        };
        let kind = Kind::new(group, version, subresource.kind);
        match subresource.name {
            "log" => vec![self.log(subresource)],
            "attach" | "exec" | "portforward" => vec![self.connect(subresource, &kind, false)],
            "proxy" => vec![self.connect(subresource, &kind, false), self.connect(subresource, &kind, true)],
            name => vec![self.updated_subresource(name, &kind, subresource.verbs)],
        }
    }

    fn log(&self, subresource: &SubresourceInfo) -> PathItem {
        let mut operation = self.operation("get", "get", "read", "read log of the specified Pod".to_owned());
        operation.id.push_str("Log");
        operation.produces = TEXT;
        operation.response = None;
        operation.parameters = parameters::connect(subresource.name);
        let path = format!("{}/{{name}}/log", self.base());
        self.path(path, self.item_parameters(self.info.kind), vec![operation])
    }

    fn connect(&self, subresource: &SubresourceInfo, kind: &Kind, with_path: bool) -> PathItem {
        let name = subresource.name;
        let suffix = format!("{}{}", capitalise(name), if with_path { "WithPath" } else { "" });
        let mut operations = Vec::new();
        for verb in subresource.verbs {
            let method = match *verb {
                "create" => "post",
                "delete" => "delete",
                "patch" => "patch",
                "update" => "put",
                _ => "get",
            };
            let description =
                format!("connect {} requests to {name} of {}", method.to_uppercase(), self.info.kind);
            let mut operation = self.operation(method, "connect", "connect", description);
            let verb = capitalise(method);
            let scope = if self.info.namespaced { "Namespaced" } else { "" };
            operation.id = format!("connect{}{verb}{scope}{}{suffix}", self.title, self.info.kind);
            operation.kind = kind.clone();
            operation.produces = ANY;
            operation.response = None;
            operations.push(operation);
        }
        let mut shared = self.item_parameters(&kind.kind);
        shared.pop();
        shared.extend(parameters::connect(name));
        let mut path = format!("{}/{{name}}/{name}", self.base());
        if with_path {
            shared.pop();
            shared.push(parameters::proxy_path());
            path.push_str("/{path}");
        }
        self.path(path, shared, operations)
    }
}
