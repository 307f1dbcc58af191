//! The document of OpenAPI v2 (Swagger).

use component_base::version;
use serde_json::{Map, Value, json};

use super::definitions::Definitions;
use super::operations::{Operation, PathItem};
use super::parameters::Parameter;

pub(super) fn document(paths: &[PathItem], definitions: &Definitions) -> Value {
    let paths: Map<String, Value> = paths.iter().map(|item| (item.path.clone(), path(item))).collect();
    json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": version::VERSION},
        "paths": paths,
        "definitions": definitions.all(),
        "securityDefinitions": {
            "BearerToken": {
                "type": "apiKey",
                "name": "authorization",
                "in": "header",
                "description": "Bearer Token authentication",
            },
        },
        "security": [{"BearerToken": []}],
    })
}

fn path(item: &PathItem) -> Value {
    let mut map: Map<String, Value> =
        item.operations.iter().map(|o| (o.method.to_owned(), operation(o))).collect();
    let parameters: Vec<Value> = item.parameters.iter().map(Parameter::to_v2).collect();
    map.insert("parameters".to_owned(), json!(parameters));
    Value::Object(map)
}

fn reference(definition: &str) -> Value {
    json!({"$ref": format!("#/definitions/{definition}")})
}

fn operation(operation: &Operation) -> Value {
    let mut parameters: Vec<Value> = Vec::new();
    if let Some(body) = &operation.body {
        let mut parameter = json!({"in": "body", "name": "body", "schema": reference(&body.definition)});
        if body.required {
            parameter["required"] = json!(true);
        }
        parameters.push(parameter);
    }
    parameters.extend(operation.parameters.iter().map(Parameter::to_v2));
    let schema = operation.response.as_deref().map_or_else(|| json!({"type": "string"}), reference);
    let mut responses: Map<String, Value> = operation
        .codes
        .iter()
        .map(|(code, text)| ((*code).to_owned(), json!({"description": text, "schema": schema})))
        .collect();
    responses.insert("401".to_owned(), json!({"description": "Unauthorized"}));
    let mut value = json!({
        "operationId": operation.id,
        "description": operation.description,
        "tags": [operation.tag],
        "schemes": ["https"],
        "consumes": operation.consumes,
        "produces": operation.produces,
        "responses": responses,
        "x-kubernetes-action": operation.action,
        "x-kubernetes-group-version-kind": operation.kind.to_value(),
    });
    if !parameters.is_empty() {
        value["parameters"] = json!(parameters);
    }
    value
}
