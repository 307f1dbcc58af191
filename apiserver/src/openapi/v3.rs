//! The documents of OpenAPI v3: one holds what one group and version needs.

use component_base::version;
use serde_json::{Map, Value, json};

use super::definitions::{Definitions, to_v3};
use super::operations::{Operation, PathItem};
use super::parameters::Parameter;

pub(super) fn document(paths: &[PathItem], definitions: &Definitions) -> Value {
    let roots = paths.iter().flat_map(|item| item.operations.iter().flat_map(Operation::definitions));
    let schemas: Map<String, Value> = definitions
        .reachable(roots)
        .into_iter()
        .map(|(name, definition)| (name.to_owned(), to_v3(name, definition)))
        .collect();
    let paths: Map<String, Value> = paths.iter().map(|item| (item.path.clone(), path(item))).collect();
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": version::VERSION},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "BearerToken": {
                    "type": "apiKey",
                    "name": "authorization",
                    "in": "header",
                    "description": "Bearer Token authentication",
                },
            },
        },
    })
}

fn path(item: &PathItem) -> Value {
    let mut map: Map<String, Value> =
        item.operations.iter().map(|o| (o.method.to_owned(), operation(o))).collect();
    let parameters: Vec<Value> = item.parameters.iter().map(Parameter::to_v3).collect();
    map.insert("parameters".to_owned(), json!(parameters));
    Value::Object(map)
}

fn content(types: &[&str], schema: &Value) -> Value {
    types.iter().map(|t| ((*t).to_owned(), json!({"schema": schema}))).collect::<Map<_, _>>().into()
}

fn operation(operation: &Operation) -> Value {
    let reference = |name: &str| json!({"$ref": format!("#/components/schemas/{name}")});
    let schema = operation.response.as_deref().map_or_else(|| json!({"type": "string"}), reference);
    let mut responses: Map<String, Value> = operation
        .codes
        .iter()
        .map(|(code, text)| {
            let content = content(operation.produces, &schema);
            ((*code).to_owned(), json!({"description": text, "content": content}))
        })
        .collect();
    responses.insert("401".to_owned(), json!({"description": "Unauthorized"}));
    let mut value = json!({
        "operationId": operation.id,
        "description": operation.description,
        "tags": [operation.tag],
        "responses": responses,
        "x-kubernetes-action": operation.action,
        "x-kubernetes-group-version-kind": operation.kind.to_value(),
    });
    if let Some(body) = &operation.body {
        let mut request = json!({"content": content(operation.consumes, &reference(&body.definition))});
        if body.required {
            request["required"] = json!(true);
        }
        value["requestBody"] = request;
    }
    if !operation.parameters.is_empty() {
        value["parameters"] = operation.parameters.iter().map(Parameter::to_v3).collect();
    }
    value
}
