//! The parameters of requests.

use serde_json::{Map, Value, json};

/// A parameter in the path or the query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parameter {
    name: &'static str,
    in_path: bool,
    r#type: &'static str,
    description: String,
}

impl Parameter {
    fn query(name: &'static str, r#type: &'static str, description: &str) -> Self {
        Self { name, in_path: false, r#type, description: description.to_owned() }
    }

    fn path(name: &'static str, description: String) -> Self {
        Self { name, in_path: true, r#type: "string", description }
    }

    fn common(&self) -> Map<String, Value> {
        let mut map = Map::new();
        map.insert("name".to_owned(), json!(self.name));
        map.insert("in".to_owned(), json!(if self.in_path { "path" } else { "query" }));
        map.insert("description".to_owned(), json!(self.description));
        if self.in_path {
            map.insert("required".to_owned(), json!(true));
        }
        map
    }

    pub(super) fn to_v2(&self) -> Value {
        let mut map = self.common();
        map.insert("type".to_owned(), json!(self.r#type));
        map.insert("uniqueItems".to_owned(), json!(true));
        Value::Object(map)
    }

    pub(super) fn to_v3(&self) -> Value {
        let mut map = self.common();
        map.insert("schema".to_owned(), json!({"type": self.r#type, "uniqueItems": true}));
        Value::Object(map)
    }
}

/// `{namespace}`.
pub(super) fn namespace() -> Parameter {
    Parameter::path("namespace", "object name and auth scope, such as for teams and projects".to_owned())
}

/// `{name}` of an object of this kind.
pub(super) fn name(kind: &str) -> Parameter {
    Parameter::path("name", format!("name of the {kind}"))
}

/// `{path}` behind a proxy.
pub(super) fn proxy_path() -> Parameter {
    Parameter::path("path", "path to the resource".to_owned())
}

/// What every path takes.
pub(super) fn pretty() -> Parameter {
    Parameter::query("pretty", "string", "If 'true', then the output is indented.")
}

/// Parameters of list, watch and deletecollection.
pub(super) fn list() -> Vec<Parameter> {
    vec![
        Parameter::query("allowWatchBookmarks", "boolean", "Ask for watch events of type BOOKMARK."),
        Parameter::query("continue", "string", "Go on with the list that ended with this token."),
        Parameter::query("fieldSelector", "string", "Only objects whose fields match."),
        Parameter::query("labelSelector", "string", "Only objects whose labels match."),
        Parameter::query("limit", "integer", "At most this many objects in one response."),
        Parameter::query("resourceVersion", "string", "The state of the data that the answer must have."),
        Parameter::query("resourceVersionMatch", "string", "How resourceVersion applies to a list."),
        Parameter::query("sendInitialEvents", "boolean", "Begin a watch with the objects that exist."),
        Parameter::query("timeoutSeconds", "integer", "How long the call may last."),
        Parameter::query("watch", "boolean", "Stream changes instead of answering with a list."),
    ]
}

fn dry_run() -> Parameter {
    let text =
        "When present, nothing is persisted. Valid values are: - All: all dry run stages will be processed";
    Parameter::query("dryRun", "string", text)
}

/// Parameters of create and update.
pub(super) fn write() -> Vec<Parameter> {
    let validation = "What to do about unknown or duplicate fields: Ignore, Warn (the default) or Strict.";
    vec![
        dry_run(),
        Parameter::query("fieldManager", "string", "The actor that makes the change."),
        Parameter::query("fieldValidation", "string", validation),
    ]
}

/// Parameters of patch.
pub(super) fn patch() -> Vec<Parameter> {
    let mut all = write();
    let text = "Take over fields that others manage; only for apply patches.";
    all.push(Parameter::query("force", "boolean", text));
    all
}

/// Parameters of delete.
pub(super) fn delete() -> Vec<Parameter> {
    let propagation = "What becomes of dependents: Orphan, Background or Foreground.";
    vec![
        dry_run(),
        Parameter::query(
            "gracePeriodSeconds",
            "integer",
            "Seconds until the object is deleted; zero is at once.",
        ),
        Parameter::query("orphanDependents", "boolean", "Deprecated: use propagationPolicy."),
        Parameter::query("propagationPolicy", "string", propagation),
    ]
}

/// Parameters of a subresource that connects or reads logs.
pub(super) fn connect(subresource: &str) -> Vec<Parameter> {
    let container =
        Parameter::query("container", "string", "The container; may be left out if there is one.");
    let streams = |verb: &str| {
        ["stdin", "stdout", "stderr", "tty"]
            .map(|stream| Parameter::query(stream, "boolean", &format!("Whether to {verb} {stream}.")))
    };
    match subresource {
        "log" => vec![
            container,
            Parameter::query("follow", "boolean", "Go on as the log grows."),
            Parameter::query("limitBytes", "integer", "At most this many bytes."),
            Parameter::query("previous", "boolean", "The log of the container's previous run."),
            Parameter::query("sinceSeconds", "integer", "Only lines at most this old."),
            Parameter::query("stream", "string", "All, Stdout or Stderr."),
            Parameter::query("tailLines", "integer", "Only this many lines from the end."),
            Parameter::query("timestamps", "boolean", "Begin each line with its time."),
        ],
        "exec" => {
            let mut all =
                vec![Parameter::query("command", "string", "The command and its arguments."), container];
            all.extend(streams("use"));
            all
        }
        "attach" => {
            let mut all = vec![container];
            all.extend(streams("attach"));
            all
        }
        "portforward" => vec![Parameter::query("ports", "integer", "The ports to forward.")],
        _ => vec![Parameter::query("path", "string", "The path of the request behind the proxy.")],
    }
}
